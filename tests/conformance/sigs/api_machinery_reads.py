"""[sig-api-machinery]: test/e2e/apimachinery/{watch,chunking,table_conversion,discovery,aggregated_discovery,server_version}.go."""

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from frame import Ordered, Refused, check, equal, test, word

from .definitions import Definition

SIG = "[sig-api-machinery]"
WATCHERS = f"{SIG} Watchers"
LABEL = "watch-this-configmap"


def watch(w, *values, **params):
    return Ordered(w, w.core("configmaps"), labelSelector=f"{LABEL} in ({','.join(values)})", **params)


def create(w, name, value):
    return w.api.create(w.core("configmaps"), {"metadata": {"name": name, "labels": {LABEL: value}}})


def mutate(w, name, step):
    return w.api.retry_update(w.core("configmaps", name), lambda c: c.update(data={"mutation": str(step)}))


def relabel(w, name, value):
    return w.api.retry_update(w.core("configmaps", name), lambda c: c["metadata"]["labels"].update({LABEL: value}))


@test(f"{WATCHERS} should observe add, update, and delete watch notifications on configmaps")
def watchers(w):
    a, b = "multiple-watchers-A", "multiple-watchers-B"
    of_a, of_b, of_both = watch(w, a), watch(w, b), watch(w, a, b)
    name = "e2e-watch-test-configmap-a"
    steps = [("ADDED", lambda: create(w, name, a)), ("MODIFIED", lambda: mutate(w, name, 1)), ("MODIFIED", lambda: mutate(w, name, 2))]
    for kind, step in steps:
        made = step()
        for seen in [of_a, of_both]:
            seen.expect(kind, same=made)
    w.api.delete(w.core("configmaps", name))
    of_a.expect("DELETED", name)
    of_both.expect("DELETED", name)
    name = "e2e-watch-test-configmap-b"
    made = create(w, name, b)
    of_b.expect("ADDED", same=made)
    of_both.expect("ADDED", same=made)
    of_a.nothing(10)
    w.api.delete(w.core("configmaps", name))
    of_b.expect("DELETED", name)
    of_both.expect("DELETED", name)
    of_a.nothing(10)


@test(f"{WATCHERS} should be able to start watching from a specific resource version")
def from_version(w):
    name, value = "e2e-watch-test-resource-version", "from-resource-version"
    create(w, name, value)
    first, second = mutate(w, name, 1), mutate(w, name, 2)
    w.api.delete(w.core("configmaps", name))
    seen = watch(w, value, resourceVersion=first["metadata"]["resourceVersion"])
    seen.expect("MODIFIED", same=second)
    seen.expect("DELETED", name)


@test(f"{WATCHERS} should be able to restart watching from the last resource version observed by the previous watch")
def restarted(w):
    name, value = "e2e-watch-test-watch-closed", "watch-closed-and-restarted"
    seen = watch(w, value)
    made = create(w, name, value)
    mutate(w, name, 1)
    seen.expect("ADDED", same=made)
    last = seen.expect("MODIFIED", name)
    seen.close()
    second = mutate(w, name, 2)
    again = watch(w, value, resourceVersion=last["metadata"]["resourceVersion"])
    w.api.delete(w.core("configmaps", name))
    again.expect("MODIFIED", same=second)
    again.expect("DELETED", name)


@test(f"{WATCHERS} should observe an object deletion if it stops meeting the requirements of the selector")
def label_changed(w):
    name, value = "e2e-watch-test-label-changed", "label-changed-and-restored"
    seen = watch(w, value)
    made, first = create(w, name, value), mutate(w, name, 1)
    relabel(w, name, "wrong-value")
    seen.expect("ADDED", same=made)
    seen.expect("MODIFIED", same=first)
    seen.expect("DELETED", name)
    mutate(w, name, 2)
    seen.nothing(10)
    restored, third = relabel(w, name, value), mutate(w, name, 3)
    w.api.delete(w.core("configmaps", name))
    seen.expect("ADDED", same=restored)
    seen.expect("MODIFIED", same=third)
    seen.expect("DELETED", name)


