"""[sig-api-machinery]: test/e2e/apimachinery/{custom_resource_definition,crd_watch,crd_conversion_webhook,crd_selectable_fields}.go."""

import uuid

from frame import JSON, MERGE, Ordered, Refused, check, equal, test

from .definitions import ANYTHING, CRDS, Definition
from .deployed import PORT, deploy
from .operations import discovery

SIG = "[sig-api-machinery]"
RESOURCES = f"{SIG} CustomResourceDefinition resources [Privileged:ClusterAdmin]"


@test(f"{RESOURCES} Simple CustomResourceDefinition creating/deleting custom resource definition objects works")
def create_delete(w):
    Definition(w, scope="Cluster").delete()


@test(f"{RESOURCES} Simple CustomResourceDefinition listing custom resource definition objects works")
def listing(w):
    of = str(uuid.uuid4())
    made = {d.name: d for d in (Definition(w, scope="Cluster", labels={"e2e-list-test-uuid": of}) for _ in range(10))}
    other = Definition(w, scope="Cluster")
    selector = f"{CRDS}?labelSelector=e2e-list-test-uuid%3D{of}"
    found = w.api.get(selector)["items"]
    equal({c["metadata"]["name"] for c in found}, set(made), "listed")
    for one in found:
        equal(one["spec"], made[one["metadata"]["name"]].made["spec"], one["metadata"]["name"])
    w.api.call("DELETE", selector)
    w.until(lambda: not w.api.get(selector)["items"], 30, "the collection is gone")
    w.api.get(f"{CRDS}/{other.name}")


@test(f"{RESOURCES} Simple CustomResourceDefinition getting/updating/patching custom resource definition status sub-resource works")
def status(w):
    crd = Definition(w, scope="Cluster")
    at = f"{CRDS}/{crd.name}/status"

    def append(found):
        equal(found["spec"], crd.made["spec"], "spec")
        # As a typed client writes a condition that has a message only.
        found["status"]["conditions"].append({"type": "", "status": "", "lastTransitionTime": None, "message": "updated"})

    updated = w.api.retry_update(at, append)
    check(any(c.get("message") == "updated" for c in updated["status"]["conditions"]), updated["status"])
    change = [{"op": "add", "path": "/status/conditions", "value": [{"message": "patched"}]}]
    patched = w.api.patch(at, change, JSON)
    check(any(c.get("message") == "patched" for c in patched["status"]["conditions"]), patched["status"])


@test(f"{RESOURCES} should include custom resource definition resources in discovery documents")
def documents(w):
    discovery(w, "apiextensions.k8s.io", "v1", "customresourcedefinitions")
    equal(w.api.get("/apis/apiextensions.k8s.io/v1")["groupVersion"], "apiextensions.k8s.io/v1", "groupVersion")


@test(f"{RESOURCES} custom resource defaulting for requests and from storage works")
def defaulting(w):
    text = {"type": "string"}
    crd = Definition(w, scope="Cluster", schema={**ANYTHING, "properties": {"a": text, "b": text}})
    crd.create("cr-1")
    at = "/spec/versions/0/schema/openAPIV3Schema/properties"
    crd.patch([{"op": "add", "path": f"{at}/a/default", "value": "A"}], JSON)
    found = w.until(lambda: (o := w.api.get(crd.path("cr-1"))).get("a") and o, 30, "a default from storage", every=0.1)
    equal(found["a"], "A", "a")
    equal(crd.create("cr-2")["a"], "A", "a")
    crd.patch([{"op": "remove", "path": f"{at}/a/default"}, {"op": "add", "path": f"{at}/b/default", "value": "B"}], JSON)
    found = w.until(lambda: (o := w.api.get(crd.path("cr-2"))).get("b") and o, 30, "the other default", every=0.1)
    equal((found["a"], found["b"]), ("A", "B"), "both")


@test(f"{SIG} CustomResourceDefinition Watch [Privileged:ClusterAdmin] CustomResourceDefinition Watch watch on custom resource definition objects")
def watch(w):
    crd = Definition(w, scope="Cluster")
    watches = {name: Ordered(w, crd.path(), fieldSelector=f"metadata.name={name}") for name in ["name1", "name2"]}
    for name, seen in watches.items():
        crd.create(name)
        seen.expect("ADDED", name)
    for name, seen in watches.items():
        w.api.patch(crd.path(name), {"metadata": {"labels": {"changed": "yes"}}}, MERGE)
        seen.expect("MODIFIED", name)
    for name, seen in watches.items():
        w.api.delete(crd.path(name))
        seen.expect("DELETED", name)
        seen.nothing()


# === conversion ===

CONVERSION = f"{SIG} CustomResourceConversionWebhook [Privileged:ClusterAdmin]"
SERVICE = "e2e-test-crd-conversion-webhook"
TEXT = {"type": "string"}
SCHEMAS = {"v1": {"type": "object", "properties": {"hostPort": TEXT}},
           "v2": {"type": "object", "properties": {"host": TEXT, "port": TEXT}}}


