"""[sig-auth]: test/e2e/auth/{certificates,service_accounts,subjectreviews}.go."""

import base64
import http.client
import ssl
import subprocess
import tempfile
import urllib.parse

from frame import MERGE, STRATEGIC, Events, check, container, equal, test, word

from .operations import discovery

CSR = "/apis/certificates.k8s.io/v1/certificatesigningrequests"


def make_request():
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-keyout", f"{scratch}/key", "-out", f"{scratch}/csr", "-subj", "/CN=e2e.example.com",
                        "-addext", "subjectAltName=DNS:e2e.example.com"], check=True, capture_output=True)
        subprocess.run(["openssl", "req", "-x509", "-key", f"{scratch}/key", "-out", f"{scratch}/crt", "-days", "1",
                        "-subj", "/CN=e2e.example.com"], check=True, capture_output=True)
        read = lambda name: base64.b64encode(open(f"{scratch}/{name}", "rb").read()).decode()
        return read("csr"), read("crt")


@test("[sig-auth] Certificates API [Privileged:ClusterAdmin] should support CSR API operations")
def csr_api(w):
    discovery(w, "certificates.k8s.io", "v1", "certificatesigningrequests", "certificatesigningrequests/approval",
              "certificatesigningrequests/status")
    request, certificate = make_request()
    signer = f"example.com/e2e-{w.ns}"
    body = {"metadata": {"generateName": "e2e-example-csr-"}, "spec": {
        "request": request, "signerName": signer, "expirationSeconds": 3600,
        "usages": ["digital signature", "key encipherment", "server auth"]}}
    w.api.create(CSR, body)
    w.api.create(CSR, body)
    made = w.api.create(CSR, body)
    name, uid = made["metadata"]["name"], made["metadata"]["uid"]
    found = w.api.get(f"{CSR}/{name}")
    equal((found["metadata"]["uid"], found["spec"]["expirationSeconds"]), (uid, 3600), "request")
    by_signer = f"{CSR}?fieldSelector=spec.signerName%3D{signer.replace('/', '%2F')}"
    listed = w.api.get(by_signer)
    equal(len(listed["items"]), 3, "listed")
    events = Events(w, CSR, fieldSelector=f"metadata.name={name}", resourceVersion=listed["metadata"]["resourceVersion"])
    patched = w.api.patch(f"{CSR}/{name}", '{"metadata":{"annotations":{"patched":"true"}}}', MERGE)
    equal(patched["metadata"]["annotations"]["patched"], "true", "patched")
    patched["metadata"]["annotations"]["updated"] = "true"
    equal(w.api.update(f"{CSR}/{name}", patched)["metadata"]["annotations"]["updated"], "true", "updated")
    events.wait("MODIFIED", lambda c: c["metadata"]["annotations"].get("patched") == "true")
    # /approval
    equal(w.api.get(f"{CSR}/{name}/approval")["metadata"]["uid"], uid, "approval")
    patched = w.api.patch(f"{CSR}/{name}/approval", {"metadata": {"annotations": {"patchedapproval": "true"}}, "status": {
        "conditions": [{"type": "ApprovalPatch", "status": "True", "reason": "e2e"}]}}, MERGE)
    equal([c["type"] for c in patched["status"]["conditions"]], ["ApprovalPatch"], "conditions")
    equal(patched["metadata"]["annotations"]["patchedapproval"], "true", "annotation")
    patched["status"]["conditions"].append({"type": "Approved", "status": "True", "reason": "E2E", "message": "Set from an e2e test"})
    updated = w.api.update(f"{CSR}/{name}/approval", patched)
    equal([c["type"] for c in updated["status"]["conditions"]], ["ApprovalPatch", "Approved"], "conditions")
    # /status
    equal(w.api.get(f"{CSR}/{name}/status")["metadata"]["uid"], uid, "status")
    patched = w.api.patch(f"{CSR}/{name}/status", {"metadata": {"annotations": {"patchedstatus": "true"}},
                                                   "status": {"certificate": certificate}}, MERGE)
    equal((patched["status"]["certificate"], patched["metadata"]["annotations"]["patchedstatus"]), (certificate, "true"), "status")
    patched["status"]["conditions"].append({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from an e2e test"})
    updated = w.api.update(f"{CSR}/{name}/status", patched)
    equal((len(updated["status"]["conditions"]), updated["status"]["conditions"][-1]["type"]), (3, "StatusUpdate"), "conditions")
    w.api.delete(f"{CSR}/{name}")
    check(w.exists(f"{CSR}/{name}") is None, "gone")
    equal(len(w.api.get(by_signer)["items"]), 2, "left")
    w.api.call("DELETE", by_signer)
    equal(len(w.api.get(by_signer)["items"]), 0, "left")


BASE = "/var/run/secrets/kubernetes.io/serviceaccount"


@test("[sig-auth] ServiceAccounts should mount an API token into pods")
def sa_mount(w):
    w.api.create(w.core("serviceaccounts"), {"metadata": {"name": "mount-test"}})
    w.run("pod-service-account", serviceAccountName="mount-test", containers=[container("test", command=["sleep", "100000"])])
    read = lambda name: w.exec("pod-service-account", "cat", f"{BASE}/{name}", container="test")
    token, ca, namespace = read("token"), read("ca.crt"), read("namespace")
    equal(namespace, w.ns, "namespace")
    root = w.api.get(w.core("configmaps", "kube-root-ca.crt"))["data"]["ca.crt"]
    equal(ca.strip(), root.strip(), "ca.crt")
    review = w.api.create("/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": token}})["status"]
    check(review.get("authenticated") and not review.get("error"), review)
    equal(review["user"]["username"], f"system:serviceaccount:{w.ns}:mount-test", "user")
    check({"system:authenticated", "system:serviceaccounts", f"system:serviceaccounts:{w.ns}"} <= set(review["user"]["groups"]), review)


