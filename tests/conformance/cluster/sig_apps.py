"""[sig-apps]: test/e2e/apps/*.go."""

import json
import time

from e2e import (AGNHOST, BUSYBOX, HTTPD, JSON, MERGE, NEW_HTTPD, NGINX, PAUSE, STRATEGIC, Events, Refused, check,
                 condition_of, container, equal, is_ready, test, word)
from operations import discovery, operations, removals

APPS, BATCH, POLICY = "apps/v1", "batch/v1", "policy/v1"


def controlled(thing, owner):
    return any(o.get("controller") and o["uid"] == owner["metadata"]["uid"]
               for o in thing["metadata"].get("ownerReferences", []))


def template(labels, *containers, **spec):
    return {"metadata": {"labels": labels}, "spec": {"containers": list(containers), "terminationGracePeriodSeconds": 0,
                                                     **spec}}


def workload(name, labels, one, replicas=1, **spec):
    return {"metadata": {"name": name, "labels": dict(labels)}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": labels}, "template": template(labels, one), **spec}}


def ready_pods(w, selector, count, seconds=120):
    return w.until(lambda: (lambda found: found if len(found) == count else None)(
        [p for p in w.pods(selector) if is_ready(p) and not p["metadata"].get("deletionTimestamp")]),
        seconds, f"{count} ready pods of {selector}")


def scale_tests(w, path, name, spec_replicas):
    """get, update without resourceVersion and strategic patch of /scale, as the tests of all workloads do."""
    scale = w.api.get(f"{path}/{name}/scale")
    equal((scale["spec"]["replicas"], scale["status"]["replicas"]), (1, 1), "scale")
    scale["metadata"]["resourceVersion"] = ""
    scale["spec"]["replicas"] = 2
    equal(w.api.update(f"{path}/{name}/scale", scale)["spec"]["replicas"], 2, "updated scale")
    equal(w.api.get(f"{path}/{name}")["spec"]["replicas"], 2, "replicas")
    w.api.patch(f"{path}/{name}/scale", {"metadata": {"creationTimestamp": None}, "spec": {"replicas": spec_replicas},
                                         "status": {"replicas": 0}}, STRATEGIC)
    equal(w.api.get(f"{path}/{name}")["spec"]["replicas"], spec_replicas, "patched")


def status_tests(w, path, name, labels):
    """get, update and patch of /status, seen by a watch: what the status tests of all workloads do."""
    selector = ",".join(f"{k}={v}" for k, v in labels.items())
    events = Events(w, path, labelSelector=selector)
    found = w.api.get(f"{path}/{name}/status")
    equal(found["metadata"]["name"], name, "status")
    condition = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test"}
    w.api.retry_update(f"{path}/{name}/status", lambda d: d["status"].setdefault("conditions", []).append(condition))
    has = lambda kind: lambda o: any(c["type"] == kind for c in o["status"].get("conditions", []))
    events.wait("MODIFIED", has("StatusUpdate"))
    patch = '{"status":{"conditions":[{"type":"StatusPatched","status":"True"}]}}'
    w.api.patch(f"{path}/{name}/status", patch, MERGE)
    events.wait("MODIFIED", has("StatusPatched"))


# === ControllerRevisions, DaemonSets ===


def daemon_set(name, labels, image=HTTPD, **spec):
    return {"metadata": {"name": name, "labels": labels}, "spec": {
        "selector": {"matchLabels": labels}, "template": template(labels, container(
            "app", image, ports=[{"containerPort": 9376}])), **spec}}


def daemons(w, labels, ds):
    selector = ",".join(f"{k}={v}" for k, v in labels.items())
    return [p for p in w.pods(selector) if controlled(p, ds) and not p["metadata"].get("deletionTimestamp")]


def on_nodes(w, labels, ds, nodes=None, seconds=180):
    wanted = {n["metadata"]["name"] for n in w.nodes()} if nodes is None else set(nodes)

    def condition():
        pods = [p for p in daemons(w, labels, ds) if is_ready(p)]
        equal(sorted(p["spec"]["nodeName"] for p in pods), sorted(wanted), "nodes")
        return True

    return w.until(condition, seconds, f"daemons on {wanted}")


def make_daemons(w, **spec):
    name, labels = f"daemon-set-{word()}", {"daemonset-name": "daemon-set"}
    ds = w.api.create(w.apis(APPS, "daemonsets"), daemon_set(name, labels, **spec))
    on_nodes(w, labels, ds)
    check_daemon_status(w, name)
    return name, labels, ds


def check_daemon_status(w, name):
    def condition():
        status = w.api.get(w.apis(APPS, "daemonsets", name))["status"]
        equal((status["currentNumberScheduled"], status["numberReady"]),
              (status["desiredNumberScheduled"], status["desiredNumberScheduled"]), "status")
        return True

    w.until(condition, 60, "DaemonSet's status")


@test("[sig-apps] ControllerRevision [Serial] should manage the lifecycle of a ControllerRevision")
def controller_revision(w):
    name, labels, ds = make_daemons(w)
    path, selector = w.apis(APPS, "controllerrevisions"), "?labelSelector=daemonset-name%3Ddaemon-set"
    revisions = w.api.get("/apis/apps/v1/controllerrevisions" + selector)["items"]
    equal(len(revisions), 1, "revisions")
    first = revisions[0]
    equal((first["metadata"]["ownerReferences"][0]["kind"], first["metadata"]["ownerReferences"][0]["uid"]),
          ("DaemonSet", ds["metadata"]["uid"]), "owner")
    first_name = first["metadata"]["name"]
    patched = w.api.patch(f"{path}/{first_name}", {"metadata": {"labels": {first_name: "patched"}}}, STRATEGIC)
    equal(patched["metadata"]["labels"][first_name], "patched", "label")
    ds = w.api.get(w.apis(APPS, "daemonsets", name))
    w.api.create(path, {"metadata": {
        "name": f"{name}-6b4d9c5f7", "labels": {**labels, "controller-revision-hash": "6b4d9c5f7"},
        "annotations": ds["metadata"].get("annotations"),
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": name, "uid": ds["metadata"]["uid"],
                             "controller": True, "blockOwnerDeletion": True}]},
        "data": first["data"], "revision": first["revision"] + 1})
    count = lambda n: w.until(lambda: len(w.api.get(path + selector)["items"]) == n, 60, f"{n} revisions")
    count(2)
    w.api.delete(f"{path}/{first_name}")
    count(1)
    current = w.api.get(path)["items"][0]["metadata"]["name"]
    updated = w.api.retry_update(f"{path}/{current}", lambda r: r["metadata"]["labels"].update({current: "updated"}))
    equal(updated["metadata"]["labels"][current], "updated", "label")
    patch = '{"spec":{"template":{"spec":{"terminationGracePeriodSeconds": 1}}},"updateStrategy":{"type":"RollingUpdate"}}'
    w.api.patch(w.apis(APPS, "daemonsets", name), patch, STRATEGIC)
    count(2)
    w.api.call("DELETE", f"{path}?labelSelector={current}%3Dupdated")
    count(1)
    equal(w.api.get(path)["items"][0]["revision"], 3, "revision")


