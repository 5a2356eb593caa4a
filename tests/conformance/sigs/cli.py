"""[sig-cli]: test/e2e/kubectl/{kubectl,logs}.go, with the kubectl on PATH."""

import json
import os
import re
import subprocess
import tempfile
import time
import urllib.request

from frame import AGNHOST, BUSYBOX, HTTPD, PAUSE, check, container, equal, test

CONTROLLER = {"apiVersion": "v1", "kind": "ReplicationController", "metadata": {
    "name": "agnhost-primary", "labels": {"app": "agnhost", "role": "primary"}}, "spec": {
    "replicas": 1, "selector": {"app": "agnhost", "role": "primary"}, "template": {
        "metadata": {"labels": {"app": "agnhost", "role": "primary"}}, "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [container("agnhost-primary", AGNHOST, ports=[{"name": "agnhost-server", "containerPort": 6379}])]}}}}
SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {
    "name": "agnhost-primary", "labels": {"app": "agnhost", "role": "primary"}}, "spec": {
    "ports": [{"port": 6379, "targetPort": "agnhost-server"}], "selector": {"app": "agnhost", "role": "primary"}}}


def create(w, body):
    return w.kubectl("create", "-f", "-", stdin=json.dumps(body))


def holds(output, required):
    """Every line's words follow each other on one line of the output."""
    for words in required:
        good = any(all(word in line for word in words) for line in output.splitlines())
        check(good, f"no line with {words} in:\n{output}")


@test("[sig-cli] Kubectl client Kubectl api-versions should check if v1 is in available api versions")
def api_versions(w):
    check("v1" in w.kubectl("api-versions").split())


@test("[sig-cli] Kubectl client Kubectl cluster-info should check if Kubernetes control plane services is included in cluster-info")
def cluster_info(w):
    said = w.kubectl("cluster-info")
    check("Kubernetes control plane" in said and "is running at" in said, said)


@test("[sig-cli] Kubectl client Kubectl version should check is all data is printed")
def version(w):
    said = w.kubectl("version")
    for item in ["Client Version: ", "Server Version: "]:
        check(re.search(item + r"v\d\.\d+\.[\d\w\-\.\+]+", said), said)


@test("[sig-cli] Kubectl client Kubectl describe should check if kubectl describe prints relevant information for rc and pods",
      "without the line on kube-proxy, which kubectl no longer prints")
def describe(w):
    create(w, CONTROLLER)
    create(w, SERVICE)
    pod = w.ready_pods("app=agnhost", 1)[0]["metadata"]["name"]
    holds(w.kubectl("describe", "pod", pod), [
        ["Name:", "agnhost-primary-"], ["Namespace:", w.ns], ["Node:"], ["Labels:", "app=agnhost"], ["role=primary"],
        ["Annotations:"], ["Status:", "Running"], ["IP:"], ["Controlled By:", "ReplicationController/agnhost-primary"],
        ["Image:", AGNHOST], ["State:", "Running"], ["QoS Class:", "BestEffort"]])
    w.until(lambda: holds(w.kubectl("describe", "rc", "agnhost-primary"), [
        ["Name:", "agnhost-primary"], ["Namespace:", w.ns], ["Selector:", "app=agnhost,role=primary"],
        ["Labels:", "app=agnhost"], ["role=primary"], ["Annotations:"], ["Replicas:", "1 current", "1 desired"],
        ["Pods Status:", "1 Running", "0 Waiting", "0 Succeeded", "0 Failed"], ["Pod Template:"], ["Image:", AGNHOST],
        ["Events:"]]) is None, 60, "rc described")
    holds(w.kubectl("describe", "service", "agnhost-primary"), [
        ["Name:", "agnhost-primary"], ["Namespace:", w.ns], ["Labels:", "app=agnhost"], ["role=primary"], ["Annotations:"],
        ["Selector:", "app=agnhost", "role=primary"], ["Type:", "ClusterIP"], ["IP:"], ["Port:", "<unset>", "6379/TCP"],
        ["Endpoints:"], ["Session Affinity:", "None"]])
    node = w.nodes()[0]["metadata"]["name"]
    # What kubectl prints of kube-proxy depends on its version.
    holds(w.kubectl("describe", "node", node), [
        ["Name:", node], ["Labels:"], ["Annotations:"], ["CreationTimestamp:"], ["Conditions:"],
        ["Type", "Status", "LastHeartbeatTime", "LastTransitionTime", "Reason", "Message"], ["Addresses:"], ["Capacity:"],
        ["Version:"], ["Kernel Version:"], ["OS Image:"], ["Container Runtime Version:"], ["Kubelet Version:"], ["Pods:"]])
    holds(w.kubectl("describe", "namespace", w.ns), [["Name:", w.ns], ["Labels:"], ["Annotations:"], ["Status:", "Active"]])


@test("[sig-cli] Kubectl client Kubectl diff should check if kubectl diff finds a difference for Deployments")
def diff(w):
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "httpd-deployment"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"app": "httpd"}}, "template": {
            "metadata": {"labels": {"app": "httpd"}}, "spec": {"containers": [container("httpd", HTTPD)]}}}}
    create(w, deployment)
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = BUSYBOX
    run = w.try_kubectl("-n", w.ns, "diff", "-f", "-", stdin=json.dumps(deployment))
    check(run.returncode == 1, run.stderr)
    for image in [HTTPD, BUSYBOX]:
        check(image in run.stdout, run.stdout)


