"""Volumes of what the API knows: config maps, secrets, the downward API, and projections of them.

test/e2e/common/storage/{configmap_volume,secrets_volume,downwardapi_volume,projected_*}.go,
test/e2e/storage/{subpath,empty_dir_wrapper}.go
"""

from frame import START, STRATEGIC, busybox, equal, matches, name, pause, refused, test, until

DATA = {"data-1": "value-1", "data-2": "value-2", "data-3": "value-3"}
MOUNT = "/etc/volume"
# What upstream's mounttest shows of a file: its content, and its mode through links.
SHOW = "stat -L -c %A {0}; cat {0}"
# The same again and again, as its `--file_content_in_loop`.
LOOP = "while :; do cat {0} || echo 'Error reading file {0}'; echo; sleep 1; done 2>&1"


def mounted(script, volumes, container="test-container", **more):
    """A pod that mounts volumes at MOUNT and shows something of them."""
    mounts = [
        {"name": f"v{i}", "mountPath": MOUNT + ("" if i == 0 else f"-{i + 1}"), "readOnly": True}
        for i in range(len(volumes))
    ]
    return {
        "containers": [busybox(script, container, volumeMounts=mounts)],
        "volumes": [{"name": f"v{i}", **v} for i, v in enumerate(volumes)],
        **more,
    }


# How each kind of source is written as a volume: of a name, with settings of the source.


def plain(kind):
    key = {"configMap": "name", "secret": "secretName"}[kind]
    return lambda source, **more: {kind: {key: source, **more}}


def projected(kind):
    def volume(source, defaultMode=None, **more):
        made = {"sources": [{kind: {"name": source, **more}}]}
        if defaultMode is not None:
            made["defaultMode"] = defaultMode
        return {"projected": made}

    return volume


NOBODY = {"securityContext": {"runAsUser": 1000}}
GROUPED = {"securityContext": {"runAsUser": 1000, "fsGroup": 1001}}
MAPPED = [{"key": "data-2", "path": "path/to/data-2"}]


def shows(world, volume, path, mode, content, **more):
    said = world.output(mounted(SHOW.format(f"{MOUNT}/{path}"), [volume], **more))
    equal(said, mode + "\n" + content)


def sources(title, kind, make, volume, multiple):
    """The tests that config maps and secrets have in common, plain and projected."""

    def of(what, **tags):
        return test(f"[sig-storage] {title} {what}", **tags)

    @of("should be consumable from pods in volume")
    def consumable(world):
        shows(world, volume(make(world, DATA)), "data-1", "-rw-r--r--", "value-1")

    @of("should be consumable from pods in volume with defaultMode set")
    def default_mode(world):
        shows(world, volume(make(world, DATA), defaultMode=0o400), "data-1", "-r--------", "value-1")

    @of("should be consumable from pods in volume with mappings")
    def mappings(world):
        of_map = volume(make(world, DATA), items=MAPPED)
        shows(world, of_map, "path/to/data-2", "-rw-r--r--", "value-2")

    @of("should be consumable from pods in volume with mappings and Item " + ("Mode" if kind == "secret" else "mode") + " set")
    def item_mode(world):
        items = [{**MAPPED[0], "mode": 0o400}]
        shows(world, volume(make(world, DATA), items=items), "path/to/data-2", "-r--------", "value-2")

    if kind == "configMap":

        @of("should be consumable from pods in volume as non-root")
        def nobody(world):
            shows(world, volume(make(world, DATA)), "data-1", "-rw-r--r--", "value-1", **NOBODY)

        @of("should be consumable from pods in volume with mappings as non-root")
        def nobody_mapped(world):
            of_map = volume(make(world, DATA), items=MAPPED)
            shows(world, of_map, "path/to/data-2", "-rw-r--r--", "value-2", **NOBODY)

        @of("updates should be reflected in volume")
        def updates(world):
            made = make(world, {"data-1": "value-1"})
            spec = mounted(LOOP.format(f"{MOUNT}/data-1"), [volume(made)])
            pod = world.run_pod(spec)["metadata"]["name"]
            until(lambda: "value-1" in world.log(pod), what="value-1")
            body = {"metadata": {"name": made}, "data": {"data-1": "value-2"}}
            world.api.update(world.core("configmaps", made), body)
            until(lambda: "value-2" in world.log(pod), 240, "value-2")

    else:

        @of("should be consumable from pods in volume as non-root with defaultMode and fsGroup set")
        def grouped(world):
            of_group = volume(make(world, DATA), defaultMode=0o440)
            shows(world, of_group, "data-1", "-r--r-----", "value-1", **GROUPED)

    @of(multiple)
    def twice(world):
        made = make(world, DATA)
        script = f"cat {MOUNT}/data-1 {MOUNT}-2/data-1"
        equal(world.output(mounted(script, [volume(made), volume(made)])), "value-1value-1")

    @of("optional updates should be reflected in volume")
    def optional(world):
        plural = {"configMap": "configmaps", "secret": "secrets"}[kind]
        field = {"configMap": "data", "secret": "stringData"}[kind]
        deleted, updated = make(world, {"data-1": "value-1"}), make(world, {"data-1": "value-1"})
        created = name("created")
        cases = [("del", deleted, "data-1"), ("upd", updated, "data-3"), ("create", created, "data-1")]
        containers = [
            busybox(
                LOOP.format(f"/etc/volumes/{c}/{key}"), c,
                volumeMounts=[{"name": c, "mountPath": f"/etc/volumes/{c}", "readOnly": True}],
            )
            for c, _, key in cases
        ]
        spec = {
            "restartPolicy": "Never", "containers": containers,
            "volumes": [{"name": c, **volume(source, optional=True)} for c, source, _ in cases],
        }
        pod = world.run_pod(spec)["metadata"]["name"]

        def says(container, text):
            until(lambda: text in world.log(pod, container), 240, f"{text!r} of {container}")

        says("create", "Error reading file /etc/volumes/create/data-1")
        says("upd", "Error reading file /etc/volumes/upd/data-3")
        says("del", "value-1")
        world.api.delete(world.core(plural, deleted))
        world.api.update(world.core(plural, updated), {"metadata": {"name": updated}, field: {"data-3": "value-3"}})
        world.api.create(world.core(plural), {"metadata": {"name": created}, field: {"data-1": "value-1"}})
        says("create", "value-1")
        says("upd", "value-3")
        says("del", "Error reading file /etc/volumes/del/data-1")


