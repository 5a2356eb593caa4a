"""[sig-network]: test/e2e/network/*.go and test/e2e/common/network/networking.go."""

import concurrent.futures
import json
import time
import urllib.parse

from e2e import (AGNHOST, MERGE, NGINX, PAUSE, STRATEGIC, Events, Refused, check, container, equal, is_ready, test,
                 word)
from operations import discovery, operations, removals

# === DNS ===

DOMAIN = "cluster.local"


def probes(names=(), hosts=(), ptr=None, prefix="agnhost"):
    """The commands of a prober, and the files that it leaves when all is well."""
    line, files = "for i in `seq 1 600`; do ", []

    def add(command, file, check_form=True):
        nonlocal line
        files.append(file)
        if check_form:
            line += f'check="$$({command})" && test -n "$$check" && echo OK > /results/{file};'
        else:
            line += f'test -n "$$({command})" && echo OK > /results/{file};'

    for name in names:
        kind = "SRV" if name.startswith("_") else "A"
        add(f"dig +notcp +noall +answer +search {name} {kind}", f"{prefix}_udp@{name}")
        add(f"dig +tcp +noall +answer +search {name} {kind}", f"{prefix}_tcp@{name}")
    for name in hosts:
        add(f"getent hosts {name}", f"{prefix}_hosts@{name}", False)
    if ptr:
        reverse = ".".join(reversed(ptr.split("."))) + ".in-addr.arpa."
        add(f"dig +notcp +noall +answer +search {reverse} PTR", f"{ptr}_udp@PTR")
        add(f"dig +tcp +noall +answer +search {reverse} PTR", f"{ptr}_tcp@PTR")
    return line + "sleep 1; done", files


def dns_pod(w, line, labels=None, hostname="dns-querier-1", subdomain="dns-test-service"):
    mount = [{"name": "results", "mountPath": "/results"}]
    return w.pod(
        f"dns-test-{word()}", labels=labels or {}, hostname=hostname, subdomain=subdomain,
        volumes=[{"name": "results", "emptyDir": {}}],
        containers=[
            container("webserver", args=["porter"], command=["/bin/sh", "-c", "cd / && httpd -f -p 80 -h /"],
                      ports=[{"name": "http", "containerPort": 80}], volumeMounts=mount),
            container("querier", command=["sh", "-c", line], volumeMounts=mount),
        ],
    )


def validate_dns(w, line, files, wanted="OK", **kw):
    made = w.api.create(w.core("pods"), dns_pod(w, line, **kw))
    name = made["metadata"]["name"]
    w.running(name)

    def seen():
        said = {}
        for file in files:
            try:
                said[file] = w.api.call("GET", f"{w.core('pods', name)}/proxy/results/{urllib.parse.quote(file)}").text
            except Refused as refused:
                said[file] = str(refused)[:200]
        wrong = {f: s for f, s in said.items() if s.strip() != wanted}
        check(not wrong, wrong)
        return True

    w.until(seen, 60, f"what {files} say", every=1)
    w.api.delete(w.core("pods", name), {"gracePeriodSeconds": 0})


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


@test("[sig-network] DNS should provide DNS for the cluster",
      "one prober (glibc), not also an Alpine one")
def dns_cluster(w):
    validate_dns(w, *probes([f"kubernetes.default.svc.{DOMAIN}"]))


@test("[sig-network] DNS should provide /etc/hosts entries for the cluster")
def dns_hosts(w):
    validate_dns(w, *probes(hosts=[f"dns-querier-1.dns-test-service.{w.ns}.svc.{DOMAIN}", "dns-querier-1"]))


@test("[sig-network] DNS should provide DNS for services")
def dns_services(w):
    labels = {"dns-test": "true"}
    make_service(w, "dns-test-service", labels, headless=True)
    regular = make_service(w, "test-service-2", labels)
    names = [f"dns-test-service.{w.ns}.svc.{DOMAIN}", f"_http._tcp.dns-test-service.{w.ns}.svc.{DOMAIN}",
             f"_http._tcp.test-service-2.{w.ns}.svc.{DOMAIN}"]
    validate_dns(w, *probes(names, ptr=regular["spec"]["clusterIP"]), labels=labels)


