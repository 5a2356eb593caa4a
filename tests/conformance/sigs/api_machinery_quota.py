"""[sig-api-machinery]: test/e2e/apimachinery/resource_quota.go."""

import time
from fractions import Fraction

from frame import PAUSE, STRATEGIC, Events, Refused, check, container, equal, refused, test, word

GROUP = "[sig-api-machinery] ResourceQuota"
DEVICE = "example.com/dongle"
GOLD = "gold.storageclass.storage.k8s.io"
HARD = {
    "pods": "5", "services": "10", "services.nodeports": "1", "services.loadbalancers": "1", "replicationcontrollers": "10",
    "resourcequotas": "1", "cpu": "1", "memory": "500Mi", "configmaps": "10", "secrets": "10", "persistentvolumeclaims": "10",
    "requests.storage": "10Gi", "ephemeral-storage": "50Gi", f"{GOLD}/persistentvolumeclaims": "10",
    f"{GOLD}/requests.storage": "10Gi", f"requests.{DEVICE}": "3", "count/replicasets.apps": "5",
}
UNITS = {"m": Fraction(1, 1000), "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "k": 10**3, "M": 10**6, "G": 10**9}


def amount(text):
    for unit, factor in UNITS.items():
        if text.endswith(unit):
            return Fraction(text.removesuffix(unit)) * factor
    return Fraction(text)


def quota(w, name="test-quota", scopes=None, **hard):
    spec = {"hard": hard} | ({"scopes": scopes} if scopes else {})
    return w.api.create(w.core("resourcequotas"), {"metadata": {"name": name}, "spec": spec})


def whole(w, **more):
    """The quota that most tests have, and how many there are then."""
    count = len(w.api.get(w.core("resourcequotas"))["items"]) + 1
    quota(w, **(HARD | more))
    return str(count)


def uses(w, name="test-quota", **wanted):
    def same():
        used = w.api.get(w.core("resourcequotas", name)).get("status", {}).get("used", {})
        return all(k in used and amount(used[k]) == amount(v) for k, v in wanted.items())

    w.until(same, 60, f"{name} uses {wanted}")


def settled(w, path, times):
    """How many there are, once that has not changed so often, a second apart."""
    found, unchanged = -1, 0
    while unchanged <= times:
        now = len(w.api.get(path)["items"])
        unchanged = unchanged + 1 if now == found else 0
        found = now
        time.sleep(1)
    return found


@test(f"{GROUP} should create a ResourceQuota and ensure its status is promptly calculated.")
def calculated(w):
    uses(w, resourcequotas=whole(w))


@test(f"{GROUP} should create a ResourceQuota and capture the life of a service.")
def services(w):
    count, path = whole(w), w.core("services")
    uses(w, resourcequotas=count)
    make = lambda name, kind, **more: w.api.create(path, {"metadata": {"name": name}, "spec": {
        "type": kind, "ports": [{"port": 80, "targetPort": 80}], **more}})
    make("test-service", "ClusterIP")
    make("test-service-np", "NodePort")
    refused(lambda: make("test-service-lb", "LoadBalancer", allocateLoadBalancerNodePorts=True))
    uses(w, **{"resourcequotas": count, "services": "2", "services.nodeports": "1"})
    for name in ["test-service", "test-service-np"]:
        w.api.delete(f"{path}/{name}")
    uses(w, **{"resourcequotas": count, "services": "0", "services.nodeports": "0"})


def counted(w, kind, resource, body, times):
    path = w.core(kind)
    found = settled(w, path, times)
    count = whole(w, **{resource: str(found + 1)})
    uses(w, **{"resourcequotas": count, resource: str(found)})
    w.api.create(path, body)
    uses(w, **{resource: str(found + 1)})
    w.api.delete(f"{path}/{body['metadata']['name']}")
    uses(w, **{resource: str(found)})


@test(f"{GROUP} should create a ResourceQuota and capture the life of a secret.")
def secrets(w):
    counted(w, "secrets", "secrets", {"metadata": {"name": "test-secret"}, "data": {"data-1": "dmFsdWUtMQo="}}, 4)


@test(f"{GROUP} should create a ResourceQuota and capture the life of a configMap.")
def configmaps(w):
    counted(w, "configmaps", "configmaps", {"metadata": {"name": "test-configmap"}, "data": {"a": "b"}}, 15)


def pod(w, name, requests=None, limits=None, **spec):
    resources = {"requests": requests or {}, "limits": limits or {}}
    return w.pod(name, containers=[container("pause", PAUSE, resources=resources)], **spec)


@test(f"{GROUP} should create a ResourceQuota and capture the life of a pod.")
def pods(w):
    count, path, of_device = whole(w), w.core("pods"), f"requests.{DEVICE}"
    uses(w, resourcequotas=count)
    requests = {"cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi", DEVICE: "2"}
    made = w.api.create(path, pod(w, "test-pod", requests, {DEVICE: "2"}))
    used = {"resourcequotas": count, "pods": "1", "cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi", of_device: "2"}
    uses(w, **used)
    refused(lambda: w.api.create(path, pod(w, "fail-pod", {"cpu": "600m", "memory": "100Mi"})))
    refused(lambda: w.api.create(path, pod(w, "fail-pod-for-extended-resource", requests | {"memory": "100Mi"}, {DEVICE: "2"})))
    made["spec"]["containers"][0]["resources"]["requests"] = {"cpu": "100m", "memory": "100Mi", "ephemeral-storage": "10Gi"}
    refused(lambda: w.api.update(f"{path}/test-pod", made))
    uses(w, **used)
    w.api.delete(f"{path}/test-pod", {"gracePeriodSeconds": 0})
    uses(w, **{"resourcequotas": count, "pods": "0", "cpu": "0", "memory": "0", "ephemeral-storage": "0", of_device: "0"})


def template(name):
    labels = {"name": name}
    return labels, {"metadata": {"labels": labels}, "spec": {"containers": [container(name, "nginx")]}}


@test(f"{GROUP} should create a ResourceQuota and capture the life of a replication controller.")
def controllers(w):
    count, path = whole(w), w.core("replicationcontrollers")
    uses(w, resourcequotas=count, replicationcontrollers="0")
    labels, of = template("test-rc")
    w.api.create(path, {"metadata": {"name": "test-rc"}, "spec": {"replicas": 0, "selector": labels, "template": of}})
    uses(w, replicationcontrollers="1")
    w.api.delete(f"{path}/test-rc", {"propagationPolicy": "Background"})
    uses(w, replicationcontrollers="0")


@test(f"{GROUP} should create a ResourceQuota and capture the life of a replica set.")
def sets(w):
    count, path, resource = whole(w), w.apis("apps/v1", "replicasets"), "count/replicasets.apps"
    uses(w, **{"resourcequotas": count, resource: "0"})
    labels, of = template("test-rs")
    w.api.create(path, {"metadata": {"name": "test-rs"}, "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": of}})
    uses(w, **{resource: "1"})
    w.api.delete(f"{path}/test-rs")
    uses(w, **{resource: "0"})