@test("[sig-apps] Daemon set [Serial] should run and stop simple daemon")
def daemon_simple(w):
    name, labels, ds = make_daemons(w)
    pod = daemons(w, labels, ds)[0]
    w.api.delete(w.core("pods", pod["metadata"]["name"]))
    w.until(lambda: w.exists(w.core("pods", pod["metadata"]["name"])) is None, 60, "the pod is gone")
    on_nodes(w, labels, ds)


@test("[sig-apps] Daemon set [Serial] should run and stop complex daemon")
def daemon_complex(w):
    label, name, labels = "daemonset-color", "daemon-set", {"daemonset-name": "daemon-set"}
    node = w.nodes()[0]["metadata"]["name"]
    paint = lambda color: w.api.retry_update(f"/api/v1/nodes/{node}", lambda n: n["metadata"]["labels"].update(
        {label: color}) if color else n["metadata"]["labels"].pop(label, None))
    w.cleanups.append(lambda: paint(None))
    body = daemon_set(name, labels)
    body["spec"]["template"]["spec"]["nodeSelector"] = {label: "blue"}
    ds = w.api.create(w.apis(APPS, "daemonsets"), body)
    on_nodes(w, labels, ds, [])
    paint("blue")
    on_nodes(w, labels, ds, [node])
    check_daemon_status(w, name)
    paint("green")
    on_nodes(w, labels, ds, [])
    w.api.patch(w.apis(APPS, "daemonsets", name), {"spec": {
        "template": {"spec": {"nodeSelector": {label: "green"}}}, "updateStrategy": {"type": "RollingUpdate"}}}, STRATEGIC)
    on_nodes(w, labels, ds, [node])
    check_daemon_status(w, name)


@test("[sig-apps] Daemon set [Serial] should retry creating failed daemon pods")
def daemon_failed(w):
    name, labels, ds = make_daemons(w)
    pod = daemons(w, labels, ds)[0]
    pod["metadata"]["resourceVersion"] = ""
    pod["status"]["phase"] = "Failed"
    w.api.update(w.core("pods", pod["metadata"]["name"]) + "/status", pod)
    on_nodes(w, labels, ds)
    w.gone(w.core("pods", pod["metadata"]["name"]), 60)
    on_nodes(w, labels, ds)


@test("[sig-apps] Daemon set [Serial] should update pod when spec was updated and update strategy is RollingUpdate")
def daemon_update(w):
    name, labels, ds = make_daemons(w, updateStrategy={"type": "RollingUpdate"})
    path = w.apis(APPS, "controllerrevisions")
    equal([r["revision"] for r in w.api.get(path)["items"]], [1], "revisions")
    first = w.api.get(path)["items"][0]["metadata"]["labels"]["controller-revision-hash"]
    check(all(p["metadata"]["labels"]["controller-revision-hash"] == first for p in daemons(w, labels, ds)))
    w.api.patch(w.apis(APPS, "daemonsets", name), {"spec": {"template": {"spec": {
        "containers": [{"name": "app", "image": AGNHOST}]}}}}, STRATEGIC)

    def updated():
        pods = daemons(w, labels, ds)
        check(sum(not is_ready(p) for p in pods) + len(w.nodes()) - len(pods) <= 1, "more than one unavailable")
        return len(pods) == len(w.nodes()) and all(
            p["spec"]["containers"][0]["image"] == AGNHOST and is_ready(p) for p in pods)

    w.until(updated, 180, "daemons updated")
    on_nodes(w, labels, ds)
    revisions = w.until(lambda: (lambda r: r if len(r) == 2 else None)(w.api.get(path)["items"]), 60, "two revisions")
    newest = max(revisions, key=lambda r: r["revision"])
    equal(newest["revision"], 2, "revision")
    check(all(p["metadata"]["labels"]["controller-revision-hash"] ==
              newest["metadata"]["labels"]["controller-revision-hash"] for p in daemons(w, labels, ds)))


@test("[sig-apps] Daemon set [Serial] should rollback without unnecessary restarts")
def daemon_rollback(w):
    name, labels, ds = make_daemons(w, updateStrategy={"type": "RollingUpdate"})
    image = lambda text: w.api.retry_update(w.apis(APPS, "daemonsets", name),
                                            lambda d: d["spec"]["template"]["spec"]["containers"][0].update(image=text))
    image("foo:non-existent")
    of = lambda text: [p for p in daemons(w, labels, ds) if p["spec"]["containers"][0]["image"] == text]
    w.until(lambda: of("foo:non-existent"), 60, "a new pod")
    old = {p["metadata"]["name"] for p in of(HTTPD)}
    check(old and of("foo:non-existent"))
    image(HTTPD)
    w.until(lambda: len([p for p in of(HTTPD) if is_ready(p)]) == len(w.nodes()), 120, "rolled back")
    check(old <= {p["metadata"]["name"] for p in daemons(w, labels, ds)}, f"restarted: {old}")