@test("[sig-network] DNS should resolve DNS of partial qualified names for services")
def dns_partial(w):
    labels = {"dns-test": "true"}
    make_service(w, "dns-test-service", labels, headless=True)
    regular = make_service(w, "test-service-2", labels)
    names = ["dns-test-service", f"dns-test-service.{w.ns}", f"dns-test-service.{w.ns}.svc",
             f"_http._tcp.dns-test-service.{w.ns}.svc", f"_http._tcp.test-service-2.{w.ns}.svc"]
    validate_dns(w, *probes(names, ptr=regular["spec"]["clusterIP"]), labels=labels)


@test("[sig-network] DNS should provide DNS for pods for Hostname")
def dns_hostname(w):
    labels = {"dns-test-hostname-attribute": "true"}
    make_service(w, "dns-test-service-2", labels, headless=True)
    names = [f"dns-querier-2.dns-test-service-2.{w.ns}.svc.{DOMAIN}", "dns-querier-2"]
    validate_dns(w, *probes(hosts=names), labels=labels, hostname="dns-querier-2", subdomain="dns-test-service-2")


@test("[sig-network] DNS should provide DNS for pods for Subdomain")
def dns_subdomain(w):
    labels = {"dns-test-hostname-attribute": "true"}
    make_service(w, "dns-test-service-2", labels, headless=True)
    names = [f"dns-querier-2.dns-test-service-2.{w.ns}.svc.{DOMAIN}", f"dns-test-service-2.{w.ns}.svc.{DOMAIN}"]
    validate_dns(w, *probes(names), labels=labels, hostname="dns-querier-2", subdomain="dns-test-service-2")


@test("[sig-network] DNS should provide DNS for ExternalName services")
def dns_external(w):
    name = "dns-test-service-3"
    make_service(w, name, external="foo.example.com")
    full = f"{name}.{w.ns}.svc.{DOMAIN}"
    targeted = lambda kind: (f"for i in `seq 1 30`; do dig +short {full} {kind} > /results/agnhost_udp@{full}; sleep 1; done",
                             [f"agnhost_udp@{full}"])
    validate_dns(w, *targeted("CNAME"), wanted="foo.example.com.")
    w.api.retry_update(w.core("services", name), lambda s: s["spec"].update(externalName="bar.example.com"))
    validate_dns(w, *targeted("CNAME"), wanted="bar.example.com.")

    # As client-go's type has it: externalName stays.
    w.api.retry_update(w.core("services", name), lambda s: s["spec"].update(
        type="ClusterIP", ports=[{"port": 80, "name": "http", "protocol": "TCP"}]))
    found = w.api.get(w.core("services", name))
    validate_dns(w, *targeted("A"), wanted=found["spec"]["clusterIP"])


@test("[sig-network] DNS should support configurable pod DNS nameservers",
      "reads /etc/resolv.conf in the place of `agnhost dns-suffix` and `dns-server-list`")
def dns_config(w):
    w.run("test-dns-nameservers", dnsPolicy="None",
          dnsConfig={"nameservers": ["1.1.1.1"], "searches": ["resolv.conf.local"]})
    said = w.exec("test-dns-nameservers", "cat", "/etc/resolv.conf")
    check("search resolv.conf.local" in said and "nameserver 1.1.1.1" in said, said)


# === EndpointSlices ===


def slices(w, name, ns=None):
    return w.api.get(w.apis("discovery.k8s.io/v1", "endpointslices", ns=ns)
                     + f"?labelSelector=kubernetes.io/service-name%3D{name}")["items"]


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


# === HostPort ===


