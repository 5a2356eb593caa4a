"""The life of pods, and what is asked of running ones.

test/e2e/common/node/{pods,init_container,ephemeral_containers}.go, test/e2e/node/{pods,pre_stop}.go
"""


from frame import (
    SMALL, STRATEGIC, TESTER, Events, Refused, busybox, check, condition_of, equal, name, pause, refused, status_of,
    test, until,
)


@test("[sig-node] Pods should get a host IP")
def host_ip(world):
    check(world.run_pod({"containers": [pause()]})["status"]["hostIP"])


@test("[sig-node] Pods should be submitted and removed")
def submitted(world):
    selector = "time=" + world.ns
    listed = world.api.get(world.core("pods"), labelSelector=selector)
    equal(listed["items"], [])
    version = listed["metadata"]["resourceVersion"]
    events = Events(world, world.core("pods"), labelSelector=selector, resourceVersion=version)
    pod = name("pod-submit-remove")
    world.create_pod({"containers": [pause()]}, pod, labels={"name": "foo", "time": world.ns})
    equal(len(world.api.get(world.core("pods"), labelSelector=selector)["items"]), 1)
    events.wait("ADDED")
    world.phase(pod, "Running")
    world.api.delete(world.core("pods", pod), {"gracePeriodSeconds": 30})
    last = events.wait("DELETED")
    check(last["object"]["metadata"]["deletionTimestamp"])
    check(last["object"]["spec"]["terminationGracePeriodSeconds"])
    equal(world.api.get(world.core("pods"), labelSelector=selector)["items"], [])


@test("[sig-node] Pods should be updated")
def updated(world):
    pod = world.run_pod({"containers": [pause()]}, labels={"time": "a"})["metadata"]["name"]
    world.api.retry_update(world.core("pods", pod), lambda p: p["metadata"]["labels"].update(time="b"))
    world.phase(pod, "Running")
    equal(len(world.api.get(world.core("pods"), labelSelector="time=b")["items"]), 1)


@test("[sig-node] Pods should allow activeDeadlineSeconds to be updated")
def deadline(world):
    pod = world.run_pod({"containers": [pause()]})["metadata"]["name"]
    world.api.retry_update(world.core("pods", pod), lambda p: p["spec"].update(activeDeadlineSeconds=5))
    seen = world.phase(pod, "Failed")
    equal(seen["status"]["reason"], "DeadlineExceeded")


@test("[sig-node] Pods should contain environment variables for services")
def service_variables(world):
    server = world.run_pod({"containers": [pause()]}, labels={"name": "server"})
    check(server)
    service = {
        "metadata": {"name": "fooservice", "labels": {"name": "fooservice"}},
        "spec": {"ports": [{"port": 8765, "targetPort": 8080}], "selector": {"name": "server"}},
    }
    world.api.create(world.core("services"), service)
    wanted = [
        "FOOSERVICE_SERVICE_HOST=", "FOOSERVICE_SERVICE_PORT=", "FOOSERVICE_PORT=",
        "FOOSERVICE_PORT_8765_TCP_PORT=", "FOOSERVICE_PORT_8765_TCP_PROTO=",
        "FOOSERVICE_PORT_8765_TCP=", "FOOSERVICE_PORT_8765_TCP_ADDR=",
    ]
    until(lambda: world.outputs({"containers": [busybox("env")]}, *wanted), 60, "the variables")


@test("[sig-node] Pods should support remote command execution over websockets")
def exec_websocket(world):
    container = busybox("echo container is alive; sleep 600", "main")
    pod = world.run_pod({"containers": [container]})["metadata"]["name"]
    socket = world.api.websocket(
        world.core("pods", pod, "exec"), ["channel.k8s.io"], stderr="1", stdout="1", container="main",
        command=["echo", "remote execution test"],
    )
    equal(socket.subprotocol, "channel.k8s.io")
    said = b""
    while True:
        opcode, data = socket.recv_data()
        if opcode == 8:
            break
        if not data or (data[0] != 1 and len(data) == 1):
            continue
        equal(data[0], 1, "a message on another channel than stdout:", data)
        said += data[1:]
    check(b"remote execution test" in said, said)


@test("[sig-node] Pods should support retrieving logs from the container over websockets")
def log_websocket(world):
    container = busybox("echo container is alive; sleep 10000", "main")
    pod = world.run_pod({"containers": [container]})["metadata"]["name"]
    until(lambda: world.log(pod, "main"), what="the log")
    socket = world.api.websocket(world.core("pods", pod, "log"), ["binary.k8s.io"], container="main")
    said = b""
    while True:
        opcode, data = socket.recv_data()
        if opcode == 8:
            break
        if data.strip():
            said += data
    equal(said, b"container is alive\n")


