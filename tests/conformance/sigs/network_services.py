"""[sig-network]: test/e2e/network/service.go."""


from frame import MERGE, STRATEGIC, Events, check, container, equal, test, word

from .services import endpoints_of, exec_pod, hostname_pods, make_service, reaches


@test("[sig-network] Services should provide secure master service")
def master_service(w):
    w.api.get("/api/v1/namespaces/default/services/kubernetes")


@test("[sig-network] Services should find a service from listing all namespaces")
def all_services(w):
    check(any(s["metadata"]["name"] == "kubernetes" and s["metadata"]["namespace"] == "default"
              for s in w.api.get("/api/v1/services")["items"]))


@test("[sig-network] Services should serve a basic endpoint from pods")
def basic_endpoint(w):
    name = "endpoint-test2"
    made = make_service(w, name, {"foo": "bar"}, ports=[{"port": 80, "targetPort": 80}])
    ip = made["spec"]["clusterIP"]
    w.until(lambda: w.exists(w.core("endpoints", name)), 60, "Endpoints")
    endpoints_of(w, name, {})
    pod = lambda n: w.start(n, labels={"foo": "bar"}, containers=[container(
        "agnhost-container", args=["netexec", "--http-port=80"], ports=[{"containerPort": 80}])])
    pod("pod1")
    endpoints_of(w, name, {"pod1": [80]})
    exec_pod(w)
    for host in [name, ip]:
        w.until(lambda: w.shell("execpod", f"nc -v -z -w 2 {host} 80") is not None, 60, host)
    pod("pod2")
    endpoints_of(w, name, {"pod1": [80], "pod2": [80]})
    w.until(lambda: w.shell("execpod", f"nc -v -z -w 2 {ip} 80") is not None, 60, ip)
    w.api.delete(w.core("pods", "pod1"), {"gracePeriodSeconds": 0})
    endpoints_of(w, name, {"pod2": [80]})
    w.until(lambda: w.shell("execpod", f"nc -v -z -w 2 {ip} 80") is not None, 60, ip)
    w.api.delete(w.core("pods", "pod2"), {"gracePeriodSeconds": 0})
    endpoints_of(w, name, {})


@test("[sig-network] Services should serve multiport endpoints from pods")
def multiport(w):
    name = "multi-endpoint-test"
    made = make_service(w, name, {"foo": "bar"}, ports=[
        {"name": "portname1", "port": 80, "targetPort": "svc1"}, {"name": "portname2", "port": 81, "targetPort": "svc2"}])
    ip = made["spec"]["clusterIP"]
    endpoints_of(w, name, {})
    for pod, port, port_name in [("pod1", 100, "svc1"), ("pod2", 101, "svc2")]:
        w.start(pod, labels={"foo": "bar"}, containers=[container(
            "agnhost-container", args=["netexec", f"--http-port={port}"],
            ports=[{"name": port_name, "containerPort": port}])])
        endpoints_of(w, name, {"pod1": [100]} if pod == "pod1" else {"pod1": [100], "pod2": [101]})
    exec_pod(w)
    for port in [80, 81]:
        w.until(lambda: w.shell("execpod", f"nc -v -z -w 2 {ip} {port}") is not None, 60, f"{port}")
    w.api.delete(w.core("pods", "pod1"), {"gracePeriodSeconds": 0})
    endpoints_of(w, name, {"pod2": [101]})
    w.api.delete(w.core("pods", "pod2"), {"gracePeriodSeconds": 0})
    endpoints_of(w, name, {})


@test("[sig-network] Services should serve endpoints on same port and different protocols")
def same_port(w):
    name, labels = "multiprotocol-test", {"app": "multiprotocol-test"}
    both = [{"name": "tcp-port", "port": 80, "protocol": "TCP", "targetPort": 80},
            {"name": "udp-port", "port": 80, "protocol": "UDP", "targetPort": 80}]
    made = make_service(w, name, labels, ports=both)
    ip = made["spec"]["clusterIP"]
    w.run("pod1", labels=labels, containers=[container(
        "agnhost-container", args=["netexec", "--http-port=80", "--udp-port=80"],
        ports=[{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "UDP"}])])
    exec_pod(w)
    tcp = lambda: w.try_shell("execpod", f"curl -g -q -s --connect-timeout 2 http://{ip}:80/hostname")
    udp = lambda: w.try_shell("execpod", f"echo hostName | nc -w 2 -u {ip} 80")
    works = lambda run: run.returncode == 0 and run.stdout.strip() == "pod1"
    expect = lambda t, u: w.until(lambda: works(tcp()) == t and works(udp()) == u, 60, f"TCP {t}, UDP {u}", every=0.5)
    expect(True, True)
    w.api.retry_update(w.core("services", name), lambda s: s["spec"].update(ports=both[:1]))
    expect(True, False)
    w.api.retry_update(w.core("services", name), lambda s: s["spec"].update(ports=both[1:]))
    expect(False, True)


