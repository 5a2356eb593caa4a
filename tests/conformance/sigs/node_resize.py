"""Containers get other resources while they run.

test/e2e/common/node/pod_resize.go, with its framework/{podresize,cgroups}.
"""

from frame import STRATEGIC, busybox, check, condition_of, equal, status_of, test, until

PREFIX = "[sig-node] Pod InPlace Resize Container "


def quantities(cpu=None, cpu_limit=None, memory=None, memory_limit=None):
    """Resources as upstream's `ContainerResources`; what is not given is not there."""
    made = {}
    for kind, cpu, memory in [("requests", cpu, memory), ("limits", cpu_limit, memory_limit)]:
        named = {k: v for k, v in (("cpu", cpu), ("memory", memory)) if v}
        if named:
            made[kind] = named
    return made


def same(cpu, memory):
    return quantities(cpu, cpu, memory, memory)


def spec(resources):
    script = "grep Cpus_allowed_list /proc/self/status | cut -f2 && sleep 86400"
    return {
        "os": {"name": "linux"}, "restartPolicy": "OnFailure", "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            busybox(script, f"c{i + 1}", resources=r, securityContext={
                "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
            })
            for i, r in enumerate(resources)
        ],
    }


MILLI = {"": 1000, "m": 1}
BYTES = {"Mi": 1 << 20}


def milli(text):
    return int(text[:-1]) if text.endswith("m") else int(text) * 1000


def of_cgroups(world, pod, container, resources):
    """The limits and weights in the container's own cgroup files, of either version."""
    read = lambda path: world.try_exec(pod, "head", "-n", "1", path, container=container).stdout.strip()
    version2 = bool(read("/sys/fs/cgroup/cgroup.controllers"))
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    cpu = milli(requests.get("cpu", limits.get("cpu", "0m")))
    shares = max(2, cpu * 1024 // 1000)
    limit = milli(limits["cpu"]) if "cpu" in limits else None
    quotas = ["-1"] if limit is None else [
        str(max(1000, limit * 100)), str(max(1000, (limit // 10 + 1) * 10 * 100))
    ]
    memory = int(limits["memory"][:-2]) << 20 if "memory" in limits else None
    if version2:
        quotas = [("max" if q == "-1" else q) + " 100000" for q in quotas]
        check(read("/sys/fs/cgroup/cpu.max") in quotas, container, quotas)
        seen, wanted = read("/sys/fs/cgroup/memory.max"), "max" if memory is None else str(memory)
        equal(seen, wanted, container)
        return
    check(read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") in quotas, container, quotas)
    equal(read("/sys/fs/cgroup/cpu/cpu.shares"), str(shares), container)
    if memory is not None:
        equal(read("/sys/fs/cgroup/memory/memory.limit_in_bytes"), str(memory), container)


def as_told(world, pod, resources):
    """The pod's status and cgroups are as its containers' resources say."""
    seen = world.get_pod(pod)
    for i, wanted in enumerate(resources):
        status = status_of(seen, f"c{i + 1}")
        equal(status.get("resources", {}), wanted, f"c{i + 1}")
        equal(status["restartCount"], 0)
    for kind in ("PodResizePending", "PodResizeInProgress"):
        equal(condition_of(seen, kind), None)
    equal(condition_of(seen, "Ready"), "True")
    return seen


def patch(world, pod, resources):
    body = {"spec": {"containers": [{"name": f"c{i + 1}", "resources": r} for i, r in enumerate(resources)]}}
    return world.api.patch(world.core("pods", pod, "resize"), body, STRATEGIC)


def resize(world, before, after, back=True):
    pod = world.run_pod(spec(before))["metadata"]["name"]
    as_told(world, pod, before)
    for i, r in enumerate(before):
        of_cgroups(world, pod, f"c{i + 1}", r)
    for wanted in [after, before] if back else [after]:
        seen = patch(world, pod, wanted)
        equal([c["resources"] for c in seen["spec"]["containers"]], wanted)
        until(lambda: as_told(world, pod, wanted), 60, "the resize")
        for i, r in enumerate(wanted):
            of_cgroups(world, pod, f"c{i + 1}", r)
    world.delete_pod(pod)


MANY = [same("20m", "35Mi"), same("22m", "37Mi"), same("24m", "39Mi")]


@test(PREFIX + "guaranteed pods with multiple containers 3 containers - increase cpu & mem on c1, c2, decrease cpu & mem on c3 - net increase")
def increase(world):
    resize(world, MANY, [same("25m", "40Mi"), same("27m", "42Mi"), same("19m", "34Mi")])


@test(PREFIX + "guaranteed pods with multiple containers 3 containers - increase cpu & mem on c1, decrease cpu & mem on c2, c3 - net decrease")
def decrease(world):
    resize(world, MANY, [same("25m", "40Mi"), same("17m", "32Mi"), same("19m", "34Mi")])


@test(PREFIX + "guaranteed pods with multiple containers 3 containers - increase: CPU (c1,c3), memory (c2, c3) ; decrease: CPU (c2)")
def various(world):
    resize(world, MANY, [same("25m", "35Mi"), same("17m", "42Mi"), same("29m", "44Mi")])


@test(PREFIX + "burstable pods - extended 6 containers - various operations performed (including adding limits and requests)")
def added(world):
    before = [
        quantities("20m"), quantities(memory="35Mi"), quantities("20m", memory="35Mi"),
        quantities("20m"), quantities(memory="35Mi"),
    ]
    after = [
        quantities("25m", "35m"), quantities(memory="30Mi", memory_limit="50Mi"),
        quantities("20m", memory="30Mi"), quantities("15m", memory="35Mi"),
        quantities("20m", memory="40Mi"),
    ]
    resize(world, before, after, back=False)


@test(PREFIX + "burstable pods - extended resize with equivalents")
def equivalents(world):
    resize(world, [quantities("2m", "10m")], [quantities("1m", "5m")])


@test(PREFIX + "resize pod via the replace endpoint")
def replace(world):
    before, after = [quantities("20m", memory="35Mi")], [quantities("25m", memory="40Mi")]
    pod = world.run_pod(spec(before))["metadata"]["name"]
    seen = as_told(world, pod, before)
    equal(seen["metadata"]["generation"], 1)
    seen["spec"]["containers"][0]["resources"] = after[0]
    world.api.update(world.core("pods", pod, "resize"), seen)
    seen = world.get_pod(pod)
    equal(seen["spec"]["containers"][0]["resources"], after[0])
    equal(seen["metadata"]["generation"], 2)
    until(lambda: as_told(world, pod, after), 60, "the resize")
    until(lambda: world.api.get(world.core("pods", pod, "resize")) == world.get_pod(pod), 30, "the same pod at both paths")
