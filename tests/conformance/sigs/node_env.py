"""Environment variables: of config maps, secrets, the downward API, and expanded ones.

test/e2e/common/node/{configmap,secrets,downwardapi,expansion}.go
"""

from frame import START, STRATEGIC, busybox, check, equal, matches, name, refused, status_of, test, until

DATA = {"data-1": "value-1", "data-2": "value-2", "data-3": "value-3"}
# The prefixes that upstream tries.
PREFIXES = ["0_", "-", ".", "9-", "p$", "#", "%", "~", ":", "@ ", "K8S_"]


def env(*variables, **more):
    """A container that writes its environment; a shell would drop names that it does not like."""
    container = busybox(env=list(variables), **more)
    return {"containers": [{**container, "command": ["env"]}]}


def field(variable, path):
    return {"name": variable, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def resource(variable, what):
    return {"name": variable, "valueFrom": {"resourceFieldRef": {"resource": what}}}


# === Config maps and secrets ===


def from_key(world, ref, source):
    of = {"valueFrom": {ref: {"name": source, "key": "data-1"}}}
    world.outputs(env({"name": "OF_KEY", **of}), "OF_KEY=value-1")


def from_all(world, ref, source):
    every = [{ref: {"name": source}}, {"prefix": "p-", ref: {"name": source}}]
    wanted = [f"{p}{k}={v}" for p in ("", "p-") for k, v in DATA.items()]
    world.outputs(env(envFrom=every), *wanted)


def with_prefixes(world, ref, source):
    every = [{"prefix": p, ref: {"name": source}} for p in PREFIXES]
    wanted = [f"{p}{k}={v}" for p in PREFIXES for k, v in DATA.items()]
    world.outputs(env(envFrom=every), *wanted)


@test("[sig-node] ConfigMap should be consumable via environment variable")
def config_map_key(world):
    from_key(world, "configMapKeyRef", world.config_map(DATA))


@test("[sig-node] ConfigMap should be consumable via the environment")
def config_map_all(world):
    from_all(world, "configMapRef", world.config_map(DATA))


@test("[sig-node] ConfigMap should be consumable as environment variable names with various prefixes")
def config_map_prefixes(world):
    with_prefixes(world, "configMapRef", world.config_map(DATA))


@test("[sig-node] ConfigMap should fail to create ConfigMap with empty key")
def config_map_empty_key(world):
    refused(lambda: world.config_map({"": "value-1"}), code=422)


@test("[sig-node] ConfigMap should update ConfigMap successfully")
def config_map_update(world):
    made = world.config_map(DATA)
    path = world.core("configmaps", made)
    world.api.update(path, {"metadata": {"name": made}, "data": {"data": "value"}})
    equal(world.api.get(path)["data"], {"data": "value"})


@test("[sig-node] ConfigMap should run through a ConfigMap lifecycle")
def config_map_life(world):
    label = world.ns
    made = name("test-configmap")
    body = {"metadata": {"name": made, "labels": {"static": label}}, "data": {"valueName": "value"}}
    world.api.create(world.core("configmaps"), body)
    seen = world.api.get(world.core("configmaps", made))
    equal(seen["data"], {"valueName": "value"})
    patch = {"metadata": {"labels": {"patched": label}}, "data": {"valueName": "value1"}}
    world.api.patch(world.core("configmaps", made), patch, STRATEGIC)
    found = world.api.get("/api/v1/configmaps", labelSelector=f"patched={label}")["items"]
    equal([(c["metadata"]["name"], c["data"]) for c in found], [(made, {"valueName": "value1"})])
    world.api.delete(world.core("configmaps"), labelSelector=f"static={label}")
    left = world.api.get(world.core("configmaps"), labelSelector=f"static={label}")["items"]
    equal(left, [])


@test("[sig-node] Secrets should be consumable from pods in env vars")
def secret_key(world):
    from_key(world, "secretKeyRef", world.secret(DATA))


@test("[sig-node] Secrets should be consumable via the environment")
def secret_all(world):
    from_all(world, "secretRef", world.secret(DATA))


@test("[sig-node] Secrets should be consumable as environment variable names variable names with various prefixes")
def secret_prefixes(world):
    with_prefixes(world, "secretRef", world.secret(DATA))


@test("[sig-node] Secrets should fail to create secret due to empty secret key")
def secret_empty_key(world):
    refused(lambda: world.secret({"": "value-1"}), code=422)


@test("[sig-node] Secrets should patch a secret")
def secret_patch(world):
    label = world.ns
    made = world.secret({"key": "value"}, type="Opaque")
    path = world.core("secrets", made)
    world.api.patch(path, {"metadata": {"labels": {"constant": label}}}, STRATEGIC)
    found = world.api.get("/api/v1/secrets", labelSelector=f"constant={label}")["items"]
    equal([s["metadata"]["name"] for s in found], [made])
    patch = {"metadata": {"labels": {"patched": label}}, "data": {"key": "dmFsdWUx"}}
    world.api.patch(path, patch, STRATEGIC)
    equal(world.api.get(path)["data"], {"key": "dmFsdWUx"})
    world.api.delete(world.core("secrets"), labelSelector=f"patched={label}")
    equal(world.api.get("/api/v1/secrets", labelSelector=f"constant={label}")["items"], [])


# === The downward API ===

LIMITS = {
    "requests": {"cpu": "250m", "memory": "32Mi"},
    "limits": {"cpu": "1250m", "memory": "64Mi"},
}


@test("[sig-node] Downward API should provide pod name, namespace and IP address as env vars")
def downward_names(world):
    pod = name("downward-api")
    said = world.output(
        env(
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("POD_IP", "status.podIP"),
        ),
        pod=pod,
    )
    check(f"POD_NAME={pod}\n" in said, said)
    check(f"POD_NAMESPACE={world.ns}\n" in said, said)
    matches(r"POD_IP=\d+\.\d+\.\d+\.\d+", said)


@test("[sig-node] Downward API should provide host IP as an env var")
def downward_host(world):
    matches(r"HOST_IP=\d+\.\d+\.\d+\.\d+", world.output(env(field("HOST_IP", "status.hostIP"))))


@test("[sig-node] Downward API should provide hostIPs as an env var")
def downward_hosts(world):
    said = world.output(env(field("HOST_IPS", "status.hostIPs")))
    matches(r"HOST_IPS=\d+\.\d+\.\d+\.\d+(,[0-9a-f:]+)?\n", said)


@test("[sig-node] Downward API should provide container's limits.cpu/memory and requests.cpu/memory as env vars")
def downward_limits(world):
    variables = [
        resource("CPU_LIMIT", "limits.cpu"), resource("MEMORY_LIMIT", "limits.memory"),
        resource("CPU_REQUEST", "requests.cpu"), resource("MEMORY_REQUEST", "requests.memory"),
    ]
    world.outputs(
        env(*variables, resources=LIMITS),
        "CPU_LIMIT=2\n", "MEMORY_LIMIT=67108864\n", "CPU_REQUEST=1\n", "MEMORY_REQUEST=33554432\n",
    )


@test("[sig-node] Downward API should provide default limits.cpu/memory from node allocatable")
def downward_allocatable(world):
    said = world.output(env(resource("CPU", "limits.cpu"), resource("MEMORY", "limits.memory")))
    matches(r"CPU=[1-9]", said)
    matches(r"MEMORY=[1-9]", said)


@test("[sig-node] Downward API should provide pod UID as env vars")
def downward_uid(world):
    said = world.output(env(field("POD_UID", "metadata.uid")))
    matches(r"POD_UID=[a-z0-9]{8}-[a-z0-9]{4}-[a-z0-9]{4}-[a-z0-9]{4}-[a-z0-9]{12}\n", said)


# === Expansion ===


@test("[sig-node] Variable Expansion should allow composing env vars into new env vars")
def expand_env(world):
    said = [("FOO", "foo-value"), ("BAR", "bar-value"), ("FOOBAR", "$(FOO);;$(BAR)")]
    variables = [{"name": n, "value": v} for n, v in said]
    world.outputs(
        env(*variables), "FOO=foo-value\n", "BAR=bar-value\n", "FOOBAR=foo-value;;bar-value\n"
    )


TEST_VAR = [{"name": "TEST_VAR", "value": "test-value"}]


@test("[sig-node] Variable Expansion should allow substituting values in a container's command")
def expand_command(world):
    spec = {"containers": [busybox('TEST_VAR=wrong echo "$(TEST_VAR)"', env=TEST_VAR)]}
    equal(world.output(spec), "test-value\n")


@test("[sig-node] Variable Expansion should allow substituting values in a container's args")
def expand_args(world):
    container = busybox("", env=TEST_VAR)
    container["command"] = ["sh", "-c"]
    container["args"] = ['TEST_VAR=wrong echo "$(TEST_VAR)"']
    equal(world.output({"containers": [container]}), "test-value\n")


def sub_path_spec(script, variables, *mounts):
    mounts = [{"name": "workdir1", **m} for m in mounts]
    container = busybox(script, env=variables, volumeMounts=mounts)
    return {
        "containers": [container],
        "volumes": [{"name": "workdir1", "emptyDir": {}}],
        "restartPolicy": "Never",
    }


@test("[sig-node] Variable Expansion should allow substituting values in a volume subpath")
def expand_sub_path(world):
    pod = name("var-expansion")
    spec = sub_path_spec(
        f"test -d /testcontainer/{pod}; echo $?",
        [{"name": "POD_NAME", "value": pod}],
        {"mountPath": "/logscontainer", "subPathExpr": "$(POD_NAME)"},
        {"mountPath": "/testcontainer"},
    )
    equal(world.output(spec, pod=pod), "0\n")


def bad_sub_path(world, value):
    spec = sub_path_spec(
        None,
        [{"name": "POD_NAME", "value": value}],
        {"mountPath": "/logscontainer", "subPathExpr": "$(POD_NAME)"},
    )
    del spec["containers"][0]["command"]
    pod = world.create_pod(spec)["metadata"]["name"]

    def refused_by_node():
        status = status_of(world.get_pod(pod), "test-container") or {}
        waiting = status.get("state", {}).get("waiting", {})
        return waiting.get("reason") == "CreateContainerConfigError"

    until(refused_by_node, what="CreateContainerConfigError")
    world.delete_pod(pod)


@test("[sig-node] Variable Expansion should fail substituting values in a volume subpath with backticks")
def expand_backticks(world):
    bad_sub_path(world, "..")


@test("[sig-node] Variable Expansion should fail substituting values in a volume subpath with absolute path")
def expand_absolute(world):
    bad_sub_path(world, "/tmp")


ANNOTATED = [{"name": "POD_NAME", "value": "foo"}, field("ANNOTATION", "metadata.annotations['mysubpath']")]
MOUNTS = [
    {"mountPath": "/subpath_mount", "subPathExpr": "$(ANNOTATION)/$(POD_NAME)"},
    {"mountPath": "/volume_mount"},
]


@test("[sig-node] Variable Expansion should verify that a failing subpath expansion can be modified during the lifecycle of a container")
def expand_later(world):
    spec = sub_path_spec("tail -f /dev/null", ANNOTATED, *MOUNTS)
    made = world.create_pod(spec, annotations={"notmysubpath": "mypath"})
    pod = made["metadata"]["name"]

    def fails():
        status = status_of(world.get_pod(pod), "test-container") or {}
        return status.get("state", {}).get("waiting", {}).get("reason") not in (
            None, "ContainerCreating",
        )

    until(fails, what="the container to be refused")
    equal(world.get_pod(pod)["status"]["phase"], "Pending")
    world.api.patch(world.core("pods", pod), {"metadata": {"annotations": {"mysubpath": "mypath"}}}, STRATEGIC)
    world.phase(pod, "Running", seconds=2 * START)
    world.delete_pod(pod)


@test("[sig-node] Variable Expansion should succeed in writing subpaths in container")
def expand_writes(world):
    spec = sub_path_spec("tail -f /dev/null", ANNOTATED, *MOUNTS)
    made = world.create_pod(spec, annotations={"mysubpath": "mypath"})
    pod = made["metadata"]["name"]
    world.phase(pod, "Running")
    world.exec(pod, "touch", "/volume_mount/mypath/foo/test.log", container="test-container")
    world.exec(pod, "test", "-f", "/subpath_mount/test.log", container="test-container")
    world.api.patch(world.core("pods", pod), {"metadata": {"annotations": {"mysubpath": "mynewpath"}}}, STRATEGIC)
    world.phase(pod, "Running")
    world.delete_pod(pod)
