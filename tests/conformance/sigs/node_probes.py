"""Probes and hooks.

test/e2e/common/node/{container_probe,lifecycle_hook}.go. Upstream watches for four minutes that
nothing is restarted; here it is half a minute past the first probes.
"""

import time
from datetime import datetime

from frame import GRPC, SMALL, START, busybox, check, condition_of, equal, pause, restarts, status_of, test, until

# How long nothing may happen after the first probe, in seconds.
WATCHED = 30
SHORT = "watched for half a minute after the first probe, not for four"

# A web server whose /cgi-bin/healthz fails ten seconds after its start.
AGING = """
mkdir -p /www/cgi-bin; echo ok > /www/index.html; date +%s > /began
cat > /www/cgi-bin/healthz <<'END'
#!/bin/sh
if [ $(( $(date +%s) - $(cat /began) )) -gt 10 ]; then echo 'Status: 500'; echo; echo over; exit; fi
echo 'Content-Type: text/plain'; echo; echo ok
END
chmod +x /www/cgi-bin/healthz
exec httpd -f -p 8080 -h /www
"""


def probed(world, script, restarts_wanted, timeout=4 * 60, **probe):
    """A pod whose liveness probe must cause so many restarts, the count never falling."""
    pod = world.create_pod({"containers": [busybox(script, livenessProbe=probe)]})
    pod = pod["metadata"]["name"]
    world.phase(pod, "Running", "Succeeded", "Failed")
    equal(restarts(world.get_pod(pod)), 0)
    end = time.monotonic() + timeout
    last = 0
    while time.monotonic() < end:
        seen = restarts(world.get_pod(pod))
        check(seen >= last, f"the count fell from {last} to {seen}")
        if restarts_wanted and seen >= restarts_wanted:
            break
        if not restarts_wanted:
            equal(seen, 0)
        last = seen
        time.sleep(1)
    check(restarts(world.get_pod(pod)) >= restarts_wanted, f"{last} restarts in {timeout} s")
    world.delete_pod(pod, gracePeriodSeconds=0)


HEALTH = {"exec": {"command": ["cat", "/tmp/health"]}, "initialDelaySeconds": 15, "timeoutSeconds": 5, "failureThreshold": 1}


@test("[sig-node] Probing container should be restarted with a exec \"cat /tmp/health\" liveness probe", slow=True)
def exec_restart(world):
    script = "trap exit TERM; echo ok >/tmp/health; sleep 10; rm -rf /tmp/health; sleep 600 & wait"
    probed(world, script, 1, **HEALTH)


@test("[sig-node] Probing container should *not* be restarted with a exec \"cat /tmp/health\" liveness probe", slow=True, note=SHORT)
def exec_stays(world):
    probed(world, "echo ok >/tmp/health; sleep 600", 0, 15 + WATCHED, **HEALTH)


@test("[sig-node] Probing container should be restarted with a /healthz http liveness probe", slow=True)
def http_restart(world):
    get = {"path": "/cgi-bin/healthz", "port": 8080}
    probed(world, AGING, 1, httpGet=get, initialDelaySeconds=15, failureThreshold=1)


@test("[sig-node] Probing container should *not* be restarted with a tcp:8080 liveness probe", slow=True, note=SHORT)
def tcp_stays(world):
    socket = {"port": 8080}
    probed(world, AGING, 0, 15 + WATCHED, tcpSocket=socket, initialDelaySeconds=15, failureThreshold=1)


@test("[sig-node] Probing container should have monotonically increasing restart count", slow=True)
def monotonic(world):
    get = {"path": "/cgi-bin/healthz", "port": 8080}
    probed(world, AGING, 5, 14 * 60, httpGet=get, initialDelaySeconds=5, failureThreshold=1)


@test("[sig-node] Probing container should *not* be restarted with a /healthz http liveness probe", slow=True, note=SHORT)
def http_stays(world):
    get = {"path": "/", "port": 8080}
    probed(world, AGING, 0, 15 + WATCHED, httpGet=get, initialDelaySeconds=15, timeoutSeconds=5, failureThreshold=5)


ETCD = "etcd --listen-client-urls http://0.0.0.0:2379 --advertise-client-urls http://127.0.0.1:2379 --data-dir /tmp/etcd"
CHECKED = {"initialDelaySeconds": 10, "timeoutSeconds": 5, "failureThreshold": 1}


