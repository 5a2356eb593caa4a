//! Makes code of the interfaces in `proto/`, by `protoc`.

fn main() {
    let files = ["proto/csi.proto", "proto/pluginregistration.proto"];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    tonic_prost_build::configure()
        .compile_protos(&files, &["proto"])
        .expect("proto/*.proto compile; is protoc installed (protobuf-compiler)?");
}
