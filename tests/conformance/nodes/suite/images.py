"""The images of the tests: busybox, one that tells how it was started, and one with data only."""

import hashlib
import io
import json
import os
import subprocess
import tarfile
import tempfile

BUSYBOX = "/bin/busybox"
# Serves grpc.health.v1.Health at its client port.
ETCD = "/usr/bin/etcd"
PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"


def layer(files, links=(), directories=()):
    """A layer as a tar: (path, mode, content), (path, target), (path, mode)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        made = set()

        def parents(path):
            parts = path.split("/")[:-1]
            for i in range(len(parts)):
                add("/".join(parts[: i + 1]), 0o755)

        def add(path, mode):
            if path in made:
                return
            made.add(path)
            info = tarfile.TarInfo(path)
            info.type, info.mode = tarfile.DIRTYPE, mode
            tar.addfile(info)

        for path, mode in directories:
            parents(path)
            add(path, mode)
        for path, mode, content in files:
            parents(path)
            info = tarfile.TarInfo(path)
            info.mode, info.size = mode, len(content)
            tar.addfile(info, io.BytesIO(content))
        for path, target in links:
            parents(path)
            info = tarfile.TarInfo(path)
            info.type, info.linkname, info.mode = tarfile.SYMTYPE, target, 0o777
            tar.addfile(info)
    return out.getvalue()


def archive(out, reference, layer, config):
    """An OCI archive of one image with one layer."""

    def digest(data):
        return "sha256:" + hashlib.sha256(data).hexdigest()

    def descriptor(kind, data, **more):
        kind = f"application/vnd.oci.image.{kind}"
        return {"mediaType": kind, "digest": digest(data), "size": len(data), **more}

    settings = json.dumps({
        "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
    }).encode()
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", settings),
        "layers": [descriptor("layer.v1.tar", layer)],
    }).encode()
    named = {
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
    }
    index = json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [descriptor("manifest.v1+json", manifest, annotations=named)],
    }).encode()
    with tarfile.open(fileobj=out, mode="w") as tar:
        blobs = [("blobs/" + digest(b).replace(":", "/"), b) for b in (layer, settings, manifest)]
        layout = json.dumps({"imageLayoutVersion": "1.0.0"}).encode()
        for path, data in [("oci-layout", layout), *blobs, ("index.json", index)]:
            info = tarfile.TarInfo(path)
            info.mode, info.size = 0o644, len(data)
            tar.addfile(info, io.BytesIO(data))


def with_libraries(program):
    """A dynamic program as files of an image, with the libraries that it names."""
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    paths = [word for word in said.split() if word.startswith("/")]
    files = []
    for path in [program, *paths]:
        with open(path, "rb") as file:
            files.append((path.lstrip("/"), 0o755, file.read()))
    return files


def load(peapod, data_dir, references):
    """Gives every node the images, by `peapod image load`."""
    busybox, tester, data, grpc = references
    with open(BUSYBOX, "rb") as file:
        program = file.read()
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True)
    links = [(f"bin/{a}", "busybox") for a in applets.stdout.split() if a != "busybox"]
    files = [
        ("bin/busybox", 0o755, program),
        ("etc/passwd", 0o644, PASSWD.encode()),
        ("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n"),
    ]
    base = layer(files, links, [("tmp", 0o1777), ("root", 0o700)])
    tells = b"#!/bin/sh\necho \"[$0 $*]\"\n"
    telling = layer(
        [*files, ("ep", 0o755, tells), ("ep-2", 0o755, tells)], links, [("tmp", 0o1777)]
    )
    kitten = layer([
        ("data.json", 0o644, b'{"image": "kitten.jpg"}'),
        ("etc/os-release", 0o644, b'NAME="Alpine Linux"\n'),
    ])
    env = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    images = [
        (busybox, base, {"Cmd": ["sh"], "Env": env}),
        (tester, telling, {"Entrypoint": ["/ep", "default"], "Cmd": ["arguments"], "Env": env}),
        (data, kitten, {"Env": env}),
        (grpc, layer([*files, *with_libraries(ETCD)], links, [("tmp", 0o1777)]), {"Env": env}),
    ]
    for reference, content, config in images:
        with tempfile.NamedTemporaryFile(suffix=".tar") as file:
            archive(file, reference, content, config)
            file.flush()
            place = {**os.environ, "PEAPOD_DATA_DIR": data_dir}
            subprocess.run([peapod, "image", "load", file.name], check=True, env=place)
