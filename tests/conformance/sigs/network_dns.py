"""[sig-network]: test/e2e/network/dns*.go."""

import urllib.parse

from frame import Refused, check, container, test, word

from .services import make_service

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
    w.phase(name, "Running")

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