@test("[sig-node] Pods should delete a collection of pods")
def collection(world):
    pods = ["test-pod-1", "test-pod-2", "test-pod-3"]
    spec = {"terminationGracePeriodSeconds": 1, "restartPolicy": "Never", "containers": [pause()]}
    for pod in pods:
        world.create_pod(spec, pod, labels={"type": "Testing"})
    for pod in pods:
        world.ready(pod)
    world.api.delete(world.core("pods"), {"gracePeriodSeconds": 1}, labelSelector="type=Testing")
    listed = lambda: world.api.get(world.core("pods"), labelSelector="type=Testing")["items"]
    until(lambda: not listed(), what="the pods to be gone")


@test("[sig-node] Pods should run through the lifecycle of Pods and PodStatus")
def life(world):
    label = {"test-pod-static": world.ns}
    spec = {"terminationGracePeriodSeconds": 1, "containers": [pause("pod-test")]}
    listed = world.api.get("/api/v1/pods", labelSelector=f"test-pod-static={world.ns}")
    version = listed["metadata"]["resourceVersion"]
    events = Events(world, world.core("pods"), labelSelector=f"test-pod-static={world.ns}", resourceVersion=version)
    world.create_pod(spec, "pod-test", labels=label)
    world.ready("pod-test")
    patch = {
        "metadata": {"labels": {"test-pod": "patched"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "pod-test", "image": TESTER, "resources": {}}],
        },
    }
    world.api.patch(world.core("pods", "pod-test"), patch, STRATEGIC)
    seen = world.get_pod("pod-test")
    equal(seen["metadata"]["labels"]["test-pod"], "patched")
    equal(seen["spec"]["containers"][0]["image"], TESTER)

    # Both conditions must be found true and be put as false, before the node says otherwise.
    def put():
        status = world.api.get(world.core("pods", "pod-test", "status"))
        changed = [
            c for c in status["status"]["conditions"]
            if c["type"] in ("Ready", "ContainersReady") and c["status"] == "True"
        ]
        if len(changed) != 2:
            return None
        for c in changed:
            c["status"] = "False"
        try:
            return world.api.update(world.core("pods", "pod-test", "status"), status)
        except Refused as error:
            check(error.code == 409, error)
            return None

    said = until(put, what="the status to be put")
    for kind in ("Ready", "ContainersReady"):
        equal(condition_of(said, kind), "False")
    world.api.delete(
        world.core("pods"), {"gracePeriodSeconds": 1}, labelSelector=f"test-pod-static={world.ns}"
    )
    events.wait("DELETED")
    refused(lambda: world.get_pod("pod-test"), code=404)


@test("[sig-node] Pods should patch a pod status")
def patch_status(world):
    pod = world.run_pod({"containers": [pause()]}, labels={"e2e": "patch"})["metadata"]["name"]
    patch = {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"message": "Patched by e2e test", "reason": "E2E"}}
    seen = world.api.patch(world.core("pods", pod, "status"), patch, STRATEGIC)
    equal(seen["status"]["message"], "Patched by e2e test")
    equal(seen["status"]["reason"], "E2E")


@test("[sig-node] Pods Extended Pods Set QOS Class should be set on Pods with matching resource requests and limits for memory and cpu")
def quality(world):
    same = {"cpu": "100m", "memory": "100Mi"}
    made = world.create_pod({"containers": [pause(resources={"limits": same, "requests": same})]})
    equal(world.get_pod(made["metadata"]["name"])["status"]["qosClass"], "Guaranteed")


@test("[sig-node] PreStop should call prestop when killing a pod")
def pre_stop(world):
    # The server writes what is posted to it; upstream's counts it.
    serve = "while :; do nc -l -p 8080 -e sh -c 'read a; echo $a >> /tmp/seen; printf \"HTTP/1.0 200 OK\\r\\n\\r\\n\"'; done"
    server = world.run_pod({"containers": [busybox(serve, "server")]}, "server")
    hook = ["wget", "-O-", "--post-data={\"Source\": \"prestop\"}", f"http://{server['status']['podIP']}:8080/write"]
    tester = {
        "name": "tester", "image": SMALL, "command": ["sleep", "600"],
        "lifecycle": {"preStop": {"exec": {"command": hook}}},
    }
    world.run_pod({"containers": [tester]}, "tester")
    world.api.delete(world.core("pods", "tester"))
    seen = lambda: "POST /write" in world.exec("server", "cat", "/tmp/seen")
    until(seen, 60, "the hook to be called")


