//! Makes code of the APIs of device plugins and of their monitors (`proto/`, by `protoc`), and compiles the first process of shared PID namespaces (`reaper/reaper.rs`) to a static program of
//! about one kilobyte, which the node agent carries and starts from memory.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// No standard library, nothing to relocate, nothing but the program in the file.
const FLAGS: [&str; 9] = [
    "panic=abort",
    "opt-level=s",
    "strip=symbols",
    "relocation-model=static",
    "target-feature=+crt-static",
    "link-arg=-nostartfiles",
    "link-arg=-nostdlib",
    "link-arg=-static",
    "link-arg=-Wl,--build-id=none,-z,norelro",
];

fn main() {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=reaper/reaper.rs");
    for proto in ["proto/deviceplugin.proto", "proto/podresources.proto"] {
        tonic_prost_build::compile_protos(proto)
            .unwrap_or_else(|e| panic!("{proto}: {e}; is protoc installed (protobuf-compiler)?"));
    }
    compile_reaper();
}

fn compile_reaper() {
    let var = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let mut rustc = Command::new(var("RUSTC"));
    rustc
        .args(["--edition", "2024", "--crate-type", "bin", "--target"])
        .arg(var("TARGET"))
        .args(FLAGS.iter().flat_map(|flag| ["-C", flag]));
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={linker}"));
    }
    let program = PathBuf::from(var("OUT_DIR")).join("reaper");
    let status = rustc
        .arg("reaper/reaper.rs")
        .arg("-o")
        .arg(&program)
        .status();
    let compiled = status.is_ok_and(|status| status.success());
    assert!(compiled, "cannot compile reaper/reaper.rs with {rustc:?}");
}
