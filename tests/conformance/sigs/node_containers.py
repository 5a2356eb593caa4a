"""How containers are started, end, and what they may.

test/e2e/common/node/{containers,runtime,kubelet,kubelet_etc_hosts,security_context,sysctl,image_volume}.go,
test/e2e/node/security_context.go
"""

from frame import (
    KITTEN, SMALL, TESTER, busybox, check, condition_of, equal, name, pause, refused, status_of, test, until,
)

# === Command and arguments ===


def told(world, wanted, **container):
    said = world.output({"containers": [{"name": "agnhost-container", "image": TESTER, **container}]})
    equal(said, wanted + "\n")


@test("[sig-node] Containers should use the image defaults if command and args are blank")
def image_defaults(world):
    told(world, "[/ep default arguments]")


@test("[sig-node] Containers should be able to override the image's default arguments (container cmd)")
def image_arguments(world):
    told(world, "[/ep default override arguments]", args=["override", "arguments"])


@test("[sig-node] Containers should be able to override the image's default command (container entrypoint)")
def image_command(world):
    told(world, "[/ep-2 ]", command=["/ep-2"])


@test("[sig-node] Containers should be able to override the image's default command and arguments")
def image_both(world):
    told(
        world, "[/ep-2 override arguments]",
        command=["/ep-2"], args=["override", "arguments"],
    )


# === Ends ===

RESTARTED = """
f=/restart-count/restartCount
count=$(echo 'hello' >> $f ; wc -l $f | awk {'print $1'})
if [ $count -eq 1 ]; then
    exit 1
fi
if [ $count -eq 2 ]; then
    exit 0
fi
while true; do sleep 1; done
"""


@test("[sig-node] Container Runtime blackbox test when starting a container that exits should run with the expected status")
def expected_status(world):
    wanted = [
        ("terminate-cmd-rpa", "Always", "Running", "running", 2, True),
        ("terminate-cmd-rpof", "OnFailure", "Succeeded", "terminated", 1, False),
        ("terminate-cmd-rpn", "Never", "Failed", "terminated", 0, False),
    ]
    for container, policy, phase, state, count, ready in wanted:
        mounts = [{"name": "restart-count", "mountPath": "/restart-count"}]
        spec = {
            "restartPolicy": policy,
            "containers": [busybox(RESTARTED, container, volumeMounts=mounts)],
            "volumes": [{"name": "restart-count", "emptyDir": {"medium": "Memory"}}],
        }
        pod = world.create_pod(spec)["metadata"]["name"]
        until(lambda: (status_of(world.get_pod(pod), container) or {}).get("restartCount") == count, what=f"{count} restarts of {container}")
        seen = world.phase(pod, phase)
        equal(condition_of(seen, "Ready") == "True", ready, container, seen["status"])
        check(state in status_of(seen, container)["state"], seen["status"])
        world.delete_pod(pod)


def message(world, script, phase, wanted, **more):
    spec = {
        "restartPolicy": "Never",
        "containers": [busybox(script, "termination-message-container", **more)],
    }
    pod = world.create_pod(spec)["metadata"]["name"]
    seen = world.phase(pod, phase)
    ended = status_of(seen, "termination-message-container")["state"]["terminated"]
    equal(ended.get("message", ""), wanted, ended)
    world.delete_pod(pod)


FALLBACK = {
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "FallbackToLogsOnError",
}


@test("[sig-node] Container Runtime blackbox test on terminated container should report termination message if TerminationMessagePath is set as non-root user and at a non-default path")
def message_path(world):
    message(
        world, "/bin/echo -n DONE > /dev/termination-custom-log", "Succeeded", "DONE",
        terminationMessagePath="/dev/termination-custom-log", securityContext={"runAsUser": 10000},
    )


@test("[sig-node] Container Runtime blackbox test on terminated container should report termination message from log output if TerminationMessagePolicy FallbackToLogsOnError is set")
def message_of_log(world):
    message(world, "/bin/echo -n DONE; /bin/false", "Failed", "DONE", **FALLBACK)