def converted(w, fields=None):
    """A definition of two versions that a webhook converts, once that works."""
    certificate = deploy(w, "crd-conversion-webhook", SERVICE)
    webhook = {"conversionReviewVersions": ["v1", "v1beta1"], "clientConfig": {"caBundle": certificate.ca, "service": {
        "namespace": w.ns, "name": SERVICE, "path": "/crdconvert", "port": PORT}}}
    crd = Definition(w, versions=["v1", "v2"], conversion={"strategy": "Webhook", "webhook": webhook})
    store(crd, "v1", fields)

    def works():
        try:
            crd.create("stub", "v2")
        except Refused:
            return False
        w.api.delete(crd.path("stub", "v2"))
        return True

    w.until(works, 30, "conversion works", every=0.1)
    return crd


def store(crd, stored, fields=None):
    """Stores a version; `fields` of each version may be selected by."""
    selectable = lambda v: {"selectableFields": [{"jsonPath": f".{f}"} for f in fields[v]]} if fields else {}
    crd.patch({"spec": {"versions": [crd.version(v, v == stored, SCHEMAS[v]) | selectable(v) for v in ["v1", "v2"]]}})


def as_v1(crd, found):
    equal((found["apiVersion"], found.get("hostPort"), found.get("host"), found.get("port")),
          (f"{crd.group}/v1", "localhost:8080", None, None), "v1")


def as_v2(crd, found):
    equal((found["apiVersion"], found.get("hostPort"), found.get("host"), found.get("port")),
          (f"{crd.group}/v2", None, "localhost", "8080"), "v2")


@test(f"{CONVERSION} should be able to convert from CR v1 to CR v2")
def convert(w):
    crd = converted(w)
    crd.create("cr-instance-1", "v1", hostPort="localhost:8080")
    as_v2(crd, w.api.get(crd.path("cr-instance-1", "v2")))


@test(f"{CONVERSION} should be able to convert a non homogeneous list of CRs")
def convert_list(w):
    crd = converted(w)
    crd.create("cr-instance-1", "v1", hostPort="localhost:8080")
    store(crd, "v2")
    crd.create("cr-instance-2", "v1", hostPort="localhost:8080")
    for version, same in [("v1", as_v1), ("v2", as_v2)]:
        found = w.api.get(crd.path(version=version))["items"]
        equal({o["metadata"]["name"] for o in found}, {"cr-instance-1", "cr-instance-2"}, version)
        for one in found:
            same(crd, one)


# === selectable fields ===


class Seen:
    """The names that a watch with a field selector saw added and deleted."""

    def __init__(self, w, crd, version, selector):
        self.watch = Ordered(w, crd.path(version=version), fieldSelector=selector)
        self.of = {"ADDED": set(), "DELETED": set()}

    def have(self, added, deleted=()):
        wanted = {"ADDED": set(added), "DELETED": set(deleted)}
        while self.of != wanted:
            event = self.watch.next(30)
            check(event and event["type"] in {"ADDED", "MODIFIED", "DELETED"}, f"wanted {wanted}, saw {self.of}, got {event}")
            self.of.setdefault(event["type"], set()).add(event["object"]["metadata"]["name"])
            self.of.pop("MODIFIED", None)
        self.watch.nothing(1)


@test(f"{SIG} CustomResourceFieldSelectors [Privileged:ClusterAdmin] CustomResourceFieldSelectors MUST list and watch custom resources matching the field selector",
      "watches in the place of informers")
def field_selectors(w):
    crd = converted(w, {"v1": ["hostPort"], "v2": ["host", "port"]})
    listed = lambda version, selector: {
        o["metadata"]["name"] for o in w.api.call("GET", crd.path(version=version), **{"fieldSelector": selector}).json()["items"]}
    of_host, of_port = (Seen(w, crd, "v2", s) for s in ["host=host1", "host=host1,port=80"])
    of_both = Seen(w, crd, "v1", "hostPort=host1:80")
    for name, fields in [("a", {"host": "host1", "port": "80"}), ("b", {"host": "host1", "port": "8080"}), ("c", {"host": "host2"})]:
        crd.create(name, "v2", **fields)
    equal(listed("v2", "host=host1"), {"a", "b"}, "of a host")
    equal(listed("v2", "host=host1,port=80"), {"a"}, "of a host and a port")
    equal(listed("v1", "hostPort=host1:80"), {"a"}, "in v1")
    equal(listed("v1", "hostPort=host1:8080"), {"b"}, "in v1")
    of_host.have("ab")
    of_port.have("a")
    of_both.have("a")
    w.api.call("DELETE", crd.path(version="v2"), {"gracePeriodSeconds": 0}, **{"fieldSelector": "host=host1,port=80"})
    w.api.retry_update(crd.path("b", "v2"), lambda o: o.update(host="host2"))
    equal(listed("v2", "host=host1"), set(), "of a host")
    equal(listed("v2", "host=host1,port=80"), set(), "of a host and a port")
    of_host.have("ab", "ab")
    of_port.have("a", "a")
    of_both.have("a", "a")
