"""[sig-apps]: test/e2e/apps/{replica_set,rc}.go."""


from frame import HTTPD, NGINX, PAUSE, STRATEGIC, Events, check, condition_of, container, equal, test, word

from .workloads import APPS, controlled, scale_tests, status_tests, template, workload


@test("[sig-apps] ReplicaSet should serve a basic image on each replica with a public image")
def rs_image(w):
    serve_image(w, w.apis(APPS, "replicasets"), lambda n, c: workload(n, {"name": n}, c))


@test("[sig-apps] ReplicationController should serve a basic image on each replica with a public image")
def rc_image(w):
    serve_image(w, w.core("replicationcontrollers"), rc_body)


def rc_body(name, one, replicas=1):
    return {"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"name": name},
                                                 "template": template({"name": name}, one)}}


def serve_image(w, path, body):
    name = f"my-hostname-basic-{word()}"
    w.api.create(path, body(name, container(name, args=["serve-hostname"], ports=[{"containerPort": 9376}])))
    for pod in w.ready_pods(f"name={name}", 1):
        said = w.until(lambda: w.api.call("GET", w.core("pods", pod["metadata"]["name"]) + "/proxy/").text, 120, "an answer")
        equal(said, pod["metadata"]["name"], "hostname")


def adopts(w, path, body):
    name = "pod-adoption"
    w.run(name, labels={"name": name}, containers=[container(name, HTTPD)])
    owner = w.api.create(path, body(name, container(name, HTTPD)))

    def adopted():
        pod = w.exists(w.core("pods", name))
        return pod is None or controlled(pod, owner)

    w.until(adopted, 60, "the pod is adopted")
    return name, owner


def releases(w, name, owner):
    pod = w.ready_pods(f"name={name}", 1)[0]["metadata"]["name"]
    w.api.retry_update(w.core("pods", pod), lambda p: p["metadata"].update(labels={"name": "not-matching-name"}))
    w.until(lambda: not controlled(w.get_pod(pod), owner), 60, "the pod is released")


@test("[sig-apps] ReplicaSet should adopt matching pods on creation and release no longer matching pods")
def rs_adopt(w):
    releases(w, *adopts(w, w.apis(APPS, "replicasets"), lambda n, c: workload(n, {"name": n}, c)))


@test("[sig-apps] ReplicationController should adopt matching pods on creation")
def rc_adopt(w):
    adopts(w, w.core("replicationcontrollers"), rc_body)


@test("[sig-apps] ReplicationController should release no longer matching pods")
def rc_release(w):
    owner = w.api.create(w.core("replicationcontrollers"), rc_body("pod-release", container("pod-release", HTTPD)))
    releases(w, "pod-release", owner)


@test("[sig-apps] ReplicaSet Replicaset should have a working scale subresource")
def rs_scale(w):
    path = w.apis(APPS, "replicasets")
    w.api.create(path, workload("test-rs", {"name": "sample-pod", "pod": "httpd"}, container("httpd", HTTPD)))
    w.ready_pods("name=sample-pod", 1)
    scale_tests(w, path, "test-rs", 4)


@test("[sig-apps] ReplicaSet Replace and Patch tests")
def rs_replace(w):
    path = w.apis(APPS, "replicasets")
    events = Events(w, path, labelSelector="test-rs=patched")
    w.api.create(path, workload("test-rs", {"name": "sample-pod", "pod": "httpd"}, container("httpd", HTTPD)))
    w.ready_pods("name=sample-pod", 1)
    w.api.retry_update(f"{path}/test-rs", lambda r: r["spec"].update(replicas=2))
    w.api.patch(f"{path}/test-rs", {"metadata": {"labels": {"test-rs": "patched"}}, "spec": {
        "replicas": 3, "template": {"spec": {"terminationGracePeriodSeconds": 0,
                                             "containers": [{"name": "test-rs", "image": PAUSE}]}}}}, STRATEGIC)
    seen = lambda r: (r["status"].get("readyReplicas"), r["status"].get("availableReplicas")) == (3, 3) and (
        r["spec"]["template"]["spec"]["containers"][0]["image"] == PAUSE)
    w.until(lambda: any(e["type"] in {"ADDED", "MODIFIED"} and seen(e["object"]) for e in list(events.seen)), 120, "3 ready")


@test("[sig-apps] ReplicaSet should list and delete a collection of ReplicaSets")
def rs_collection(w):
    path, value = w.apis(APPS, "replicasets"), word()
    labels = {"name": "sample-pod", "pod": "httpd", "e2e": value}
    w.api.create(path, workload("test-rs", labels, container("httpd", HTTPD), 3))
    w.ready_pods("name=sample-pod", 3)
    everywhere = f"/apis/apps/v1/replicasets?labelSelector=e2e%3D{value}"
    equal(len(w.api.get(everywhere)["items"]), 1, "listed")
    w.api.call("DELETE", f"{path}?labelSelector=e2e%3D{value}", {"gracePeriodSeconds": 1})
    w.until(lambda: not w.api.get(everywhere)["items"], 60, "gone")


