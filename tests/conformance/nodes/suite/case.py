"""A test: a name of upstream's, a namespace of its own, and what such tests do all the time."""

import contextlib
import re
import time
import uuid

from .api import Refused

CASES = []

# What upstream waits for a pod to start; this machine is slow, too.
START = 60


class Case:
    """A registered test."""

    def __init__(self, sig, name, run, serial, slow, note):
        self.sig, self.name, self.run, self.serial, self.slow = sig, name, run, serial, slow
        self.note = note
        self.module = run.__module__.rsplit(".", 1)[-1]


def test(sig, name, serial=False, slow=False, note=""):
    """Registers a test under the name that upstream gives it (without its tags).

    `note` says where it asks less than upstream's.
    """

    def register(run):
        CASES.append(Case(sig, name, run, serial, slow, note))
        return run

    return register


def check(condition, *said):
    """Fails with what was seen."""
    if not condition:
        raise AssertionError(" ".join(str(s) for s in said) or "no")


def equal(seen, wanted, *said):
    check(seen == wanted, *said, f"saw {seen!r}, wanted {wanted!r}")


def until(what, ask, timeout=START, every=0.2):
    """Asks until the answer is true, and returns it; what it raises is reported at the end."""
    end = time.monotonic() + timeout
    last = None
    while True:
        try:
            said = ask()
            if said:
                return said
            last = said
        except (AssertionError, Refused) as error:
            last = error
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {timeout} s; last: {last!r}")
        time.sleep(every)


def refused(status, ask, *said):
    """What must be refused with this status; returns the refusal."""
    try:
        answer = ask()
    except Refused as error:
        equal(error.status, status, *said, str(error))
        return error
    raise AssertionError(f"{' '.join(said)} was not refused: {answer}")


def name(prefix):
    return f"{prefix}-{uuid.uuid4()}"


