"""[sig-instrumentation]: test/e2e/instrumentation/{events,core_events}.go."""

import json

from frame import STRATEGIC, check, equal, test

V1 = "events.k8s.io/v1"


def new_event(w, name, label):
    return {"metadata": {"name": name, "labels": {label: "true"}},
            "regarding": {"namespace": w.ns}, "eventTime": "2017-09-19T13:49:16.000000Z", "note": f"This is {name}",
            "action": "Do", "reason": "Test", "type": "Normal", "reportingController": "test-controller",
            "reportingInstance": "test-node"}


def names(w, path):
    return {e["metadata"]["name"] for e in w.api.get(path)["items"] if e["metadata"]["namespace"] == w.ns}


def plain(event):
    event = json.loads(json.dumps(event))
    event["metadata"].pop("resourceVersion")
    event["metadata"].pop("managedFields", None)
    return event


@test("[sig-instrumentation] Events API should ensure that an event can be fetched, patched, deleted, and listed")
def events_api(w):
    path, name = w.apis(V1, "events"), "event-test"
    w.api.create(path, new_event(w, name, "testevent-constant"))
    selector = "?labelSelector=testevent-constant%3Dtrue"
    for where in [f"/apis/{V1}/events" + selector, path + selector]:
        check(name in names(w, where), where)
    found = w.api.get(w.core("events") + "?fieldSelector=source%3Dtest-controller")["items"]
    equal([e["metadata"]["name"] for e in found], [name], "by source")
    found = w.api.get(path + "?fieldSelector=reportingController%3Dtest-controller")["items"]
    equal([e["metadata"]["name"] for e in found], [name], "by reportingController")
    event = w.api.get(f"{path}/{name}")
    w.api.patch(f"{path}/{name}", {"note": "This is a test event - patched"}, STRATEGIC)
    now = w.api.get(f"{path}/{name}")
    wanted = {**plain(event), "note": "This is a test event - patched"}
    equal(plain(now), wanted, "patched")
    # Without a resourceVersion, as upstream's copy.
    wanted["series"] = {"count": 100, "lastObservedTime": "2017-09-19T13:49:16.000000Z"}
    w.api.update(f"{path}/{name}", wanted)
    equal(plain(w.api.get(f"{path}/{name}")), wanted, "updated")
    w.api.delete(f"{path}/{name}")
    for where in [f"/apis/{V1}/events" + selector, path + selector]:
        check(name not in names(w, where), where)


@test("[sig-instrumentation] Events API should delete a collection of events")
def events_collection(w):
    collection(w, w.apis(V1, "events"), lambda n: new_event(w, n, "testevent-set"))


def collection(w, path, body):
    for name in ["test-event-1", "test-event-2", "test-event-3"]:
        w.api.create(path, body(name))
    selector = "?labelSelector=testevent-set%3Dtrue"
    equal(len(w.api.get(path + selector)["items"]), 3, "listed")
    w.api.call("DELETE", path + selector)
    w.until(lambda: not w.api.get(path + selector)["items"], 30, "gone")


def core_event(w, name, label):
    return {"metadata": {"name": name, "labels": {label: "true"}}, "message": f"This is {name}", "reason": "Test",
            "type": "Normal", "count": 1, "involvedObject": {"namespace": w.ns}}


@test("[sig-instrumentation] Events should delete a collection of events")
def core_collection(w):
    collection(w, w.core("events"), lambda n: core_event(w, n, "testevent-set"))


@test("[sig-instrumentation] Events should manage the lifecycle of an event")
def core_lifecycle(w):
    path, name = w.core("events"), "event-test"
    w.api.create(path, core_event(w, name, "testevent-constant") | {"source": {"component": "x"}})
    selector = "?labelSelector=testevent-constant%3Dtrue"
    check(name in names(w, "/api/v1/events" + selector))
    w.api.patch(f"{path}/{name}", {"message": "This is a test event - patched"}, STRATEGIC)
    found = w.api.get(f"{path}/{name}")
    equal(found["message"], "This is a test event - patched", "message")
    found["series"] = {"count": 100, "lastObservedTime": "2017-09-19T13:49:16.000000Z"}
    w.api.update(f"{path}/{name}", found)
    equal(w.api.get(f"{path}/{name}")["series"]["count"], 100, "series")
    w.api.delete(f"{path}/{name}")
    check(name not in names(w, "/api/v1/events" + selector))