@test("[sig-cli] Kubectl client Kubectl expose should create services for rc")
def expose(w):
    create(w, CONTROLLER)
    w.ready_pods("app=agnhost", 1)

    def service(name, port):
        def match():
            slices = w.api.get(w.apis("discovery.k8s.io/v1", "endpointslices") + f"?labelSelector=kubernetes.io/service-name%3D{name}")
            found = [p["port"] for s in slices["items"] if s.get("endpoints") for p in s["ports"]]
            equal(found, [6379], "ports")
            return True

        w.until(match, 60, name)
        found = w.api.get(w.core("services", name))["spec"]["ports"]
        equal([(p["port"], p["targetPort"]) for p in found], [(port, 6379)], "port")

    w.kubectl("expose", "rc", "agnhost-primary", "--name=rm2", "--port=1234", "--target-port=6379")
    service("rm2", 1234)
    w.kubectl("expose", "service", "rm2", "--name=rm3", "--port=2345", "--target-port=6379")
    service("rm3", 2345)


@test("[sig-cli] Kubectl client Kubectl label should update the label on a resource")
def label(w):
    w.run("pause", labels={"name": "pause"}, containers=[container("pause", PAUSE)])
    w.kubectl("label", "pods", "pause", "testing-label=testing-label-value")
    check("testing-label-value" in w.kubectl("get", "pod", "pause", "-L", "testing-label"))
    w.kubectl("label", "pods", "pause", "testing-label-")
    check("testing-label-value" not in w.kubectl("get", "pod", "pause", "-L", "testing-label"))


@test("[sig-cli] Kubectl client Kubectl patch should add annotations for pods in rc")
def patch(w):
    create(w, CONTROLLER)
    for pod in w.ready_pods("app=agnhost", 1):
        w.kubectl("patch", "pod", pod["metadata"]["name"], "-p", '{"metadata":{"annotations":{"x":"y"}}}')
        equal(w.get_pod(pod["metadata"]["name"])["metadata"]["annotations"].get("x"), "y", "annotation")


@test("[sig-cli] Kubectl client Kubectl replace should update a single-container pod's image")
def replace(w):
    w.kubectl("run", "e2e-test-httpd-pod", f"--image={HTTPD}", "--pod-running-timeout=2m0s", "--labels=run=e2e-test-httpd-pod",
              "--image-pull-policy=IfNotPresent")
    w.phase("e2e-test-httpd-pod", "Running")
    text = w.kubectl("get", "pod", "e2e-test-httpd-pod", "-o", "json").replace(HTTPD, BUSYBOX, 1)
    w.kubectl("replace", "-f", "-", stdin=text)
    equal(w.get_pod("e2e-test-httpd-pod")["spec"]["containers"][0]["image"], BUSYBOX, "image")
    w.kubectl("delete", "pods", "e2e-test-httpd-pod", "--grace-period=1")


