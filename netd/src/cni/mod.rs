//! The network agent as a CNI plugin (<https://www.cni.dev/docs/spec/>, versions 0.3.1 to 1.1.0).
//!
//! The plugin is a short-lived process that a container runtime starts; the agent, behind its
//! [socket](crate::seam), does what it asks for. A container that no API knows is given an
//! address as well.

mod answer;
pub mod identity;
pub mod request;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use peapod_api::attach::{AttachRequest, DetachRequest};
use peapod_api::cni::{Error, code};
use serde_json::Value;

use crate::links::netns;
use crate::links::rtnl::Rtnl;
use crate::seam::{self, Answer, Call, CheckRequest, Client, CollectRequest};
use request::{Command, Request, Target, error};

/// How long an agent that is away is waited for: it may just be restarting.
const PATIENCE: Duration = Duration::from_secs(10);

/// Does what the environment's `CNI_*` and the standard input ask for, and returns what is to be
/// printed, if anything.
///
/// # Errors
/// As the specification wants them printed.
pub async fn run(env: &BTreeMap<String, String>, input: &[u8]) -> Result<Option<Value>, Error> {
    let request = request::read(env, input)?;
    let outcome = carry_out(&request).await;
    outcome.map_err(|fault| Error {
        cni_version: request.version.clone(),
        ..fault
    })
}

async fn carry_out(request: &Request) -> Result<Option<Value>, Error> {
    match &request.command {
        Command::Version => Ok(Some(answer::versions(&request.version))),
        Command::Status => {
            let client = Client::new(&request.socket, Duration::ZERO);
            match client.ask(&Call::Status).await {
                Ok(_) => Ok(None),
                Err(fault) => Err(error(code::UNAVAILABLE, fault.to_string())),
            }
        }
        Command::Add(target) => add(request, target).await.map(Some),
        Command::Del(pod) => {
            let pod = pod.clone();
            ask(request, Call::Detach(DetachRequest { pod })).await?;
            Ok(None)
        }
        Command::Check(target) => {
            check(request, target).await?;
            Ok(None)
        }
        Command::Collect { prefix, keep } => {
            let collect = CollectRequest {
                prefix: prefix.clone(),
                keep: keep.clone(),
            };
            ask(request, Call::Collect(collect)).await?;
            Ok(None)
        }
    }
}

async fn add(request: &Request, target: &Target) -> Result<Value, Error> {
    is_a_container(&target.netns)?;
    if mac(target)?.is_some() {
        let (interface, netns) = (&target.interface, target.netns.display());
        return Err(error(
            code::FAILED,
            format!("{netns} has a link {interface} already; DEL comes before another ADD"),
        ));
    }
    match ask(request, Call::Attach(attach_request(target))).await? {
        Answer::Attached(reply) => Ok(answer::attached(request, target, &reply, mac(target)?)),
        other => Err(error(
            code::FAILED,
            format!("an unexpected answer: {other:?}"),
        )),
    }
}

async fn check(request: &Request, target: &Target) -> Result<(), Error> {
    is_a_container(&target.netns)?;
    let previous = request.previous.clone().unwrap_or_default();
    let here = target.netns.to_string_lossy();
    let own = previous
        .interfaces
        .iter()
        .position(|interface| interface.name == target.interface && interface.sandbox == here);
    let Some(own) = own else {
        let msg = format!("prevResult has no link {} in {here}", target.interface);
        return Err(error(code::INVALID_CONFIG, msg));
    };
    let ips = previous.ips.iter().filter(|ip| ip.interface == Some(own));
    let check = CheckRequest {
        attach: attach_request(target),
        ips: ips.map(|ip| ip.address.addr()).collect(),
    };
    ask(request, Call::Check(check)).await.map(drop)
}

fn attach_request(target: &Target) -> AttachRequest {
    AttachRequest {
        pod: target.pod.clone(),
        netns: target.netns.clone(),
        interface: Some(target.interface.clone()),
        host_ports: target.host_ports.clone(),
    }
}

async fn ask(request: &Request, call: Call) -> Result<Answer, Error> {
    let client = Client::new(&request.socket, PATIENCE);
    client.ask(&call).await.map_err(|fault| {
        let code = match (&fault, &call) {
            // What differs from its result stays so until somebody attaches anew.
            (seam::Error::Refused(_), Call::Check(_)) => code::FAILED,
            _ if fault.is_retriable() => code::TRY_AGAIN,
            _ => code::FAILED,
        };
        error(code, fault.to_string())
    })
}

/// A namespace that is gone is told apart; this one is the node's.
fn is_a_container(path: &Path) -> Result<(), Error> {
    let shown = path.display();
    let identity = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino()));
    let own = identity(Path::new("/proc/self/ns/net"));
    match identity(path) {
        Ok(there) if own.is_ok_and(|own| own == there) => Err(error(
            code::INVALID_ENVIRONMENT,
            format!("CNI_NETNS {shown} is the node's own network namespace"),
        )),
        Ok(_) => Ok(()),
        Err(fault) => Err(error(
            code::UNKNOWN_CONTAINER,
            format!("CNI_NETNS {shown} cannot be found: {fault}"),
        )),
    }
}

/// The hardware address of the container's link; `None` when there is no such link.
fn mac(target: &Target) -> Result<Option<String>, Error> {
    use crate::links::Error::NoLink;
    let found = netns::inside(&target.netns, || {
        match Rtnl::open()?.link(&target.interface) {
            Ok(link) => Ok(Some(link.mac.map(shown_mac).unwrap_or_default())),
            Err(NoLink(_)) => Ok(None),
            Err(fault) => Err(fault),
        }
    });
    found.map_err(|fault| error(code::IO, fault.to_string()))
}

fn shown_mac(octets: [u8; 6]) -> String {
    octets.map(|octet| format!("{octet:02x}")).join(":")
}