@test("[sig-apps] Daemon set [Serial] should list and delete a collection of DaemonSets")
def daemon_collection(w):
    name, labels, ds = make_daemons(w)
    selector = "?labelSelector=daemonset-name%3Ddaemon-set"
    equal(len(w.api.get("/apis/apps/v1/daemonsets" + selector)["items"]), 1, "listed")
    w.api.call("DELETE", w.apis(APPS, "daemonsets") + selector, {"gracePeriodSeconds": 1})
    w.until(lambda: not w.api.get("/apis/apps/v1/daemonsets" + selector)["items"], 60, "gone")


@test("[sig-apps] Daemon set [Serial] should verify changes to a daemon set status")
def daemon_status(w):
    name, labels, ds = make_daemons(w)
    status_tests(w, w.apis(APPS, "daemonsets"), name, labels)


# === Deployments ===


def deployment(name, replicas, labels, image_name, image, strategy="RollingUpdate", **spec):
    return workload(name, labels, container(image_name, image), replicas, strategy={"type": strategy}, **spec)


def complete(w, name, seconds=180):
    def condition():
        d = w.api.get(w.apis(APPS, "deployments", name))
        n, s = d["spec"]["replicas"], d["status"]
        equal((s.get("updatedReplicas"), s.get("replicas"), s.get("availableReplicas"), s.get("observedGeneration")),
              (n, n, n, d["metadata"]["generation"]), "status")
        return d

    return w.until(condition, seconds, f"deployment {name} complete")


def revision(w, name, wanted, image, seconds=60):
    def condition():
        d = w.api.get(w.apis(APPS, "deployments", name))
        rs = new_rs(w, d)
        equal((d["metadata"]["annotations"].get("deployment.kubernetes.io/revision"),
               rs["metadata"]["annotations"].get("deployment.kubernetes.io/revision"),
               d["spec"]["template"]["spec"]["containers"][0]["image"],
               rs["spec"]["template"]["spec"]["containers"][0]["image"]), (wanted, wanted, image, image), "revision")
        return True

    w.until(condition, seconds, f"revision {wanted}")


def replica_sets(w, d):
    return [r for r in w.api.get(w.apis(APPS, "replicasets"))["items"] if controlled(r, d)]


def new_rs(w, d):
    """The ReplicaSet whose template is the deployment's, but for the hash."""
    for rs in replica_sets(w, d):
        one = json.loads(json.dumps(rs["spec"]["template"]))
        one["metadata"]["labels"].pop("pod-template-hash", None)
        if one == d["spec"]["template"]:
            return rs
    raise KeyError("no new ReplicaSet")


@test("[sig-apps] Deployment RollingUpdateDeployment should delete old pods and create new ones")
def rolling(w):
    labels = {"name": "sample-pod", "pod": "httpd"}
    rs = workload("test-rolling-update-controller", labels, container("httpd", HTTPD))
    rs["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": "3546343826724305832"}
    w.api.create(w.apis(APPS, "replicasets"), rs)
    ready_pods(w, "name%3Dsample-pod", 1)
    name = "test-rolling-update-deployment"
    w.api.create(w.apis(APPS, "deployments"), deployment(name, 1, {"name": "sample-pod"}, "agnhost", AGNHOST))
    revision(w, name, "3546343826724305833", AGNHOST)
    d = complete(w, name)
    old = [r for r in replica_sets(w, d) if r["metadata"]["name"] != new_rs(w, d)["metadata"]["name"]]
    equal(len(old), 1, "old ReplicaSets")


@test("[sig-apps] Deployment RecreateDeployment should delete old pods and create new ones")
def recreate(w):
    name, labels = "test-recreate-deployment", {"name": "sample-pod-3"}
    w.api.create(w.apis(APPS, "deployments"), deployment(name, 1, labels, "agnhost", AGNHOST, "Recreate"))
    revision(w, name, "1", AGNHOST)
    complete(w, name)
    events = Events(w, w.core("pods"), labelSelector="name=sample-pod-3")
    w.api.retry_update(w.apis(APPS, "deployments", name),
                       lambda d: d["spec"]["template"]["spec"]["containers"][0].update(name="httpd", image=HTTPD))
    complete(w, name)
    running, both = set(), []
    for event in events.seen:
        pod = event["object"]
        key = (pod["spec"]["containers"][0]["name"], pod["metadata"]["name"])
        if event["type"] == "DELETED" or pod["status"].get("phase") in {"Succeeded", "Failed"}:
            running.discard(key)
        elif pod["status"].get("phase") == "Running":
            running.add(key)
        if len({k[0] for k in running}) > 1:
            both.append(list(running))
    check(not both, both)


@test("[sig-apps] Deployment deployment should delete old replica sets")
def cleanup(w):
    labels = {"name": "cleanup-pod", "pod": "httpd"}
    w.api.create(w.apis(APPS, "replicasets"), workload("test-cleanup-controller", labels, container("httpd", HTTPD)))
    ready_pods(w, "name%3Dcleanup-pod", 1)
    events = Events(w, w.core("pods"))
    name = "test-cleanup-deployment"
    w.api.create(w.apis(APPS, "deployments"), deployment(name, 1, {"name": "cleanup-pod"}, "agnhost", AGNHOST,
                                                         revisionHistoryLimit=0))

    def cleaned():
        d = w.api.get(w.apis(APPS, "deployments", name))
        return len(replica_sets(w, d)) == 1

    w.until(cleaned, 60, "old ReplicaSets are gone")
    complete(w, name)
    w.until(lambda: len(w.api.get(w.apis(APPS, "replicasets"))["items"]) == 1, 60, "one ReplicaSet")
    added = [e["object"]["spec"]["containers"][0]["name"] for e in events.seen if e["type"] == "ADDED"]
    equal(added, ["agnhost"], "pods created")


