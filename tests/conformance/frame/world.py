"""What a test has: a namespace of its own, the API, and what tests do with pods all the time."""

import contextlib
import os
import re
import subprocess

from images.names import AGNHOST

from .case import Refused, check, equal, name, until, word
from .objects import condition_of, is_ready

# How long a pod is given to start, in seconds.
START = 120
# What a pod's manifest is made of if it has one container that is not given whole.
OF_CONTAINER = ["command", "args", "ports", "env", "resources", "readinessProbe", "volumeMounts", "securityContext",
                "lifecycle"]


class World:
    """A namespace of one test, and the cluster around it."""

    until = staticmethod(until)

    def __init__(self, api, title):
        self.api = api
        self.ns = f"{re.sub('[^a-z]+', '-', title.lower())[-24:].strip('-')}-{word()}"
        # What is done when the test is over, the last first.
        self.cleanups = []
        labels = {"e2e-run": "conformance", "pod-security.kubernetes.io/enforce": "privileged"}
        api.create("/api/v1/namespaces", {"metadata": {"name": self.ns, "labels": labels}})
        until(lambda: self.exists(self.core("serviceaccounts", "default")), 30, "the default service account")
        until(lambda: self.exists(self.core("configmaps", "kube-root-ca.crt")), 30, "kube-root-ca.crt")

    def end(self):
        for cleanup in reversed(self.cleanups):
            with contextlib.suppress(Exception):
                cleanup()
        self.api.delete(self.namespace)

    # === Paths ===

    @property
    def namespace(self):
        return f"/api/v1/namespaces/{self.ns}"

    def core(self, resource, *rest, ns=None):
        """The path of a resource of the core group, of one of it, or of its subresource."""
        return "/".join(["/api/v1/namespaces", ns or self.ns, resource, *filter(None, rest)])

    def apis(self, group, resource, *rest, ns=None):
        """The same of another group, which is `group/version`."""
        return "/".join(["/apis", group, "namespaces", ns or self.ns, resource, *filter(None, rest)])

    # === Objects ===

    def exists(self, path):
        try:
            return self.api.get(path)
        except Refused as refused:
            if refused.code == 404:
                return None
            raise

    def gone(self, path, seconds=60):
        until(lambda: self.exists(path) is None, seconds, f"{path} is gone")

    def never(self, condition, seconds, what=""):
        """Fails if a condition becomes true within so many seconds."""
        found = None
        with contextlib.suppress(AssertionError):
            found = until(condition, seconds, every=0.3)
        check(not found, what)

    def config_map(self, data, binary=None, **more):
        """Makes one; its name."""
        body = {"metadata": {"name": name("configmap")}, "data": data, **more}
        if binary:
            body["binaryData"] = binary
        return self.api.create(self.core("configmaps"), body)["metadata"]["name"]

    def secret(self, data, ns=None, secret=None, **more):
        """Makes one; its name."""
        body = {"metadata": {"name": secret or name("secret")}, "stringData": data, **more}
        return self.api.create(self.core("secrets", ns=ns), body)["metadata"]["name"]

    # === Pods ===

    def pod(self, pod, **spec):
        """A manifest: `containers`, or one container of `image`, `command`, `args`, ..."""
        meta = {key: spec.pop(key, empty) for key, empty in [("labels", {}), ("annotations", {}), ("finalizers", [])]}
        if "containers" not in spec:
            one = {"name": spec.pop("container", "agnhost-container"), "image": spec.pop("image", AGNHOST)}
            spec["containers"] = [one | {key: spec.pop(key) for key in OF_CONTAINER if key in spec}]
        for container in spec["containers"]:
            container.setdefault("imagePullPolicy", "IfNotPresent")
        meta["generateName" if pod.endswith("-") else "name"] = pod
        return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}

    def pods(self, selector=None):
        query = {"labelSelector": selector} if selector else {}
        return self.api.get(self.core("pods"), **query)["items"]

    def ready_pods(self, selector, count, seconds=START):
        """Waits until so many pods are ready, those aside that end."""

        def condition():
            ready = [p for p in self.pods(selector) if is_ready(p) and not p["metadata"].get("deletionTimestamp")]
            check(len(ready) == count, f"{len(ready)} ready pods")
            return ready

        return until(condition, seconds, f"{count} ready pods of {selector}")

    def get_pod(self, pod):
        return self.api.get(self.core("pods", pod))

    def start(self, pod, **spec):
        return self.api.create(self.core("pods"), self.pod(pod, **spec))

    def run(self, pod, seconds=START, **spec):
        """Creates a pod and waits until it is ready."""
        made = self.start(pod, **spec)
        return self.ready(made["metadata"]["name"], seconds)

    def create_pod(self, spec, pod=None, **meta):
        """`start` for a spec as it is. Shells as first processes do not mind SIGTERM; nobody waits for them."""
        return self.start(pod or name("pod"), **{"terminationGracePeriodSeconds": 3, **spec}, **meta)

    def run_pod(self, spec, pod=None, seconds=START, **meta):
        """A pod that runs and is ready, as `CreateSync` waits for."""
        made = self.create_pod(spec, pod, **meta)
        return self.ready(made["metadata"]["name"], seconds)

    def ready(self, pod, seconds=START):
        def condition():
            found = self.get_pod(pod)
            check(is_ready(found), found["status"])
            return found

        return until(condition, seconds, f"pod {pod} is ready")

    def phase(self, pod, *phases, seconds=START):
        """Waits until a pod is in one of these phases."""

        def condition():
            found = self.get_pod(pod)
            check(found["status"].get("phase") in phases, found["status"])
            return found

        return until(condition, seconds, f"pod {pod} is {'/'.join(phases)}")

    def log(self, pod, container=None, **query):
        if container:
            query["container"] = container
        return self.api.call("GET", self.core("pods", pod, "log"), **query).text

    def output(self, spec, container=None, pod=None, **meta):
        """What a pod that must succeed writes, as `TestContainerOutput` asks."""
        made = self.create_pod({"restartPolicy": "Never", **spec}, pod, **meta)["metadata"]["name"]
        seen = self.phase(made, "Succeeded", "Failed")
        said = self.log(made, container or spec["containers"][0]["name"])
        equal(seen["status"]["phase"], "Succeeded", f"it wrote {said!r};", seen["status"])
        return said

    def outputs(self, spec, *expected, **more):
        """The same, with what must be in it."""
        said = self.output(spec, **more)
        for text in expected:
            check(text in said, f"{text!r} is missing in {said!r}")
        return said

    def delete_pod(self, pod, gone=True, seconds=60, **options):
        self.api.delete(self.core("pods", pod), options or None)
        if gone:
            self.gone(self.core("pods", pod), seconds)

    # === Commands ===

    def try_exec(self, pod, *command, container=None, ns=None):
        words = ["exec", "-n", ns or self.ns, pod]
        if container:
            words += ["-c", container]
        return self.try_kubectl(*words, "--", *command)

    def exec(self, pod, *command, **where):
        """What a command in a container writes, which must succeed."""
        run = self.try_exec(pod, *command, **where)
        check(run.returncode == 0, f"exec {command} in {pod}: {run.returncode} {run.stdout} {run.stderr}")
        return run.stdout

    def shell(self, pod, line, **where):
        return self.exec(pod, "/bin/sh", "-c", line, **where)

    def try_shell(self, pod, line, **where):
        return self.try_exec(pod, "/bin/sh", "-c", line, **where)

    def try_kubectl(self, *words, stdin=None, timeout=120):
        return subprocess.run(
            ["kubectl", *words], input=stdin, text=True, capture_output=True, timeout=timeout,
            env={**os.environ, "KUBECONFIG": self.api.kubeconfig, "HOME": self.api.scratch},
        )

    def kubectl(self, *words, stdin=None, timeout=120):
        """kubectl in this namespace, which must succeed."""
        run = self.try_kubectl("-n", self.ns, *words, stdin=stdin, timeout=timeout)
        check(run.returncode == 0, f"kubectl {' '.join(words)}: {run.stdout} {run.stderr}")
        return run.stdout

    # === Nodes ===

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