@test("[sig-auth] ServiceAccounts should allow opting out of API token automount")
def sa_opt_out(w):
    for name, value in [("mount", True), ("nomount", False)]:
        w.api.create(w.core("serviceaccounts"), {"metadata": {"name": name}, "automountServiceAccountToken": value})
    for account, of_account in [("default", None), ("mount", True), ("nomount", False)]:
        for spec in [None, True, False]:
            more = {} if spec is None else {"automountServiceAccountToken": spec}
            pod = w.start(f"pod-{account}-{str(spec).lower()}", serviceAccountName=account, **more)
            mounted = any(m["mountPath"] == BASE for m in pod["spec"]["containers"][0].get("volumeMounts", []))
            wanted = spec if spec is not None else (of_account is not False)
            equal(mounted, wanted, f"{account} {spec}")


@test("[sig-auth] ServiceAccounts should mount projected service account token")
def sa_projected(w):
    name = f"test-pod-{word()}"
    w.api.create(w.core("pods"), w.pod(
        name, restartPolicy="Never",
        volumes=[{"name": "sa-token-volume", "projected": {"defaultMode": 0o644, "sources": [
            {"serviceAccountToken": {"path": "sa-token", "expirationSeconds": 3600}}]}}],
        containers=[container("agnhost", command=["/bin/sh", "-c", "cat /test-volume/sa-token; stat -L -c '%a' /test-volume/sa-token"],
                              volumeMounts=[{"name": "sa-token-volume", "mountPath": "/test-volume"}])]))
    w.phase(name, "Succeeded")
    said = w.log(name)
    check(said.startswith("eyJ"), said[:50])


@test("[sig-auth] ServiceAccounts ServiceAccountIssuerDiscovery should support OIDC discovery of service account issuer",
      "the stand-in checks documents and keys, not the signature")
