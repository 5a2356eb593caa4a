"""What the tests of all workloads have."""


from frame import MERGE, STRATEGIC, Events, equal

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