def responses(w, pod, host, port):
    said = w.shell(pod, f"for i in $(seq 0 15); do echo; curl -q -s --connect-timeout 2 http://{host}:{port}/ ; done")
    return [line for line in said.split() if line]


def affinity(w, kind, switch):
    name = f"affinity-{kind.lower()}" + ("-transition" if switch else "")
    hostname_pods(w, name)
    made = make_service(w, name, {"name": name}, type=kind, sessionAffinity="ClientIP",
                        ports=[{"port": 80, "targetPort": 9376, "protocol": "TCP"}])
    equal(made["spec"]["sessionAffinityConfig"], {"clientIP": {"timeoutSeconds": 10800}}, "affinity's timeout")
    pod = exec_pod(w, "execpod-affinity")
    reach_service(w, made, pod)
    targets = [(made["spec"]["clusterIP"], 80)]
    if kind == "NodePort":
        targets = [(ip, made["spec"]["ports"][0]["nodePort"]) for ip in w.node_ips()[:1]]
    host, port = targets[0]
    sticky = lambda: (lambda found: len(found) >= 15 and len(set(found[-15:])) == 1)(responses(w, pod, host, port))
    spread = lambda: len(set(responses(w, pod, host, port))) > 1
    if switch:
        w.api.retry_update(w.core("services", name), lambda s: s["spec"].update(sessionAffinity="None", sessionAffinityConfig=None))
        w.until(spread, 60, "more than one backend")
        w.api.retry_update(w.core("services", name), lambda s: s["spec"].update(sessionAffinity="ClientIP"))
    w.until(sticky, 60, "one backend")


def reach_service(w, svc, pod):
    """Upstream's CheckServiceReachability."""
    spec = svc["spec"]
    for port in spec["ports"]:
        reaches(w, pod, svc["metadata"]["name"], port["port"])
        reaches(w, pod, spec["clusterIP"], port["port"])
        if spec["type"] == "NodePort":
            for ip in w.node_ips():
                reaches(w, pod, ip, port["nodePort"])


for kind, said in [("ClusterIP", "service with type clusterIP"), ("NodePort", "NodePort service")]:
    test(f"[sig-network] Services should have session affinity work for {said}")(
        lambda w, kind=kind: affinity(w, kind, False))
    test(f"[sig-network] Services should be able to switch session affinity for {said}")(
        lambda w, kind=kind: affinity(w, kind, True))


@test("[sig-network] Services should be able to create a functioning NodePort service")
def node_port(w):
    name = "nodeport-test"
    hostname_pods(w, name, 2)
    made = make_service(w, name, {"name": name}, type="NodePort",
                        ports=[{"port": 80, "targetPort": 9376, "protocol": "TCP"}])
    pod = exec_pod(w)
    reach_service(w, made, pod)


@test("[sig-network] Services should be able to change the type from ExternalName to ClusterIP")
def external_to_cluster(w):
    name = "externalname-service"
    made = make_service(w, name, {"name": name}, external="foo.example.com")
    check(not made["spec"].get("clusterIP"), made)
    hostname_pods(w, name, 2)
    made = w.api.retry_update(w.core("services", name), lambda s: s["spec"].update(
        type="ClusterIP", externalName=None, ports=[{"port": 80, "name": "http", "protocol": "TCP", "targetPort": 9376}]))
    check(made["spec"]["clusterIP"], made)
    reach_service(w, made, exec_pod(w))


@test("[sig-network] Services should be able to change the type from ExternalName to NodePort")
def external_to_node_port(w):
    name = "externalname-service"
    make_service(w, name, {"name": name}, external="foo.example.com")
    hostname_pods(w, name, 2)
    made = w.api.retry_update(w.core("services", name), lambda s: s["spec"].update(
        type="NodePort", externalName=None, ports=[{"port": 80, "name": "http", "protocol": "TCP", "targetPort": 9376}]))
    check(made["spec"]["clusterIP"] and made["spec"]["ports"][0]["nodePort"], made)
    reach_service(w, made, exec_pod(w))


def to_external(w, kind):
    name = f"{kind.lower()}-service"
    make_service(w, name, {"name": name}, type=kind, ports=[{"port": 80, "protocol": "TCP"}])
    hostname_pods(w, "externalsvc", 2)
    make_service(w, "externalsvc", {"name": "externalsvc"}, ports=[{"port": 80, "targetPort": 9376, "protocol": "TCP"}])
    target = f"externalsvc.{w.ns}.svc.cluster.local"
    made = w.api.retry_update(w.core("services", name), lambda s: s["spec"].update(type="ExternalName", externalName=target))
    check(not made["spec"].get("clusterIP") and not made["spec"].get("clusterIPs"), made)
    check(not any(p.get("nodePort") for p in made["spec"].get("ports", [])), made)
    pod = exec_pod(w)
    w.until(lambda: w.shell(pod, f"nslookup {name}.{w.ns}.svc.cluster.local"), 120, "nslookup")
    w.until(lambda: f"{target}." in w.shell(pod, f"dig +short {name}.{w.ns}.svc.cluster.local CNAME"), 60, "CNAME")