@test("[sig-apps] Deployment deployment should support rollover")
def rollover(w):
    labels = {"name": "rollover-pod", "pod": "httpd"}
    w.api.create(w.apis(APPS, "replicasets"), workload("test-rollover-controller", labels, container("httpd", HTTPD)))
    ready_pods(w, "name%3Drollover-pod", 1)
    name, path = "test-rollover-deployment", w.apis(APPS, "deployments")
    body = deployment(name, 1, {"name": "rollover-pod"}, "redis-slave", "gcr.io/google_samples/gb-redisslave:nonexistent",
                      minReadySeconds=10)
    body["spec"]["strategy"]["rollingUpdate"] = {"maxUnavailable": 0, "maxSurge": 1}
    w.api.create(path, body)
    w.until(lambda: w.api.get(f"{path}/{name}")["status"].get("updatedReplicas", 0) >= 1, 60, "an updated replica")
    revision(w, name, "1", "gcr.io/google_samples/gb-redisslave:nonexistent")
    of = lambda n: w.api.get(w.apis(APPS, "replicasets", n))
    counts = lambda rs: (rs["spec"]["replicas"], rs["status"].get("replicas", 0))
    w.until(lambda: counts(of("test-rollover-controller")) == (1, 1), 10, "the old ReplicaSet")
    middle = new_rs(w, w.api.get(f"{path}/{name}"))["metadata"]["name"]
    equal(counts(of(middle)), (1, 1), "the new ReplicaSet")
    w.api.retry_update(f"{path}/{name}", lambda d: d["spec"]["template"]["spec"]["containers"][0].update(
        name="agnhost", image=AGNHOST))
    revision(w, name, "2", AGNHOST)
    complete(w, name)
    equal((counts(of("test-rollover-controller")), counts(of(middle))), ((0, 0), (0, 0)), "old ReplicaSets")


@test("[sig-apps] Deployment deployment should support proportional scaling")
def proportional(w):
    name, path = "webserver-deployment", w.apis(APPS, "deployments")
    body = deployment(name, 10, {"name": "httpd"}, "httpd", HTTPD)
    body["spec"]["strategy"]["rollingUpdate"] = {"maxUnavailable": 2, "maxSurge": 3}
    w.api.create(path, body)
    d = complete(w, name, 240)
    first = new_rs(w, d)["metadata"]["name"]
    d = w.api.retry_update(f"{path}/{name}",
                           lambda d: d["spec"]["template"]["spec"]["containers"][0].update(image="webserver:404"))
    of = lambda n: w.api.get(w.apis(APPS, "replicasets", n))
    observed = lambda: w.api.get(f"{path}/{name}")["status"]["observedGeneration"] >= d["metadata"]["generation"]
    w.until(observed, 60, "observed")
    w.until(lambda: of(first)["status"].get("availableReplicas") == 8 and of(first)["spec"]["replicas"] == 8, 60, "8 of the first")
    second = new_rs(w, w.api.get(f"{path}/{name}"))["metadata"]["name"]
    equal(of(second)["status"].get("availableReplicas", 0), 0, "available of the second")
    w.until(lambda: of(second)["spec"]["replicas"] == 5 and of(second)["status"].get("replicas") == 5, 60, "5 of the second")
    w.api.retry_update(f"{path}/{name}", lambda d: d["spec"].update(replicas=30))
    w.until(lambda: (of(first)["spec"]["replicas"], of(second)["spec"]["replicas"]) == (20, 13), 60, "20 and 13")


@test("[sig-apps] Deployment Deployment should have a working scale subresource")
def deployment_scale(w):
    name, path = "test-new-deployment", w.apis(APPS, "deployments")
    w.api.create(path, deployment(name, 1, {"name": "httpd"}, "httpd", HTTPD))
    complete(w, name)
    scale_tests(w, path, name, 4)


@test("[sig-apps] Deployment should validate Deployment Status endpoints")
def deployment_status(w):
    name, path = f"test-deployment-{word()}", w.apis(APPS, "deployments")
    w.api.create(path, deployment(name, 1, {"name": "httpd", "e2e": "testing"}, "httpd", HTTPD))
    complete(w, name)
    status_tests(w, path, name, {"e2e": "testing"})


@test("[sig-apps] Deployment should run the lifecycle of a Deployment")
def deployment_lifecycle(w):
    name, path = "test-deployment", w.apis(APPS, "deployments")
    labels = {"test-deployment-static": "true"}
    events = Events(w, path, labelSelector="test-deployment-static=true")
    body = deployment(name, 2, labels, name, AGNHOST)
    w.api.create(path, body)
    events.wait("ADDED")
    at = lambda n, image: events.wait("MODIFIED", lambda d: d["status"].get("readyReplicas") == n and
                                      d["spec"]["template"]["spec"]["containers"][0]["image"] == image, 90)
    at(2, AGNHOST)
    w.api.patch(f"{path}/{name}", {"metadata": {"labels": {"test-deployment": "patched"}}, "spec": {
        "replicas": 1, "template": {"spec": {"TerminationGracePeriodSeconds": 0, "containers": [
            {"name": name, "image": PAUSE, "command": ["/bin/sleep", "100000"]}]}}}}, STRATEGIC)
    events.wait("MODIFIED", lambda d: d["metadata"]["labels"].get("test-deployment") == "patched")
    at(1, PAUSE)
    found = w.api.get("/apis/apps/v1/deployments?labelSelector=test-deployment-static%3Dtrue")["items"]
    check(any(d["metadata"]["namespace"] == w.ns for d in found))
    # What was created, changed, without a resourceVersion.
    body["metadata"]["labels"]["test-deployment"] = "updated"
    body["spec"]["template"]["spec"]["containers"][0]["image"] = HTTPD
    body["spec"]["replicas"] = 2
    w.api.update(f"{path}/{name}", body)
    found = w.api.get(f"{path}/{name}/status")
    equal((found["spec"]["template"]["spec"]["containers"][0]["image"], found["metadata"]["labels"]["test-deployment"]),
          (HTTPD, "updated"), "status")
    at(2, HTTPD)
    w.api.patch(f"{path}/{name}/status", {"metadata": {"labels": {"test-deployment": "patched-status"}},
                                          "status": {"readyReplicas": 0}}, STRATEGIC)
    found = w.api.get(f"{path}/{name}/status")
    equal((found["spec"]["template"]["spec"]["containers"][0]["image"], found["metadata"]["labels"]["test-deployment"]),
          (HTTPD, "updated"), "labels do not change by the status")
    w.until(lambda: w.api.get(f"{path}/{name}")["status"].get("readyReplicas") == 2, 60, "ready again")
    w.api.call("DELETE", path + "?labelSelector=test-deployment-static%3Dtrue", {"gracePeriodSeconds": 0})
    events.wait("DELETED", seconds=60)


