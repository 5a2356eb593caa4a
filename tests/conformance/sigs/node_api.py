"""Kinds of the node's API groups that need no container.

test/e2e/common/node/{lease,podtemplates,runtimeclass}.go, test/e2e/node/{node_lifecycle,taints}.go,
test/e2e/dra/dra.go
"""

import time

from frame import APPLY, JSON, MERGE, STRATEGIC, check, equal, name, pause, refused, test, until

from .operations import crud

# === Leases ===


def lease(holder, seconds, acquired, renewed, transitions):
    # Upstream counts from the year 1.
    return {
        "holderIdentity": holder, "leaseDurationSeconds": seconds, "leaseTransitions": transitions,
        "acquireTime": f"0001-01-01T00:00:{acquired:02}.000000Z",
        "renewTime": f"0001-01-01T00:{renewed // 60:02}:{renewed % 60:02}.000000Z",
    }


@test("[sig-node] Lease lease API should be available")
def leases(world):
    every = world.apis("coordination.k8s.io/v1", "leases")
    one = every + "/lease"
    made = world.api.create(every, {"metadata": {"name": "lease"}, "spec": lease("holder", 30, 2, 5, 0)})
    equal(world.api.get(one)["spec"], lease("holder", 30, 2, 5, 0))
    made["spec"] = lease("holder2", 30, 20, 50, 1)
    world.api.update(one, made)
    equal(world.api.get(one)["spec"], made["spec"])
    world.api.patch(one, {"spec": lease("holder3", 60, 50, 70, 2)}, STRATEGIC)
    equal(world.api.get(one)["spec"], lease("holder3", 60, 50, 70, 2))
    second = {"metadata": {"name": "lease2", "labels": {"deletecollection": "true"}}, "spec": lease("holder", 30, 2, 5, 0)}
    world.api.create(every, second)
    equal(len(world.api.get(every)["items"]), 2)
    world.api.delete(every, labelSelector="deletecollection=true")
    equal(len(world.api.get(every)["items"]), 1)
    world.api.delete(one)
    refused(lambda: world.api.get(one), code=404)
    world.api.get("/apis/coordination.k8s.io/v1/leases")


# === Nodes ===


@test("[sig-node] Node Lifecycle should run through the lifecycle of a node")
def node_life(world):
    node = f"e2e-fake-node-{world.ns}"
    ready = {"type": "Ready", "status": "True", "reason": "E2E", "message": "Set from e2e test"}
    body = {
        "metadata": {"name": node}, "spec": {"unschedulable": True},
        "status": {"phase": "Running", "conditions": [ready]},
    }
    made = world.api.create("/api/v1/nodes", body)
    path = f"/api/v1/nodes/{node}"
    equal(world.api.get(path)["metadata"]["name"], node)
    patched = world.api.patch(path, {"metadata": {"labels": {node: "patched"}}}, STRATEGIC)
    equal(patched["metadata"]["labels"][node], "patched")
    versions = [int(o["metadata"]["resourceVersion"]) for o in (made, patched)]
    check(versions[0] < versions[1], versions)
    equal(len(world.api.get("/api/v1/nodes", labelSelector=f"{node}=patched")["items"]), 1)

    def put():
        seen = world.api.get(path)
        seen["metadata"]["labels"][node] = "updated"
        return world.api.update(path, seen)

    equal(until(put, what="the update")["metadata"]["labels"][node], "updated")
    world.api.delete(path)
    world.gone(path)


# === Pod templates ===


def template(label, **labels):
    return {
        "metadata": {"name": name("podtemplate"), "labels": {"podtemplate-set": label, **labels}},
        "template": {"spec": {"containers": [pause("nginx")]}},
    }


@test("[sig-node] PodTemplates should run the lifecycle of PodTemplates")
def templates(world):
    every = world.core("podtemplates")
    made = world.api.create(every, template("life"))["metadata"]["name"]
    body = {
        "metadata": {"labels": {"podtemplate": "patched"}},
        "template": {"spec": {"containers": [{"name": "nginx", "image": "other:1", "resources": {}}]}},
    }
    world.api.patch(f"{every}/{made}", body, STRATEGIC)
    seen = world.api.get(f"{every}/{made}")
    equal(seen["metadata"]["labels"]["podtemplate"], "patched")
    equal([c["image"] for c in seen["template"]["spec"]["containers"]], ["other:1"])
    found = world.api.get("/api/v1/podtemplates", labelSelector="podtemplate=patched,podtemplate-set=life")
    check(made in [t["metadata"]["name"] for t in found["items"]])
    world.api.delete(f"{every}/{made}")
    equal(world.api.get(every, labelSelector="podtemplate-set=life")["items"], [])


@test("[sig-node] PodTemplates should delete a collection of pod templates")
def template_collection(world):
    every = world.core("podtemplates")
    for _ in range(3):
        world.api.create(every, template("true"))
    equal(len(world.api.get(every, labelSelector="podtemplate-set=true")["items"]), 3)
    world.api.delete(every, labelSelector="podtemplate-set=true")
    equal(world.api.get(every, labelSelector="podtemplate-set=true")["items"], [])