@test("[sig-apps] ReplicaSet should validate Replicaset Status endpoints")
def rs_status(w):
    path = w.apis(APPS, "replicasets")
    labels = {"name": "sample-pod", "pod": "httpd"}
    w.api.create(path, workload("test-rs", labels, container("httpd", HTTPD)))
    w.ready_pods("name=sample-pod", 1)
    status_tests(w, path, "test-rs", labels)


@test("[sig-apps] ReplicationController should get and update a ReplicationController scale")
def rc_scale(w):
    path = w.core("replicationcontrollers")
    w.api.create(path, rc_body("e2e-rc", container("httpd", HTTPD)))
    w.until(lambda: w.api.get(f"{path}/e2e-rc")["status"].get("replicas") == 1, 60, "a replica")
    scale = w.api.get(f"{path}/e2e-rc/scale")
    equal(scale["status"]["replicas"], 1, "scale")
    scale["metadata"]["resourceVersion"] = ""
    scale["spec"]["replicas"] = 2
    w.api.update(f"{path}/e2e-rc/scale", scale)
    w.until(lambda: w.api.get(f"{path}/e2e-rc")["status"].get("replicas") == 2, 60, "two replicas")


@test("[sig-apps] ReplicationController should surface a failure condition on a common issue like exceeded quota")
def rc_quota(w):
    path, name = w.core("replicationcontrollers"), "condition-test"
    w.api.create(w.core("resourcequotas"), {"metadata": {"name": name}, "spec": {"hard": {"pods": "2"}}})
    w.until(lambda: w.api.get(w.core("resourcequotas", name))["status"]["hard"]["pods"] == "2", 60, "quota")
    w.api.create(path, rc_body(name, container("httpd", HTTPD), 3))
    w.until(lambda: condition_of(w.api.get(f"{path}/{name}"), "ReplicaFailure"), 60, "a condition")
    w.api.retry_update(f"{path}/{name}", lambda r: r["spec"].update(replicas=2))
    w.until(lambda: condition_of(w.api.get(f"{path}/{name}"), "ReplicaFailure") is None, 60, "no condition")


@test("[sig-apps] ReplicationController should test the lifecycle of a ReplicationController")
def rc_lifecycle(w):
    path, name = w.core("replicationcontrollers"), "rc-test"
    events = Events(w, path, labelSelector="test-rc-static=true")
    labels = {"test-rc-static": "true"}
    w.api.create(path, {"metadata": {"name": name, "labels": labels}, "spec": {"replicas": 1, "selector": labels, "template": {
        "metadata": {"name": name, "labels": labels}, "spec": {"containers": [container(name, NGINX)]}}}})
    events.wait("ADDED")
    at = lambda n: events.wait("MODIFIED", lambda r: r["status"].get("replicas") == n and r["status"].get("readyReplicas") == n)
    at(1)
    # As client-go marshals the whole type.
    patched = w.api.patch(f"{path}/{name}", {"metadata": {"creationTimestamp": None, "labels": {"test-rc": "patched"}},
                                             "spec": {}, "status": {"replicas": 0}}, STRATEGIC)
    equal(patched["metadata"]["labels"]["test-rc"], "patched", "label")
    events.wait("MODIFIED", lambda r: r["metadata"]["labels"].get("test-rc") == "patched")
    status = w.api.patch(f"{path}/{name}/status", {"status": {"readyReplicas": 0, "availableReplicas": 0}}, STRATEGIC)
    equal(status["status"].get("readyReplicas", 0), 0, "status")
    equal(w.api.get(f"{path}/{name}/status")["status"]["replicas"], 1, "replicas")
    w.api.patch(f"{path}/{name}/scale", {"metadata": {"creationTimestamp": None}, "spec": {"replicas": 2},
                                         "status": {"replicas": 0}}, STRATEGIC)
    at(2)
    found = w.api.get(f"{path}/{name}")
    equal(found["metadata"]["labels"]["test-rc"], "patched", "label")
    w.api.retry_update(f"{path}/{name}/status", lambda r: r["status"].update(availableReplicas=1, readyReplicas=1))
    check(w.api.get("/api/v1/replicationcontrollers?labelSelector=test-rc-static%3Dtrue")["items"])
    w.api.call("DELETE", path + "?labelSelector=test-rc-static%3Dtrue")
    events.wait("DELETED")