# === ReplicaSets, ReplicationControllers ===


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
    for pod in ready_pods(w, f"name%3D{name}", 1):
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
    pod = ready_pods(w, f"name%3D{name}", 1)[0]["metadata"]["name"]
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
    ready_pods(w, "name%3Dsample-pod", 1)
    scale_tests(w, path, "test-rs", 4)


@test("[sig-apps] ReplicaSet Replace and Patch tests")
def rs_replace(w):
    path = w.apis(APPS, "replicasets")
    events = Events(w, path, labelSelector="test-rs=patched")
    w.api.create(path, workload("test-rs", {"name": "sample-pod", "pod": "httpd"}, container("httpd", HTTPD)))
    ready_pods(w, "name%3Dsample-pod", 1)
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
    ready_pods(w, "name%3Dsample-pod", 3)
    everywhere = f"/apis/apps/v1/replicasets?labelSelector=e2e%3D{value}"
    equal(len(w.api.get(everywhere)["items"]), 1, "listed")
    w.api.call("DELETE", f"{path}?labelSelector=e2e%3D{value}", {"gracePeriodSeconds": 1})
    w.until(lambda: not w.api.get(everywhere)["items"], 60, "gone")


@test("[sig-apps] ReplicaSet should validate Replicaset Status endpoints")
def rs_status(w):
    path = w.apis(APPS, "replicasets")
    labels = {"name": "sample-pod", "pod": "httpd"}
    w.api.create(path, workload("test-rs", labels, container("httpd", HTTPD)))
    ready_pods(w, "name%3Dsample-pod", 1)
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


# === StatefulSets ===

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
    w.running("test-pod")
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


# === Jobs, CronJobs ===


def job(name, command, parallelism=2, completions=4, restart="Never", volume=None, **spec):
    one = container("c", BUSYBOX, command=["/bin/sh", "-c", command], volumeMounts=[{"name": "data", "mountPath": "/data"}])
    return {"metadata": {"name": name}, "spec": {
        "parallelism": parallelism, "completions": completions, "backoffLimit": 6, "manualSelector": False, **spec,
        "template": {"metadata": {"labels": {"job": name}}, "spec": {
            "restartPolicy": restart, "terminationGracePeriodSeconds": 1, "containers": [one],
            "volumes": [{"name": "data", **(volume or {"emptyDir": {}})}]}}}}


FAIL_ONCE = "if [ -f /data/foo ]; then exit 0; else touch /data/foo; exit 1; fi"


def job_complete(w, name, completions, seconds=180):
    def condition():
        found = w.api.get(w.apis(BATCH, "jobs", name))
        check(condition_of(found, "Failed") != "True", found["status"])
        return found["status"].get("succeeded") == completions and condition_of(found, "Complete") == "True" and found

    return w.until(condition, seconds, f"job {name} complete")


def job_pods(w, name, running=None):
    pods = w.pods(f"job%3D{name}")
    return pods if running is None else [p for p in pods if p["status"].get("phase") == "Running"]


@test("[sig-apps] Job should delete a job")
def job_delete(w):
    path = w.apis(BATCH, "jobs")
    w.api.create(path, job("foo", "sleep 1000000"))
    w.until(lambda: len(job_pods(w, "foo", True)) == 2, 120, "two pods")
    w.api.delete(f"{path}/foo", {"propagationPolicy": "Background"})
    w.gone(f"{path}/foo", 60)
    w.until(lambda: not job_pods(w, "foo"), 60, "no pods")


@test("[sig-apps] Job should adopt matching orphans and release non-matching pods")
def job_adopt(w):
    path = w.apis(BATCH, "jobs")
    owner = w.api.create(path, job("adopt-release", "sleep 1000000"))
    w.until(lambda: len(job_pods(w, "adopt-release", True)) == 2, 120, "two pods")
    pod = job_pods(w, "adopt-release")[0]["metadata"]["name"]
    w.api.retry_update(w.core("pods", pod), lambda p: p["metadata"].update(ownerReferences=[]))
    w.until(lambda: controlled(w.get_pod(pod), owner), 60, "adopted")
    w.api.retry_update(w.core("pods", pod), lambda p: p["metadata"].update(labels=None))
    w.until(lambda: not controlled(w.get_pod(pod), owner), 60, "released")