@test("[sig-node] Probing container should *not* be restarted with a GRPC liveness probe", slow=True, note=SHORT)
def grpc_stays(world):
    server = {**busybox(ETCD), "image": GRPC, "livenessProbe": {"grpc": {"port": 2379}, **CHECKED}}
    pod = world.run_pod({"containers": [server]})["metadata"]["name"]
    time.sleep(10 + WATCHED)
    equal(restarts(world.get_pod(pod)), 0)


@test("[sig-node] Probing container should be restarted with a GRPC liveness probe", slow=True)
def grpc_restart(world):
    # As upstream's: nothing listens at the port.
    probed(world, "sleep 600", 1, grpc={"port": 2333}, **CHECKED)


def of(time):
    return datetime.fromisoformat(time.replace("Z", "+00:00"))


@test("[sig-node] Probing container with readiness probe should not be ready before initial delay and never restart", slow=True)
def initial_delay(world):
    probe = {"httpGet": {"path": "/", "port": 8080}, "initialDelaySeconds": 15}
    seen = world.run_pod({"containers": [busybox(AGING, readinessProbe=probe)]})
    ready = of(condition_of(seen, "Ready", "lastTransitionTime"))
    started = of(status_of(seen, "test-container")["state"]["running"]["startedAt"])
    check((ready - started).total_seconds() >= 15, f"started {started}, ready {ready}")
    equal(restarts(seen), 0)


@test("[sig-node] Probing container with readiness probe that fails should never be ready and never restart", slow=True)
def never_ready(world):
    probe = {"exec": {"command": ["/bin/false"]}}
    pod = world.create_pod({"containers": [busybox(AGING, readinessProbe=probe)]})["metadata"]["name"]
    end = time.monotonic() + 60
    while time.monotonic() < end:
        check(condition_of(world.get_pod(pod), "Ready") != "True", "it is ready")
        time.sleep(1)
    seen = world.get_pod(pod)
    equal(seen["status"]["phase"], "Running")
    equal(restarts(seen), 0)


# === Hooks ===

# Writes the first line of each request to its log.
LISTENER = "mkdir /www; while :; do nc -l -p 8080 -e sh -c 'read a; echo \"$a\" >&2; printf \"HTTP/1.0 200 OK\\r\\n\\r\\n\"'; done"


def hooked(world, when, hook, image=SMALL):
    """A pod with a hook that reaches the listener; the listener's log must tell of it."""
    node = world.nodes()[0]["metadata"]["name"]
    listener = world.run_pod({"nodeName": node, "containers": [busybox(LISTENER, "handle")]}, "handle")
    address = listener["status"]["podIP"]
    sidecar = busybox(AGING, "container-redirect", restartPolicy="Always")
    sidecar["startupProbe"] = {"httpGet": {"path": "/", "port": 8080}}
    container = pause("with-hook", lifecycle={when: hook(address)})
    spec = {"nodeName": node, "initContainers": [sidecar], "containers": [container]}
    world.run_pod(spec, "with-hook")
    heard = lambda: f"GET /echo?msg={when.lower()}" in world.log("handle", "handle")
    if when == "postStart":
        until(heard, START, "the hook")
    world.delete_pod("with-hook", gracePeriodSeconds=15)
    until(heard, 30, "the hook")


def exec_hook(when):
    return lambda address: {
        "exec": {"command": ["sh", "-c", f"wget -qO- http://{address}:8080/echo?msg={when.lower()}; true"]}
    }


def http_hook(when):
    return lambda address: {
        "httpGet": {"host": address, "path": f"/echo?msg={when.lower()}", "port": 8080}
    }


@test("[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute poststart exec hook properly")
def post_start_exec(world):
    hooked(world, "postStart", exec_hook("postStart"))


@test("[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute prestop exec hook properly")
def pre_stop_exec(world):
    hooked(world, "preStop", exec_hook("preStop"))


@test("[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute poststart http hook properly", note="the hook asks the listener itself, not by way of a sidecar")
def post_start_http(world):
    hooked(world, "postStart", http_hook("postStart"))


@test("[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute prestop http hook properly", note="the hook asks the listener itself, not by way of a sidecar")
def pre_stop_http(world):
    hooked(world, "preStop", http_hook("preStop"))
