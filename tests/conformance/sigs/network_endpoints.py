"""[sig-network]: test/e2e/network/{endpointslice,endpointslicemirroring,service_cidrs}.go."""


from frame import MERGE, NGINX, check, container, equal, test

from .operations import discovery, operations, removals
from .services import make_service, reaches, slices


@test("[sig-network] EndpointSlice should have Endpoints and EndpointSlices pointing to API Server")
def endpoints_kubernetes(w):
    w.api.get("/api/v1/namespaces/default/services/kubernetes")
    endpoints = w.api.get("/api/v1/namespaces/default/endpoints/kubernetes")
    check(endpoints.get("subsets"), endpoints)
    found = slices(w, "kubernetes", "default")
    check(found, "no slices")
    addresses = {a["ip"] for s in endpoints["subsets"] for a in s["addresses"]}
    ports = {p["port"] for s in endpoints["subsets"] for p in s["ports"]}
    v4 = [s for s in found if s["addressType"] == "IPv4"]
    equal({a for s in v4 for e in s["endpoints"] for a in e["addresses"]}, addresses, "addresses")
    equal({p["port"] for s in v4 for p in s["ports"]}, ports, "ports")


@test("[sig-network] EndpointSlice should create and delete Endpoints and EndpointSlices for a Service with a selector specified")
def endpoints_empty(w):
    name = "example-empty-selector"
    make_service(w, name, {"does-not-match-anything": "endpoints-and-endpoint-slices-should-still-be-created"},
                 ports=[{"name": "example", "port": 80, "protocol": "TCP"}])
    w.until(lambda: w.exists(w.core("endpoints", name)), 30, "Endpoints")
    found = w.until(lambda: slices(w, name), 30, "slices")
    equal(found[0]["metadata"]["labels"].get("endpointslice.kubernetes.io/managed-by"),
          "endpointslice-controller.k8s.io", "managed-by")
    equal(len(found[0].get("endpoints") or []), 0, "endpoints")
    w.api.delete(w.core("services", name))
    w.gone(w.core("endpoints", name), 30)
    w.until(lambda: not slices(w, name), 90, "slices are gone")


def endpoints_and_slices(w, svc, pods, subsets, count, named):
    name, by_ip = svc["metadata"]["name"], {p["status"]["podIP"]: p for p in pods}

    def enough():
        found = slices(w, name)
        check(len(found) >= count, f"{len(found)} slices of {count}")
        check(sum(len(s.get("endpoints") or []) for s in found) >= len(pods), found)
        return found

    found = w.until(enough, 120, f"slices of {name}")

    def endpoints_match():
        endpoints = w.api.get(w.core("endpoints", name))
        equal(len(endpoints.get("subsets") or []), subsets, "subsets")
        ips = [a for s in endpoints.get("subsets") or []
               for a in (s.get("addresses") or []) + (s.get("notReadyAddresses") or [])]
        equal(len(ips), len(pods), "addresses")
        return endpoints

    endpoints = w.until(endpoints_match, 120, f"Endpoints of {name}")

    def target(reference, pod):
        equal((reference["kind"], reference["namespace"], reference["name"], reference["uid"]),
              ("Pod", w.ns, pod["metadata"]["name"], pod["metadata"]["uid"]), "targetRef")

    wanted = svc["spec"]["ports"]
    port_of = lambda pod: next(p["containerPort"] for p in pod["spec"]["containers"][0]["ports"]
                               if p.get("name") == wanted[0]["targetPort"])
    for subset in endpoints.get("subsets") or []:
        equal(len(subset["ports"]), len(wanted), "ports of a subset")
        for address in (subset.get("addresses") or []) + (subset.get("notReadyAddresses") or []):
            target(address["targetRef"], by_ip[address["ip"]])
            if named:
                equal((subset["ports"][0]["port"], subset["ports"][0]["name"]),
                      (port_of(by_ip[address["ip"]]), wanted[0]["name"]), "named port")
        if not named:
            equal([(p["name"], p["protocol"], p["port"]) for p in subset["ports"]],
                  [(p["name"], p["protocol"], p["targetPort"]) for p in wanted], "ports")
    if not pods:
        equal(len(found), 1, "slices without pods")
        equal(len(found[0].get("ports") or []), 0, "ports without pods")
    for one in found:
        if pods:
            equal(len(one["ports"]), len(wanted), "ports of a slice")
        for endpoint in one.get("endpoints") or []:
            pod = by_ip[endpoint["addresses"][0]]
            target(endpoint["targetRef"], pod)
            if named:
                equal((one["ports"][0]["port"], one["ports"][0]["name"]), (port_of(pod), wanted[0]["name"]), "port")
    equal({e["addresses"][0] for s in found for e in s.get("endpoints") or []}, set(by_ip), "addresses")