def config_map(world, data):
    return world.config_map(data)


def secret(world, data):
    return world.secret(data)


IN_POD = "should be consumable in multiple volumes in a pod"
IN_SAME = "should be consumable in multiple volumes in the same pod"
sources("ConfigMap", "configMap", config_map, plain("configMap"), IN_SAME)
sources("Secrets", "secret", secret, plain("secret"), IN_POD)
sources("Projected configMap", "configMap", config_map, projected("configMap"), IN_SAME)
sources("Projected secret", "secret", secret, projected("secret"), IN_POD)


@test("[sig-storage] ConfigMap binary data should be reflected in volume")
def binary(world):
    made = world.config_map({"data-1": "value-1"}, {"dump.bin": "3sr+utD+/w=="})
    script = f"cat {MOUNT}/data-1; echo; hexdump -C {MOUNT}/dump.bin"
    world.outputs(mounted(script, [plain("configMap")(made)]), "value-1\n", "de ca fe ba d0 fe ff")


def immutable(world, plural, field, make):
    made = make(world, {"data-1": "value-1"})
    path = world.core(plural, made)

    def put(change):
        seen = world.api.get(path)
        change(seen)
        return world.api.update(path, seen)

    put(lambda o: o["data"].update({"data-4": field}))
    put(lambda o: o.update(immutable=True))
    refused(lambda: put(lambda o: o["data"].update({"data-5": field})), code=422)
    refused(lambda: put(lambda o: o.update(immutable=False)), code=422)
    refused(lambda: put(lambda o: o.pop("immutable")), code=422)
    put(lambda o: o["metadata"].update(labels={"label1": "value1"}))
    world.api.delete(path)
    refused(lambda: world.api.get(path), code=404)


@test("[sig-storage] ConfigMap should be immutable if `immutable` field is set")
def immutable_config_map(world):
    immutable(world, "configmaps", "value-4", config_map)


@test("[sig-storage] Secrets should be immutable if `immutable` field is set")
def immutable_secret(world):
    immutable(world, "secrets", "dmFsdWUtNAo=", secret)


@test("[sig-storage] Secrets should be able to mount in a volume regardless of a different secret existing with same name in different namespace")
def same_name(world):
    made = world.secret(DATA)
    other = f"{world.ns}-other"
    world.api.create("/api/v1/namespaces", {"metadata": {"name": other}})
    try:
        world.secret({"this_should_not_match_content_of_other_secret": "x"}, other, made)
        shows(world, plain("secret")(made), "data-1", "-rw-r--r--", "value-1")
    finally:
        world.api.delete(f"/api/v1/namespaces/{other}")