@test("[sig-apps] Job should allow to use a pod failure policy to ignore failure matching on DisruptionTarget condition")
def job_disruption(w):
    path, name, node = w.apis(BATCH, "jobs"), "pod-failure-ignore", w.nodes()[0]["metadata"]["name"]
    command = "if [ -f /data/foo-$JOB_COMPLETION_INDEX ]; then exit 0; fi; touch /data/foo-$JOB_COMPLETION_INDEX; sleep 1000000"
    body = job(name, command, parallelism=2, completions=2, backoffLimit=0, completionMode="Indexed",
               volume={"hostPath": {"path": f"/tmp/{w.ns}", "type": "DirectoryOrCreate"}},
               podFailurePolicy={"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]})
    body["spec"]["template"]["spec"]["nodeName"] = node
    w.api.create(path, body)
    w.until(lambda: len(job_pods(w, name, True)) == 2, 120, "two pods")
    time.sleep(2)
    for pod in job_pods(w, name, True):
        w.api.create(w.core("pods", pod["metadata"]["name"]) + "/eviction",
                     {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod["metadata"]["name"], "namespace": w.ns}})
        w.gone(w.core("pods", pod["metadata"]["name"]), 120)
    w.until(lambda: condition_of(w.api.get(f"{path}/{name}"), "SuccessCriteriaMet") == "True", 180, "SuccessCriteriaMet")
    job_complete(w, name, 2)


@test("[sig-apps] Job should allow to use the pod failure policy on exit code to fail the job early")
def job_fail_early(w):
    path, name, node = w.apis(BATCH, "jobs"), "pod-failure-failjob", w.nodes()[0]["metadata"]["name"]
    body = job(name, FAIL_ONCE, volume={"hostPath": {"path": f"/tmp/{w.ns}", "type": "DirectoryOrCreate"}},
               podFailurePolicy={"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]}}]})
    body["spec"]["template"]["spec"]["nodeName"] = node
    w.api.create(path, body)
    found = w.until(lambda: (lambda j: j if condition_of(j, "FailureTarget") == "True" else None)(
        w.api.get(f"{path}/{name}")), 120, "FailureTarget")
    reason = {c["type"]: c.get("reason") for c in found["status"]["conditions"]}
    equal(reason["FailureTarget"], "PodFailurePolicy", "reason")
    w.until(lambda: condition_of(w.api.get(f"{path}/{name}"), "Failed") == "True", 120, "Failed")


@test("[sig-apps] Job should create pods for an Indexed job with completion indexes and specified hostname")
def job_indexed(w):
    path, name = w.apis(BATCH, "jobs"), "indexed-job"
    w.api.create(path, job(name, "exit 0", completionMode="Indexed"))
    job_complete(w, name, 4)
    seen = []
    for pod in job_pods(w, name):
        index = pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]
        equal(pod["spec"]["hostname"], f"{name}-{index}", "hostname")
        seen.append(int(index))
    equal(sorted(seen), [0, 1, 2, 3], "indexes")


@test("[sig-apps] Job should run a job to completion when tasks sometimes fail and are locally restarted")
def job_restarted(w):
    w.api.create(w.apis(BATCH, "jobs"), job("fail-once-local", FAIL_ONCE, restart="OnFailure"))
    job_complete(w, "fail-once-local", 4)


@test("[sig-apps] Job should apply changes to a job status")
def job_status(w):
    path, name = w.apis(BATCH, "jobs"), f"e2e-{word()}"
    w.api.create(path, job(name, "sleep 1000000", backoffLimit=3))
    w.until(lambda: len(job_pods(w, name, True)) == 2, 120, "two pods")
    # Terminal conditions have rules of their own; the tests set an annotation and startTime.
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    patched = w.api.patch(f"{path}/{name}/status",
                          {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"conditions": [
                              {"type": "CustomConditionType", "status": "True", "lastTransitionTime": now}]}}, MERGE)
    equal(patched["metadata"]["annotations"].get("patchedstatus"), "true", "annotation")
    check(condition_of(patched, "CustomConditionType") == "True", patched["status"])
    custom = {"type": "AdditionalCustomConditionType", "status": "True", "lastTransitionTime": now}
    updated = w.api.retry_update(f"{path}/{name}/status", lambda j: j["status"]["conditions"].append(custom))
    check(condition_of(updated, "AdditionalCustomConditionType") == "True", updated["status"])
    found = w.api.get(f"{path}/{name}/status")
    check(condition_of(found, "AdditionalCustomConditionType") == "True", found["status"])


@test("[sig-apps] Job should manage the lifecycle of a job")
def job_lifecycle(w):
    path, name = w.apis(BATCH, "jobs"), f"e2e-{word()}"
    body = job(name, "exit 0", parallelism=2, completions=2, suspend=True, backoffLimit=6)
    body["metadata"]["labels"] = {"e2e-job-label": name}
    events = Events(w, path, labelSelector=f"e2e-job-label={name}")
    w.api.create(path, body)
    events.wait("ADDED")
    patched = w.api.patch(f"{path}/{name}", {"metadata": {"labels": {name: "patched"}}}, STRATEGIC)
    equal(patched["metadata"]["labels"][name], "patched", "label")
    events.wait("MODIFIED", lambda j: j["metadata"]["labels"].get(name) == "patched")

    def change(found):
        found["spec"]["suspend"] = False
        found["metadata"].setdefault("annotations", {})["updated"] = "true"

    w.api.retry_update(f"{path}/{name}", change)
    events.wait("MODIFIED", lambda j: j["metadata"].get("annotations", {}).get("updated") == "true")
    job_complete(w, name, 2)
    everywhere = f"/apis/batch/v1/jobs?labelSelector=e2e-job-label%3D{name}"
    equal(len(w.api.get(everywhere)["items"]), 1, "listed")
    w.api.call("DELETE", f"{path}?labelSelector=e2e-job-label%3D{name}", {"propagationPolicy": "Background"})
    events.wait("DELETED")
    w.until(lambda: not w.api.get(everywhere)["items"], 60, "gone")


ODD_FAILS = 'exit $(($JOB_COMPLETION_INDEX % 2))'


def job_condition(w, name, kind, reason=None, seconds=180):
    def condition():
        found = w.api.get(w.apis(BATCH, "jobs", name))
        wanted = [c for c in found["status"].get("conditions", []) if c["type"] == kind and c["status"] == "True"]
        if wanted and reason:
            equal(wanted[0].get("reason"), reason, kind)
        return found if wanted else None

    return w.until(condition, seconds, f"job {name} {kind}")


def succeeds_by_policy(w, name, command, completions, rule, succeeded, indexes=None, **spec):
    w.api.create(w.apis(BATCH, "jobs"), job(name, command, completions=completions, completionMode="Indexed",
                                            successPolicy={"rules": [rule]}, **spec))
    job_condition(w, name, "SuccessCriteriaMet", "SuccessPolicy")
    status = job_condition(w, name, "Complete", "SuccessPolicy")["status"]
    equal([status.get(f, 0) for f in ["succeeded", "active", "ready", "terminating"]], [succeeded, 0, 0, 0], "status")
    check("ready" in status and "terminating" in status, status)
    if indexes is not None:
        equal(status.get("completedIndexes"), indexes, "completedIndexes")
    return status


@test("[sig-apps] Job with successPolicy should succeeded when all indexes succeeded")
def job_policy_all(w):
    status = succeeds_by_policy(w, "with-success-policy-all", "exit 0", 2, {"succeededCount": 2}, 2)
    equal(status.get("failed", 0), 0, "failed")


@test("[sig-apps] Job with successPolicy succeededIndexes rule should succeeded even when some indexes remain pending")
def job_policy_indexes(w):
    succeeds_by_policy(w, "with-success-policy-indexes", ODD_FAILS, 5, {"succeededIndexes": "0"}, 1, "0")


@test("[sig-apps] Job with successPolicy succeededCount rule should succeeded even when some indexes remain pending")
def job_policy_count(w):
    succeeds_by_policy(w, "with-success-policy-count", ODD_FAILS, 5, {"succeededCount": 1}, 1, "0", backoffLimit=2147483647)


def per_index(w, name, command, wanted, **spec):
    body = job(name, command, completionMode="Indexed", **spec)
    del body["spec"]["backoffLimit"]
    w.api.create(w.apis(BATCH, "jobs"), body)
    status = job_condition(w, name, "Failed")["status"]
    equal([status.get(f) for f in ["failedIndexes", "completedIndexes", "failed", "succeeded"]], wanted, "status")


@test("[sig-apps] Job should execute all indexes despite some failing when using backoffLimitPerIndex")
def job_per_index(w):
    per_index(w, "with-backoff-limit-per-index", ODD_FAILS, ["1,3", "0,2", 4, 2], backoffLimitPerIndex=1)


@test("[sig-apps] Job should terminate job execution when the number of failed indexes exceeds maxFailedIndexes")
def job_max_failed(w):
    per_index(w, "with-max-failed-indexes", "exit 1", ["0", None, 1, None], parallelism=1, backoffLimitPerIndex=0,
              maxFailedIndexes=0)


@test("[sig-apps] Job should mark indexes as failed when the FailIndex action is matched in podFailurePolicy")
def job_fail_index(w):
    per_index(w, "matching-fail-index-action", ODD_FAILS, ["1", "0", 1, 1], completions=2, backoffLimitPerIndex=1,
              podFailurePolicy={"rules": [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [1]}}]})


