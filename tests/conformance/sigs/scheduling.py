"""[sig-scheduling]: test/e2e/scheduling/*.go; and [sig-architecture]."""

import time

from frame import PAUSE, STRATEGIC, Events, Refused, check, condition_of, container, equal, refused, test, word

FOO = "scheduling.k8s.io/foo"


def resources(cpu="", memory="", storage=""):
    return {k: v for k, v in [("cpu", cpu), ("memory", memory), ("ephemeral-storage", storage)] if v}


def quantity(text):
    """A quantity in thousandths."""
    text = str(text)
    for suffix, factor in [("Ki", 2**10), ("Mi", 2**20), ("Gi", 2**30), ("m", 0.001), ("k", 1e3), ("M", 1e6), ("G", 1e9)]:
        if text.endswith(suffix):
            return round(float(text.removesuffix(suffix)) * factor * 1000)
    return round(float(text) * 1000)


def same(found, wanted, what):
    equal({k: quantity(v) for k, v in found.items()}, {k: quantity(v) for k, v in wanted.items()}, what)


@test("[sig-architecture] Conformance Tests should have at least two untainted nodes")
def two_nodes(w):
    check(len(w.nodes()) >= 2, "two nodes")


# === LimitRange ===


def limit_range(name, labels):
    return {"metadata": {"name": name, "labels": labels}, "spec": {"limits": [{
        "type": "Container", "min": resources("50m", "100Mi", "100Gi"), "max": resources("500m", "500Mi", "500Gi"),
        "default": resources("500m", "500Mi", "500Gi"), "defaultRequest": resources("100m", "200Mi", "200Gi")}]}}


def sized(name, requests, limits):
    return {"metadata": {"name": name}, "spec": {"containers": [
        container("pause", PAUSE, resources={"requests": requests, "limits": limits})]}}


@test("[sig-scheduling] LimitRange should create a LimitRange with defaults and ensure pod has those defaults applied.")
def limits(w):
    path, value = w.core("limitranges"), word(8)
    events = Events(w, path, labelSelector=f"time={value}")
    w.api.create(path, limit_range("limit-range", {"time": value}))
    events.wait("ADDED")
    found = w.api.get(f"{path}/limit-range")["spec"]["limits"][0]
    same(found["default"], resources("500m", "500Mi", "500Gi"), "default")
    pod = w.api.create(w.core("pods"), sized("pod-no-resources", {}, {}))
    got = pod["spec"]["containers"][0]["resources"]
    same(got["requests"], resources("100m", "200Mi", "200Gi"), "requests")
    same(got["limits"], resources("500m", "500Mi", "500Gi"), "limits")
    pod = w.api.create(w.core("pods"), sized("pod-partial-resources", resources("", "150Mi", "150Gi"), resources("300m")))
    got = pod["spec"]["containers"][0]["resources"]
    same(got["requests"], resources("300m", "150Mi", "150Gi"), "requests")
    same(got["limits"], resources("300m", "500Mi", "500Gi"), "limits")
    refused(lambda: w.api.create(w.core("pods"), sized("pod", resources("10m", "50Mi", "50Gi"), {})))
    refused(lambda: w.api.create(w.core("pods"), sized("pod", resources("600m", "600Mi", "600Gi"), {})))
    w.api.retry_update(f"{path}/limit-range", lambda r: r["spec"]["limits"][0].update(min=resources("9m", "49Mi", "49Gi")))
    same(w.api.get(f"{path}/limit-range")["spec"]["limits"][0]["min"], resources("9m", "49Mi", "49Gi"), "min")
    w.api.create(w.core("pods"), sized("pod", resources("10m", "50Mi", "50Gi"), {}))
    refused(lambda: w.api.create(w.core("pods"), sized("pod2", resources("600m", "600Mi", "600Gi"), {})))
    w.api.delete(f"{path}/limit-range", {"gracePeriodSeconds": 30})
    w.until(lambda: not w.api.get(path)["items"], 30, "gone")
    w.until(lambda: w.api.create(w.core("pods"), sized("pod2", resources("600m", "600Mi", "600Gi"), {})), 30, "a pod")