@test("[sig-node] PodTemplates should replace a pod template")
def template_replace(world):
    every = world.core("podtemplates")
    made = world.api.create(every, template("one"))
    made["metadata"]["annotations"] = {"updated": "true"}
    seen = world.api.update(f"{every}/{made['metadata']['name']}", made)
    equal(seen["metadata"]["annotations"], {"updated": "true"})


# === Runtime classes ===

CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"


def class_pod(world, runtime):
    return {"runtimeClassName": runtime, "containers": [pause("test")], "restartPolicy": "Never", "automountServiceAccountToken": False}


@test("[sig-node] RuntimeClass should reject a Pod requesting a non-existent RuntimeClass")
def class_missing(world):
    spec = class_pod(world, f"{world.ns}-nonexistent")
    said = refused(lambda: world.create_pod(spec), code=403)
    check("pod rejected: RuntimeClass" in said.message, said.message)


@test("[sig-node] RuntimeClass should reject a Pod requesting a deleted RuntimeClass")
def class_deleted(world):
    runtime = f"{world.ns}-delete-me"
    world.api.create(CLASSES, {"metadata": {"name": runtime}, "handler": "runc"})
    world.api.delete(f"{CLASSES}/{runtime}")
    world.gone(f"{CLASSES}/{runtime}")
    refused(lambda: world.create_pod(class_pod(world, runtime)), code=403)


def with_class(world, **more):
    runtime = f"{world.ns}-preconfigured-handler"
    body = {"metadata": {"name": runtime}, "handler": "test-handler", **more}
    world.api.create(CLASSES, body)
    try:
        pod = world.create_pod(class_pod(world, runtime))["metadata"]["name"]
        return until(lambda: world.get_pod(pod)["spec"].get("nodeName") and world.get_pod(pod), what="the pod to be scheduled")
    finally:
        world.api.delete(f"{CLASSES}/{runtime}")


@test("[sig-node] RuntimeClass should schedule a Pod requesting a RuntimeClass without PodOverhead")
def class_plain(world):
    equal(with_class(world)["spec"].get("overhead"), None)


@test("[sig-node] RuntimeClass should schedule a Pod requesting a RuntimeClass and initialize its Overhead")
def class_overhead(world):
    overhead = {"cpu": "10m", "memory": "1Mi"}
    equal(with_class(world, overhead={"podFixed": overhead})["spec"]["overhead"], overhead)


@test("[sig-node] RuntimeClass should support RuntimeClasses API operations")
def class_operations(world):
    bodies = [
        {"metadata": {"name": f"{world.ns}-class{i}"}, "handler": f"{world.ns}-handler{i}"}
        for i in range(3)
    ]
    crud(world, "node.k8s.io", "runtimeclasses", CLASSES, bodies)


# === Dynamic resources ===


def recreate(world, path, body):
    return world.api.create(path, body, fieldValidation="Strict")


def removed(world, one):
    world.api.delete(one)
    world.gone(one, 30)


def resource(world, path, body, change, patches, status=None, status_patches=()):
    """Upstream's `TestResource`: each kind of write on a fresh object, then a collection."""
    body["metadata"] = {"name": f"test-{world.ns}", "labels": {"e2e-test.kubernetes.io": world.ns}}
    one = f"{path}/{body['metadata']['name']}"
    recreate(world, path, body)
    refused(lambda: world.api.create(path, body), code=409)
    seen = world.api.get(one)
    change(seen)
    seen = world.api.update(one, seen)
    if status:
        equal(world.api.get(one + "/status")["metadata"]["uid"], seen["metadata"]["uid"])
        seen["status"] = status
        equal(world.api.update(one + "/status", seen)["status"], status)
    check(one.rsplit("/", 1)[-1] in [o["metadata"]["name"] for o in world.api.get(path)["items"]])
    removed(world, one)
    for kind, data in patches:
        made = recreate(world, path, body)
        seen = send(world, one, kind, data, made)
        for status_kind, status_data in status_patches:
            if status_kind == kind:
                seen = send(world, one + "/status", kind, status_data, seen)
                check("allocation" in seen["status"], seen)
        removed(world, one)
    recreate(world, path, body)
    world.api.delete(path, labelSelector=f"e2e-test.kubernetes.io={world.ns}")
    world.gone(one, 30)


def send(world, one, kind, data, like):
    query = {"fieldValidation": "Strict"}
    if kind != JSON:
        data = {**data, "apiVersion": like["apiVersion"], "kind": like["kind"]}
        known = {k: v for k, v in like["metadata"].items() if k in ("name", "namespace", "uid")}
        data["metadata"] = {**known, **data.get("metadata", {})}
    if kind == APPLY:
        query |= {"fieldManager": "test-apply", "force": "true"}
    return world.api.patch(one, data, kind, **query)


RESOURCE = "/apis/resource.k8s.io/v1"
CLAIM = {"devices": {"requests": [{"name": "req-0", "exactly": {"deviceClassName": "dra.example.com"}}]}}
LABEL = {"metadata": {"labels": {"test.dra.example.com": "test"}}}