def produce(w, stop):
    """Creates, changes and deletes ConfigMaps at random until told to stop."""
    names, path = [], w.core("configmaps")
    while not stop.wait(0.005):
        turn = len(names) % 3
        if turn != 2 or not names:
            names.append(w.api.create(path, {"metadata": {"name": f"cm-{word(8)}"}})["metadata"]["name"])
        if turn == 1:
            mutate(w, names[0], word())
        if turn == 2:
            w.api.delete(f"{path}/{names.pop(0)}")


@test(f"{WATCHERS} should receive events on concurrent watches in same order")
def same_order(w):
    path = w.core("configmaps")
    version = w.api.get(path)["metadata"]["resourceVersion"]
    stop = threading.Event()
    producer = threading.Thread(target=produce, args=(w, stop), daemon=True)
    producer.start()
    seen = []
    try:
        for _ in range(100):
            seen.append(Ordered(w, path, resourceVersion=version))
            versions = [next_version(s) for s in seen]
            equal(set(versions), {versions[0]}, "resource versions")
            version = versions[0]
    finally:
        stop.set()
        producer.join()


def next_version(seen):
    event = seen.next()
    check(event and event["type"] in {"ADDED", "MODIFIED", "DELETED"}, event)
    return event["object"]["metadata"]["resourceVersion"]


# === chunks ===

CHUNKS = f"{SIG} Servers with support for API chunking"
TOTAL = 400


def templates(w):
    path = w.core("podtemplates")
    body = lambda i: {"metadata": {"name": f"template-{i:04}"}, "template": {"spec": {"containers": [{"name": "test", "image": "test2"}]}}}
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda i: w.api.create(path, body(i)), range(TOTAL)))
    return path


def page(w, path, limit, token=""):
    return w.api.call("GET", path, **({"limit": limit} | ({"continue": token} if token else {}))).json()


def looks_right(listed, limit, found):
    """What a page must be after so many items; how many there are then."""
    meta, items = listed["metadata"], listed["items"]
    check(len(items) <= limit, len(items))
    if meta.get("continue"):
        equal(meta.get("remainingItemCount", -1) + len(items) + found, TOTAL, "remainingItemCount")
    else:
        check("remainingItemCount" not in meta, meta)
    equal([o["metadata"]["name"] for o in items], [f"template-{i:04}" for i in range(found, found + len(items))], "names")
    return found + len(items)


def rest(w, path, limit, listed, found):
    """All pages after one, which has been looked at."""
    version = listed["metadata"]["resourceVersion"]
    while listed["metadata"].get("continue"):
        listed = page(w, path, limit, listed["metadata"]["continue"])
        equal(listed["metadata"]["resourceVersion"], version, "resourceVersion")
        found = looks_right(listed, limit, found)
    equal(found, TOTAL, "found")


@test(f"{CHUNKS} should return chunks of results for list calls")
def chunks(w):
    path = templates(w)
    for _ in range(3):
        first = page(w, path, 17)
        rest(w, path, 17, first, looks_right(first, 17, 0))
    equal(len(page(w, path, TOTAL + 1)["items"]), TOTAL, "at once")


@test(f"{CHUNKS} should support continue listing from the last key if the original version has been compacted away, though the list is inconsistent [Slow]")
def compacted(w):
    path, limit = templates(w), TOTAL // 10
    first = page(w, path, limit)
    found = looks_right(first, limit, 0)
    deadline, token = time.monotonic() + 600, None
    while token is None:
        check(time.monotonic() < deadline, "the token does not expire")
        time.sleep(20)
        try:
            page(w, path, limit, first["metadata"]["continue"])
        except Refused as said:
            equal((said.code, said.reason), (410, "Expired"), "refused")
            token = said.status["metadata"]["continue"]
    second = page(w, path, limit, token)
    check(second["metadata"]["resourceVersion"] != first["metadata"]["resourceVersion"], second["metadata"])
    equal(len(second["items"]), limit, "items")
    rest(w, path, limit, second, looks_right(second, limit, found))


@test(f"{SIG} Servers with support for Table transformation should return a 406 for a backend which does not implement metadata")
def not_acceptable(w):
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {
        "resourceAttributes": {"namespace": w.ns, "verb": "get", "resource": "pods"}}}
    try:
        w.api.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review,
                     accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    except Refused as said:
        equal(said.code, 406, "code")
        return
    check(False, "allowed")


# === discovery ===