def cron_job(name, policy="Allow", suspend=False, schedule="*/1 * * * ?"):
    return {"metadata": {"name": name}, "spec": {"schedule": schedule, "concurrencyPolicy": policy, "suspend": suspend,
            "jobTemplate": {"spec": {"parallelism": 1, "completions": 1, "template": {"spec": {
                "restartPolicy": "OnFailure", "volumes": [{"name": "data", "emptyDir": {}}], "terminationGracePeriodSeconds": 0,
                "containers": [container("c", BUSYBOX, command=["sleep", "300"],
                                         volumeMounts=[{"name": "data", "mountPath": "/data"}])]}}}}}}


def cron_active(w, name, count, seconds=150):
    return w.until(lambda: len(w.api.get(w.apis(BATCH, "cronjobs", name))["status"].get("active", [])) >= count, seconds,
                   f"{count} active")


def active_jobs(w):
    return [j for j in w.api.get(w.apis(BATCH, "jobs"))["items"] if not j["status"].get("completionTime")
            and condition_of(j, "Failed") != "True"]


@test("[sig-apps] CronJob should schedule multiple jobs concurrently")
def cron_concurrent(w):
    w.api.create(w.apis(BATCH, "cronjobs"), cron_job("concurrent"))
    cron_active(w, "concurrent", 2)
    check(len(active_jobs(w)) >= 2)
    w.api.delete(w.apis(BATCH, "cronjobs", "concurrent"), {"propagationPolicy": "Background"})


@test("[sig-apps] CronJob should not schedule jobs when suspended [Slow]",
      "watched for 75 s, not for five minutes")
def cron_suspended(w):
    w.api.create(w.apis(BATCH, "cronjobs"), cron_job("suspended", suspend=True))
    # Upstream watches for five minutes.
    w.never(lambda: w.api.get(w.apis(BATCH, "cronjobs", "suspended"))["status"].get("active"), 75, "active")
    check(not w.api.get(w.apis(BATCH, "jobs"))["items"])


@test("[sig-apps] CronJob should not schedule new jobs when ForbidConcurrent [Slow]",
      "watched for 70 s more")
def cron_forbid(w):
    w.api.create(w.apis(BATCH, "cronjobs"), cron_job("forbid", "Forbid"))
    cron_active(w, "forbid", 1)
    equal((len(w.api.get(w.apis(BATCH, "cronjobs", "forbid"))["status"]["active"]), len(active_jobs(w))), (1, 1), "active")
    w.never(lambda: len(w.api.get(w.apis(BATCH, "cronjobs", "forbid"))["status"]["active"]) > 1, 70, "two active")


@test("[sig-apps] CronJob should replace jobs when ReplaceConcurrent")
def cron_replace(w):
    w.api.create(w.apis(BATCH, "cronjobs"), cron_job("replace", "Replace"))
    cron_active(w, "replace", 1)
    equal((len(w.api.get(w.apis(BATCH, "cronjobs", "replace"))["status"]["active"]), len(active_jobs(w))), (1, 1), "active")
    old = w.api.get(w.apis(BATCH, "jobs"))["items"][0]["metadata"]["name"]

    def replaced():
        jobs = w.api.get(w.apis(BATCH, "jobs"))["items"]
        check(len(jobs) <= 2, jobs)
        return len(jobs) == 1 and jobs[0]["metadata"]["name"] != old

    w.until(replaced, 120, "replaced")


@test("[sig-apps] CronJob should support CronJob API operations")
def cron_api(w):
    discovery(w, "batch", "v1", "cronjobs", "cronjobs/status")
    path = w.apis(BATCH, "cronjobs")
    name, _, events, selector = operations(w, path, {
        "metadata": {"generateName": "e2e-example-test"}, **{k: v for k, v in cron_job("x", schedule="* */1 * * ?").items()
                                                              if k == "spec"}}, everywhere="/apis/batch/v1/cronjobs")
    at = "2026-01-01T00:00:00Z"
    status = w.api.patch(f"{path}/{name}/status", {"metadata": {"annotations": {"patchedstatus": "true"}},
                                                   "status": {"lastScheduleTime": at}}, MERGE)
    equal((status["status"]["lastScheduleTime"], status["metadata"]["annotations"].get("patchedstatus")), (at, "true"), "status")
    later = "2026-01-01T01:00:00Z"
    status = w.api.retry_update(f"{path}/{name}/status", lambda c: c["status"].update(lastScheduleTime=later))
    equal(status["status"]["lastScheduleTime"], later, "status")
    equal(w.api.get(f"{path}/{name}/status")["metadata"]["uid"], status["metadata"]["uid"], "uid")
    # With finalizers for foreground deletion, as upstream: it may stay a little.
    w.api.delete(f"{path}/{name}", {"propagationPolicy": "Background"})
    w.gone(f"{path}/{name}", 30)
    equal(len(w.api.get(path + selector)["items"]), 2, "left")
    w.api.call("DELETE", path + selector, {"propagationPolicy": "Background"})
    w.until(lambda: not w.api.get(path + selector)["items"], 60, "gone")


