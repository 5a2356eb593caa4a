"""Services of the tests, what is behind them, and whether they answer."""

from frame import container, equal


def service(name, selector=None, headless=False, external=None, ports=None, **spec):
    spec = {"selector": selector or {}, **spec}
    if external:
        spec |= {"type": "ExternalName", "externalName": external}
    else:
        spec["ports"] = ports or [{"port": 80, "name": "http", "protocol": "TCP"}]
    if headless:
        spec["clusterIP"] = "None"
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def make_service(w, *args, **kw):
    return w.api.create(w.core("services"), service(*args, **kw))


def slices(w, name, ns=None):
    return w.api.get(w.apis("discovery.k8s.io/v1", "endpointslices", ns=ns)
                     + f"?labelSelector=kubernetes.io/service-name%3D{name}")["items"]


def rc(w, name, replicas, labels, one):
    return w.api.create(w.core("replicationcontrollers"), {"metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": labels, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [one], "terminationGracePeriodSeconds": 0}}}})


def hostname_pods(w, name, replicas=3, port=9376):
    rc(w, name, replicas, {"name": name}, container(name, args=["serve-hostname"],
                                                    ports=[{"containerPort": port, "protocol": "TCP"}]))
    return w.ready_pods(f"name={name}", replicas, 180)


def exec_pod(w, name="execpod"):
    return w.run(name, container="agnhost-container")["metadata"]["name"]


def reaches(w, pod, host, port, seconds=60):
    return w.until(lambda: w.shell(pod, f"curl -g -q -s --connect-timeout 2 http://{host}:{port}/hostname"), seconds,
                   f"http://{host}:{port}")


def endpoints_of(w, name, wanted):
    """`wanted`: pod name to its ports."""

    def match():
        found = {}
        for one in slices(w, name):
            for endpoint in one.get("endpoints") or []:
                if endpoint["conditions"].get("ready"):
                    for port in one.get("ports") or []:
                        found.setdefault(endpoint["targetRef"]["name"], set()).add(port["port"])
        equal({k: sorted(v) for k, v in found.items()}, wanted, f"endpoints of {name}")
        return True

    return w.until(match, 120, f"endpoints {wanted}")