def sa_oidc(w):
    name = f"oidc-discovery-validator-{word()}"
    w.api.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", {"metadata": {"name": f"{w.ns}-discovery"},
                 "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:service-account-issuer-discovery"},
                 "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": w.ns}]})
    w.cleanups.append(lambda: w.api.delete(f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{w.ns}-discovery"))
    w.api.create(w.core("pods"), w.pod(
        name, restartPolicy="Never",
        volumes=[{"name": name, "projected": {"sources": [{"serviceAccountToken": {
            "path": name, "expirationSeconds": 607, "audience": "oidc-discovery-test"}}]}}],
        containers=[container(name, args=["test-service-account-issuer-discovery", f"--token-path=/var/run/secrets/tokens/{name}",
                                          "--audience=oidc-discovery-test"],
                              volumeMounts=[{"name": name, "mountPath": "/var/run/secrets/tokens", "readOnly": True}])]))
    try:
        w.phase(name, "Succeeded")
    finally:
        said = w.log(name)
    check("completed successfully" in said, said)


@test("[sig-auth] ServiceAccounts should guarantee kube-root-ca.crt exist in any namespace",
      "also with a key added")
def root_ca(w):
    path = w.core("configmaps", "kube-root-ca.crt")
    first = w.api.get(path)
    check(first["data"]["ca.crt"], first)
    w.api.delete(path)
    w.until(lambda: w.exists(path), 60, "made again")
    w.api.patch(path, {"data": {"ca.crt": ""}}, MERGE)
    w.until(lambda: w.api.get(path)["data"] == first["data"], 60, "mended")
    w.api.retry_update(path, lambda c: c.update(data={"ca.crt": "", "x": "y"}))
    w.until(lambda: w.api.get(path)["data"] == first["data"], 60, "mended")


@test("[sig-auth] ServiceAccounts should run through the lifecycle of a ServiceAccount")
def sa_lifecycle(w):
    path, name = w.core("serviceaccounts"), "testserviceaccount"
    events = Events(w, path, labelSelector="test-serviceaccount-static=true")
    w.api.create(path, {"metadata": {"name": name, "labels": {"test-serviceaccount-static": "true"}}})
    events.wait("ADDED")
    w.api.patch(f"{path}/{name}", {"automountServiceAccountToken": False}, STRATEGIC)
    events.wait("MODIFIED")
    found = w.api.get("/api/v1/serviceaccounts?labelSelector=test-serviceaccount-static%3Dtrue")["items"]
    check(any(s["metadata"]["name"] == name and s["automountServiceAccountToken"] is False for s in found), found)
    w.api.call("DELETE", path + "?labelSelector=test-serviceaccount-static%3Dtrue")
    events.wait("DELETED")


@test("[sig-auth] ServiceAccounts should update a ServiceAccount")
def sa_update(w):
    path, name = w.core("serviceaccounts"), f"e2e-sa-{word()}"
    w.api.create(path, {"metadata": {"name": name}, "automountServiceAccountToken": True})
    w.api.retry_update(f"{path}/{name}", lambda s: s.update(automountServiceAccountToken=False))
    equal(w.api.get(f"{path}/{name}")["automountServiceAccountToken"], False, "automount")


@test("[sig-auth] SubjectReview should support SubjectReview API operations")
def subject_review(w):
    made = w.api.create(w.core("serviceaccounts"), {"metadata": {"name": "e2e"}})
    user = f"system:serviceaccount:{w.ns}:e2e"
    groups = ["system:authenticated", "system:serviceaccounts", f"system:serviceaccounts:{w.ns}"]
    attributes = {"verb": "list", "resource": "configmaps", "namespace": w.ns, "version": "v1"}
    spec = {"resourceAttributes": attributes, "groups": groups, "uid": made["metadata"]["uid"]}
    said = w.api.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", {"spec": {**spec, "user": user}})
    headers = [("Impersonate-User", user), ("Impersonate-Uid", made["metadata"]["uid"])] + [("Impersonate-Group", g) for g in groups]
    # Several headers of one name, which `requests` cannot send.
    host = urllib.parse.urlparse(w.api.host)
    context = ssl.create_default_context(cafile=w.api.session.verify)
    context.load_cert_chain(*w.api.session.cert)
    connection = http.client.HTTPSConnection(host.hostname, host.port, context=context)
    connection.putrequest("GET", w.core("configmaps"))
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders()
    allowed = {200: True, 403: False}[connection.getresponse().status]
    equal(said["status"]["allowed"], allowed, "SubjectAccessReview")
    said = w.api.create(w.apis("authorization.k8s.io/v1", "localsubjectaccessreviews"),
                        {"metadata": {"namespace": w.ns}, "spec": {**spec, "user": "e2e"}})
    equal(said["status"]["allowed"], allowed, "LocalSubjectAccessReview")


@test("[sig-auth] ServiceAccounts should create a serviceAccountToken and ensure a successful TokenReview")
def sa_token(w):
    path, name = w.core("serviceaccounts"), f"e2e-sa-{word()}"
    w.api.create(path, {"metadata": {"name": name}, "automountServiceAccountToken": True})
    token = w.api.create(f"{path}/{name}/token", {"spec": {"expirationSeconds": 3600}})["status"]["token"]
    review = w.api.create("/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": token}})["status"]
    check(review.get("authenticated") and not review.get("error"), review)
    equal(review["user"]["username"], f"system:serviceaccount:{w.ns}:{name}", "user")