@test("[sig-network] HostPort validates that there is no conflict between pods with same hostPort but different hostIP and protocol")
def host_port(w):
    node = w.nodes()[0]
    host = next(a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP")
    for name, ip, protocol in [("pod1", "127.0.0.1", "TCP"), ("pod2", host, "TCP"), ("pod3", host, "UDP")]:
        w.run(name, nodeName=node["metadata"]["name"], containers=[container(
            "agnhost", args=["netexec", "--http-port=8080", "--udp-port=8080"],
            ports=[{"hostPort": 54323, "containerPort": 8080, "protocol": protocol, "hostIP": ip}],
            readinessProbe={"httpGet": {"path": "/hostname", "port": 8080, "scheme": "HTTP"}})])
    w.run("e2e-host-exec", hostNetwork=True, nodeName=node["metadata"]["name"], container="e2e-host-exec")
    last = None
    for _ in range(5):
        one = w.try_shell("e2e-host-exec", f"curl -g --connect-timeout 5 --interface {host} http://127.0.0.1:54323/hostname")
        two = w.try_shell("e2e-host-exec", f"curl -g --connect-timeout 5 http://{host}:54323/hostname")
        three = w.try_shell("e2e-host-exec", f"nc -vuz -w 5 {host} 54323")
        last = (one, two, three)
        if not any(r.returncode for r in last) and one.stdout != two.stdout:
            equal((one.stdout, two.stdout), ("pod1", "pod2"), "hostnames")
            return
    check(False, f"{last}")


# === Ingress ===


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


# === Networking ===


def netservers(w, count=None):
    nodes = w.nodes()[:count]
    pods = []
    for i, node in enumerate(nodes):
        pods.append(w.start(f"netserver-{i}", labels={"selector-x": "true"}, nodeSelector={
            "kubernetes.io/hostname": node["metadata"]["labels"]["kubernetes.io/hostname"]}, containers=[container(
                "webserver", args=["netexec", "--http-port=8083", "--udp-port=8081"],
                ports=[{"name": "http", "containerPort": 8083}, {"name": "udp", "containerPort": 8081, "protocol": "UDP"}],
                livenessProbe=probe(), readinessProbe=probe())]))
    return [w.ready(p["metadata"]["name"]) for p in pods]


def probe():
    return {"initialDelaySeconds": 10, "timeoutSeconds": 30, "periodSeconds": 10, "successThreshold": 1,
            "failureThreshold": 3, "httpGet": {"path": "/healthz", "port": 8083}}


def intra_pod(w, protocol):
    pods = netservers(w)
    tester = w.run("test-container-pod", containers=[container("webserver", args=[
        "netexec", "--http-port=9080", "--udp-port=9081"], ports=[{"name": "http", "containerPort": 9080}])])
    for pod in pods:
        port = 8083 if protocol == "http" else 8081
        url = (f"http://{tester['status']['podIP']}:9080/dial?request=hostname&protocol={protocol}"
               f"&host={pod['status']['podIP']}&port={port}&tries=1")

        def dialled():
            said = json.loads(w.shell("test-container-pod", f"curl -g -q -s '{url}'"))
            equal(said.get("responses"), [pod["metadata"]["name"]], str(said))
            return True

        w.until(dialled, 60, url, every=1)


def node_to_pod(w, protocol):
    pods = netservers(w)
    w.run("host-test-container-pod", hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet", container="agnhost-container")
    for pod in pods:
        ip = pod["status"]["podIP"]
        line = (f"curl -g -q -s --max-time 15 --connect-timeout 1 http://{ip}:8083/hostName | grep -v '^\\s*$'"
                if protocol == "http" else f"echo hostName | nc -w 1 -u {ip} 8081 | grep -v '^\\s*$'")
        w.until(lambda: w.shell("host-test-container-pod", line).strip() == pod["metadata"]["name"], 60, line, every=1)


for kind in ["http", "udp"]:
    test(f"[sig-network] Networking Granular Checks: Pods should function for intra-pod communication: {kind}")(
        lambda w, kind=kind: intra_pod(w, kind))
    test(f"[sig-network] Networking Granular Checks: Pods should function for node-pod communication: {kind}")(
        lambda w, kind=kind: node_to_pod(w, kind))

# === Proxy ===


@test("[sig-network] Proxy version v1 should proxy through a service and a pod")
def proxy(w):
    labels = {"proxy-service-target": "true"}
    port = lambda name, port, target: {"name": name, "port": port, "targetPort": target}
    made = w.api.create(w.core("services"), {"metadata": {"generateName": "proxy-service-"}, "spec": {
        "selector": labels, "ports": [port("portname1", 80, "dest1"), port("portname2", 81, 162),
                                      port("tlsportname1", 443, "tlsdest1"), port("tlsportname2", 444, 462)]}})
    name = made["metadata"]["name"]
    env = {"SERVE_PORT_80": '<a href="/rewriteme">test</a>', "SERVE_PORT_1080": '<a href="/rewriteme">test</a>',
           "SERVE_PORT_160": "foo", "SERVE_PORT_162": "bar", "SERVE_TLS_PORT_443": '<a href="/tlsrewriteme">test</a>',
           "SERVE_TLS_PORT_460": "tls baz", "SERVE_TLS_PORT_462": "tls qux"}
    rc(w, name, 1, labels, container(
        name, command=["/agnhost", "porter"], env=[{"name": n, "value": v} for n, v in env.items()],
        ports=[{"containerPort": 80}] + [{"name": n, "containerPort": p} for n, p in
               [("dest1", 160), ("dest2", 162), ("tlsdest1", 460), ("tlsdest2", 462)]],
        readinessProbe={"httpGet": {"port": 80}, "initialDelaySeconds": 1, "timeoutSeconds": 5, "periodSeconds": 10}))
    pod = w.until(lambda: [p for p in w.pods("proxy-service-target%3Dtrue") if is_ready(p)], 120, "a pod")[0]
    w.until(lambda: [e for s in slices(w, name) for e in s["endpoints"]], 60, "an endpoint")
    join = lambda scheme, port, name: f"{scheme}:{name}:{port}" if scheme else name + (f":{port}" if port else "")
    of_service = lambda scheme, port: f"{w.core('services', join(scheme, port, name))}/proxy"
    of_pod = lambda scheme, port: f"{w.core('pods', join(scheme, port, pod['metadata']['name']))}/proxy"
    wanted = {
        of_service("", "portname1"): "foo", of_service("http", "portname1"): "foo",
        of_service("", "portname2"): "bar", of_service("http", "portname2"): "bar",
        of_service("https", "tlsportname1"): "tls baz", of_service("https", "tlsportname2"): "tls qux",
        of_pod("", ""): f'<a href="{of_pod("", "")}/rewriteme">test</a>',
        of_pod("", "1080"): f'<a href="{of_pod("", "1080")}/rewriteme">test</a>',
        of_pod("http", "1080"): f'<a href="{of_pod("http", "1080")}/rewriteme">test</a>',
        of_pod("", "160"): "foo", of_pod("http", "160"): "foo", of_pod("", "162"): "bar", of_pod("http", "162"): "bar",
        of_pod("https", "443"): f'<a href="{of_pod("https", "443")}/tlsrewriteme">test</a>',
        of_pod("https", "460"): "tls baz", of_pod("https", "462"): "tls qux",
    }

    def ask(item):
        try:
            said = w.api.call("GET", item[0] + "/").text
        except Refused as refused:
            said = str(refused)
        return None if said == item[1] else f"{item[0]}: wanted {item[1]}, got {said}"

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for _ in range(20):
            wrong = [said for said in pool.map(ask, wanted.items()) if said]
            check(not wrong, wrong)


def porter_and_service(w, labels, name):
    w.run("agnhost", labels=labels, restartPolicy="Never", containers=[container(
        "agnhost", command=["/agnhost", "porter", "--json-response"], env=[{"name": "SERVE_PORT_80", "value": "foo"}])])
    w.api.create(w.core("services"), {"metadata": {"name": name, "labels": labels}, "spec": {
        "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}], "selector": labels}})


def verb_request(w, url, verb):
    def good():
        response = w.api.call(verb, url, allow_redirects=False)
        equal(response.status_code, 200, url)
        if verb != "HEAD":
            said = response.json()
            equal((said["Method"], said["Body"]), (verb, "foo"), url)
        return True

    w.until(good, 60, f"{verb} {url}")


@test("[sig-network] Proxy version v1 A set of valid responses are returned for both pod and service ProxyWithPath")
def proxy_with_path(w):
    porter_and_service(w, {"test": "response"}, "test-service")
    for verb in ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]:
        for what in ["pods/agnhost", "services/test-service"]:
            verb_request(w, f"/api/v1/namespaces/{w.ns}/{what}/proxy/some/path/with/{verb}", verb)


@test("[sig-network] Proxy version v1 A set of valid responses are returned for both pod and service Proxy")
def proxy_without_path(w):
    porter_and_service(w, {"e2e-test": "proxy-endpoints"}, "e2e-proxy-test-service")
    for what in ["pods/agnhost", "services/e2e-proxy-test-service"]:
        base = f"/api/v1/namespaces/{w.ns}/{what}/proxy"
        for verb in ["DELETE", "OPTIONS", "PATCH", "POST", "PUT"]:
            verb_request(w, f"{base}?method={verb}", verb)
        for verb in ["GET", "HEAD"]:
            response = w.api.call(verb, f"{base}?method={verb}", allow_redirects=False)
            equal((response.status_code, response.headers.get("Location")), (301, f"{base}/?method={verb}"), verb)
            verb_request(w, f"{base}/?method={verb}", verb)


@test("[sig-network] Service endpoints latency should not be very high",
      "watches EndpointSlices")
def latency(w):
    rc(w, "svc-latency-rc", 1, {"name": "svc-latency-rc"}, container("svc-latency-rc", PAUSE))
    w.until(lambda: [p for p in w.pods("name%3Dsvc-latency-rc") if is_ready(p)], 120, "a pod")
    path, seen, made = w.apis("discovery.k8s.io/v1", "endpointslices"), {}, {}
    events = Events(w, path, seconds=120)

    def one(_):
        began = time.monotonic()
        svc = w.api.create(w.core("services"), {"metadata": {"generateName": "latency-svc-"}, "spec": {
            "ports": [{"protocol": "TCP", "port": 80}], "selector": {"name": "svc-latency-rc"},
            "type": "ClusterIP", "sessionAffinity": "None"}})
        made[svc["metadata"]["name"]] = began
        w.until(lambda: any(
            e["object"]["metadata"]["labels"].get("kubernetes.io/service-name") == svc["metadata"]["name"]
            and e["object"].get("endpoints") for e in list(events.seen)), 50, "endpoints", every=0.05)
        seen[svc["metadata"]["name"]] = time.monotonic() - began

    with concurrent.futures.ThreadPoolExecutor(15) as pool:
        list(pool.map(one, range(100)))
    took = sorted(seen.values())
    check(took[49] < 20 and took[89] < 50, took)


# === Services ===


def rc(w, name, replicas, labels, one):
    return w.api.create(w.core("replicationcontrollers"), {"metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": labels, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [one], "terminationGracePeriodSeconds": 0}}}})


def hostname_pods(w, name, replicas=3, port=9376):
    rc(w, name, replicas, {"name": name}, container(name, args=["serve-hostname"],
                                                    ports=[{"containerPort": port, "protocol": "TCP"}]))
    return w.until(lambda: (lambda ready: ready if len(ready) == replicas else None)(
        [p for p in w.pods(f"name%3D{name}") if is_ready(p)]), 180, f"{replicas} pods of {name}")


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
