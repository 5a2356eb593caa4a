"""[sig-api-machinery]: test/e2e/apimachinery/aggregator.go."""

from frame import MERGE, STRATEGIC, Refused, check, equal, test, word

from .deployed import deploy

API = "/apis/wardle.example.com/v1alpha1"
NAME = "v1alpha1.wardle.example.com"
SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
AT = f"{SERVICES}/{NAME}"
ROLES = "/apis/rbac.authorization.k8s.io/v1"


def allow(w):
    """The server may have others' requests authorized."""
    name = f"wardler:{w.ns}:auth-delegator"
    w.api.create(f"{ROLES}/clusterrolebindings", {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": w.ns}]})
    w.cleanups.append(lambda: w.api.delete(f"{ROLES}/clusterrolebindings/{name}"))


def register(w):
    allow(w)
    certificate = deploy(w, "sample-apiserver", "sample-api", 7443)
    w.api.create(SERVICES, {"metadata": {"name": NAME}, "spec": {
        "service": {"namespace": w.ns, "name": "sample-api", "port": 7443}, "group": "wardle.example.com",
        "version": "v1alpha1", "caBundle": certificate.ca, "groupPriorityMinimum": 2000, "versionPriority": 200}})
    w.cleanups.append(lambda: w.exists(AT) and w.api.delete(AT))

    def answers():
        try:
            return w.api.get(f"{API}/namespaces/default/flunders")
        except Refused as said:
            check(said.code in {403, 404, 503}, said.text)
            return None

    w.until(answers, 60, "the sample server answers", every=0.1)


def flunder(name):
    return {"apiVersion": "wardle.example.com/v1alpha1", "kind": "Flunder", "metadata": {"name": name, "labels": {"sample-label": "true"}}}


def condition(kind, message):
    return {"type": kind, "status": "True", "lastTransitionTime": None, "reason": "E2E", "message": message}


def has(w, kind, message):
    found = w.api.get(f"{AT}/status")["status"]["conditions"]
    check(any((c["type"], c.get("reason"), c.get("message")) == (kind, "E2E", message) for c in found), found)


@test("[sig-api-machinery] Aggregator Should be able to support the 1.17 Sample API Server using the current Aggregator [LinuxOnly]",
      "the sample server is a stand-in that keeps its objects in memory")
def aggregator(w):
    register(w)
    path, name = f"{API}/namespaces/default/flunders", f"rest-flunder-{word()}"
    said = w.api.call("POST", path, flunder(name))
    equal((said.status_code, said.json()["kind"], said.json()["metadata"]["name"]), (201, "Flunder", name), "created")
    equal(len(w.api.get(path)["items"]), 1, "listed")
    w.api.delete(f"{path}/{name}")
    equal(w.api.get(path)["items"], [], "deleted")

    check("flunders.wardle.example.com" in w.kubectl("api-resources", "--cached=false", "-o", "name"), "in discovery")
    path, name = f"{API}/namespaces/{w.ns}/flunders", f"dynamic-flunder-{word()}"
    w.api.create(path, flunder(name))
    equal(len(w.api.get(path)["items"]), 1, "listed")
    equal(w.api.get(f"{AT}/status")["status"]["conditions"][0]["message"], "all checks passed", "status")
    equal(w.api.patch(AT, {"spec": {"versionPriority": 400}}, MERGE)["spec"]["versionPriority"], 400, "patched")
    check(any(s["metadata"]["name"] == NAME for s in w.api.get(SERVICES)["items"]), "listed")
    label, selector = {"e2e-apiservice": "patched"}, "?labelSelector=e2e-apiservice%3Dpatched"
    w.api.patch(AT, {"metadata": {"labels": label}}, STRATEGIC)
    w.api.get(AT)
    w.api.retry_update(f"{AT}/status", lambda s: s["status"]["conditions"].append(condition("StatusUpdated", "Set from e2e test")))
    has(w, "StatusUpdated", "Set from e2e test")
    updated = w.api.retry_update(AT, lambda s: s["metadata"].update(labels={NAME: "updated"}))
    equal(updated["metadata"]["labels"][NAME], "updated", "replaced")
    w.api.delete(f"{path}/{name}")
    equal(w.api.get(path)["items"], [], "deleted")
    w.api.create(path, flunder(name))
    equal(len(w.api.get(path)["items"]), 1, "listed")
    conditions = w.api.get(f"{AT}/status")["status"]["conditions"] + [condition("StatusPatched", "Set by e2e test")]
    w.api.patch(f"{AT}/status", {"status": {"conditions": conditions}}, MERGE)
    has(w, "StatusPatched", "Set by e2e test")
    w.api.call("DELETE", SERVICES + selector)
    w.until(lambda: not w.api.get(SERVICES + selector)["items"], 60, "none is left")