RESOURCES = [
    ("", "v1", "namespaces"), ("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations"),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions"), ("apiregistration.k8s.io", "v1", "apiservices"),
    ("apps", "v1", "deployments"), ("authentication.k8s.io", "v1", "tokenreviews"),
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews"), ("autoscaling", "v1", "horizontalpodautoscalers"),
    ("autoscaling", "v2", "horizontalpodautoscalers"), ("batch", "v1", "jobs"),
    ("certificates.k8s.io", "v1", "certificatesigningrequests"), ("coordination.k8s.io", "v1", "leases"),
    ("discovery.k8s.io", "v1", "endpointslices"), ("events.k8s.io", "v1", "events"), ("networking.k8s.io", "v1", "ingresses"),
    ("node.k8s.io", "v1", "runtimeclasses"), ("policy", "v1", "poddisruptionbudgets"),
    ("scheduling.k8s.io", "v1", "priorityclasses"), ("storage.k8s.io", "v1", "csinodes"),
]
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@test(f"{SIG} Discovery should validate PreferredVersion for each APIGroup")
def preferred(w):
    groups = w.api.get("/apis/")["groups"]
    check(groups, "no groups")
    for group in groups:
        if group["name"].endswith(".example.com"):
            continue
        found = w.api.get(f"/apis/{group['name']}/")
        check(found["preferredVersion"]["groupVersion"] in [v["groupVersion"] for v in found["versions"]], found)


@test(f"{SIG} Discovery should locate the groupVersion and a resource within each APIGroup")
def locate(w):
    for group, version, resource in RESOURCES:
        found = w.api.get(f"/apis/{group}/{version}" if group else f"/api/{version}")
        equal(found["groupVersion"], f"{group}/{version}".lstrip("/"), "groupVersion")
        check(any(r["name"] == resource for r in found["resources"]), found)


def aggregated(w, path):
    """(group, version, resource) of all that an aggregated document has."""
    return {(group["metadata"].get("name", ""), version["version"], resource["resource"])
            for group in w.api.get(path, accept=AGGREGATED)["items"]
            for version in group["versions"] for resource in version["resources"]}


@test(f"{SIG} AggregatedDiscovery should support raw aggregated discovery endpoint Accept headers")
def raw(w):
    found = aggregated(w, "/apis")
    for one in RESOURCES[1:]:
        check(one in found, one)
    check(RESOURCES[0] in aggregated(w, "/api"), RESOURCES[0])


@test(f"{SIG} AggregatedDiscovery should support raw aggregated discovery request for CRDs")
def raw_custom(w):
    crd = Definition(w)
    w.until(lambda: (crd.group, "v1", crd.plural) in aggregated(w, "/apis"), 30, "in discovery")


@test(f"{SIG} AggregatedDiscovery should support aggregated discovery interface", "asks as kubectl's client does, by kubectl")
def interface(w):
    found = by_kubectl(w, {group for group, _, _ in RESOURCES})
    for one in RESOURCES:
        check(one in found, one)


@test(f"{SIG} AggregatedDiscovery should support aggregated discovery interface for CRDs", "asks as kubectl's client does, by kubectl")
def interface_custom(w):
    crd = Definition(w)
    w.until(lambda: (crd.group, "v1", crd.plural) in by_kubectl(w, {crd.group}), 30, "in discovery")


def by_kubectl(w, groups):
    """(group, version, resource) of what kubectl finds in these groups; those of other tests come and go."""
    found = set()
    for version in w.kubectl("api-versions").split():
        group, _, name = version.rpartition("/")
        if group not in groups:
            continue
        resources = w.api.get(f"/apis/{version}" if group else f"/api/{version}")["resources"]
        found |= {(group, name, r["name"]) for r in resources}
    listed = {line.split()[0] for line in w.kubectl("api-resources", "--no-headers", "--cached=false", "-o", "name").splitlines()}
    return {(g, v, r) for g, v, r in found if f"{r}.{g}".rstrip(".") in listed}


@test(f"{SIG} server version should find the server version")
def server_version(w):
    found = w.api.get("/version")
    check(re.fullmatch("[1-9]", found["major"]), found)
    check(re.fullmatch("[0-9]+", re.sub("[^0-9A-Za-z]+", "", found["minor"])), found)