@test("[sig-node] Container Runtime blackbox test on terminated container should report termination message as empty when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set")
def message_empty(world):
    message(world, "/bin/echo -n DONE; /bin/true", "Succeeded", "", **FALLBACK)


@test("[sig-node] Container Runtime blackbox test on terminated container should report termination message from file when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set")
def message_of_file(world):
    script = "/bin/echo -n OK > /dev/termination-log; /bin/echo DONE; /bin/true"
    message(world, script, "Succeeded", "OK", **FALLBACK)


# === Kubelet ===


@test("[sig-node] Kubelet when scheduling a busybox command in a pod should print the output to logs")
def prints(world):
    pod = name("busybox-scheduling")
    spec = {"restartPolicy": "Never", "containers": [busybox("echo 'Hello World' ; sleep 240", pod)]}
    world.run_pod(spec, pod)
    an_hour_ago = "2020-01-01T00:00:00Z"
    until(lambda: world.log(pod, sinceTime=an_hour_ago) == "Hello World\n", what="the log")


def always_false(world):
    pod = name("bin-false")
    container = {"name": pod, "image": SMALL, "command": ["/bin/false"]}
    world.create_pod({"restartPolicy": "Never", "containers": [container]}, pod)
    return pod


@test("[sig-node] Kubelet when scheduling a busybox command that always fails in a pod should have an terminated reason")
def reason(world):
    pod = always_false(world)

    def ended():
        status = status_of(world.get_pod(pod), pod) or {}
        state = status.get("state", {}).get("terminated")
        return state and state["exitCode"] != 0 and state["reason"]

    equal(until(ended, what="a reason"), "Error")


@test("[sig-node] Kubelet when scheduling a busybox command that always fails in a pod should be possible to delete")
def delete_failed(world):
    world.delete_pod(always_false(world))


@test("[sig-node] Kubelet when scheduling an agnhost Pod with hostAliases should write entries to /etc/hosts")
def host_aliases(world):
    spec = {
        "containers": [busybox("cat /etc/hosts")],
        "hostAliases": [{"ip": "123.45.67.89", "hostnames": ["foo", "bar"]}],
    }
    world.outputs(spec, "123.45.67.89\tfoo\tbar\n")


@test("[sig-node] Kubelet when scheduling a read only busybox container should not write to root filesystem")
def read_only(world):
    pod = name("busybox-readonly-fs")
    container = busybox(
        "echo test > /file; sleep 240", pod, securityContext={"readOnlyRootFilesystem": True}
    )
    container["command"][0] = "/bin/sh"
    world.run_pod({"restartPolicy": "Never", "containers": [container]}, pod)
    wanted = "/bin/sh: can't create /file: Read-only file system\n"
    until(lambda: world.log(pod) == wanted, what="the refusal in the log")


@test("[sig-node] KubeletManagedEtcHosts should test kubelet managed /etc/hosts file")
def etc_hosts(world):
    once = [{"name": "host-etc-hosts", "mountPath": "/etc/hosts-original"}]
    twice = [*once, {"name": "host-etc-hosts", "mountPath": "/etc/hosts"}]
    volumes = [
        {"name": "host-etc-hosts", "hostPath": {"path": "/etc/hosts", "type": "FileOrCreate"}}
    ]
    inside = {
        "containers": [
            pause("busybox-1", volumeMounts=once), pause("busybox-2", volumeMounts=once),
            pause("busybox-3", volumeMounts=twice),
        ],
        "volumes": volumes,
    }
    outside = {"hostNetwork": True, "containers": inside["containers"][:2], "volumes": volumes}
    world.run_pod(inside, "test-pod")
    world.run_pod(outside, "test-host-network-pod")

    def managed(pod, container):
        ours = world.exec(pod, "cat", "/etc/hosts", container=container)
        original = world.exec(pod, "cat", "/etc/hosts-original", container=container)
        check(ours and original, "an empty file:", repr(ours), repr(original))
        return ours.startswith("# Kubernetes-managed hosts file.") and ours != original

    for container, wanted in [("busybox-1", True), ("busybox-2", True), ("busybox-3", False)]:
        equal(managed("test-pod", container), wanted, container)
    for container in ("busybox-1", "busybox-2"):
        equal(managed("test-host-network-pod", container), False, container)