SCOPED = {"pods": "5", "requests.cpu": "1", "requests.memory": "500Mi", "limits.cpu": "2", "limits.memory": "1Gi"}
REQUESTS, LIMITS = {"cpu": "500m", "memory": "200Mi"}, {"cpu": "1", "memory": "400Mi"}
NOTHING = dict.fromkeys(SCOPED, "0")
ONE = {"pods": "1", "requests.cpu": "500m", "requests.memory": "200Mi", "limits.cpu": "1", "limits.memory": "400Mi"}


def lives(w, body, inside, outside, one, nothing):
    """A pod that one quota counts and the other does not."""
    name = w.api.create(w.core("pods"), body)["metadata"]["name"]
    uses(w, inside, **one)
    uses(w, outside, **nothing)
    w.api.delete(w.core("pods", name), {"gracePeriodSeconds": 0})
    uses(w, inside, **nothing)


@test(f"{GROUP} should verify ResourceQuota with terminating scopes.")
def terminating(w):
    for name, scope in [("quota-terminating", "Terminating"), ("quota-not-terminating", "NotTerminating")]:
        quota(w, name, [scope], **SCOPED)
        uses(w, name, pods="0")
    lives(w, pod(w, "test-pod", REQUESTS, LIMITS), "quota-not-terminating", "quota-terminating", ONE, NOTHING)
    body = pod(w, "terminating-pod", REQUESTS, LIMITS, activeDeadlineSeconds=3600)
    lives(w, body, "quota-terminating", "quota-not-terminating", ONE, NOTHING)