@test("[sig-network] EndpointSlice should create Endpoints and EndpointSlices for Pods matching a Service")
def endpoints_pods(w):
    w.start("pod1", labels={"pod1": "on", "shared12": "on"}, containers=[
        container("container1", NGINX, ports=[{"name": "example-name", "containerPort": 3000}])])
    w.start("pod2", labels={"pod2": "on", "shared12": "on"}, containers=[
        container("container1", NGINX, ports=[{"name": "example-name", "containerPort": 3001},
                                              {"name": "other-port", "containerPort": 3002}])])
    port = lambda name, target: [{"name": name, "port": 80, "targetPort": target, "protocol": "TCP"}]
    more = {"publishNotReadyAddresses": True}
    one = make_service(w, "example-int-port", {"pod1": "on"}, ports=port("example", 3000), **more)
    two = make_service(w, "example-named-port", {"shared12": "on"}, ports=port("http", "example-name"), **more)
    three = make_service(w, "example-no-match", {"pod3": "on"}, ports=port("example-no-match", 8080), **more)
    for name in ["pod1", "pod2"]:
        w.until(lambda: w.get_pod(name)["status"].get("podIPs"), 180, f"address of {name}")
    first, second = w.get_pod("pod1"), w.get_pod("pod2")
    endpoints_and_slices(w, one, [first], 1, 1, False)
    endpoints_and_slices(w, two, [first, second], 2, 2, True)
    endpoints_and_slices(w, three, [], 0, 1, False)
    for found in slices(w, "example-named-port"):
        w.api.delete(w.apis("discovery.k8s.io/v1", "endpointslices", found["metadata"]["name"]))
    endpoints_and_slices(w, two, [first, second], 2, 2, True)


@test("[sig-network] EndpointSlice should support creating EndpointSlice API operations")
def endpointslice_api(w):
    discovery(w, "discovery.k8s.io", "v1", "endpointslices")
    path = w.apis("discovery.k8s.io/v1", "endpointslices")
    # `ports: null` as Go encodes a nil slice of this type.
    name, _, _, selector = operations(w, path, {
        "metadata": {"generateName": "e2e-example-ing"}, "addressType": "IPv4", "ports": None,
        "endpoints": [{"addresses": ["1.2.3.4", "5.6.7.8"], "conditions": {}},
                      {"addresses": ["2.2.3.4", "6.6.7.8"], "conditions": {}}],
    }, everywhere="/apis/discovery.k8s.io/v1/endpointslices")
    removals(w, path, name, selector)


def hand_made_slices(w, pods, ports):
    """A Service without a selector over a slice for each pod and port."""
    made = make_service(w, "example-custom-endpoints", ports=[
        {"name": "port80", "port": 80, "protocol": "TCP"}, {"name": "port81", "port": 81, "protocol": "TCP"}])
    for name, pod, port in zip(["port80", "port81"], pods, ports):
        w.api.create(w.apis("discovery.k8s.io/v1", "endpointslices"), {
            "metadata": {"generateName": "e2e-custom-slice", "labels": {
                "kubernetes.io/service-name": "example-custom-endpoints",
                "endpointslice.kubernetes.io/managed-by": f"e2e-test{w.ns}"}},
            "addressType": "IPv4", "endpoints": [{"addresses": [pod["status"]["podIP"]], "conditions": {"ready": True}}],
            "ports": [{"name": name, "port": port, "protocol": "TCP"}]})
    w.run("pause-pod-0")
    for pod, port in zip(pods, [80, 81]):
        equal(reaches(w, "pause-pod-0", made["spec"]["clusterIP"], port), pod["metadata"]["name"], f"port {port}")


def server_on(name, port):
    return container(name, args=["netexec", "--http-port", str(port), "--udp-port", "-1"], ports=[{"containerPort": port}])