# === Generations ===


@test("[sig-node] Pods Extended (pod generation) Pod Generation pod generation should start at 1 and increment per update")
def generation(world):
    spec = {
        "initContainers": [{"name": "init-container", "image": SMALL}], "containers": [pause()]
    }
    pod = world.run_pod(spec)["metadata"]["name"]
    equal(world.get_pod(pod)["metadata"]["generation"], 1)
    toleration = {"key": "foo", "operator": "Equal", "value": "bar", "effect": "NoSchedule"}
    changes = [
        ("nothing", lambda p: None, 0),
        ("tolerations", lambda p: p["spec"].update(tolerations=p["spec"].get("tolerations", []) + [toleration]), 1),
        ("deadline", lambda p: p["spec"].update(activeDeadlineSeconds=5000), 1),
        ("image", lambda p: p["spec"]["containers"][0].update(image=TESTER), 1),
        ("init image", lambda p: p["spec"]["initContainers"][0].update(image=TESTER), 1),
        ("annotations", lambda p: p["metadata"].update(annotations={"key": "value"}), 0),
        ("its own generation", lambda p: p["metadata"].update(generation=1), 0),
    ]
    wanted = 1
    for what, change, step in changes:
        world.api.retry_update(world.core("pods", pod), change)
        wanted += step
        equal(world.get_pod(pod)["metadata"]["generation"], wanted, what)
        seen = lambda: world.get_pod(pod)["status"].get("observedGeneration")
        until(lambda: seen() == wanted, 20, f"generation {wanted} to be observed ({what})")


@test("[sig-node] Pods Extended (pod generation) Pod Generation custom-set generation on new pods and graceful delete")
def generation_of_new(world):
    pod = name("pod-generation")
    body = world.pod(pod, terminationGracePeriodSeconds=3, containers=[pause()])
    body["metadata"]["generation"] = 100
    world.api.create(world.core("pods"), body)
    world.ready(pod)
    equal(world.get_pod(pod)["metadata"]["generation"], 1)
    equal(world.api.call("DELETE", world.core("pods", pod), gracePeriodSeconds=60).status_code, 200)
    equal(world.get_pod(pod)["metadata"]["generation"], 2)


@test("[sig-node] Pods Extended (pod generation) Pod Generation issue 500 podspec updates and verify generation and observedGeneration eventually converge")
def generation_500(world):
    pod = name("pod-generation")
    world.run_pod({"activeDeadlineSeconds": 5000, "containers": [pause()]}, pod)

    def less(p):
        p["spec"]["activeDeadlineSeconds"] -= 1

    for _ in range(499):
        world.api.retry_update(world.core("pods", pod), less)
    seen = lambda: world.get_pod(pod)["status"].get("observedGeneration")
    until(lambda: seen() == 500, 30, "generation 500 to be observed")
    equal(world.get_pod(pod)["metadata"]["generation"], 500)


# === Init containers ===


def simple(container, command, image=SMALL, **more):
    return {"name": container, "image": image, "command": [command], **more}


LIMITED = {"limits": {"cpu": "100m"}}


@test("[sig-node] InitContainer should invoke init containers on a RestartNever pod")
def init_never(world):
    spec = {
        "restartPolicy": "Never",
        "initContainers": [simple("init1", "/bin/true"), simple("init2", "/bin/true")],
        "containers": [simple("run1", "/bin/true")],
    }
    inits_ran(world, spec, "Succeeded")


@test("[sig-node] InitContainer should invoke init containers on a RestartAlways pod")
def init_always(world):
    spec = {
        "initContainers": [simple("init1", "/bin/true"), simple("init2", "/bin/true")],
        "containers": [pause("run1", resources=LIMITED)],
    }
    inits_ran(world, spec, "Running")


def inits_ran(world, spec, phase):
    pod = world.create_pod(spec)["metadata"]["name"]
    seen = world.phase(pod, phase)
    equal(condition_of(seen, "Initialized"), "True", seen["status"])
    statuses = seen["status"]["initContainerStatuses"]
    equal(len(statuses), 2)
    for status in statuses:
        check(status["ready"], status)
        equal(status["state"]["terminated"]["exitCode"], 0)


