"""What the stand-in image answers as an admission webhook and as a conversion webhook."""

import base64
import json
import time

DISALLOWED, KEY = "webhook-disallow", "webhook-e2e-test"


def denied(message):
    return {"allowed": False, "status": {"message": message}}


def patched(*operations):
    said = {"allowed": True}
    if operations:
        text = json.dumps(operations).encode()
        said |= {"patch": base64.b64encode(text).decode(), "patchType": "JSONPatch"}
    return said


def pods(request):
    pod, message = request["object"], ""
    labels = pod["metadata"].get("labels", {})
    if labels.get(KEY) == "wait-forever":
        time.sleep(3600)
    if any(DISALLOWED in c["name"] for c in pod["spec"]["containers"]):
        message += "the pod contains unwanted container name; "
    if labels.get(KEY) == DISALLOWED:
        message += "the pod contains unwanted label; "
    return denied(message) if message else patched()


def attach(request):
    if request["name"] == "to-be-attached-pod":
        return denied("attaching to pod 'to-be-attached-pod' is not allowed")
    return patched()


def mutate_pods(request):
    pod = request["object"]
    if pod["metadata"].get("name") != "webhook-to-be-mutated" or pod["spec"].get("initContainers"):
        return patched()
    container = {"image": "webhook-added-image", "name": "webhook-added-init-container", "resources": {}}
    return patched({"op": "add", "path": "/spec/initContainers", "value": [container]})


def unwanted_data(what):
    def answer(request):
        deleting = request["operation"] == "DELETE"
        data = (request["oldObject" if deleting else "object"].get("data") or {}).get(KEY)
        if not deleting and data == DISALLOWED:
            return denied(f"the {what} contains unwanted {'data' if what != 'configmap' else 'key and value'}")
        if deleting and data == "webhook-nondeletable":
            return denied(f"the {what} cannot be deleted because it contains unwanted key and value")
        return patched()

    return answer


def mutate_data(request):
    data = request["object"].get("data") or {}
    stages = [("mutation-start", "mutation-stage-1"), ("mutation-stage-1", "mutation-stage-2")]
    return patched(*({"op": "add", "path": f"/data/{then}", "value": "yes"}
                     for seen, then in stages if data.get(seen) == "yes"))


def add_label(request):
    meta = request["object"]["metadata"]
    if not meta.get("labels"):
        return patched({"op": "add", "path": "/metadata/labels", "value": {"added-label": "yes"}})
    return patched({"op": "add", "path": "/metadata/labels/added-label", "value": "yes"})


def definitions(request):
    if request["object"]["metadata"].get("labels", {}).get(KEY) == DISALLOWED:
        return denied("the crd contains unwanted label")
    return patched()


def delayed(_request):
    time.sleep(5)
    return patched()


ADMISSION = {
    "/always-allow-delay-5s": delayed,
    "/always-deny": lambda _: denied("this webhook denies all requests"),
    "/add-label": add_label,
    "/pods": pods,
    "/pods/attach": attach,
    "/mutating-pods": mutate_pods,
    "/configmaps": unwanted_data("configmap"),
    "/mutating-configmaps": mutate_data,
    "/custom-resource": unwanted_data("custom resource"),
    "/mutating-custom-resource": mutate_data,
    "/crd": definitions,
}


def convert(found, wanted):
    """v1 has `hostPort`, v2 has `host` and `port`."""
    made = dict(found, apiVersion=wanted)
    if wanted.endswith("/v2") and "hostPort" in made:
        made["host"], _, made["port"] = made.pop("hostPort").partition(":")
    elif wanted.endswith("/v1"):
        host, port = made.pop("host", None), made.pop("port", None)
        if host is not None:
            made["hostPort"] = f"{host}:{port}"
    return made


def conversion(request):
    wanted = request["desiredAPIVersion"]
    return {"result": {"status": "Success"}, "convertedObjects": [convert(o, wanted) for o in request["objects"]]}


def answer(path, body):
    """The answer to a review; none to a path that nobody knows."""
    decide = conversion if path == "/crdconvert" else ADMISSION.get(path)
    if not decide:
        return None
    review = json.loads(body)
    said = decide(review["request"]) | {"uid": review["request"]["uid"]}
    return {"apiVersion": review["apiVersion"], "kind": review["kind"], "response": said}
