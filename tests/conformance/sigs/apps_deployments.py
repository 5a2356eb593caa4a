"""[sig-apps]: test/e2e/apps/deployment.go."""

import json

from frame import AGNHOST, HTTPD, PAUSE, STRATEGIC, Events, check, container, equal, test, word

from .workloads import APPS, controlled, scale_tests, status_tests, workload


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
    w.ready_pods("name=sample-pod", 1)
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
    w.ready_pods("name=cleanup-pod", 1)
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
    w.ready_pods("name=rollover-pod", 1)
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