# === What a container may ===


@test("[sig-node] Security Context When creating a container with runAsUser should run the container with uid 65534")
def run_as_user(world):
    script = "test $(id -u) -eq 65534"
    world.output({"containers": [busybox(script, securityContext={"runAsUser": 65534})]})


@test("[sig-node] Security Context When creating a pod with readOnlyRootFilesystem should run the container with writable rootfs when readOnlyRootFilesystem=false")
def writable(world):
    container = busybox("touch checkfile", securityContext={"readOnlyRootFilesystem": False})
    world.output({"containers": [container]})


@test("[sig-node] Security Context When creating a pod with privileged should run the container as unprivileged when false")
def unprivileged(world):
    script = "ip link add dummy0 type dummy || true"
    container = busybox(script, securityContext={"privileged": False})
    world.outputs({"containers": [container]}, "Operation not permitted")


@test("[sig-node] Security Context when creating containers with AllowPrivilegeEscalation should not allow privilege escalation when false", note="the flag that makes set-uid void is read; no set-uid program runs")
def no_escalation(world):
    context = {"allowPrivilegeEscalation": False, "runAsUser": 1000}
    container = busybox("id -u; grep NoNewPrivs /proc/self/status", securityContext=context)
    equal(world.output({"containers": [container]}), "1000\nNoNewPrivs:\t1\n")


@test("[sig-node] Security Context should support pod.Spec.SecurityContext.RunAsUser And pod.Spec.SecurityContext.RunAsGroup")
def pod_user_and_group(world):
    spec = {
        "containers": [busybox("id")], "securityContext": {"runAsUser": 1001, "runAsGroup": 2002}
    }
    world.outputs(spec, "uid=1001", "gid=2002")


@test("[sig-node] Security Context should support container.SecurityContext.RunAsUser And container.SecurityContext.RunAsGroup")
def container_user_and_group(world):
    spec = {
        "containers": [busybox("id", securityContext={"runAsUser": 1001, "runAsGroup": 2002})],
        "securityContext": {"runAsUser": 1000, "runAsGroup": 2000},
    }
    world.outputs(spec, "uid=1001", "gid=2002")


@test("[sig-node] Sysctls [LinuxOnly] should support sysctls")
def sysctl(world):
    spec = {
        "containers": [busybox("sysctl kernel.shm_rmid_forced")],
        "securityContext": {"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]},
    }
    world.outputs(spec, "kernel.shm_rmid_forced = 1")


@test("[sig-node] Sysctls [LinuxOnly] should reject invalid sysctls")
def bad_sysctls(world):
    names = ["foo-", "kernel.shmmax", "safe-and-unsafe", "bar.."]
    spec = {
        "containers": [busybox()],
        "securityContext": {"sysctls": [{"name": n, "value": "100000000"} for n in names]},
    }
    said = refused(lambda: world.create_pod(spec), code=422).message
    check('Invalid value: "foo-"' in said and 'Invalid value: "bar.."' in said, said)
    check("safe-and-unsafe" not in said and "kernel.shmmax" not in said, said)


@test("[sig-node] ImageVolume should succeed with pod and pull policy of Always", note="the image is loaded, not pulled: the policy is IfNotPresent")
def image_volume(world):
    spec = {
        "containers": [pause(volumeMounts=[{"name": "volume", "mountPath": "/volume"}])],
        "volumes": [{"name": "volume", "image": {"reference": KITTEN, "pullPolicy": "IfNotPresent"}}],
    }
    pod = world.run_pod(spec)["metadata"]["name"]
    check("kitten.jpg" in world.exec(pod, "cat", "/volume/data.json", container="pause"))
    check("Alpine Linux" in world.exec(pod, "cat", "/volume/etc/os-release", container="pause"))