@test("[sig-scheduling] LimitRange should list, patch and delete a LimitRange by collection")
def limits_collection(w):
    name, other = f"e2e-limitrange-{word()}", f"{w.ns}-2"
    w.api.create("/api/v1/namespaces", {"metadata": {"name": other}})
    w.cleanups.append(lambda: w.api.delete(f"/api/v1/namespaces/{other}"))
    labels = {"e2e-test": name, name: "created"}
    made = w.api.create(w.core("limitranges"), limit_range(name, labels))
    w.api.create(w.core("limitranges", ns=other), limit_range(name, labels))
    everywhere = f"/api/v1/limitranges?labelSelector=e2e-test%3D{name}"
    equal(len(w.api.get(everywhere)["items"]), 2, "listed")
    items = made["spec"]["limits"]
    items[0]["min"] = resources("9m", "49Mi", "49Gi")
    patched = w.api.patch(w.core("limitranges", name), {"metadata": {
        "creationTimestamp": made["metadata"]["creationTimestamp"], "labels": {name: "patched"}},
        "spec": {"limits": items}}, STRATEGIC)
    equal(patched["metadata"]["labels"][name], "patched", "label")
    same(patched["spec"]["limits"][0]["min"], items[0]["min"], "min")
    w.api.call("DELETE", w.core("limitranges") + f"?labelSelector={name}%3Dpatched")
    w.until(lambda: len(w.api.get(everywhere)["items"]) == 1, 10, "one left")


# === Predicates ===


def not_scheduled(w, name):
    """Upstream waits for a FailedScheduling event and for the condition."""
    def condition():
        pod = w.get_pod(name)
        check(not pod["spec"].get("nodeName"), "scheduled")
        events = w.api.get(w.core("events") + f"?fieldSelector=involvedObject.name%3D{name}%2Creason%3DFailedScheduling")
        return condition_of(pod, "PodScheduled") == "False" and events["items"]

    return w.until(condition, 60, f"{name} is not scheduled")


def scheduled(w, name):
    def condition():
        pod = w.get_pod(name)
        check(pod["spec"].get("nodeName"), pod["status"])
        return pod

    return w.until(condition, 60, f"{name} is scheduled")


@test("[sig-scheduling] SchedulerPredicates [Serial] validates resource limits of pods that are allowed to run")
def predicate_resources(w):
    nodes = w.nodes()
    for node in nodes:
        name = node["metadata"]["name"]
        w.kubectl("label", "node", name, f"node={name}-{w.ns[-5:]}", "--overwrite")
        w.cleanups.append(lambda n=name: w.kubectl("label", "node", n, "node-"))
    used = {n["metadata"]["name"]: 0 for n in nodes}
    for pod in w.api.get("/api/v1/pods")["items"]:
        if pod["spec"].get("nodeName") in used and pod["status"].get("phase") not in {"Succeeded", "Failed"}:
            used[pod["spec"]["nodeName"]] += sum(quantity(c.get("resources", {}).get("requests", {}).get("cpu", 0))
                                                 for c in pod["spec"]["containers"])
    for i, node in enumerate(nodes):
        name = node["metadata"]["name"]
        free = quantity(node["status"]["allocatable"]["cpu"]) - used[name]
        request = f"{int(free * 7 / 10)}m"
        w.api.create(w.core("pods"), w.pod(f"filler-pod-{i}", containers=[container("filler", PAUSE, resources={
            "requests": {"cpu": request}, "limits": {"cpu": request}})],
            nodeSelector={"node": f"{name}-{w.ns[-5:]}"}))
        w.phase(f"filler-pod-{i}", "Running")
    cpu = f"{max(int(quantity(n['status']['allocatable']['cpu']) * 5 / 10) for n in nodes)}m"
    w.api.create(w.core("pods"), w.pod("additional-pod", containers=[container("pause", PAUSE, resources={
        "requests": {"cpu": cpu}, "limits": {"cpu": cpu}})]))
    events = not_scheduled(w, "additional-pod")
    check("Insufficient cpu" in events[0]["message"], events[0]["message"])


@test("[sig-scheduling] SchedulerPredicates [Serial] validates that NodeSelector is respected if not matching")
def predicate_selector_not(w):
    w.api.create(w.core("pods"), w.pod("restricted-pod", containers=[container("pause", PAUSE)],
                                       nodeSelector={"label": "nonempty"}, labels={"name": "restricted"}))
    not_scheduled(w, "restricted-pod")


@test("[sig-scheduling] SchedulerPredicates [Serial] validates that NodeSelector is respected if matching")
def predicate_selector(w):
    w.run("without-label", containers=[container("without-label", PAUSE)])
    node = w.get_pod("without-label")["spec"]["nodeName"]
    key = f"kubernetes.io/e2e-{word()}"
    w.api.retry_update(f"/api/v1/nodes/{node}", lambda n: n["metadata"]["labels"].update({key: "42"}))
    w.cleanups.append(lambda: w.api.retry_update(f"/api/v1/nodes/{node}", lambda n: n["metadata"]["labels"].pop(key)))
    w.run("with-labels", containers=[container("with-labels", PAUSE)], nodeSelector={key: "42"})
    equal(w.get_pod("with-labels")["spec"]["nodeName"], node, "node")


