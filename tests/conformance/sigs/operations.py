"""What upstream's `... API operations` tests do with a resource, one after the other."""

from frame import MERGE, Events, Refused, check, equal, refused


def discovery(w, group, version, *resources):
    groups = w.api.get("/apis")["groups"]
    check(any(g["name"] == group and any(v["version"] == version for v in g["versions"]) for g in groups), groups)
    found = w.api.get(f"/apis/{group}")
    check(any(v["version"] == version for v in found["versions"]), found)
    names = {r["name"] for r in w.api.get(f"/apis/{group}/{version}")["resources"]}
    check(names.issuperset(resources), f"{resources} in {names}")


def operations(w, path, template, everywhere=None, update=None, label="special-label"):
    """create x3, get, list, watch, patch, update, delete, deletecollection; gives a created one
    through `between` before it is deleted."""
    value = w.ns
    template["metadata"] = {"generateName": "e2e-example-", **template.get("metadata", {})}
    template["metadata"].setdefault("labels", {})[label] = value
    selector = f"?labelSelector={label}%3D{value}"
    w.api.create(path, template)
    w.api.create(path, template)
    made = w.api.create(path, template)
    name = made["metadata"]["name"]
    equal(w.api.get(f"{path}/{name}")["metadata"]["uid"], made["metadata"]["uid"], "uid")
    listed = w.api.get(path + selector)
    equal(len(listed["items"]), 3, "listed")
    events = Events(w, path, labelSelector=f"{label}={value}", resourceVersion=listed["metadata"]["resourceVersion"])
    if everywhere:
        equal(len(w.api.get(everywhere + selector)["items"]), 3, "listed in all namespaces")
        other = Events(w, everywhere, labelSelector=f"{label}={value}",
                       resourceVersion=listed["metadata"]["resourceVersion"])
    patched = w.api.patch(f"{path}/{name}", '{"metadata":{"annotations":{"patched":"true"}}}', MERGE)
    equal(patched["metadata"]["annotations"].get("patched"), "true", "patched")

    def change(found):
        found["metadata"]["annotations"]["updated"] = "true"
        if update:
            update(found)

    updated = w.api.retry_update(f"{path}/{name}", change)
    equal(updated["metadata"]["annotations"].get("updated"), "true", "updated")
    for seen in [events] + ([other] if everywhere else []):
        seen.wait("MODIFIED", lambda o: o["metadata"].get("annotations", {}).get("patched") == "true")
    return name, updated, events, selector


def removals(w, path, name, selector, kept=2):
    """delete of one, then of the collection."""
    w.api.delete(f"{path}/{name}")

    def gone():
        try:
            found = w.api.get(f"{path}/{name}")
        except Refused as refused:
            return refused.code == 404
        # What has finalizers may go a little later.
        return bool(found["metadata"].get("deletionTimestamp") and found["metadata"].get("finalizers")) and False

    w.until(gone, 30, f"{path}/{name} is gone")
    equal(len(w.api.get(path + selector)["items"]), kept, "left")
    w.api.call("DELETE", path + selector)
    w.until(lambda: not w.api.get(path + selector)["items"], 60, "the collection is gone")


def crud(w, group, plural, path, bodies, annotate=MERGE):
    """The same of objects that have names: discovery, then every verb, in one."""
    discovery(w, group, "v1", plural)
    first, second, third = bodies
    selector = {"labelSelector": f"test={w.ns}"}
    for body in bodies:
        body["metadata"]["labels"] = {"test": w.ns}
    made = w.api.create(path, first)
    refused(lambda: w.api.create(path, first), code=409)
    w.api.create(path, second)
    version = w.api.get(path, **selector)["metadata"]["resourceVersion"]
    w.api.create(path, third)
    one = f"{path}/{made['metadata']['name']}"
    equal(w.api.get(one)["metadata"]["uid"], made["metadata"]["uid"])
    equal(len(w.api.get(path, **selector)["items"]), 3)
    patched = w.api.patch(one, {"metadata": {"annotations": {"patched": "true"}}}, annotate)
    equal(patched["metadata"]["annotations"]["patched"], "true")
    patched["metadata"]["annotations"]["updated"] = "true"
    updated = w.api.update(one, patched)
    equal(updated["metadata"]["annotations"]["updated"], "true")
    events = []
    for event in w.api.watch(path, 10, resourceVersion=version, **selector):
        events.append((event["type"], set(event["object"]["metadata"].get("annotations", {}))))
        if len(events) == 3:
            break
    equal(events, [("ADDED", set()), ("MODIFIED", {"patched"}), ("MODIFIED", {"patched", "updated"})])
    w.api.delete(one)
    w.gone(one, 30)
    equal(len(w.api.get(path, **selector)["items"]), 2)
    w.api.delete(path, **selector)
    w.until(lambda: not w.api.get(path, **selector)["items"], 30, "an empty list")