for kind in ["ClusterIP", "NodePort"]:
    test(f"[sig-network] Services should be able to change the type from {kind} to ExternalName")(
        lambda w, kind=kind: to_external(w, kind))


@test("[sig-network] Services should complete a service status lifecycle")
def service_status(w):
    name, path = f"test-service-{word()}", w.core("services")
    events = Events(w, path, labelSelector="test-service-static=true")
    w.api.create(path, {"metadata": {"name": name, "labels": {"test-service-static": "true"}}, "spec": {
        "type": "LoadBalancer", "loadBalancerClass": None,
        "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 80}]}})
    events.wait("ADDED", lambda s: s["metadata"]["name"] == name)
    w.api.get(f"{path}/{name}/status")
    w.api.patch(f"{path}/{name}/status", {"metadata": {"annotations": {"patchedstatus": "true"}},
                                          "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}}, MERGE)
    event = events.wait("MODIFIED", lambda s: s["metadata"].get("annotations", {}).get("patchedstatus") == "true")
    equal(event["object"]["status"]["loadBalancer"]["ingress"][0]["ip"], "203.0.113.1", "ingress")
    condition = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test",
                 "lastTransitionTime": None}
    w.api.retry_update(f"{path}/{name}/status", lambda s: s["status"].setdefault("conditions", []).append(condition))
    events.wait("MODIFIED", lambda s: any(c["type"] == "StatusUpdate" and c["message"] == "Set from e2e test"
                                          for c in s["status"].get("conditions", [])))
    w.api.patch(f"{path}/{name}", {"metadata": {"labels": {"test-service": "patched"}}}, STRATEGIC)
    events.wait("MODIFIED", lambda s: s["metadata"]["labels"].get("test-service") == "patched")
    w.api.delete(f"{path}/{name}")
    events.wait("DELETED", lambda s: s["metadata"]["name"] == name)


@test("[sig-network] Services should delete a collection of services")
def service_collection(w):
    path = w.core("services")
    for name, port, label in [("e2e-svc-a", 8001, True), ("e2e-svc-b", 8002, True), ("e2e-svc-c", 8003, False)]:
        w.api.create(path, {"metadata": {"name": name, "labels": {"e2e-test-service": "delete"} if label else {}},
                            "spec": {"ports": [{"name": "http", "protocol": "TCP", "port": port, "targetPort": port}]}})
    equal(len(w.api.get(path)["items"]), 3, "services")
    w.api.call("DELETE", path + "?labelSelector=e2e-test-service%3Ddelete")
    equal([s["metadata"]["name"] for s in w.api.get(path)["items"]], ["e2e-svc-c"], "left")


@test("[sig-network] Services should test the lifecycle of an Endpoint")
def endpoint_lifecycle(w):
    name, path = "testservice", w.core("endpoints")
    events = Events(w, path, labelSelector="test-endpoint-static=true")
    w.api.create(path, {"metadata": {"name": name, "labels": {"test-endpoint-static": "true"}}, "subsets": [
        {"addresses": [{"ip": "10.0.0.24"}], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}]})
    events.wait("ADDED")
    found = next(e for e in w.api.get("/api/v1/endpoints?labelSelector=test-endpoint-static%3Dtrue")["items"]
                 if e["metadata"]["namespace"] == w.ns)
    found["metadata"]["labels"]["test-service"] = "updated"
    w.api.update(f"{path}/{name}", found)
    events.wait("MODIFIED", lambda e: e["metadata"]["labels"].get("test-service") == "updated")
    w.api.get(f"{path}/{name}")
    w.api.patch(f"{path}/{name}", {"metadata": {"labels": {"test-service": "patched"}}, "subsets": [
        {"addresses": [{"ip": "10.0.0.25"}], "ports": [{"name": "http-test", "port": 8080}]}]}, STRATEGIC)
    events.wait("MODIFIED", lambda e: e["metadata"]["labels"].get("test-service") == "patched")
    found = w.api.get(f"{path}/{name}")
    subset = found["subsets"][0]
    equal((subset["addresses"][0]["ip"], subset["ports"][0]["name"], subset["ports"][0]["port"]),
          ("10.0.0.25", "http-test", 8080), "patched")
    w.api.call("DELETE", path + "?labelSelector=test-endpoint-static%3Dtrue")
    events.wait("DELETED")
    check(w.exists(f"{path}/{name}") is None)
