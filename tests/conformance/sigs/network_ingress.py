"""[sig-network]: test/e2e/network/{ingress,ingressclass}.go."""


from frame import MERGE, equal, test

from .operations import discovery, operations, removals


@test("[sig-network] Ingress API should support creating Ingress API operations")
def ingress_api(w):
    discovery(w, "networking.k8s.io", "v1", "ingresses", "ingresses/status")
    path = w.apis("networking.k8s.io/v1", "ingresses")
    rule = lambda host: {"host": host, "http": {"paths": [{
        "path": "/", "pathType": "Prefix",
        "backend": {"service": {"name": "default-backend", "port": {"number": 8080}}}}]}}
    name, updated, _, selector = operations(w, path, {
        "metadata": {"generateName": "e2e-example-ing"},
        "spec": {"defaultBackend": {"service": {"name": "default-backend", "port": {"name": "", "number": 8080}}}},
    }, everywhere="/apis/networking.k8s.io/v1/ingresses",
        update=lambda i: i["spec"].update(rules=[rule("host-a.example.com")]))
    equal(updated["spec"]["rules"][0]["host"], "host-a.example.com", "rules")
    status = w.api.patch(f"{path}/{name}/status",
                         {"metadata": {"annotations": {"patchedstatus": "true"}},
                          "status": {"loadBalancer": {"ingress": [{"ip": "169.1.1.1"}]}}}, MERGE)
    equal(status["status"]["loadBalancer"], {"ingress": [{"ip": "169.1.1.1"}]}, "status")
    equal(status["metadata"]["annotations"].get("patchedstatus"), "true", "annotation by the status")
    lb = {"ingress": [{"ip": "169.1.1.2"}]}
    status = w.api.retry_update(f"{path}/{name}/status", lambda i: i["status"].update(loadBalancer=lb))
    equal(status["status"]["loadBalancer"], lb, "status")
    equal(w.api.get(f"{path}/{name}/status")["metadata"]["uid"], status["metadata"]["uid"], "uid")
    removals(w, path, name, selector)


@test("[sig-network] IngressClass API should support creating IngressClass API operations")
def ingress_class(w):
    discovery(w, "networking.k8s.io", "v1", "ingressclasses")
    path = "/apis/networking.k8s.io/v1/ingressclasses"
    name, _, _, selector = operations(w, path, {
        "metadata": {"name": "", "generateName": "e2e-example-"}, "spec": {"controller": "example.com/controller"}},
        label="ingressclass")
    removals(w, path, name, selector)
