"""Folders as layers, and archives of images made of them."""

import hashlib
import io
import json
import tarfile


def layer(root):
    """A folder as a layer of an image; what is below `/dev` is the runtime's."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(root, arcname=".", filter=lambda info: None if info.name.startswith("./dev/") else own(info))
    return packed.getvalue()


def archive(out, images):
    """Writes an archive of images, each its layers (the lowest first), its names and its configuration."""
    blobs, manifests = {}, []

    def blob(content, kind):
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    for layers, names, config in images:
        layers = [blob(layer, "layer.v1.tar") for layer in layers]
        manifest = blob(json.dumps({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": blob(json.dumps({
                "architecture": "amd64", "os": "linux", "config": config,
                "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
            }).encode(), "config.v1+json"),
            "layers": layers,
        }).encode(), "manifest.v1+json")
        manifests += [
            manifest | {"annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}}
            for name in names
        ]
    with tarfile.open(out, "w") as tar:
        put(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        put(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": manifests}).encode())
        for digest, content in blobs.items():
            put(tar, f"blobs/sha256/{digest}", content)


def own(info):
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def put(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
