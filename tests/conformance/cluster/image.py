"""Makes the archive of the stand-in image of this machine's own programs.

    python3 image.py OUT.tar     it has all the names that the tests use

The image has Python (`agnhost.py` is its entry point), busybox's applets, curl, dig and `nc`.
"""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import names

HERE = Path(__file__).parent
SKIP = {"test", "tests", "idlelib", "ensurepip", "site-packages", "__pycache__", "lib2to3", "tkinter"}


def libraries(program):
    """The shared objects that a program needs, its loader included."""
    said = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    for line in said.splitlines():
        path = next((word for word in line.split() if word.startswith("/")), None)
        if path:
            yield path


def copy_with_libraries(root, program, at=None):
    at = root / (at or program).lstrip("/")
    at.parent.mkdir(parents=True, exist_ok=True)
    if not at.exists():
        shutil.copy2(os.path.realpath(program), at)
    for library in libraries(program):
        there = root / library.lstrip("/")
        if not there.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(os.path.realpath(library), there)


def build(root):
    for folder in ["bin", "usr/bin", "tmp", "etc", "root", "var/run", "home/user", "results"]:
        (root / folder).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    copy_with_libraries(root, "/bin/busybox")
    for applet in subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True).stdout.split():
        if applet not in {"nc", "sh", "busybox"}:
            (root / "bin" / applet).symlink_to("/bin/busybox")
    # busybox's own shell would take its applets in the place of programs of these names.
    copy_with_libraries(root, shutil.which("dash"), "/bin/sh")
    for program in ["curl", "dig", "getent", "iptables"]:
        path = shutil.which(program)
        if path:
            copy_with_libraries(root, path, f"/usr/bin/{program}")
    python = os.path.realpath(sys.executable)
    copy_with_libraries(root, python)
    (root / "usr/bin/python3").symlink_to(python)
    library = Path(python).parent.parent / "lib" / Path(python).name
    shutil.copytree(
        library,
        root / str(library).lstrip("/"),
        ignore=lambda _, names: [n for n in names if n in SKIP or n.startswith("config-")],
        symlinks=True,
    )
    for module in (library / "lib-dynload").glob("*.so"):
        copy_with_libraries(root, str(module), str(module))
    for name in Path("/lib/x86_64-linux-gnu").glob("libnss_*.so.2"):
        copy_with_libraries(root, str(name), str(name))
    modules = [(name, name) for name in ["webhook_server.py", "sample_apiserver.py"]]
    for script, name in [("agnhost.py", "agnhost"), ("nc.py", "bin/nc"), *modules]:
        shutil.copy(HERE / script, root / name)
        (root / name).chmod(0o755)
    (root / "pause").symlink_to("/agnhost")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "365", "-subj", "/CN=localhost",
         "-keyout", root / "localhost.key", "-out", root / "localhost.crt"],
        check=True, capture_output=True,
    )
    # Readable by whom the pod runs as: it protects nothing.
    (root / "localhost.key").chmod(0o644)
    python_home = Path("/") / python.lstrip("/")
    for parent in list(python_home.parents)[:-1]:
        (root / str(parent).lstrip("/")).chmod(0o755)


CONFIG = {"Entrypoint": ["/agnhost"], "Cmd": ["pause"], "Env": ["PATH=/usr/bin:/bin"], "WorkingDir": "/"}


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


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        build(root)
        archive(sys.argv[1], [([layer(root)], names.IMAGES, CONFIG)])
