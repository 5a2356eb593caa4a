"""What is in the images of the tests: this machine's own programs.

The stand-in has Python (`programs/agnhost.py` is its entry point), busybox's applets, curl, dig and `nc`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .archive import archive, layer
from .names import GRPC, KITTEN, SMALL, STAND_IN, TESTER

PROGRAMS = Path(__file__).parent / "programs"
# Parts of Python's library that nothing here imports.
SKIP = {"test", "tests", "idlelib", "ensurepip", "site-packages", "__pycache__", "lib2to3", "tkinter"}
PATHS = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"


def libraries(program):
    """The shared objects that a program needs, its loader included; none of a static one."""
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


def applets():
    return subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()


def stand_in(root):
    """What stands for all of upstream's test images."""
    for folder in ["bin", "usr/bin", "tmp", "etc", "root", "var/run", "home/user", "results"]:
        (root / folder).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    copy_with_libraries(root, "/bin/busybox")
    for applet in applets():
        if applet not in {"nc", "sh", "busybox"}:
            (root / "bin" / applet).symlink_to("/bin/busybox")
    # busybox's own shell would take its applets in the place of programs of these names.
    copy_with_libraries(root, shutil.which("dash"), "/bin/sh")
    for program in ["curl", "dig", "getent", "iptables"]:
        path = shutil.which(program)
        if path:
            copy_with_libraries(root, path, f"/usr/bin/{program}")
    for name in Path("/lib/x86_64-linux-gnu").glob("libnss_*.so.2"):
        copy_with_libraries(root, str(name))
    python(root)
    for script, at in [("agnhost.py", "agnhost"), ("nc.py", "bin/nc"), ("webhook_server.py", "webhook_server.py"),
                       ("sample_apiserver.py", "sample_apiserver.py")]:
        shutil.copy(PROGRAMS / script, root / at)
        (root / at).chmod(0o755)
    (root / "pause").symlink_to("/agnhost")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "365", "-subj", "/CN=localhost",
         "-keyout", root / "localhost.key", "-out", root / "localhost.crt"],
        check=True, capture_output=True,
    )
    # Readable by whom the pod runs as: it protects nothing.
    (root / "localhost.key").chmod(0o644)


def python(root):
    """The Python that runs this, with its library, readable by everybody."""
    program = os.path.realpath(sys.executable)
    copy_with_libraries(root, program)
    (root / "usr/bin/python3").symlink_to(program)
    library = Path(program).parent.parent / "lib" / Path(program).name
    shutil.copytree(
        library,
        root / str(library).lstrip("/"),
        ignore=lambda _, names: [n for n in names if n in SKIP or n.startswith("config-")],
        symlinks=True,
    )
    for module in (library / "lib-dynload").glob("*.so"):
        copy_with_libraries(root, str(module))
    for parent in list(Path(program).parents)[:-1]:
        (root / str(parent).lstrip("/")).chmod(0o755)


def busybox(root):
    """busybox alone, by its own shell."""
    for folder, mode in [("bin", 0o755), ("etc", 0o755), ("home", 0o755), ("var", 0o755), ("root", 0o700),
                         ("tmp", 0o1777)]:
        (root / folder).mkdir()
        (root / folder).chmod(mode)
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for applet in applets():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")


def tester(root):
    for name in ["ep", "ep-2"]:
        (root / name).write_text('#!/bin/sh\necho "[$0 $*]"\n')
        (root / name).chmod(0o755)


def kitten(root):
    (root / "etc").mkdir()
    (root / "data.json").write_text('{"image": "kitten.jpg"}')
    (root / "etc/os-release").write_text('NAME="Alpine Linux"\n')


def grpc(root):
    # etcd serves grpc.health.v1.Health at its client port.
    copy_with_libraries(root, "/usr/bin/etcd")


def packed(fill):
    """A layer of what a function puts into an empty folder."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "root")
        root.mkdir(mode=0o755)
        fill(root)
        return layer(root)


def images(sorts):
    """The images of these sorts, as `archive` takes them."""
    if "stand-in" in sorts:
        config = {"Entrypoint": ["/agnhost"], "Cmd": ["pause"], "Env": ["PATH=/usr/bin:/bin"], "WorkingDir": "/"}
        yield [packed(stand_in)], STAND_IN, config
    if "small" in sorts:
        base, env = packed(busybox), {"Env": [PATHS]}
        yield [base], [SMALL], env | {"Cmd": ["sh"]}
        yield [base, packed(tester)], [TESTER], env | {"Entrypoint": ["/ep", "default"], "Cmd": ["arguments"]}
        yield [packed(kitten)], [KITTEN], env
        yield [base, packed(grpc)], [GRPC], env


def load(peapod, data_dir, sorts):
    """Gives every node the images of these sorts, by `peapod image load`."""
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        archive(file.name, images(sorts))
        subprocess.run([peapod, "image", "load", "--data-dir", data_dir, file.name], check=True)
