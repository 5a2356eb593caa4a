"""A small aggregated API server for the stand-in image: `flunders.wardle.example.com/v1alpha1`.

It keeps its objects in memory. Whom it serves it learns as any other does: the certificate of the
proxy is checked against the ConfigMap `extension-apiserver-authentication`, the user comes in its
headers, and each request is authorized by a SubjectAccessReview.
"""

import json
import os
import ssl
import threading
import urllib.error
import urllib.request
import uuid

GROUP, VERSION = "wardle.example.com", "v1alpha1"
BASE = "/var/run/secrets/kubernetes.io/serviceaccount"
VERBS = ["create", "delete", "deletecollection", "get", "list"]


def ask(path, body=None):
    """A request to the cluster's API server, by the pod's own account."""
    host = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
    headers = {"Authorization": f"Bearer {open(f'{BASE}/token').read()}", "Content-Type": "application/json"}
    data = json.dumps(body).encode() if body else None
    context = ssl.create_default_context(cafile=f"{BASE}/ca.crt")
    request = urllib.request.Request(host + path, data=data, headers=headers)
    with urllib.request.urlopen(request, context=context, timeout=10) as said:
        return json.loads(said.read())


class Store:
    def __init__(self):
        self.objects, self.revision, self.lock = {}, 1, threading.Lock()

    def change(self, key, made):
        with self.lock:
            self.revision += 1
            if made is None:
                return self.objects.pop(key, None)
            if key in self.objects:
                return None
            made["metadata"]["resourceVersion"] = str(self.revision)
            self.objects[key] = made
            return made


def status(code, reason, message):
    return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
                  "message": message}


def discovery(path):
    version = {"groupVersion": f"{GROUP}/{VERSION}", "version": VERSION}
    group = {"name": GROUP, "versions": [version], "preferredVersion": version}
    if path == "/apis":
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]}
    if path == f"/apis/{GROUP}":
        return {"kind": "APIGroup", "apiVersion": "v1", **group}
    if path == f"/apis/{GROUP}/{VERSION}":
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{GROUP}/{VERSION}", "resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": True, "kind": "Flunder", "verbs": VERBS}]}
    return None


def flunders(store, method, namespace, name, body):
    key = (namespace, name)
    if method == "GET" and not name:
        items = [o for (where, _), o in sorted(store.objects.items()) if namespace in ("", where)]
        return 200, {"kind": "FlunderList", "apiVersion": f"{GROUP}/{VERSION}",
                     "metadata": {"resourceVersion": str(store.revision)}, "items": items}
    if method == "POST":
        made = json.loads(body)
        meta = made.setdefault("metadata", {})
        meta |= {"namespace": namespace, "uid": str(uuid.uuid4()), "creationTimestamp": "2020-01-01T00:00:00Z"}
        made |= {"kind": "Flunder", "apiVersion": f"{GROUP}/{VERSION}"}
        if store.change((namespace, meta["name"]), made):
            return 201, made
        return status(409, "AlreadyExists", f'flunders.{GROUP} "{meta["name"]}" already exists')
    if method == "DELETE" and not name:
        for where, other in list(store.objects):
            if where == namespace:
                store.change((where, other), None)
        return 200, {"kind": "Status", "apiVersion": "v1", "status": "Success"}
    found = store.change(key, None) if method == "DELETE" else store.objects.get(key)
    return (200, found) if found else status(404, "NotFound", f'flunders.{GROUP} "{name}" not found')


class Front:
    """Authentication by the proxy's certificate and headers, authorization by the cluster."""

    def __init__(self):
        told = ask("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication")["data"]
        self.ca = told["requestheader-client-ca-file"]
        self.names = json.loads(told["requestheader-allowed-names"])
        self.user, self.group = (json.loads(told[f"requestheader-{n}-headers"])[0] for n in ["username", "group"])

    def user_of(self, certificate, headers):
        if not certificate:
            return None
        name = dict(part[0] for part in certificate["subject"]).get("commonName")
        if self.names and name not in self.names:
            return None
        return headers.get(self.user), headers.get_all(self.group) or []

    def may(self, who, attributes):
        spec = {"user": who[0], "groups": who[1], **attributes}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        return ask("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)["status"]["allowed"]


def verb(method, name):
    return {"GET": "get" if name else "list", "POST": "create",
            "DELETE": "delete" if name else "deletecollection"}.get(method, method.lower())


def answer(front, store, method, path, certificate, headers, body):
    """Code and object of one request."""
    path = path.partition("?")[0].rstrip("/")
    if path in {"/readyz", "/healthz", "/livez"}:
        return 200, {"status": "ok"}
    who = front.user_of(certificate, headers)
    if not who or not who[0]:
        return status(401, "Unauthorized", "Unauthorized")
    found = discovery(path)
    if found:
        return 200, found
    words = path.split("/")[4:]
    prefix = f"/apis/{GROUP}/{VERSION}/"
    namespace, words = (words[1], words[2:]) if words[:1] == ["namespaces"] else ("", words)
    if not path.startswith(prefix) or words[:1] != ["flunders"]:
        return status(404, "NotFound", "the server could not find the requested resource")
    name = words[1] if len(words) > 1 else ""
    attributes = {"group": GROUP, "version": VERSION, "resource": "flunders", "namespace": namespace, "name": name,
                  "verb": verb(method, name)}
    try:
        if not front.may(who, {"resourceAttributes": attributes}):
            return status(403, "Forbidden", f"{who[0]} may not {attributes['verb']} flunders")
    except urllib.error.HTTPError as error:
        return status(500, "InternalError", f"cannot authorize: {error}")
    return flunders(store, method, namespace, name, body)