@test("[sig-scheduling] SchedulerPredicates [Serial] validates that there exists conflict between pods with same hostPort and protocol but one using 0.0.0.0 hostIP")
def predicate_host_port(w):
    node = w.nodes()[0]["metadata"]["name"]
    key = f"kubernetes.io/e2e-{word()}"
    w.api.retry_update(f"/api/v1/nodes/{node}", lambda n: n["metadata"]["labels"].update({key: "95"}))
    w.cleanups.append(lambda: w.api.retry_update(f"/api/v1/nodes/{node}", lambda n: n["metadata"]["labels"].pop(key)))
    host = next(a["address"] for a in w.nodes()[0]["status"]["addresses"] if a["type"] == "InternalIP")
    pod = lambda name, ip: w.api.create(w.core("pods"), w.pod(name, nodeSelector={key: "95"}, containers=[container(
        "agnhost", args=["netexec", "--http-port=8080", "--udp-port=8080"],
        ports=[{"hostPort": 54322, "containerPort": 8080, "protocol": "TCP", "hostIP": ip}])]))
    pod("pod4", "0.0.0.0")
    w.ready("pod4")
    pod("pod5", host)
    not_scheduled(w, "pod5")


# === Preemption ===


def classes(w):
    made = {}
    for name, value in [("low", 1), ("medium", 100), ("high", 1000)]:
        made[name] = f"{w.ns}-{name}-priority"
        w.api.create("/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": made[name]}, "value": value})
        w.cleanups.append(lambda n=made[name]: w.api.delete(f"/apis/scheduling.k8s.io/v1/priorityclasses/{n}"))
    return made


def advertise(w, node, resource, count):
    """As upstream: capacity and, as a kubelet would find, allocatable follows."""
    path = f"/api/v1/nodes/{node['metadata']['name']}"
    w.api.patch(f"{path}/status", {"status": {"capacity": {resource: count}}}, STRATEGIC)
    w.cleanups.append(lambda: w.api.patch(f"{path}/status", {"status": {"capacity": {resource: None}}}, STRATEGIC))


def asking(resource, n):
    return {"requests": {resource: n}, "limits": {resource: n}}


def on(node):
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node["metadata"]["name"]]}]}]}}}


def victims(w, names):
    pods = []
    for i, node in enumerate(w.nodes()):
        advertise(w, node, FOO, "3")
        name = names["low"] if i == 0 else names["medium"]
        pods.append(w.api.create(w.core("pods"), w.pod(
            f"pod{i}-{'low' if i == 0 else 'medium'}", priorityClassName=name, affinity=on(node),
            containers=[container("pause", PAUSE, resources=asking(FOO, "2"))])))
    for pod in pods:
        w.phase(pod["metadata"]["name"], "Running", seconds=60)
    return pods


def preempted(w, pods):
    first = w.exists(w.core("pods", pods[0]["metadata"]["name"]))
    check(first is None or first["metadata"].get("deletionTimestamp"), "not preempted")
    for pod in pods[1:]:
        check(not w.get_pod(pod["metadata"]["name"])["metadata"].get("deletionTimestamp"), "wrongly preempted")


@test("[sig-scheduling] SchedulerPreemption [Serial] validates basic preemption works")
def preemption_basic(w):
    names = classes(w)
    pods = victims(w, names)
    w.api.create(w.core("pods"), w.pod("preemptor-pod", priorityClassName=names["high"],
                                       containers=[container("pause", PAUSE, resources=asking(FOO, "2"))]))
    w.phase("preemptor-pod", "Running")
    preempted(w, pods)


@test("[sig-scheduling] SchedulerPreemption [Serial] validates lower priority pod preemption by critical pod")
def preemption_critical(w):
    pods = victims(w, classes(w))
    path = w.core("pods", "critical-pod", ns="kube-system")
    w.cleanups.append(lambda: w.api.delete(path, {"gracePeriodSeconds": 0}))
    w.api.create(w.core("pods", ns="kube-system"), w.pod(
        "critical-pod", priorityClassName="system-cluster-critical",
        containers=[container("pause", PAUSE, resources=asking(FOO, "2"))]))
    w.until(lambda: w.api.get(path)["status"].get("phase") == "Running", 120, "critical-pod runs")
    preempted(w, pods)


