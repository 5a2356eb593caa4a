"""[sig-api-machinery]: test/e2e/apimachinery/garbage_collector.go."""

import time

from frame import NGINX, STRATEGIC, check, container, equal, test, word

GROUP = "[sig-api-machinery] Garbage collector"


def template(labels):
    return {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [container("nginx", NGINX)]}}


def controller(w, name, replicas, label):
    labels = {f"gctest-{word()}": label}
    return w.api.create(w.core("replicationcontrollers"), {"metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": labels, "template": template(labels)}})


def many(w):
    """Half of what the nodes take, 10 at least and 100 at most."""
    return max(10, min(100, sum(int(n["status"]["allocatable"]["pods"]) for n in w.nodes()) // 2))


def all_made(w, rc):
    path, wanted = w.core("replicationcontrollers", rc["metadata"]["name"]), rc["spec"]["replicas"]
    w.until(lambda: w.api.get(path)["status"].get("replicas") == wanted, 120, f"{wanted} replicas")


def remove(w, path, made, policy):
    w.api.delete(path, {"propagationPolicy": policy, "preconditions": {"uid": made["metadata"]["uid"]}})


def left(w, **counts):
    paths = {"pods": w.core("pods"), "controllers": w.core("replicationcontrollers"),
             "deployments": w.apis("apps/v1", "deployments"), "sets": w.apis("apps/v1", "replicasets")}
    return all(len(w.api.get(paths[what])["items"]) == count for what, count in counts.items())


@test(f"{GROUP} should delete pods created by rc when not orphaning")
def background(w):
    rc = controller(w, "simpletest.rc", 2, "delete_pods")
    w.until(lambda: w.pods(), 30, "some pods")
    remove(w, w.core("replicationcontrollers", "simpletest.rc"), rc, "Background")
    w.until(lambda: left(w, controllers=0, pods=0), 120, "all are gone")


@test(f"{GROUP} should orphan pods created by rc if delete options say so [Serial]")
def orphan(w):
    rc = controller(w, "simpletest.rc", many(w), "orphan_pods")
    all_made(w, rc)
    remove(w, w.core("replicationcontrollers", "simpletest.rc"), rc, "Orphan")
    w.until(lambda: left(w, controllers=0), 180, "the controller is gone")
    time.sleep(30)
    check(left(w, pods=rc["spec"]["replicas"]), "all pods are left")


def deployment(w, label):
    labels = {f"gctest-{word()}": label}
    made = w.api.create(w.apis("apps/v1", "deployments"), {"metadata": {"name": "simpletest.deployment"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": labels}, "template": template(labels)}})
    w.until(lambda: w.api.get(w.apis("apps/v1", "replicasets"))["items"], 60, "a ReplicaSet")
    return made


@test(f"{GROUP} should delete RS created by deployment when not orphaning")
def sets_deleted(w):
    made = deployment(w, "delete_rs")
    remove(w, w.apis("apps/v1", "deployments", "simpletest.deployment"), made, "Background")
    w.until(lambda: left(w, deployments=0, sets=0, pods=0), 120, "all are gone")


@test(f"{GROUP} should orphan RS created by deployment when deleteOptions.PropagationPolicy is Orphan")
def sets_orphaned(w):
    made, path = deployment(w, "orphan_rs"), w.apis("apps/v1", "replicasets")
    generation = w.api.get(path)["items"][0]["metadata"]["generation"]

    def settled():
        found = w.api.get(path)["items"][0]
        status = found["status"]
        return status.get("observedGeneration", 0) >= generation and status.get("replicas") == found["spec"]["replicas"]

    w.until(settled, 60, "the ReplicaSet has its pods", every=0.1)
    remove(w, w.apis("apps/v1", "deployments", "simpletest.deployment"), made, "Orphan")
    w.until(lambda: left(w, deployments=0), 120, "the deployment is gone")
    check(left(w, sets=1, pods=2), "the rest is left")
    for found in w.api.get(path)["items"]:
        check(not any(o.get("controller") for o in found["metadata"].get("ownerReferences", [])), found["metadata"])


@test(f"{GROUP} should keep the rc around until all its pods are deleted if the deleteOptions says so [Serial]")
def foreground(w):
    rc = controller(w, "simpletest.rc", many(w), "delete_pods_foreground")
    all_made(w, rc)
    path = w.core("replicationcontrollers", "simpletest.rc")
    remove(w, path, rc, "Foreground")
    w.gone(path, 90)
    equal(w.pods(), [], "no pods")


@test(f"{GROUP} should not delete dependents that have both valid owner and owner that's waiting for dependents to be deleted [Serial]")
def two_owners(w):
    first = controller(w, "simpletest-rc-to-be-deleted", many(w), "valid_and_pending_owners_d")
    second = controller(w, "simpletest-rc-to-stay", 0, "valid_and_pending_owners_s")
    all_made(w, first)
    half = first["spec"]["replicas"] // 2
    owner = {"apiVersion": "v1", "kind": "ReplicationController", "name": second["metadata"]["name"], "uid": second["metadata"]["uid"]}
    for pod in w.pods()[:half]:
        w.api.patch(w.core("pods", pod["metadata"]["name"]), {"metadata": {"ownerReferences": [owner]}}, STRATEGIC)
    path = w.core("replicationcontrollers", "simpletest-rc-to-be-deleted")
    remove(w, path, first, "Foreground")
    w.gone(path, 90)
    pods = w.pods()
    equal(len(pods), half, "pods")
    for pod in pods:
        check("deletionTimestamp" not in pod["metadata"], pod["metadata"])
        equal(len(pod["metadata"]["ownerReferences"]), 1, "owners")


@test(f"{GROUP} should not be blocked by dependency circle")
def circle(w):
    pods = [w.start(f"pod{n}", terminationGracePeriodSeconds=0, containers=[container("nginx", NGINX)]) for n in [1, 2, 3]]
    for pod, owner in zip(pods, [pods[2], pods[0], pods[1]]):
        reference = {"apiVersion": "v1", "kind": "Pod", "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
                     "controller": True, "blockOwnerDeletion": True}
        w.api.patch(w.core("pods", pod["metadata"]["name"]), {"metadata": {"ownerReferences": [reference]}}, STRATEGIC)
    remove(w, w.core("pods", "pod1"), pods[0], "Foreground")
    w.until(lambda: not w.pods(), 150, "all are gone")
