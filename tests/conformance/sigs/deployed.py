"""A server with a certificate, as a Deployment behind a Service: what webhooks and aggregated API servers are."""

import base64
import subprocess
import tempfile
from pathlib import Path

from frame import AGNHOST, container

PORT, TARGET = 8443, 8444


class Certificate:
    """A CA's own certificate, and of it one for a Service; base64 of PEM."""

    def __init__(self, host):
        with tempfile.TemporaryDirectory() as scratch:
            at = Path(scratch)
            new = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
            openssl(*new[1:], "-x509", "-days", "1", "-subj", "/CN=e2e-server-cert-ca", "-keyout", at / "ca.key",
                    "-out", at / "ca.crt")
            openssl(*new[1:], "-subj", "/CN=e2e-server", "-keyout", at / "tls.key", "-out", at / "tls.csr")
            (at / "names").write_text(f"subjectAltName=DNS:{host}\n")
            openssl("x509", "-req", "-days", "1", "-in", at / "tls.csr", "-CA", at / "ca.crt", "-CAkey", at / "ca.key",
                    "-CAcreateserial", "-extfile", at / "names", "-out", at / "tls.crt")
            self.ca, self.cert, self.key = (
                base64.b64encode((at / name).read_bytes()).decode() for name in ["ca.crt", "tls.crt", "tls.key"]
            )


def openssl(*words):
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def deploy(w, command, service, port=PORT):
    """Deploys a subcommand of the stand-in as a server of a Service; gives its certificate."""
    certificate = Certificate(f"{service}.{w.ns}.svc")
    allow_reading_of_authentication(w)
    w.api.create(w.core("secrets"), {"metadata": {"name": f"{service}-secret"}, "type": "Opaque", "data": {
        "tls.crt": certificate.cert, "tls.key": certificate.key}})
    at = "/webhook.local.config/certificates"
    labels = {"app": service}
    w.api.create(w.apis("apps/v1", "deployments"), {"metadata": {"name": service, "labels": labels}, "spec": {
        "replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
            "terminationGracePeriodSeconds": 0,
            "volumes": [{"name": "certificates", "secret": {"secretName": f"{service}-secret"}}],
            "containers": [container(
                "server", AGNHOST, ports=[{"containerPort": TARGET}],
                args=[command, f"--tls-cert-file={at}/tls.crt", f"--tls-private-key-file={at}/tls.key", f"--port={TARGET}"],
                volumeMounts=[{"name": "certificates", "readOnly": True, "mountPath": at}],
                readinessProbe={"httpGet": {"scheme": "HTTPS", "port": TARGET, "path": "/readyz"}, "periodSeconds": 1,
                                "failureThreshold": 30})]}}}})
    w.until(lambda: w.api.get(w.apis("apps/v1", "deployments", service))["status"].get("availableReplicas") == 1, 120,
            f"deployment {service} is available")
    w.api.create(w.core("services"), {"metadata": {"name": service, "labels": {"test": service}}, "spec": {
        "selector": labels, "ports": [{"protocol": "TCP", "port": port, "targetPort": TARGET}]}})
    slices = w.apis("discovery.k8s.io/v1", "endpointslices") + f"?labelSelector=kubernetes.io/service-name%3D{service}"
    w.until(lambda: sum(len(s["endpoints"] or []) for s in w.api.get(slices)["items"]) == 1, 30, "an endpoint")
    return certificate


def allow_reading_of_authentication(w):
    """What an extension server needs to know whom to trust."""
    path = "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/rolebindings"
    name = f"auth-reader-{w.ns}"
    w.api.create(path, {
        "metadata": {"name": name, "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "extension-apiserver-authentication-reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": w.ns}]})
    w.cleanups.append(lambda: w.api.delete(f"{path}/{name}"))