@test("[sig-network] EndpointSlice should support a Service with multiple ports specified in multiple EndpointSlices")
def slices_ports(w):
    pod = w.run("pod-handle-http-request", containers=[server_on("container-handle-8090-request", 8090),
                                                       server_on("container-handle-9090-request", 9090)])
    hand_made_slices(w, [pod, pod], [8090, 9090])


@test("[sig-network] EndpointSlice should support a Service with multiple endpoint IPs specified in multiple EndpointSlices")
def slices_addresses(w):
    pods = [w.run(f"pod{i}-handle-http-request", containers=[server_on("container-handle-8090-request", 8090)]) for i in (1, 2)]
    hand_made_slices(w, pods, [8090, 8090])


@test("[sig-network] ServiceCIDR and IPAddress API should support ServiceCIDR API operations")
def service_cidr(w):
    discovery(w, "networking.k8s.io", "v1", "servicecidrs", "servicecidrs/status")
    path = "/apis/networking.k8s.io/v1/servicecidrs"
    w.api.get(f"{path}/kubernetes")
    patched = w.api.patch(f"{path}/kubernetes", {"metadata": {"annotations": {"patched": "true"}}}, MERGE)
    equal(patched["metadata"]["annotations"]["patched"], "true", "patched")
    updated = w.api.retry_update(f"{path}/kubernetes", lambda c: c["metadata"]["annotations"].update(updated="true"))
    equal(updated["metadata"]["annotations"]["updated"], "true", "updated")
    check(w.api.get(path)["items"], "listed")
    next(w.api.watch(path, 5))


@test("[sig-network] ServiceCIDR and IPAddress API should support IPAddress API operations")
def ip_address(w):
    discovery(w, "networking.k8s.io", "v1", "ipaddresses")
    path = "/apis/networking.k8s.io/v1/ipaddresses"
    reference = {"group": "mygroup", "resource": "myresources", "namespace": "foo", "name": "bar"}
    for name, kind in [("255.255.255.255", "broadcast"), ("fe80::42:1dff:fe84:f9e2", "link-local")]:
        w.cleanups.append(lambda n=name: w.api.delete(f"{path}/{n}"))
        w.api.create(path, {"metadata": {"name": name, "labels": {"type": kind}}, "spec": {"parentRef": reference}})
    one = f"{path}/255.255.255.255"
    w.api.patch(one, {"metadata": {"annotations": {"patched": "true"}}}, MERGE)
    updated = w.api.retry_update(one, lambda a: a["metadata"]["annotations"].update(updated="true"))
    equal(updated["metadata"]["annotations"], {"patched": "true", "updated": "true"}, "annotations")
    w.api.get(one)
    equal(len(w.api.get(f"{path}?labelSelector=type%3Dbroadcast")["items"]), 1, "listed")
    w.api.delete(one)
    w.api.call("DELETE", f"{path}?labelSelector=type%3Dlink-local")
    equal(len(w.api.get(f"{path}?labelSelector=type%3Dlink-local")["items"]), 0, "left")


@test("[sig-network] EndpointSliceMirroring should mirror a custom Endpoints resource through create update and delete")
def mirroring(w):
    name = "example-custom-endpoints"
    make_service(w, name, ports=[{"name": "example", "port": 80, "protocol": "TCP"}])
    endpoints = {"metadata": {"name": name},
                 "subsets": [{"ports": [{"port": 80}], "addresses": [{"ip": "10.1.2.3"}]}]}
    w.api.create(w.core("endpoints"), endpoints)

    def mirrored(address):
        found = slices(w, name)
        equal([(s["ports"][0]["port"], [e["addresses"] for e in s["endpoints"]]) for s in found],
              [(80, [[address]])], "mirrored")
        return True

    w.until(lambda: mirrored("10.1.2.3"), 12, "mirrored")
    endpoints["subsets"][0]["addresses"] = [{"ip": "10.2.3.4"}]
    w.api.update(w.core("endpoints", name), endpoints)
    w.until(lambda: mirrored("10.2.3.4"), 12, "the update mirrored")
    w.api.delete(w.core("endpoints", name))
    w.until(lambda: not slices(w, name), 12, "the mirror is gone")