@test(f"{GROUP} should verify ResourceQuota with best effort scope.")
def best_effort(w):
    quota(w, "quota-besteffort", ["BestEffort"], pods="5")
    uses(w, "quota-besteffort", pods="0")
    quota(w, "quota-not-besteffort", ["NotBestEffort"], **SCOPED)
    uses(w, "quota-not-besteffort", pods="0")
    one, nothing = {"pods": "1"}, {"pods": "0"}
    lives(w, pod(w, "test-pod"), "quota-besteffort", "quota-not-besteffort", one, nothing)
    lives(w, pod(w, "burstable-pod", REQUESTS, LIMITS), "quota-not-besteffort", "quota-besteffort", one, nothing)


@test(f"{GROUP} should be able to update and delete ResourceQuota.")
def update(w):
    path = w.core("resourcequotas", "test-quota")
    quota(w, cpu="1", memory="500Mi")
    equal(w.api.get(path)["spec"]["hard"], {"cpu": "1", "memory": "500Mi"}, "created")
    # Without a resourceVersion, as upstream's.
    changed = {"metadata": {"name": "test-quota"}, "spec": {"hard": {"cpu": "2", "memory": "1Gi"}}}
    equal(w.api.update(path, changed)["spec"]["hard"], {"cpu": "2", "memory": "1Gi"}, "updated")
    equal(w.api.get(path)["spec"]["hard"], {"cpu": "2", "memory": "1Gi"}, "found")
    w.api.delete(path)
    check(w.exists(path) is None, "gone")


@test(f"{GROUP} should manage the lifecycle of a ResourceQuota")
def lifecycle(w):
    path, name = w.core("resourcequotas"), f"e2e-quota-{word()}"
    selector = f"?labelSelector=e2e-rq-label%3D{name}"
    w.api.create(path, {"metadata": {"name": name, "labels": {"e2e-rq-label": name}}, "spec": {"hard": {"cpu": "1", "memory": "500Mi"}}})
    equal(w.api.get(f"{path}/{name}")["spec"]["hard"], {"cpu": "1", "memory": "500Mi"}, "created")
    equal(len(w.api.get(f"/api/v1/resourcequotas{selector}")["items"]), 1, "listed")
    found = w.api.patch(f"{path}/{name}", {"metadata": {"labels": {name: "patched"}}, "spec": {"hard": {"memory": "750Mi"}}}, STRATEGIC)
    equal((found["metadata"]["labels"][name], found["spec"]["hard"]["memory"]), ("patched", "750Mi"), "patched")
    w.api.call("DELETE", path + selector)
    check(w.exists(f"{path}/{name}") is None, "gone")


@test(f"{GROUP} should apply changes to a resourcequota status")
def status(w):
    path, name = w.core("resourcequotas"), f"e2e-rq-status-{word()}"
    at, of = f"{path}/{name}", f"e2e-rq-label={name}"
    first = {"cpu": "500m", "memory": "500Mi"}
    events = Events(w, path, labelSelector=of)
    w.api.create(path, {"metadata": {"name": name, "labels": {"e2e-rq-label": name}}, "spec": {"hard": first}})
    equal(w.api.get(at)["spec"]["hard"], first, "hard")

    def update_status():
        found = w.api.get(at)
        found["status"] = {"hard": first}
        return w.api.update(f"{at}/status", found)

    def without_conflict():
        try:
            return update_status()
        except Refused as said:
            check(said.code == 409, said.text)

    w.until(without_conflict, 30, "the status is written")
    events.wait("MODIFIED", lambda q: q["status"].get("hard") == first)
    second = {"cpu": "1", "memory": "1Gi"}
    equal(w.api.patch(at, {"spec": {"hard": second}}, STRATEGIC)["spec"]["hard"], second, "patched")
    w.api.patch(f"{at}/status", {"status": {"hard": second}}, STRATEGIC)
    events.wait("MODIFIED", lambda q: q["status"].get("hard") == second)
    equal(w.api.get(f"{at}/status")["status"]["hard"], second, "/status")
    third = {"cpu": "2", "memory": "2Gi"}
    equal(w.api.patch(f"{at}/status", {"status": {"hard": third}}, STRATEGIC)["status"]["hard"], third, "repatched")
    events.wait("MODIFIED", lambda q: q["status"].get("hard") == third)
    # The controller puts the status right again; the specification was not changed.
    events.wait("MODIFIED", lambda q: int(q["metadata"]["resourceVersion"]) and q["status"].get("hard") == second)
    equal(w.api.get(at)["spec"]["hard"], second, "spec")
