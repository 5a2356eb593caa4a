"""[sig-apps]: test/e2e/apps/disruption.go."""

import time

from frame import MERGE, PAUSE, STRATEGIC, Refused, check, container, equal, test

from .workloads import POLICY


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
    w.ready_pods("foo=bar", count)


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