# === The downward API ===

LIMITS = {
    "requests": {"cpu": "250m", "memory": "32Mi"},
    "limits": {"cpu": "1250m", "memory": "64Mi"},
}


def field(path, of):
    return {"path": path, "fieldRef": {"apiVersion": "v1", "fieldPath": of}}


def amount(path, resource):
    return {"path": path, "resourceFieldRef": {"containerName": "client", "resource": resource}}


def downward(items, **more):
    return {"downwardAPI": {"items": items, **more}}


def projected_downward(items, **more):
    return {"projected": {"sources": [{"downwardAPI": {"items": items}}], **more}}


def of_pod(title, volume):
    """The tests of the downward API, plain and projected."""

    def of(what):
        return test(f"[sig-storage] {title} {what}")

    def spec(script, items, **more):
        resources = more.pop("resources", {})
        made = mounted(script, [volume(items, **more)], "client")
        made["containers"][0]["resources"] = resources
        return made

    def shown(world, path, resource, resources=LIMITS):
        return world.output(spec(f"cat {MOUNT}/{path}; echo", [amount(path, resource)], resources=resources))

    @of("should provide podname only")
    def pod_name(world):
        pod = name("downwardapi-volume")
        said = world.output(spec(f"cat {MOUNT}/podname", [field("podname", "metadata.name")]), pod=pod)
        equal(said, pod)

    @of("should set DefaultMode on files")
    def default_mode(world):
        items = [field("podname", "metadata.name")]
        said = world.output(spec(f"stat -L -c %A {MOUNT}/podname", items, defaultMode=0o400))
        equal(said, "-r--------\n")

    @of("should set mode on item file")
    def item_mode(world):
        items = [{**field("podname", "metadata.name"), "mode": 0o400}]
        equal(world.output(spec(f"stat -L -c %A {MOUNT}/podname", items)), "-r--------\n")

    def changes(world, what, before, after, meta):
        items = [field(what, f"metadata.{what}")]
        pod = world.run_pod(spec(LOOP.format(f"{MOUNT}/{what}"), items), **{what: meta[0]})
        pod = pod["metadata"]["name"]
        until(lambda: before in world.log(pod), what=before)
        world.api.patch(world.core("pods", pod), {"metadata": {what: meta[1]}}, STRATEGIC)
        until(lambda: after in world.log(pod), 180, after)

    @of("should update labels on modification")
    def labels(world):
        meta = {"key1": "value1", "key2": "value2"}, {"key3": "value3"}
        changes(world, "labels", 'key1="value1"\n', 'key3="value3"\n', meta)

    @of("should update annotations on modification")
    def annotations(world):
        changes(world, "annotations", 'builder="bar"\n', 'builder="foo"\n', ({"builder": "bar"}, {"builder": "foo"}))

    for what, path, resource, wanted in [
        ("cpu limit", "cpu_limit", "limits.cpu", "2\n"),
        ("memory limit", "memory_limit", "limits.memory", "67108864\n"),
        ("cpu request", "cpu_request", "requests.cpu", "1\n"),
        ("memory request", "memory_request", "requests.memory", "33554432\n"),
    ]:

        @of(f"should provide container's {what}")
        def limits(world, path=path, resource=resource, wanted=wanted):
            equal(shown(world, path, resource), wanted)

    for what in ("cpu", "memory"):

        @of(f"should provide node allocatable ({what}) as default {what} limit if the limit is not set")
        def allocatable(world, what=what):
            matches("[1-9]", shown(world, f"{what}_limit", f"limits.{what}", {}))


of_pod("Downward API volume", downward)
of_pod("Projected downwardAPI", projected_downward)


@test("[sig-storage] Projected combined should project all components that make up the projection API")
def combined(world):
    config, hidden = world.config_map({"configmap-data": "configmap-value-1"}), world.secret({"secret-data": "secret-value-1"})
    items = [
        field("podname", "metadata.name"), amount("cpu_limit", "limits.cpu"),
        amount("cpu_request", "requests.cpu"), amount("memory_limit", "limits.memory"),
        amount("memory_request", "requests.memory"),
    ]
    every = [{"downwardAPI": {"items": items}}, {"secret": {"name": hidden}}, {"configMap": {"name": config}}]
    pod = name("projected-volume")
    files = ["podname", "secret-data", "configmap-data", "cpu_limit"]
    script = f"cd {MOUNT}; for f in {' '.join(files)}; do cat $f; echo; done"
    spec = mounted(script, [{"projected": {"sources": every}}], "client", )
    spec["containers"][0]["resources"] = LIMITS
    equal(world.output(spec, pod=pod).split(), [pod, "secret-value-1", "configmap-value-1", "2"])