@test("[sig-node] InitContainer should not start app containers if init containers fail on a RestartAlways pod")
def init_fails(world):
    spec = {
        "initContainers": [simple("init1", "/bin/false"), simple("init2", "/bin/true")],
        "containers": [pause("run1", resources=LIMITED)],
    }
    made = world.create_pod(spec)
    first = False
    for event in world.api.watch(
        world.core("pods"), 240, fieldSelector=f"metadata.name={made['metadata']['name']}",
        resourceVersion=made["metadata"]["resourceVersion"],
    ):
        pod = event["object"]
        status = pod["status"]
        if not first:
            for seen in status.get("containerStatuses", []):
                equal(seen["state"].get("waiting", {}).get("reason"), "PodInitializing", seen)
            inits = status.get("initContainerStatuses", [])
            if len(inits) != 2:
                continue
            equal(inits[1]["state"].get("waiting", {}).get("reason"), "PodInitializing", inits[1])
            check(inits[0]["state"].get("terminated", {}).get("exitCode") != 0, inits[0])
            first = "terminated" in inits[0].get("lastState", {})
        elif status["initContainerStatuses"][0]["restartCount"] >= 3:
            break
    else:
        raise AssertionError(f"no three restarts: {status}")
    equal(status["phase"], "Pending")
    equal(condition_of(pod, "Initialized"), "False")
    equal(condition_of(pod, "Initialized", "reason"), "ContainersNotInitialized")
    wanted = "containers with incomplete status: [init1 init2]"
    equal(condition_of(pod, "Initialized", "message"), wanted)
    equal(len(status["initContainerStatuses"]), 2)


@test("[sig-node] InitContainer should not start app containers and fail the pod if init containers fail on a RestartNever pod")
def init_fails_never(world):
    spec = {
        "restartPolicy": "Never",
        "initContainers": [simple("init1", "/bin/true"), simple("init2", "/bin/false")],
        "containers": [simple("run1", "/bin/true", resources=LIMITED)],
    }
    pod = world.create_pod(spec)["metadata"]["name"]
    seen = world.phase(pod, "Failed")
    first, second = seen["status"]["initContainerStatuses"]
    equal(first["state"]["terminated"]["exitCode"], 0)
    check(second["state"]["terminated"]["exitCode"] != 0, second)
    app = status_of(seen, "run1")
    equal(app["state"].get("waiting", {}).get("reason"), "PodInitializing", app)
    equal(condition_of(seen, "Initialized"), "False")
    equal(condition_of(seen, "Initialized", "reason"), "ContainersNotInitialized")
    wanted = "containers with incomplete status: [init2]"
    equal(condition_of(seen, "Initialized", "message"), wanted)


# === Ephemeral containers ===

POLO = {
    "name": "debugger", "image": SMALL, "stdin": True, "tty": True,
    "command": ["sh", "-c", "while true; do echo polo; sleep 2; done"],
}


def add_debugger(world):
    pod = "ephemeral-containers-target-pod"
    target = {"name": "test-container-1", "image": SMALL, "command": ["/bin/sleep"], "args": ["10000"]}
    equal(world.run_pod({"containers": [target]}, pod)["metadata"]["generation"], 1)
    patch = {"spec": {"ephemeralContainers": [POLO]}}
    world.api.patch(world.core("pods", pod, "ephemeralcontainers"), patch, STRATEGIC)
    running = lambda: "running" in (status_of(world.get_pod(pod), "debugger") or {}).get("state", {})
    until(running, 60, "the debugger to run")
    equal(world.get_pod(pod)["metadata"]["generation"], 2)
    check("marco" in world.exec(pod, "/bin/echo", "marco", container="debugger"))
    until(lambda: "polo" in world.log(pod, "debugger"), 10, "polo")
    return pod


@test("[sig-node] Ephemeral Containers will start an ephemeral container in an existing pod")
def ephemeral(world):
    add_debugger(world)


@test("[sig-node] Ephemeral Containers should update the ephemeral containers in an existing pod")
def ephemeral_update(world):
    pod = add_debugger(world)
    count = lambda: len(world.api.get(world.core("pods", pod, "ephemeralcontainers"))["spec"]["ephemeralContainers"])
    equal(count(), 1)
    second = {
        "name": "debugger2", "image": TESTER, "imagePullPolicy": "IfNotPresent",
        "terminationMessagePolicy": "File",
    }
    world.api.retry_update(world.core("pods", pod, "ephemeralcontainers"), lambda p: p["spec"]["ephemeralContainers"].append(second))
    equal(count(), 2)