@test("[sig-scheduling] SchedulerPreemption [Serial] validates pod disruption condition is added to the preempted pod")
def preemption_condition(w):
    names, node = classes(w), w.nodes()[0]
    advertise(w, node, FOO, "1")
    finalizer = "example.com/test-finalizer"
    w.api.create(w.core("pods"), w.pod("victim-pod", priorityClassName=names["low"], finalizers=[finalizer], affinity=on(node),
                                       containers=[container("pause", PAUSE, resources=asking(FOO, "1"))]))
    w.phase("victim-pod", "Running", seconds=60)
    w.api.create(w.core("pods"), w.pod("preemptor-pod", priorityClassName=names["high"], affinity=on(node),
                                       containers=[container("pause", PAUSE, resources=asking(FOO, "1"))]))
    w.phase("preemptor-pod", "Running")
    victim = w.get_pod("victim-pod")
    condition = next(c for c in victim["status"]["conditions"] if c["type"] == "DisruptionTarget")
    equal((condition["status"], condition["reason"]), ("True", "PreemptionByScheduler"), "condition")
    w.api.retry_update(w.core("pods", "victim-pod"), lambda p: p["metadata"].update(finalizers=None))


@test("[sig-scheduling] SchedulerPreemption [Serial] PreemptionExecutionPath runs ReplicaSets to verify preemption running path")
def preemption_path(w):
    node, cpu = w.nodes()[0], "example.com/fakecpu"
    advertise(w, node, cpu, "1k")
    for i in range(1, 5):
        w.api.create("/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": f"p{i}"}, "value": i})
        w.cleanups.append(lambda i=i: w.api.delete(f"/apis/scheduling.k8s.io/v1/priorityclasses/p{i}"))
    events = Events(w, w.core("pods"))
    host = {"kubernetes.io/hostname": node["metadata"]["labels"]["kubernetes.io/hostname"]}
    for i, size in [(1, "200"), (2, "300"), (3, "450")]:
        w.api.create(w.apis("apps/v1", "replicasets"), {"metadata": {"name": f"rs-pod{i}"}, "spec": {
            "replicas": 1, "selector": {"matchLabels": {"name": f"pod{i}"}}, "template": {
                "metadata": {"labels": {"name": f"pod{i}"}}, "spec": {
                    "priorityClassName": f"p{i}", "nodeSelector": host, "terminationGracePeriodSeconds": 0,
                    "containers": [container("pause", PAUSE, resources=asking(cpu, size))]}}}})
        w.until(lambda: w.api.get(w.apis("apps/v1", "replicasets", f"rs-pod{i}"))["status"].get("availableReplicas") == 1, 60, "rs")
    w.api.create(w.core("pods"), w.pod("pod4", labels={"name": "pod4"}, priorityClassName="p4", nodeSelector=host,
                                       containers=[container("pause", PAUSE, resources=asking(cpu, "500"))]))
    scheduled(w, "pod4")

    def counts():
        seen = {e["object"]["metadata"]["name"] for e in list(events.seen) if e["type"] == "ADDED"}
        return [len([n for n in seen if n.startswith(f"rs-pod{i}")]) for i in (1, 2, 3)]

    w.until(lambda: counts() == [2, 2, 1], 60, f"pods of the ReplicaSets: {counts()}")
    time.sleep(5)
    equal(counts(), [2, 2, 1], "stable")


@test("[sig-scheduling] SchedulerPreemption [Serial] PriorityClass endpoints verify PriorityClass endpoints can be operated with different HTTP methods")
def priority_class(w):
    path = "/apis/scheduling.k8s.io/v1/priorityclasses"
    for i in (1, 2):
        w.api.create(path, {"metadata": {"name": f"p{i}"}, "value": i})
        w.cleanups.append(lambda i=i: w.api.delete(f"{path}/p{i}"))
    for attempt in [lambda: w.api.patch(f"{path}/p1", {"value": 10}, STRATEGIC),
                    lambda: w.api.retry_update(f"{path}/p2", lambda p: p.update(value=20))]:
        try:
            attempt()
        except Refused as error:
            equal(error.code, 422, "code")
        else:
            check(False, "changed")
    w.api.patch(f"{path}/p1", {"description": "updated description"}, STRATEGIC)
    w.api.retry_update(f"{path}/p2", lambda p: p.update(description="updated description"))
    w.api.get(path)
    for i in (1, 2):
        found = w.api.get(f"{path}/p{i}")
        equal((found["value"], found["description"]), (i, "updated description"), "class")
