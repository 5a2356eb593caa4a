"""[sig-network]: test/e2e/network/{hostport,proxy}.go and test/e2e/common/network/networking.go."""

import concurrent.futures
import json
import time

from frame import PAUSE, Events, Refused, check, container, equal, test

from .services import rc, slices


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
    pod = w.ready_pods("proxy-service-target=true", 1)[0]
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
    w.ready_pods("name=svc-latency-rc", 1)
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
