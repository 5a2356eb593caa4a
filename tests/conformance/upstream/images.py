"""Makes the archive of the images that upstream's 1.20 conformance tests name.

    python3 images.py BUILD OUT.tar    BUILD as `build` leaves it

Upstream's own programs are built from its source; everything else is Debian's, and stands in for what
upstream packs in Alpine.
"""

import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from images import contents  # noqa: E402
from images.archive import archive, layer  # noqa: E402

E2E = "gcr.io/kubernetes-e2e-test-images"
PATHS = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
PAGE = "<html><body><h1>It works!</h1></body></html>\n"
# Upstream's images serve these folders at port 80, in the foreground, with logs to their output.
APACHE = """ServerRoot /usr/local/apache2
ServerName localhost
Listen 80
PidFile /tmp/httpd.pid
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
LoadModule mime_module /usr/lib/apache2/modules/mod_mime.so
TypesConfig conf/mime.types
User www-data
Group www-data
DocumentRoot /usr/local/apache2/htdocs
DirectoryIndex index.html
ErrorLog /proc/self/fd/2
<Directory /usr/local/apache2/htdocs>
Require all granted
</Directory>
"""
NGINX = """error_log /dev/stderr;
pid /tmp/nginx.pid;
events {}
http {
  access_log /dev/stdout;
  types { text/html html; }
  server { listen 80; root /usr/share/nginx/html; }
}
"""


class Images:
    """What is made of one build."""

    def __init__(self, build, scratch):
        self.build, self.scratch = Path(build), Path(scratch)

    def program(self, root, name, at, mode=0o755):
        at = root / at.lstrip("/")
        at.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.build / "bin" / name, at)
        at.chmod(mode)

    def root(self, name):
        root = self.scratch / name
        root.mkdir()
        return root

    def debian(self):
        """The lower layer of what needs more than one static program."""
        return layer(self.build / "debian")

    def agnhost(self):
        root = self.root("agnhost")
        self.program(root, "agnhost", "/agnhost")
        (root / "agnhost-2").symlink_to("agnhost")
        (root / "uploads").mkdir()
        # What Alpine has and Debian's small image has not.
        (root / "usr/local/bin").mkdir(parents=True)
        for applet in ["netstat", "nslookup", "ping"]:
            shutil.copy("/bin/busybox", root / "usr/local/bin" / applet)
        for name in ["localhost.crt", "localhost.key"]:
            shutil.copy(self.source("test/images/agnhost/porter") / name, root / name)
        return layer(root)

    def nautilus(self):
        root = self.root("nautilus")
        for name in ["nautilus.jpg", "data.json"]:
            shutil.copy(self.source("test/images/nautilus/html") / name, root / name)
        return layer(root)

    def httpd(self, version):
        root = self.root(f"httpd-{version}")
        home = root / "usr/local/apache2"
        (home / "conf").mkdir(parents=True)
        (home / "htdocs").mkdir()
        (home / "conf/httpd.conf").write_text(APACHE)
        (home / "conf/mime.types").write_text("text/html html\n")
        (home / "htdocs/index.html").write_text(PAGE)
        (root / "usr/local/bin").mkdir()
        script = root / "usr/local/bin/httpd-foreground"
        script.write_text(f"#!/bin/sh\n# {version}\nexec apache2 -DFOREGROUND -f /usr/local/apache2/conf/httpd.conf\n")
        script.chmod(0o755)
        return layer(root)

    def nginx(self):
        root = self.root("nginx")
        (root / "usr/share/nginx/html").mkdir(parents=True)
        (root / "usr/share/nginx/html/index.html").write_text("<html><h1>Welcome to nginx!</h1></html>\n")
        (root / "etc/nginx").mkdir(parents=True)
        (root / "etc/nginx/nginx.conf").write_text(NGINX)
        return layer(root)

    def busybox(self):
        root = self.root("busybox")
        contents.busybox(root)
        return layer(root)

    def alone(self, name, at, mode=0o755):
        """An image of one static program."""
        root = self.root(name)
        self.program(root, name, at, mode)
        return layer(root)

    def source(self, folder):
        return self.build / "gopath/src/k8s.io/kubernetes" / folder


def make(images):
    """Yields what each image is: its layers, names and configuration."""
    debian, busybox = images.debian(), images.busybox()
    agnhost = [debian, images.agnhost()]
    serve = {"Entrypoint": ["/agnhost"], "Env": PATHS, "WorkingDir": "/"}
    yield agnhost, ["k8s.gcr.io/e2e-test-images/agnhost:2.21"], serve | {"Cmd": ["pause"]}
    yield [*agnhost, images.nautilus()], [f"{E2E}/nautilus:1.0"], serve | {"Cmd": ["test-webserver"]}
    yield [debian], [f"{E2E}/jessie-dnsutils:1.0"], {"Cmd": ["/bin/bash"], "Env": PATHS}
    for version in ["2.4.38-alpine", "2.4.39-alpine"]:
        config = {"Cmd": ["httpd-foreground"], "Env": PATHS, "WorkingDir": "/usr/local/apache2"}
        yield [debian, images.httpd(version)], [f"docker.io/library/httpd:{version}"], config
    names = [f"docker.io/library/nginx:{version}" for version in ["1.14-alpine", "1.15-alpine"]]
    yield [debian, images.nginx()], names, {"Cmd": ["nginx", "-g", "daemon off;"], "Env": PATHS}
    yield [busybox], ["docker.io/library/busybox:1.29"], {"Cmd": ["sh"], "Env": PATHS}
    yield [busybox], [f"{E2E}/nonroot:1.0"], {"Cmd": ["sh"], "Env": PATHS, "User": "1234"}
    nnp = images.alone("nnp", "/usr/local/bin/nnp", 0o6755)
    yield [debian, nnp], [f"{E2E}/nonewprivs:1.0"], {"Cmd": ["nnp"], "Env": PATHS}
    yield [images.alone("pause", "/pause")], ["k8s.gcr.io/pause:3.2"], {"Entrypoint": ["/pause"], "Env": PATHS}
    # Its clients ask for an API that has become v1 since: the sample has no need of it.
    sample = {"Entrypoint": ["/sample-apiserver", "--feature-gates=APIPriorityAndFairness=false"], "Env": PATHS}
    yield [images.alone("sample-apiserver", "/sample-apiserver")], [f"{E2E}/sample-apiserver:1.17"], sample
    yield [debian, images.alone("etcd", "/usr/local/bin/etcd")], ["k8s.gcr.io/etcd:3.4.13-0"], {"Env": PATHS}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        archive(sys.argv[2], make(Images(sys.argv[1], scratch)))
