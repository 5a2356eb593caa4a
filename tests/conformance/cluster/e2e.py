"""As much of upstream's end-to-end framework as the scripts beside this file need.

A test is a function that takes a `World` (a namespace of its own, a client of the API, waits for
conditions) and raises if something is not as upstream's test of that name wants it.
"""

import base64
import contextlib
import json
import os
import random
import re
import string
import subprocess
import tempfile
import threading
import time
import traceback

import requests
import yaml
from names import AGNHOST, BUSYBOX, HTTPD, NEW_HTTPD, NGINX, PAUSE  # noqa: F401 - for the tests

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"

TESTS = []
NOTES = {}


def test(name, note=""):
    """Declares a test by upstream's name for it; the note says where its steps are others."""

    def declare(function):
        TESTS.append((name, function))
        NOTES[name] = note
        return function

    return declare


class Refused(Exception):
    """An answer of the API that is no success."""

    def __init__(self, response):
        self.code = response.status_code
        self.text = response.text
        try:
            self.status = response.json()
        except ValueError:
            self.status = {}
        self.reason = self.status.get("reason") if isinstance(self.status, dict) else None
        super().__init__(f"{response.request.method} {response.url}: {self.code} {response.text[:600]}")


class Failed(Exception):
    """Something is not as it should be."""


def check(condition, said=""):
    if not condition:
        raise Failed(said if isinstance(said, str) else json.dumps(said, default=str)[:1500])


def equal(found, wanted, what=""):
    check(found == wanted, f"{what}: found {found!r}, wanted {wanted!r}")


def word(length=5):
    return "".join(random.choice(string.ascii_lowercase) for _ in range(length))


class Api:
    """A client of the API server: JSON in, JSON out."""

    def __init__(self, kubeconfig):
        self.kubeconfig = kubeconfig
        config = yaml.safe_load(open(kubeconfig))
        cluster = config["clusters"][0]["cluster"]
        user = config["users"][0]["user"]
        self.scratch = tempfile.mkdtemp(prefix="conformance-")
        self.session = requests.Session()
        # A CA bundle of the environment is not this cluster's.
        self.session.trust_env = False
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=64, pool_connections=8)
        self.session.mount("https://", adapter)
        self.host = cluster["server"]
        self.session.verify = self._file("ca.crt", cluster["certificate-authority-data"])
        self.session.cert = (
            self._file("client.crt", user["client-certificate-data"]),
            self._file("client.key", user["client-key-data"]),
        )

    def _file(self, name, data):
        path = os.path.join(self.scratch, name)
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))
        return path

    def call(self, method, path, body=None, kind="application/json", accept="application/json", **kw):
        headers = {"Content-Type": kind, "Accept": accept, **kw.pop("headers", {})}
        data = body if isinstance(body, (str, bytes, type(None))) else json.dumps(body)
        response = self.session.request(
            method, self.host + path, data=data, headers=headers, timeout=kw.pop("timeout", 60), **kw
        )
        if response.status_code >= 400:
            raise Refused(response)
        return response

    def get(self, path, **kw):
        return self.call("GET", path, **kw).json()

    def create(self, path, body, **kw):
        return self.call("POST", path, body, **kw).json()

    def update(self, path, body, **kw):
        return self.call("PUT", path, body, **kw).json()

    def patch(self, path, body, kind=MERGE, **kw):
        return self.call("PATCH", path, body, kind=kind, **kw).json()

    def delete(self, path, body=None, **kw):
        return self.call("DELETE", path, body, **kw).json()

    def watch(self, path, seconds=60, **params):
        """Events of a watch, for so many seconds at most."""
        query = {"watch": "1", "timeoutSeconds": str(seconds), **params}
        with self.session.get(
            self.host + path, params=query, stream=True, timeout=seconds + 30
        ) as response:
            if response.status_code >= 400:
                raise Refused(response)
            for line in response.iter_lines():
                if line:
                    yield json.loads(line)

    def retry_update(self, path, change, tries=10):
        """GET, change, PUT until there is no conflict."""
        for _ in range(tries):
            found = self.get(path)
            change(found)
            try:
                return self.update(path, found)
            except Refused as refused:
                if refused.code != 409:
                    raise
        raise Failed(f"conflicts without end at {path}")