@test("[sig-cli] Kubectl client Kubectl run pod should create a pod from an image when restart is Never")
def run_never(w):
    w.kubectl("run", "e2e-test-httpd-pod", "--restart=Never", "--pod-running-timeout=2m0s", f"--image={HTTPD}")
    spec = w.get_pod("e2e-test-httpd-pod")["spec"]
    equal((spec["containers"][0]["image"], spec["restartPolicy"]), (HTTPD, "Never"), "pod")


@test("[sig-cli] Kubectl client Kubectl server-side dry-run should check if kubectl can dry-run update Pods")
def dry_run(w):
    w.kubectl("run", "e2e-test-httpd-pod", f"--image={HTTPD}", "--labels=run=e2e-test-httpd-pod")
    patched = json.dumps({"spec": {"containers": [{"name": "e2e-test-httpd-pod", "image": BUSYBOX}]}})
    w.kubectl("patch", "pod", "e2e-test-httpd-pod", "-p", patched, "--dry-run=server")
    equal(w.get_pod("e2e-test-httpd-pod")["spec"]["containers"][0]["image"], HTTPD, "image")


@test("[sig-cli] Kubectl client Proxy server should support proxy with --port 0")
def proxy_port(w):
    process = subprocess.Popen(["kubectl", "proxy", "-p", "0", "--disable-filter"], stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "KUBECONFIG": w.api.kubeconfig})
    try:
        port = int(re.search(r"127.0.0.1:(\d+)", process.stdout.readline()).group(1))
        with urllib.request.urlopen(f"http://localhost:{port}/api/", timeout=10) as said:
            check(json.loads(said.read())["versions"])
    finally:
        process.kill()


@test("[sig-cli] Kubectl client Proxy server should support --unix-socket=/path")
def proxy_socket(w):
    path = os.path.join(tempfile.mkdtemp(), "test")
    process = subprocess.Popen(["kubectl", "proxy", f"--unix-socket={path}"], stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "KUBECONFIG": w.api.kubeconfig})
    try:
        process.stdout.readline()
        said = subprocess.run(["curl", "-s", "--unix-socket", path, "http://localhost/api"], capture_output=True, text=True)
        check(json.loads(said.stdout)["versions"], said.stdout)
    finally:
        process.kill()


