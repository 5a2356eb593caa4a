"""[sig-apps]: test/e2e/apps/{controller_revision,daemon_set}.go."""


from frame import AGNHOST, HTTPD, STRATEGIC, check, container, equal, is_ready, test, word

from .workloads import APPS, controlled, status_tests, template


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