class World:
    """A namespace of one test, and the cluster around it."""

    def __init__(self, api, namespace, quick):
        self.api, self.ns, self.quick = api, namespace, quick

    # === Paths ===

    def path(self, resource, *rest, ns=None):
        group, _, plural = resource.rpartition("/")
        root = f"/apis/{group}" if group else "/api/v1"
        return "/".join([root, "namespaces", ns or self.ns, plural, *rest])

    def pod_path(self, pod, *rest):
        return self.path("pods", pod, *rest)

    # === Objects ===

    def config_map(self, data, binary=None, **more):
        body = {"metadata": {"name": name("configmap")}, "data": data, **more}
        if binary:
            body["binaryData"] = binary
        return self.api.create(self.path("configmaps"), body)["metadata"]["name"]

    def secret(self, data, ns=None, secret=None, **more):
        body = {"metadata": {"name": secret or name("secret")}, "stringData": data, **more}
        return self.api.create(self.path("secrets", ns=ns), body)["metadata"]["name"]

    def create_pod(self, spec, pod=None, labels=None, annotations=None, **meta):
        # Shells that are a container's first process do not mind SIGTERM; nobody waits for them.
        spec = {"terminationGracePeriodSeconds": 3, **spec}
        meta = {"name": pod or name("pod"), **meta}
        if labels:
            meta["labels"] = labels
        if annotations:
            meta["annotations"] = annotations
        return self.api.create(self.path("pods"), {"metadata": meta, "spec": spec})

    def pod(self, pod):
        return self.api.get(self.pod_path(pod))

    def run_pod(self, spec, pod=None, timeout=START, **meta):
        """A pod that runs and is ready, as `CreateSync` waits for."""
        made = self.create_pod(spec, pod, **meta)["metadata"]["name"]
        return self.ready(made, timeout)

    def ready(self, pod, timeout=START):
        def is_ready():
            seen = self.pod(pod)
            phase = seen["status"].get("phase")
            check(phase not in ("Failed", "Succeeded"), "the pod ended:", seen["status"])
            return condition(seen, "Ready") == "True" and seen

        return until(f"pod {pod} to be ready", is_ready, timeout)

    def phase(self, pod, phases, timeout=START):
        if isinstance(phases, str):
            phases = (phases,)

        def reached():
            seen = self.pod(pod)
            check(seen["status"].get("phase") in phases, seen["status"])
            return seen

        return until(f"pod {pod} to be {'/'.join(phases)}", reached, timeout)

    def output(self, spec, container=None, pod=None, **meta):
        """What a pod that must succeed writes, as `TestContainerOutput` asks."""
        made = self.create_pod({"restartPolicy": "Never", **spec}, pod, **meta)
        seen = self.phase(made["metadata"]["name"], ("Succeeded", "Failed"))
        container = container or spec["containers"][0]["name"]
        said = self.logs(seen["metadata"]["name"], container)
        equal(seen["status"]["phase"], "Succeeded", f"it wrote {said!r};", seen["status"])
        return said

    def outputs(self, spec, *expected, **more):
        """The same, with what must be in it."""
        said = self.output(spec, **more)
        for text in expected:
            check(text in said, f"{text!r} is missing in {said!r}")
        return said

    def logs(self, pod, container=None, **query):
        if container:
            query["container"] = container
        return self.api.text(self.pod_path(pod, "log"), **query)

    def delete_pod(self, pod, gone=True, timeout=START, **options):
        self.api.delete(self.pod_path(pod), options or None)
        if gone:
            self.gone(self.pod_path(pod), timeout)

    def gone(self, path, timeout=START):
        def is_gone():
            with contextlib.suppress(Refused):
                return not self.api.get(path)
            return True

        until(f"{path} to be gone", is_gone, timeout)

    def exec(self, pod, container, *command):
        """What a command in a container writes to stdout, and whether it succeeded."""
        said, _, success = self.exec_all(pod, container, *command)
        check(success == "Success", command, said, success)
        return said

    def exec_all(self, pod, container, *command):
        import json

        socket = self.api.websocket(
            self.pod_path(pod, "exec"), ["v5.channel.k8s.io"], container=container,
            command=list(command), stdout="true", stderr="true",
        )
        streams = {1: b"", 2: b"", 3: b""}
        with contextlib.suppress(Exception):
            while True:
                opcode, data = socket.recv_data()
                if opcode == 8:
                    break
                if data and data[0] in streams:
                    streams[data[0]] += data[1:]
        socket.close()
        ended = json.loads(streams[3] or b"{}")
        return streams[1].decode(), streams[2].decode(), ended.get("status")

    def nodes(self):
        """The ready nodes that take pods."""
        every = self.api.get("/api/v1/nodes")["items"]
        return [
            n for n in every
            if condition(n, "Ready") == "True" and not n["spec"].get("unschedulable")
            and not n["spec"].get("taints")
        ]

    def events(self, **fields):
        selector = ",".join(f"{k.replace('__', '.')}={v}" for k, v in fields.items())
        return self.api.get(self.path("events"), fieldSelector=selector)["items"]


# === Reading objects ===


def condition(object, kind, field="status"):
    for c in object["status"].get("conditions", []):
        if c["type"] == kind:
            return c.get(field)
    return None


def status_of(pod, container):
    kinds = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    for kind in kinds:
        for status in pod["status"].get(kind, []):
            if status["name"] == container:
                return status
    return None


def restarts(pod):
    return sum(s["restartCount"] for s in pod["status"].get("containerStatuses", []))


def matches(pattern, text):
    check(re.search(pattern, text), f"{pattern!r} is not in {text!r}")


# === Images ===

BUSYBOX = "conformance.test/busybox:1"
# Its entrypoint writes its arguments: in the place of agnhost's entrypoint-tester.
TESTER = "conformance.test/tester:1"
# An image with data, in the place of the kitten.
DATA = "conformance.test/data:1"
# An image with a server that answers gRPC health checks.
GRPC = "conformance.test/grpc:1"


def busybox(script=None, container="test-container", **more):
    """A container that runs a script of busybox; nothing given: it sleeps."""
    command = ["sh", "-c", script] if script else ["sleep", "10000"]
    return {"name": container, "image": BUSYBOX, "command": command, **more}


def pause(container="pause", **more):
    return busybox("trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done", container, **more)