UPDATE_DEMO = {"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "update-demo-nautilus"}, "spec": {
    "replicas": 2, "selector": {"name": "update-demo", "version": "nautilus"}, "template": {
        "metadata": {"labels": {"name": "update-demo", "version": "nautilus"}}, "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [container("update-demo", AGNHOST, args=["netexec", "--http-port=80"], ports=[{"containerPort": 80}])]}}}}


def validate_demo(w, count):
    """By templates of kubectl, as upstream."""
    template = "--template={{range.items}}{{.metadata.name}} {{end}}"
    running = ('--template={{if (exists . "status" "containerStatuses")}}{{range .status.containerStatuses}}'
               '{{if (and (eq .name "update-demo") (exists . "state" "running"))}}true{{end}}{{end}}{{end}}')

    def match():
        names = w.kubectl("get", "pods", "-o", "template", template, "-l", "name=update-demo").split()
        equal(len(names), count, "pods")
        for name in names:
            equal(w.kubectl("get", "pods", name, "-o", "template", running), "true", name)
            w.api.call("GET", w.core("pods", name) + "/proxy/hostname")
        return True

    w.until(match, 120, f"{count} of update-demo")


@test("[sig-cli] Kubectl client Update Demo should create and stop a replication controller",
      "the image answers /hostname, not a picture")
def update_demo(w):
    create(w, UPDATE_DEMO)
    validate_demo(w, 2)
    w.kubectl("delete", "--grace-period=0", "--force", "-f", "-", stdin=json.dumps(UPDATE_DEMO))
    check(not w.kubectl("get", "rc,svc", "-l", "name=update-demo", "--no-headers").strip())
    w.until(lambda: not w.kubectl("get", "pods", "-l", "name=update-demo", "-o", "name").strip(), 60, "no pods")


@test("[sig-cli] Kubectl client Update Demo should scale a replication controller",
      "the image answers /hostname, not a picture")
def scale_demo(w):
    create(w, UPDATE_DEMO)
    validate_demo(w, 2)
    for n in (1, 2):
        w.kubectl("scale", "rc", "update-demo-nautilus", f"--replicas={n}", "--timeout=5m")
        validate_demo(w, n)


@test("[sig-cli] Kubectl client Guestbook application should create and stop a working application",
      "the guestbook is the stand-in's; manifests are equivalent ones")
def guestbook(w):
    def service(name, labels, port, target):
        create(w, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": labels},
                   "spec": {"ports": [{"port": port, "targetPort": target}], "selector": labels}})

    def deployment(name, labels, replicas, args, port):
        create(w, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
                "containers": [container(name, AGNHOST, args=args, ports=[{"containerPort": port}],
                                         resources={"requests": {"cpu": "10m", "memory": "20Mi"}})]}}}})

    labels = lambda role: {"app": "agnhost", "role": role, "tier": "backend"}
    front = {"app": "guestbook", "tier": "frontend"}
    service("agnhost-replica", labels("replica"), 6379, 6379)
    service("agnhost-primary", labels("primary"), 6379, 6379)
    service("frontend", front, 80, 80)
    deployment("frontend", front, 3, ["guestbook", "--backend-port", "6379"], 80)
    deployment("agnhost-primary", labels("primary"), 1, ["guestbook", "--http-port", "6379"], 6379)
    deployment("agnhost-replica", labels("replica"), 2, ["guestbook", "--replicaof", "agnhost-primary", "--http-port", "6379"], 6379)
    w.ready_pods("app=guestbook,tier=frontend", 3)
    w.ready_pods("app=agnhost,role=replica", 2)
    ask = lambda query: w.api.call("GET", w.core("services", "frontend") + f"/proxy/guestbook?{query}").json()
    w.until(lambda: ask("cmd=get&key=messages") == {"data": ""}, 120, "an empty guestbook", every=1)
    w.until(lambda: ask("cmd=set&key=messages&value=TestEntry") == {"data": "Updated"}, 60, "updated", every=1)
    w.until(lambda: ask("cmd=get&key=messages") == {"data": "TestEntry"}, 120, "the entry", every=1)


@test("[sig-cli] Kubectl logs logs should be able to retrieve and filter logs")
def logs(w):
    w.kubectl("run", "logs-generator", f"--image={AGNHOST}", "--restart=Never", "--pod-running-timeout=2m0s", "--",
              "logs-generator", "--log-lines-total", "100", "--run-duration", "20s")
    w.until(lambda: "/api/v1/namespaces" in w.kubectl("logs", "logs-generator", "logs-generator"), 60, "a log")
    said = w.kubectl("logs", "logs-generator", "logs-generator", "--tail=1")
    check(said and len(said.splitlines()) == 1, said)
    equal(len(w.kubectl("logs", "logs-generator", "logs-generator", "--limit-bytes=1")), 1, "bytes")
    lines = w.kubectl("logs", "logs-generator", "logs-generator", "--tail=1", "--timestamps").strip().splitlines()
    equal(len(lines), 1, "lines")
    check(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|[+-]\d\d:\d\d) ", lines[0]), lines[0])
    time.sleep(2.5)
    recent = len(w.kubectl("logs", "logs-generator", "logs-generator", "--since=1s").splitlines())
    older = len(w.kubectl("logs", "logs-generator", "logs-generator", "--since=24h").splitlines())
    check(recent < older, f"{recent} and {older}")
