//! Messages that containerd defines outside of its API files: the runc shim's options, and the
//! type names of JSON documents.

use prost::Message;
use prost_types::Any;

use crate::runtime::{Error, Result};

/// The shim that runs our containers; it works with every OCI runtime that behaves as runc.
pub const SHIM: &str = "io.containerd.runc.v2";

const SPEC: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const RESOURCES: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

/// `containerd.runc.v1.Options`, the part that we use.
#[derive(Clone, PartialEq, Message)]
struct RuncOptions {
    /// User and group of the host that own the process's streams.
    #[prost(uint32, tag = "4")]
    io_uid: u32,
    #[prost(uint32, tag = "5")]
    io_gid: u32,
    /// Name or path of the OCI runtime.
    #[prost(string, tag = "6")]
    binary_name: String,
}

/// The shim's options for this OCI runtime, and for streams of this user of the host: in a user namespace the runtime
/// cannot give them away itself.
pub fn shim_options(oci_runtime: &str, owner: u32) -> Any {
    let options = RuncOptions {
        io_uid: owner,
        io_gid: owner,
        binary_name: oci_runtime.to_owned(),
    };
    Any {
        type_url: "containerd.runc.v1.Options".into(),
        value: options.encode_to_vec(),
    }
}

/// A container's specification.
pub fn spec(spec: &oci_spec::runtime::Spec) -> Result<Any> {
    json(SPEC, spec)
}

/// A process's specification.
pub fn process(process: &oci_spec::runtime::Process) -> Result<Any> {
    json(PROCESS, process)
}

/// Limits of a running container.
pub fn resources(resources: &oci_spec::runtime::LinuxResources) -> Result<Any> {
    json(RESOURCES, resources)
}

fn json(type_url: &str, document: &impl serde::Serialize) -> Result<Any> {
    let value = serde_json::to_vec(document)
        .map_err(|error| Error::Invalid(format!("cannot be written as JSON: {error}")))?;
    Ok(Any {
        type_url: type_url.to_owned(),
        value,
    })
}