# === Sub-paths of them ===


def sub_path(world, volume, file, content, path="/test-volume"):
    """A container that sees one file of a volume at a path, while another sees all of it."""
    read = f"for i in 1 2 3; do cat {path}; sleep 1; done"
    mounts = [{"name": "v", "mountPath": path, "subPath": file}, {"name": "probe", "mountPath": "/probe-volume"}]
    sub = busybox(read, "test-container-subpath", volumeMounts=mounts)
    whole = [{"name": "v", "mountPath": "/test-volume"}, mounts[1]]
    init = busybox("mount | grep -i /test-volume; true", "init-volume", volumeMounts=whole)
    spec = {
        "initContainers": [init], "containers": [sub],
        "volumes": [{"name": "v", **volume}, {"name": "probe", "emptyDir": {}}],
    }
    pod = name("pod-subpath-test")
    said = world.output(spec, pod=pod)
    equal(said, content(pod) * 3)
    world.delete_pod(pod)


def of_secret(world):
    return world.secret({"secret-key": "secret-value"})


@test("[sig-storage] Subpath Atomic writer volumes should support subpaths with secret pod")
def sub_path_secret(world):
    sub_path(world, plain("secret")(of_secret(world)), "secret-key", lambda pod: "secret-value")


def of_config_map(world):
    return world.config_map({"configmap-key": "configmap-value"})


@test("[sig-storage] Subpath Atomic writer volumes should support subpaths with configmap pod")
def sub_path_config_map(world):
    sub_path(world, plain("configMap")(of_config_map(world)), "configmap-key", lambda pod: "configmap-value")


@test("[sig-storage] Subpath Atomic writer volumes should support subpaths with configmap pod with mountPath of existing file")
def sub_path_existing(world):
    sub_path(world, plain("configMap")(of_config_map(world)), "configmap-key", lambda pod: "configmap-value", "/etc/resolv.conf")


@test("[sig-storage] Subpath Atomic writer volumes should support subpaths with downward pod")
def sub_path_downward(world):
    sub_path(world, downward([field("downward/podname", "metadata.name")]), "downward/podname", lambda pod: pod)


@test("[sig-storage] Subpath Atomic writer volumes should support subpaths with projected pod")
def sub_path_projected(world):
    items = [{"key": "configmap-key", "path": "projected/configmap-key"}]
    volume = projected("configMap")(of_config_map(world), items=items)
    sub_path(world, volume, "projected/configmap-key", lambda pod: "configmap-value")


# === Many of them ===


@test("[sig-storage] EmptyDir wrapper volumes should not conflict")
def no_conflict(world):
    volumes = [plain("secret")(of_secret(world)), plain("configMap")(of_config_map(world))]
    world.run_pod(mounted(None, volumes))


@test("[sig-storage] EmptyDir wrapper volumes should not cause race condition when used for configmaps", serial=True, slow=True, note="three rounds, not five")
def no_race(world):
    maps = [world.config_map({"data-1": "value-1"}) for _ in range(50)]
    mounts = [{"name": f"racey-{i}", "mountPath": f"/etc/config-{i}"} for i in range(50)]
    volumes = [
        {"name": f"racey-{i}", "configMap": {"name": m, "items": [{"key": "data-1", "path": "data-1"}]}}
        for i, m in enumerate(maps)
    ]
    node = world.nodes()[0]["metadata"]["name"]
    template = {
        "metadata": {"labels": {"name": "wrapped"}},
        "spec": {"nodeSelector": {"kubernetes.io/hostname": node}, "containers": [pause(volumeMounts=mounts)], "volumes": volumes},
    }
    for turn in range(3):
        body = {
            "metadata": {"name": f"wrapped-volume-race-{turn}"},
            "spec": {"replicas": 5, "selector": {"name": "wrapped"}, "template": template},
        }
        world.api.create(world.core("replicationcontrollers"), body)
        path = world.core("replicationcontrollers", body["metadata"]["name"])
        until(lambda: world.api.get(path)["status"].get("readyReplicas") == 5, START, "five pods")
        world.api.delete(path, {"propagationPolicy": "Foreground"})
        world.gone(path)
