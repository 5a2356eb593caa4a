"""[sig-api-machinery]: test/e2e/apimachinery/namespace.go."""

from frame import MERGE, PAUSE, STRATEGIC, check, container, equal, test, word

GROUP = "[sig-api-machinery] Namespaces [Serial]"
PATH = "/api/v1/namespaces"


def namespace(w, prefix):
    made = w.api.create(PATH, {"metadata": {"name": f"{prefix}-{word()}"}})
    w.cleanups.append(lambda: w.api.delete(f"{PATH}/{made['metadata']['name']}"))
    return made["metadata"]["name"]


def removed(w, kind, body, ready):
    name = namespace(w, "nsdeletetest")
    w.until(lambda: w.exists(f"{w.core('serviceaccounts', ns=name)}/default"), 30, "its service account")
    made = w.api.create(w.core(kind, ns=name), body)["metadata"]["name"]
    ready(name, made)
    w.api.delete(f"{PATH}/{name}")
    w.gone(f"{PATH}/{name}", 90)
    w.api.create(PATH, {"metadata": {"name": name}})
    check(w.exists(w.core(kind, made, ns=name)) is None, "nothing came back")


@test(f"{GROUP} should ensure that all pods are removed when a namespace is deleted")
def pods(w):
    runs = lambda ns, name: w.until(lambda: w.api.get(w.core("pods", name, ns=ns))["status"]["phase"] == "Running", 300, "it runs")
    removed(w, "pods", w.pod("test-pod", containers=[container("nginx", PAUSE)]), runs)


@test(f"{GROUP} should ensure that all services are removed when a namespace is deleted")
def services(w):
    body = {"metadata": {"name": "test-service"}, "spec": {"selector": {"foo": "bar", "baz": "blah"}, "ports": [{"port": 80, "targetPort": 80}]}}
    removed(w, "services", body, lambda *_: None)


@test(f"{GROUP} should patch a Namespace")
def patch(w):
    name = namespace(w, "nspatchtest")
    w.api.patch(f"{PATH}/{name}", {"metadata": {"labels": {"testLabel": "testValue"}}}, STRATEGIC)
    equal(w.api.get(f"{PATH}/{name}")["metadata"]["labels"]["testLabel"], "testValue", "label")


@test(f"{GROUP} should apply changes to a namespace status")
def status(w):
    at = f"{PATH}/{w.ns}/status"
    equal(w.api.get(at)["status"]["phase"], "Active", "phase")
    # As a typed client writes it.
    condition = {"type": "StatusPatch", "status": "True", "lastTransitionTime": None, "reason": "E2E", "message": "Patched by an e2e test"}
    found = w.api.patch(at, {"metadata": {"annotations": {"e2e-patched-ns-status": w.ns}}, "status": {"conditions": [condition]}}, MERGE)
    last = found["status"]["conditions"][-1]
    equal((found["metadata"]["annotations"]["e2e-patched-ns-status"], last["reason"], last["message"]),
          (w.ns, "E2E", "Patched by an e2e test"), "patched")
    more = condition | {"type": "StatusUpdate", "message": "Updated by an e2e test"}
    last = w.api.retry_update(at, lambda n: n["status"]["conditions"].append(more))["status"]["conditions"][-1]
    equal((last["type"], last["message"]), ("StatusUpdate", "Updated by an e2e test"), "updated")


@test(f"{GROUP} should apply an update to a Namespace")
def update(w):
    found = w.api.retry_update(f"{PATH}/{w.ns}", lambda n: n["metadata"]["labels"].update({w.ns: "updated"}))
    equal(found["metadata"]["labels"][w.ns], "updated", "label")


@test(f"{GROUP} should apply a finalizer to a Namespace")
def finalizer(w):
    name, fake = namespace(w, "e2e-ns"), "e2e.example.com/fakeFinalizer"

    def finalize(change):
        found = w.api.get(f"{PATH}/{name}")
        change(found["spec"]["finalizers"])
        return w.api.update(f"{PATH}/{name}/finalize", found)["spec"]["finalizers"]

    check(fake in finalize(lambda all_: all_.append(fake)), "added")
    check(fake not in finalize(lambda all_: all_.remove(fake)), "removed")


@test("[sig-api-machinery] OrderedNamespaceDeletion namespace deletion should delete pod first")
def ordered(w):
    name, held = namespace(w, "nsdeletetest"), "e2e.example.com/finalizer"
    w.until(lambda: w.exists(f"{w.core('serviceaccounts', ns=name)}/default"), 30, "its service account")
    pod, configmap = w.core("pods", "test-pod", ns=name), w.core("configmaps", "test-configmap", ns=name)
    w.api.create(w.core("pods", ns=name), w.pod("test-pod", finalizers=[held], containers=[container("nginx", PAUSE)]))
    w.until(lambda: w.api.get(pod)["status"]["phase"] == "Running", 60, "it runs")
    w.api.create(w.core("configmaps", ns=name), {"metadata": {"name": "test-configmap"}, "data": {"key": "value"}})
    w.api.delete(f"{PATH}/{name}")

    def processed():
        status = w.api.get(f"{PATH}/{name}")["status"]
        return status["phase"] == "Terminating" and any(
            c["type"] == "NamespaceDeletionContentFailure" for c in status.get("conditions", []))

    w.until(processed, 120, "the controller has seen it", every=2)
    w.until(lambda: w.exists(configmap) and w.api.get(pod)["metadata"].get("deletionTimestamp"), 120, "the pod is deleted first")
    check(w.exists(configmap), "the rest is there")
    w.api.retry_update(pod, lambda p: p["metadata"].update(finalizers=[]))
    w.gone(pod, 60)
    w.gone(f"{PATH}/{name}", 120)
