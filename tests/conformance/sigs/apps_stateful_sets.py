"""[sig-apps]: test/e2e/apps/statefulset.go."""

import time

from frame import HTTPD, NEW_HTTPD, STRATEGIC, Events, check, container, equal, is_ready, test

from .workloads import APPS, scale_tests, status_tests, template, workload

PROBE = {"httpGet": {"path": "/index.html", "port": 80}, "periodSeconds": 1, "successThreshold": 1, "failureThreshold": 1}
SERVE = ["/bin/sh", "-c", "mkdir -p /www && echo hello > /www/index.html && exec httpd -f -p 80 -h /www"]


def stateful_set(w, name, replicas, labels, **spec):
    selector = dict(labels)
    w.api.create(w.core("services"), {"metadata": {"name": "test"}, "spec": {
        "selector": selector, "clusterIP": "None", "ports": [{"port": 80, "name": "http", "protocol": "TCP"}]}})
    body = workload(name, labels, container("webserver", HTTPD, command=SERVE, readinessProbe=PROBE), replicas,
                    serviceName="test", **spec)
    return w.api.create(w.apis(APPS, "statefulsets"), body)


def set_pods(w, name, labels):
    selector = ",".join(f"{k}={v}" for k, v in labels.items())
    return sorted((p for p in w.pods(selector)), key=lambda p: int(p["metadata"]["name"].rsplit("-", 1)[1]))


def set_ready(w, name, labels, count, seconds=240):
    def condition():
        pods = set_pods(w, name, labels)
        equal([(p["metadata"]["name"], is_ready(p)) for p in pods], [(f"{name}-{i}", True) for i in range(count)], "pods")
        return pods

    return w.until(condition, seconds, f"{count} ready pods of {name}")


def set_status(w, name, seconds=120):
    def condition():
        s = w.api.get(w.apis(APPS, "statefulsets", name))
        check(s["status"].get("observedGeneration", 0) >= s["metadata"]["generation"], s["status"])
        return s

    return w.until(condition, seconds, "observed")


def break_probe(w, name, labels, back=False):
    a, b = ("/tmp/index.html", "/www/index.html") if back else ("/www/index.html", "/tmp/index.html")
    for pod in set_pods(w, name, labels):
        w.shell(pod["metadata"]["name"], f"mv -v {a} {b} || true")


def ready_replicas(w, name, n):
    w.until(lambda: w.api.get(w.apis(APPS, "statefulsets", name))["status"].get("readyReplicas", 0) == n, 120, f"{n} ready")


def set_replicas(w, name, n):
    w.api.retry_update(w.apis(APPS, "statefulsets", name), lambda s: s["spec"].update(replicas=n))


def set_image(w, name, image):
    return w.api.retry_update(w.apis(APPS, "statefulsets", name),
                              lambda s: s["spec"]["template"]["spec"]["containers"][0].update(image=image))


def rolled(w, name, labels, image, revision_of, count=3):
    def condition():
        s = w.api.get(w.apis(APPS, "statefulsets", name))
        equal(s["status"]["currentRevision"], s["status"]["updateRevision"], "revisions")
        for p in set_pods(w, name, labels):
            equal((p["spec"]["containers"][0]["image"], p["metadata"]["labels"]["controller-revision-hash"], is_ready(p)),
                  (image, s["status"]["updateRevision"], True), p["metadata"]["name"])
        equal(len(set_pods(w, name, labels)), count, "pods")
        return s

    return w.until(condition, 240, revision_of)


BASIC = "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] "


@test(BASIC + "should perform rolling updates and roll backs of template modifications")
def set_rolling(w):
    name, labels = "ss2", {"foo": "bar", "baz": "blah"}
    stateful_set(w, name, 3, labels)
    set_ready(w, name, labels, 3)
    s = set_status(w, name)
    first = s["status"]["currentRevision"]
    equal(first, s["status"]["updateRevision"], "revisions")
    check(all(p["metadata"]["labels"]["controller-revision-hash"] == first for p in set_pods(w, name, labels)))
    # A pod whose probe fails must not keep the update from being done, in the order of ordinals.
    pod = set_pods(w, name, labels)[1]["metadata"]["name"]
    w.shell(pod, "mv -v /www/index.html /tmp/index.html || true")
    ready_replicas(w, name, 2)
    set_image(w, name, NEW_HTTPD)
    s = set_status(w, name)
    second = s["status"]["updateRevision"]
    check(first != second, "no new revision")
    w.shell(pod, "mv -v /tmp/index.html /www/index.html || true")
    rolled(w, name, labels, NEW_HTTPD, "rolled out")
    pod = set_pods(w, name, labels)[1]["metadata"]["name"]
    w.shell(pod, "mv -v /www/index.html /tmp/index.html || true")
    ready_replicas(w, name, 2)
    set_image(w, name, HTTPD)
    s = set_status(w, name)
    equal(s["status"]["updateRevision"], first, "a rollback finds its revision")
    w.shell(pod, "mv -v /tmp/index.html /www/index.html || true")
    rolled(w, name, labels, HTTPD, "rolled back")