# === Disruption ===


def pdb(name, **spec):
    return {"metadata": {"name": name, "labels": {"foo_pdb": "bar"}}, "spec": {"selector": {"matchLabels": {"foo": "bar"}}, **spec}}


def pdb_processed(w, name):
    def condition():
        found = w.api.get(w.apis(POLICY, "poddisruptionbudgets", name))
        return found["status"].get("observedGeneration", 0) >= found["metadata"]["generation"] and found

    return w.until(condition, 60, "processed")


@test("[sig-apps] DisruptionController should create a PodDisruptionBudget")
def pdb_create(w):
    path = w.apis(POLICY, "poddisruptionbudgets")
    w.api.create(path, pdb("foo", minAvailable=1))
    pdb_processed(w, "foo")
    w.api.retry_update(f"{path}/foo", lambda p: p["spec"].update(minAvailable="1%"))
    pdb_processed(w, "foo")
    patched = w.api.patch(f"{path}/foo", {"spec": {"minAvailable": "3%"}}, STRATEGIC)
    equal(patched["spec"]["minAvailable"], "3%", "patched")
    pdb_processed(w, "foo")
    w.api.delete(f"{path}/foo")
    w.gone(f"{path}/foo")


@test("[sig-apps] DisruptionController Listing PodDisruptionBudgets for all namespaces should list and delete a collection of PodDisruptionBudgets")
def pdb_collection(w):
    path = w.apis(POLICY, "poddisruptionbudgets")
    other = f"{w.ns}-2"
    w.api.create("/api/v1/namespaces", {"metadata": {"name": other}})
    w.cleanups.append(lambda: w.api.delete(f"/api/v1/namespaces/{other}"))
    for name, ns, n in [("foo", w.ns, 1), ("foo2", w.ns, "2%"), ("foo3", other, 1)]:
        w.api.create(w.apis(POLICY, "poddisruptionbudgets", ns=ns), pdb(name, minAvailable=n))
    listed = w.api.get("/apis/policy/v1/poddisruptionbudgets?labelSelector=foo_pdb%3Dbar")["items"]
    check(len([p for p in listed if p["metadata"]["namespace"] in {w.ns, other}]) == 3, listed)
    equal(len(w.api.get(path)["items"]), 2, "in the namespace")
    w.api.call("DELETE", path)
    w.until(lambda: not w.api.get(path)["items"], 60, "gone")


def pdb_pods(w, count):
    for i in range(count):
        w.api.create(w.core("pods"), w.pod(f"pod-{i}", labels={"foo": "bar"}, containers=[container("donothing", PAUSE)]))
    ready_pods(w, "foo%3Dbar", count)


@test("[sig-apps] DisruptionController should observe PodDisruptionBudget status updated")
def pdb_observed(w):
    w.api.create(w.apis(POLICY, "poddisruptionbudgets"), pdb("foo", minAvailable=1))
    pdb_pods(w, 3)

    def allowed():
        status = pdb_processed(w, "foo")["status"]
        equal((status["disruptionsAllowed"], status["expectedPods"], status["currentHealthy"], status["desiredHealthy"]),
              (2, 3, 3, 1), "status")
        return True

    w.until(allowed, 60, "two disruptions allowed")


@test("[sig-apps] DisruptionController should update/patch PodDisruptionBudget status")
def pdb_status(w):
    path = w.apis(POLICY, "poddisruptionbudgets")
    w.api.create(path, pdb("foo", minAvailable=1))
    pdb_pods(w, 1)
    pdb_processed(w, "foo")
    w.until(lambda: w.api.get(f"{path}/foo")["status"].get("currentHealthy") == 1, 30, "healthy")

    def change(found):
        found["status"]["disruptedPods"] = {"pod-0": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}

    found = w.api.retry_update(f"{path}/foo/status", change)
    check("pod-0" in found["status"]["disruptedPods"], found["status"])
    patched = w.api.patch(f"{path}/foo/status", {"status": {"disruptedPods": None}}, MERGE)
    check(not patched["status"].get("disruptedPods"), patched["status"])


@test("[sig-apps] DisruptionController should block an eviction until the PDB is updated to allow it")
def pdb_block(w):
    path = w.apis(POLICY, "poddisruptionbudgets")
    w.api.create(path, pdb("foo", minAvailable=3))
    pdb_pods(w, 3)
    w.until(lambda: pdb_processed(w, "foo")["status"].get("currentHealthy") == 3, 60, "three healthy")
    evict = lambda name: w.api.create(w.core("pods", name) + "/eviction", {
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": w.ns}})
    try:
        evict("pod-0")
        check(False, "evicted")
    except Refused as refused:
        equal((refused.code, refused.status["details"]["causes"][0]["reason"]), (429, "DisruptionBudget"), "cause")
        equal(refused.status["message"], "Cannot evict pod as it would violate the pod's disruption budget.", "message")
    w.api.retry_update(f"{path}/foo", lambda p: p["spec"].update(minAvailable=2))
    w.until(lambda: pdb_processed(w, "foo")["status"].get("disruptionsAllowed") == 1, 60, "one allowed")
    evict("pod-0")
    w.gone(w.core("pods", "pod-0"), 60)
    # All pods that are left are needed again.
    w.api.patch(f"{path}/foo", {"spec": {"minAvailable": 3}}, MERGE)
    w.until(lambda: pdb_processed(w, "foo")["status"].get("disruptionsAllowed") == 0, 60, "none allowed")
    try:
        evict("pod-1")
        check(False, "evicted")
    except Refused as refused:
        equal((refused.code, refused.status["details"]["causes"][0]["reason"]), (429, "DisruptionBudget"), "cause")
    w.api.delete(f"{path}/foo")
    w.gone(f"{path}/foo")
    w.until(lambda: evict("pod-1"), 60, "evicted")