def labelled(seen):
    seen["metadata"].setdefault("labels", {})["test.dra.example.com"] = "test"


@test("[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 DeviceClass")
def device_class(world):
    selector = lambda e: {"selectors": [{"cel": {"expression": e}}]}
    body = {"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "spec": selector("false")}
    resource(
        world, f"{RESOURCE}/deviceclasses", body, lambda s: s.update(spec=selector("1 == 0")),
        [(STRATEGIC, {"spec": selector("1 == 0")})],
    )


@test("[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaim")
def resource_claim(world):
    body = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "spec": CLAIM}
    nothing = {"status": {"allocation": {}}}
    json_label = [{"op": "add", "path": "/metadata/labels/test.dra.example.com", "value": "test"}]
    json_status = [{"op": "add", "path": "/status/allocation", "value": {}}]
    resource(
        world, world.apis("resource.k8s.io/v1", "resourceclaims"), body, labelled,
        [(STRATEGIC, LABEL), (APPLY, LABEL), (MERGE, LABEL), (JSON, json_label)],
        {"allocation": {}},
        [(STRATEGIC, nothing), (APPLY, nothing), (MERGE, nothing), (JSON, json_status)],
    )


@test("[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaimTemplate")
def resource_claim_template(world):
    body = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate", "spec": {"spec": CLAIM}}
    path = world.apis("resource.k8s.io/v1", "resourceclaimtemplates")
    resource(world, path, body, labelled, [(STRATEGIC, LABEL)])


@test("[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceSlice")
def resource_slice(world):
    spec = {"driver": "dra.example.com", "nodeName": "no-such-node", "pool": {"name": "cluster", "generation": 1, "resourceSliceCount": 1}}
    body = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "spec": spec}
    devices = [{"name": "device-0"}]
    resource(
        world, f"{RESOURCE}/resourceslices", body, lambda s: s["spec"].update(devices=devices),
        [(STRATEGIC, {"spec": {"devices": devices}})],
    )


@test("[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 DeviceTaintRule")
def device_taint_rule(world):
    taint = {"key": "example.com/taint", "value": "tainted", "effect": "NoSchedule"}
    spec = {"deviceSelector": {"driver": "dra.example.com"}, "taint": taint}
    body = {"apiVersion": "resource.k8s.io/v1", "kind": "DeviceTaintRule", "spec": spec}
    other = {"taint": {**taint, "value": "changed"}}
    resource(
        world, f"{RESOURCE}/devicetaintrules", body, lambda s: s["spec"].update(other),
        [(STRATEGIC, {"spec": other})],
    )


# === Taints that evict ===

KEY = "kubernetes.io/e2e-evict-taint-key"


def tolerating(seconds):
    return {"tolerations": [{"key": KEY, "value": "evictTaintVal", "effect": "NoExecute", "tolerationSeconds": seconds}], "containers": [pause()], "terminationGracePeriodSeconds": 1}


def taint(world, node):
    def put():
        seen = world.api.get(f"/api/v1/nodes/{node}")
        mine = {"key": KEY, "value": "evictTaintVal", "effect": "NoExecute"}
        seen["spec"]["taints"] = [*seen["spec"].get("taints", []), mine]
        return world.api.update(f"/api/v1/nodes/{node}", seen)

    until(put, 30, "the taint")


def untaint(world, node):
    def put():
        seen = world.api.get(f"/api/v1/nodes/{node}")
        seen["spec"]["taints"] = [t for t in seen["spec"].get("taints", []) if t["key"] != KEY]
        return world.api.update(f"/api/v1/nodes/{node}", seen)

    until(put, 30, "the taint to be taken away")


@test("[sig-node] NoExecuteTaintManager Single Pod removing taint cancels eviction", serial=True, slow=True, note="watched for 20 s after the toleration's end, not for 75")
def taint_removed(world):
    pod = world.run_pod(tolerating(10))
    node = pod["spec"]["nodeName"]
    taint(world, node)
    try:
        time.sleep(5)
        check("deletionTimestamp" not in world.get_pod(pod["metadata"]["name"])["metadata"])
    finally:
        untaint(world, node)
    time.sleep(20)
    seen = world.get_pod(pod["metadata"]["name"])
    check("deletionTimestamp" not in seen["metadata"], "it was evicted")


@test("[sig-node] NoExecuteTaintManager Multiple Pods evicts pods with minTolerationSeconds", serial=True, slow=True)
def taint_two(world):
    first = world.run_pod(tolerating(5), "first")
    node = first["spec"]["nodeName"]
    world.run_pod({**tolerating(25), "nodeSelector": {"kubernetes.io/hostname": node}}, "second")
    taint(world, node)
    began = time.monotonic()
    try:
        world.gone(world.core("pods", "first"), 70)
        check(time.monotonic() - began < 20, "the first pod went late")
        world.get_pod("second")
        world.gone(world.core("pods", "second"), 70)
        check(time.monotonic() - began >= 24, "the second pod went early")
    finally:
        untaint(world, node)