@test(BASIC + "should perform canary updates and phased rolling updates of template modifications")
def set_canary(w):
    name, labels = "ss2", {"foo": "bar", "baz": "blah"}
    stateful_set(w, name, 3, labels, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 3}})
    set_ready(w, name, labels, 3)
    s = set_status(w, name)
    current = s["status"]["currentRevision"]
    set_image(w, name, NEW_HTTPD)
    s = w.until(lambda: (lambda s: s if s["status"]["updateRevision"] != current else None)(set_status(w, name)), 60, "new")
    update = s["status"]["updateRevision"]
    equal(s["status"]["currentRevision"], current, "current")
    time.sleep(1)
    check(all(p["spec"]["containers"][0]["image"] == HTTPD for p in set_pods(w, name, labels)))
    partition = lambda n: w.api.retry_update(w.apis(APPS, "statefulsets", name), lambda s: s["spec"].update(
        updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": n}}))

    def split(at):
        def condition():
            pods = set_pods(w, name, labels)
            equal([(p["spec"]["containers"][0]["image"], p["metadata"]["labels"]["controller-revision-hash"], is_ready(p))
                   for p in pods],
                  [(HTTPD, current, True) if i < at else (NEW_HTTPD, update, True) for i in range(3)], "pods")
            return True

        w.until(condition, 180, f"partition {at}")

    partition(2)
    split(2)
    for at in [0, 2]:
        w.api.delete(w.core("pods", f"{name}-{at}"), {"gracePeriodSeconds": 0})
    time.sleep(1)
    split(2)
    for at in [1, 0]:
        partition(at)
        split(at)
    w.until(lambda: w.api.get(w.apis(APPS, "statefulsets", name))["status"]["currentRevision"] == update, 60, "current")


def ordered(events, kind, names, w):
    def condition():
        left = list(names)
        for event in list(events.seen):
            if event["type"] == kind and left and event["object"]["metadata"]["name"] == left[0]:
                left.pop(0)
        return not left

    w.until(condition, 60, f"{kind} in order {names}; {[(e['type'], e['object']['metadata']['name']) for e in events.seen]}")


def stays(w, name, labels, count, seconds=10):
    w.never(lambda: len(set_pods(w, name, labels)) != count, seconds, f"not {count} pods")


@test(BASIC + "Scaling should happen in predictable order and halt if any stateful pod is unhealthy [Slow]")
def set_order(w):
    name, labels = "ss", {"baz": "blah", "foo": "bar"}
    events = Events(w, w.core("pods"), labelSelector="baz=blah,foo=bar")
    stateful_set(w, name, 1, labels)
    set_ready(w, name, labels, 1)
    break_probe(w, name, labels)
    ready_replicas(w, name, 0)
    set_replicas(w, name, 3)
    stays(w, name, labels, 1)
    break_probe(w, name, labels, back=True)
    set_ready(w, name, labels, 3)
    ordered(events, "ADDED", ["ss-0", "ss-1", "ss-2"], w)
    events = Events(w, w.core("pods"), labelSelector="baz=blah,foo=bar")
    break_probe(w, name, labels)
    ready_replicas(w, name, 0)
    set_replicas(w, name, 0)
    stays(w, name, labels, 3)
    break_probe(w, name, labels, back=True)
    w.until(lambda: not set_pods(w, name, labels), 120, "no pods")
    ordered(events, "DELETED", ["ss-2", "ss-1", "ss-0"], w)


@test(BASIC + "Burst scaling should run to completion even with unhealthy pods [Slow]")
def set_burst(w):
    name, labels = "ss", {"baz": "blah", "foo": "bar"}
    stateful_set(w, name, 1, labels, podManagementPolicy="Parallel")
    set_ready(w, name, labels, 1)
    break_probe(w, name, labels)
    ready_replicas(w, name, 0)
    set_replicas(w, name, 3)
    w.until(lambda: len(set_pods(w, name, labels)) == 3, 10, "three pods")
    w.until(lambda: all(p["status"]["phase"] == "Running" for p in set_pods(w, name, labels)), 60, "three pods run")
    break_probe(w, name, labels, back=True)
    set_ready(w, name, labels, 3)
    break_probe(w, name, labels)
    ready_replicas(w, name, 0)
    set_replicas(w, name, 0)
    w.until(lambda: not set_pods(w, name, labels), 60, "no pods")
    w.until(lambda: w.api.get(w.apis(APPS, "statefulsets", name))["status"].get("replicas") == 0, 60, "status")


@test(BASIC + "Should recreate evicted statefulset")
def set_evicted(w):
    node, name, labels = w.nodes()[0]["metadata"]["name"], "ss", {"baz": "blah", "foo": "bar"}
    conflict = {"hostPort": 21017, "containerPort": 21017, "name": "conflict"}
    w.api.create(w.core("pods"), w.pod("test-pod", nodeName=node, containers=[container("webserver", HTTPD, ports=[conflict])]))
    w.phase("test-pod", "Running")
    events = Events(w, w.core("pods"), fieldSelector="metadata.name=ss-0")
    w.api.create(w.apis(APPS, "statefulsets"), workload(name, labels, container("webserver", HTTPD, ports=[conflict]), 1,
                                                        serviceName="test", template=template(
        labels, container("webserver", HTTPD, ports=[conflict]), nodeName=node)))
    event = events.wait("DELETED", seconds=120)
    w.api.delete(w.core("pods", "test-pod"), {"gracePeriodSeconds": 0})

    def again():
        pod = w.get_pod("ss-0")
        return pod["status"]["phase"] == "Running" and pod["metadata"]["uid"] != event["object"]["metadata"]["uid"]

    w.until(again, 180, "ss-0 runs again")


@test(BASIC + "should have a working scale subresource")
def set_scale(w):
    name, labels = "ss", {"baz": "blah", "foo": "bar"}
    stateful_set(w, name, 1, labels)
    set_ready(w, name, labels, 1)
    w.until(lambda: w.api.get(w.apis(APPS, "statefulsets", name))["status"].get("replicas") == 1, 30, "status")
    scale_tests(w, w.apis(APPS, "statefulsets"), name, 4)


@test(BASIC + "should list, patch and delete a collection of StatefulSets")
def set_collection(w):
    path, name, labels = w.apis(APPS, "statefulsets"), "test-ss", {"baz": "blah", "foo": "bar"}
    stateful_set(w, name, 1, labels)
    set_ready(w, name, labels, 1)
    w.api.patch(f"{path}/{name}", {"metadata": {"labels": {name: "patched"}}, "spec": {
        "replicas": 2, "template": {"spec": {"TerminationGracePeriodSeconds": 0, "containers": [
            {"name": "webserver", "image": NEW_HTTPD}]}}}}, STRATEGIC)
    found = w.api.get(f"{path}/{name}")
    equal((found["spec"]["replicas"], found["spec"]["template"]["spec"]["containers"][0]["image"]), (2, NEW_HTTPD), "patched")
    w.until(lambda: w.api.get(f"{path}/{name}")["status"].get("readyReplicas") == 2, 120, "two ready")
    everywhere = f"/apis/apps/v1/statefulsets?labelSelector={name}%3Dpatched"
    equal(len(w.api.get(everywhere)["items"]), 1, "listed")
    w.api.call("DELETE", f"{path}?labelSelector={name}%3Dpatched", {"gracePeriodSeconds": 1})
    w.until(lambda: not w.api.get(everywhere)["items"], 60, "gone")


@test(BASIC + "should validate Statefulset Status endpoints")
def set_status_endpoints(w):
    name, labels = "ss", {"e2e": "testing"}
    stateful_set(w, name, 1, labels)
    set_ready(w, name, labels, 1)
    status_tests(w, w.apis(APPS, "statefulsets"), name, labels)