class World:
    """What one test has: a namespace of its own and the API."""

    def __init__(self, api, name, level="privileged"):
        self.api = api
        self.ns = f"{re.sub('[^a-z]+', '-', name.lower())[-24:].strip('-')}-{word()}"
        self.cleanups = []
        api.create("/api/v1/namespaces", {
            "metadata": {"name": self.ns, "labels": {
                "e2e-run": "conformance",
                "pod-security.kubernetes.io/enforce": level,
            }},
        })
        self.until(lambda: self.exists(f"{self.core('serviceaccounts')}/default"), 30, "the default service account")
        self.until(lambda: self.exists(f"{self.core('configmaps')}/kube-root-ca.crt"), 30, "kube-root-ca.crt")

    # paths

    def core(self, resource, name=None, ns=None):
        return f"/api/v1/namespaces/{ns or self.ns}/{resource}" + (f"/{name}" if name else "")

    def apis(self, group, resource, name=None, ns=None):
        return f"/apis/{group}/namespaces/{ns or self.ns}/{resource}" + (f"/{name}" if name else "")

    def pods(self, selector=None):
        query = f"?labelSelector={selector}" if selector else ""
        return self.api.get(self.core("pods") + query)["items"]

    # waits

    def until(self, condition, seconds=60, what="", every=0.2):
        """The condition's first true value; raises with what it last said."""
        deadline, last = time.monotonic() + seconds, None
        while True:
            try:
                found = condition()
                if found:
                    return found
                last = found
            except (Refused, Failed, KeyError, IndexError, TypeError) as error:
                last = error
            if time.monotonic() > deadline:
                raise Failed(f"not within {seconds} s: {what}; last: {str(last)[:800]}")
            time.sleep(every)

    def never(self, condition, seconds, what=""):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            check(not condition(), what)
            time.sleep(0.3)

    def exists(self, path):
        try:
            return self.api.get(path)
        except Refused as refused:
            if refused.code == 404:
                return None
            raise

    def gone(self, path, seconds=60):
        self.until(lambda: self.exists(path) is None, seconds, f"{path} is gone")

    # pods

    def pod(self, name, **spec):
        """A manifest: `containers`, or one container of `image`, `command`, `args`, ..."""
        labels = spec.pop("labels", {})
        annotations = spec.pop("annotations", {})
        finalizers = spec.pop("finalizers", [])
        if "containers" not in spec:
            container = {"name": spec.pop("container", "agnhost-container"), "image": spec.pop("image", AGNHOST)}
            for key in ["command", "args", "ports", "env", "resources", "readinessProbe", "volumeMounts",
                        "securityContext", "lifecycle"]:
                if key in spec:
                    container[key] = spec.pop(key)
            spec["containers"] = [container]
        for container in spec["containers"]:
            container.setdefault("imagePullPolicy", "IfNotPresent")
        meta = {"labels": labels, "annotations": annotations, "finalizers": finalizers}
        if name.endswith("-"):
            meta["generateName"] = name
        else:
            meta["name"] = name
        return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}

    def start(self, name, **spec):
        return self.api.create(self.core("pods"), self.pod(name, **spec))

    def run(self, name, seconds=120, **spec):
        """Creates a pod and waits until it is ready."""
        made = self.start(name, **spec)
        return self.ready(made["metadata"]["name"], seconds)

    def get_pod(self, name):
        return self.api.get(self.core("pods", name))

    def ready(self, name, seconds=120):
        def condition():
            pod = self.get_pod(name)
            return pod if is_ready(pod) else Failed_(pod)

        return self.until(condition, seconds, f"pod {name} is ready")

    def running(self, name, seconds=120):
        def condition():
            pod = self.get_pod(name)
            return pod if pod["status"]["phase"] == "Running" else Failed_(pod)

        return self.until(condition, seconds, f"pod {name} runs")

    def finished(self, name, phase="Succeeded", seconds=120):
        def condition():
            pod = self.get_pod(name)
            return pod if pod["status"]["phase"] == phase else Failed_(pod)

        return self.until(condition, seconds, f"pod {name} is {phase}")

    def log(self, name, **params):
        return self.api.call("GET", self.core("pods", name) + "/log", params=params).text

    def try_exec(self, name, *command, container=None, ns=None):
        words = ["exec", "-n", ns or self.ns, name]
        if container:
            words += ["-c", container]
        return self.try_kubectl(*words, "--", *command)

    def exec(self, name, *command, **kw):
        run = self.try_exec(name, *command, **kw)
        check(run.returncode == 0, f"exec {command} in {name}: {run.returncode} {run.stdout} {run.stderr}")
        return run.stdout

    def shell(self, name, line, **kw):
        return self.exec(name, "/bin/sh", "-c", line, **kw)

    def try_shell(self, name, line, **kw):
        return self.try_exec(name, "/bin/sh", "-c", line, **kw)

    def try_kubectl(self, *words, stdin=None, timeout=120):
        return subprocess.run(
            ["kubectl", *words], input=stdin, text=True, capture_output=True, timeout=timeout,
            env={**os.environ, "KUBECONFIG": self.api.kubeconfig, "HOME": self.api.scratch},
        )

    def kubectl(self, *words, stdin=None, timeout=120):
        """kubectl in this namespace."""
        run = self.try_kubectl("-n", self.ns, *words, stdin=stdin, timeout=timeout)
        check(run.returncode == 0, f"kubectl {' '.join(words)}: {run.stdout} {run.stderr}")
        return run.stdout

    # nodes

    def nodes(self):
        """Nodes that are ready and that pods without tolerations may go to."""
        return [
            node for node in self.api.get("/api/v1/nodes")["items"]
            if not node["spec"].get("unschedulable") and condition_of(node, "Ready") == "True"
            and not any(t["effect"] in {"NoSchedule", "NoExecute"} for t in node["spec"].get("taints", []))
        ]

    def node_ips(self, family=4):
        return [
            a["address"] for node in self.nodes() for a in node["status"]["addresses"]
            if a["type"] == "InternalIP" and (":" in a["address"]) == (family == 6)
        ]

    def end(self):
        for cleanup in reversed(self.cleanups):
            with contextlib.suppress(Exception):
                cleanup()
        with contextlib.suppress(Exception):
            self.api.delete(f"/api/v1/namespaces/{self.ns}")


