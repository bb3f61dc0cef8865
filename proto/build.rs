//! Compiles the .proto files with protox, so that no protoc is needed.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use prost::Message;
use prost_types::FileDescriptorProto;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let manager = [
        "bimrpc/bimrpc.proto",
        "storage/v1/storage.proto",
        "storage/v1/backup.proto",
    ];
    let served = protox::compile(manager, ["proto"])?;
    File::create(out.join("manager.bin"))?.write_all(&served.encode_to_vec())?;
    let node = protox::compile(["node/v1/node.proto"], ["proto"])?;
    let trust = protox::compile(["trust/v1/trust.proto"], ["proto"])?;
    for (name, files) in [
        ("manager_methods.rs", &served.file),
        ("node_methods.rs", &node.file),
        ("trust_methods.rs", &trust.file),
    ] {
        let paths = format!("&{:?}", methods(files));
        File::create(out.join(name))?.write_all(paths.as_bytes())?;
    }
    let others = [
        "csi/v1/csi.proto",
        "enginerpc/syncagent.proto",
        "pluginregistration/api.proto",
    ];
    let mut all = protox::compile(others, ["proto"])?;
    for file in [served, node, trust].into_iter().flat_map(|set| set.file) {
        if all.file.iter().all(|known| known.name != file.name) {
            all.file.push(file);
        }
    }
    // A piece of an image stays where it came in.
    tonic_prost_build::configure()
        .bytes(".longhorn.storage.v1.WriteUploadRequest.data")
        .compile_fds(all)?;
    Ok(())
}

/// The paths of all methods: `/package.Service/Method`.
fn methods(files: &[FileDescriptorProto]) -> Vec<String> {
    let services = files.iter().flat_map(|file| {
        let package = file.package();
        file.service.iter().map(move |service| (package, service))
    });
    services
        .flat_map(|(package, service)| {
            let methods = service.method.iter();
            methods.map(move |method| format!("/{package}.{}/{}", service.name(), method.name()))
        })
        .collect()
}