class Failed_:
    """What was found instead, falsy."""

    def __init__(self, found):
        self.found = found

    def __bool__(self):
        return False

    def __str__(self):
        status = self.found.get("status", self.found)
        return json.dumps(status, default=str)


def condition_of(thing, kind):
    for condition in thing.get("status", {}).get("conditions", []) or []:
        if condition["type"] == kind:
            return condition["status"]
    return None


def is_ready(pod):
    return condition_of(pod, "Ready") == "True"


def container(name, image=AGNHOST, **more):
    return {"name": name, "image": image, "imagePullPolicy": "IfNotPresent", **more}


class Events:
    """The events of a watch, collected while the test goes on."""

    def __init__(self, world, path, seconds=300, **params):
        self.world, self.seen, self.lock = world, [], threading.Lock()
        if "resourceVersion" not in params:
            params["resourceVersion"] = world.api.get(path + "?limit=1")["metadata"]["resourceVersion"]
        self.thread = threading.Thread(target=self._follow, args=(path, seconds, params), daemon=True)
        self.thread.start()

    def _follow(self, path, seconds, params):
        with contextlib.suppress(Exception):
            for event in self.world.api.watch(path, seconds, **params):
                with self.lock:
                    self.seen.append(event)

    def wait(self, kind, matches=lambda _: True, seconds=60):
        """The first event of a kind whose object matches."""

        def condition():
            with self.lock:
                return next((e for e in self.seen if e["type"] == kind and matches(e["object"])), None)

        return self.world.until(condition, seconds, f"event {kind}; seen {[e['type'] for e in self.seen]}")


def run(api, tests, workers=4):
    """Runs tests, some at a time; gives (name, seconds, error or None) of each."""
    results, todo, lock = [], list(tests), threading.Lock()

    def work():
        while True:
            with lock:
                if not todo:
                    return
                name, function = todo.pop(0)
            began, error, world = time.monotonic(), None, None
            try:
                world = World(api, re.sub(r"^\[[a-z-]*\]", "", name))
                function(world)
            except Exception as caught:  # noqa: BLE001 - every failure is a result
                error = f"{type(caught).__name__}: {caught}"
                if not isinstance(caught, (Failed, Refused, requests.RequestException)):
                    error += "\n" + traceback.format_exc()
                else:
                    frame = [f for f in traceback.extract_tb(caught.__traceback__) if "e2e.py" not in f.filename]
                    if frame:
                        error = f"line {frame[-1].lineno}: {error}"
            took = time.monotonic() - began
            if world:
                world.end()
            with lock:
                results.append((name, took, error))
                print(f"{'FAIL' if error else 'ok  '} {took:6.1f}s  {name}", flush=True)
                if error:
                    print("      " + error.replace("\n", "\n      ")[:1200], flush=True)

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
