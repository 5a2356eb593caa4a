"""Kinds of the storage API: their lives, and their statuses.

test/e2e/storage/{csi_inline,csi_node,csistoragecapacity,persistent_volumes,storageclass,
volume_attachment,volumeattributesclass}.go
"""

from frame import MERGE, STRATEGIC, busybox, check, equal, name, refused, test, until

from .operations import crud

ROOT = "/apis/storage.k8s.io/v1"


def labelled(world, path, object, value):
    """Its own name as a label, by a patch."""
    made = object["metadata"]["name"]
    patched = world.api.patch(f"{path}/{made}", {"metadata": {"labels": {made: value}}}, STRATEGIC)
    equal(patched["metadata"]["labels"][made], value)
    versions = [int(o["metadata"]["resourceVersion"]) for o in (object, patched)]
    check(versions[0] < versions[1], versions)
    return patched


def put_label(world, path, made, labels):
    def put():
        seen = world.api.get(f"{path}/{made}")
        seen["metadata"]["labels"] = labels
        return world.api.update(f"{path}/{made}", seen)

    equal(until(put, what="the update")["metadata"]["labels"], labels)


def none_left(world, path, selector):
    until(lambda: not world.api.get(path, labelSelector=selector)["items"], 30, "an empty list")


def life(world, path, body):
    """Created, read, patched, found, deleted; a second one updated and deleted as a collection."""
    made = world.api.create(path, body())
    one = made["metadata"]["name"]
    equal(world.api.get(f"{path}/{one}")["metadata"]["name"], one)
    labelled(world, path, made, "patched")
    equal(len(world.api.get(path, labelSelector=f"{one}=patched")["items"]), 1)
    world.api.delete(f"{path}/{one}")
    none_left(world, path, f"{one}=patched")
    second = world.api.create(path, body())["metadata"]["name"]
    put_label(world, path, second, {second: "updated"})
    equal(len(world.api.get(path, labelSelector=f"{second}=updated")["items"]), 1)
    world.api.delete(path, labelSelector=f"{second}=updated")
    none_left(world, path, f"{second}=updated")


@test("[sig-storage] StorageClasses CSI Conformance should run through the lifecycle of a StorageClass")
def storage_class(world):
    life(world, f"{ROOT}/storageclasses", lambda: {"kind": "StorageClass", "metadata": {"generateName": "e2e-"}, "provisioner": "e2e-fake-provisioner"})


@test("[sig-storage] VolumeAttributesClass should run through the lifecycle of a VolumeAttributesClass")
def attributes_class(world):
    life(world, f"{ROOT}/volumeattributesclasses", lambda: {"metadata": {"generateName": "e2e-"}, "driverName": "e2e-fake-csi-driver", "parameters": {"foo": "bar"}})


@test("[sig-storage] CSINodes CSI Conformance should run through the lifecycle of a csinode")
def csi_node(world):
    # As upstream's client sends it: without drivers, which it writes as null.
    life(world, f"{ROOT}/csinodes", lambda: {"metadata": {"name": name("e2e-csinode")}, "spec": {"drivers": None}})


@test("[sig-storage] CSIInlineVolumes should run through the lifecycle of a CSIDriver")
def csi_driver(world):
    path = f"{ROOT}/csidrivers"
    label = {"e2e-test": world.ns}

    def body(*modes):
        return {
            "metadata": {"name": name("inline-driver"), "labels": label},
            "spec": {"volumeLifecycleModes": list(modes), "fsGroupPolicy": "ReadWriteOnceWithFSType"},
        }

    first = body("Ephemeral")
    made = world.api.create(path, first)
    second = world.api.create(path, body("Persistent", "Ephemeral"))
    refused(lambda: world.api.create(path, first), code=409)
    equal(world.api.get(f"{path}/{made['metadata']['name']}")["metadata"]["uid"], made["metadata"]["uid"])
    two = second["metadata"]["name"]
    labelled(world, path, second, "patched")
    put_label(world, path, two, {**label, two: "updated"})
    equal(len(world.api.get(path, labelSelector=f"e2e-test={world.ns}")["items"]), 2)
    world.api.delete(f"{path}/{made['metadata']['name']}")
    world.gone(f"{path}/{made['metadata']['name']}", 30)
    world.api.delete(path, labelSelector=f"{two}=updated")
    world.gone(f"{path}/{two}", 30)


@test("[sig-storage] CSIInlineVolumes should support CSIVolumeSource in Pod API")
def csi_inline(world):
    driver = {"driver": "e2e.example.com"}
    volumes = [
        {"name": "csi-inline-vol1", "csi": driver},
        {"name": "csi-inline-vol2", "csi": {**driver, "fsType": "ext4", "readOnly": True}},
    ]
    mounts = [{"name": v["name"], "mountPath": f"/mnt/vol{i}"} for i, v in enumerate(volumes)]
    pod = "pod-csi-inline-volumes"
    spec = {"volumes": volumes, "containers": [busybox("ls /mnt/*", pod, volumeMounts=mounts)]}
    made = world.create_pod(spec, pod)
    refused(lambda: world.create_pod(spec, pod), code=409)
    equal(world.get_pod(pod)["metadata"]["uid"], made["metadata"]["uid"])
    equal(len(world.api.get(world.core("pods"))["items"]), 1)
    patched = world.api.patch(world.core("pods", pod), {"metadata": {"annotations": {"patched": "true"}}}, MERGE)
    equal(patched["metadata"]["annotations"]["patched"], "true")
    world.delete_pod(pod)


@test("[sig-storage] CSIStorageCapacity should support CSIStorageCapacities API operations")
def capacities(world):
    bodies = [
        {"metadata": {"name": f"capacity-{i}"}, "storageClassName": f"class-{i}"} for i in range(3)
    ]
    path = world.apis("storage.k8s.io/v1", "csistoragecapacities")
    crud(world, "storage.k8s.io", "csistoragecapacities", path, bodies)
    every = world.api.get("/apis/storage.k8s.io/v1/csistoragecapacities", labelSelector=f"test={world.ns}")
    equal(every["items"], [])


# === Attachments ===

ATTACHMENTS = f"{ROOT}/volumeattachments"


def attachment(world):
    made = name("va")
    node = world.nodes()[0]["metadata"]["name"]
    source = {"persistentVolumeName": made.replace("va", "pv", 1)}
    # Upstream's sets a uid; the server gives its own.
    return {
        "metadata": {"name": made, "uid": made},
        "spec": {"attacher": "e2e-test.storage.k8s.io", "nodeName": node, "source": source},
        "status": {"attached": False},
    }


@test("[sig-storage] VolumeAttachment Conformance should run through the lifecycle of a VolumeAttachment")
def attachment_life(world):
    made = world.api.create(ATTACHMENTS, attachment(world))
    one = made["metadata"]["name"]
    labelled(world, ATTACHMENTS, made, "patched")
    equal(len(world.api.get(ATTACHMENTS, labelSelector=f"{one}=patched")["items"]), 1)
    world.api.delete(f"{ATTACHMENTS}/{one}")
    none_left(world, ATTACHMENTS, f"{one}=patched")
    for _ in range(2):
        made = world.api.create(ATTACHMENTS, attachment(world))["metadata"]["name"]
        put_label(world, ATTACHMENTS, made, {"va-e2e": world.ns})
    world.api.delete(ATTACHMENTS, labelSelector=f"va-e2e={world.ns}")
    none_left(world, ATTACHMENTS, f"va-e2e={world.ns}")


@test("[sig-storage] VolumeAttachment Conformance should apply changes to a volumeattachment status")
def attachment_status(world):
    made = world.api.create(ATTACHMENTS, attachment(world))
    path = f"{ATTACHMENTS}/{made['metadata']['name']}"
    labelled(world, ATTACHMENTS, made, "patched")
    check(not world.api.get(path + "/status").get("status", {}).get("attached"))
    patched = world.api.patch(path + "/status", {"status": {"attached": True}}, MERGE)
    equal(patched["status"]["attached"], True)
    seen = world.api.get(path)
    seen["status"] = {"attached": False}
    equal(world.api.update(path + "/status", seen)["status"]["attached"], False)
    world.api.delete(path)
    world.gone(path, 30)


# === Persistent volumes and claims ===

VOLUMES = "/api/v1/persistentvolumes"


def pair(world, size="2Gi"):
    """A volume and a claim that upstream's tests make; they are never bound to each other."""
    volume = {
        "metadata": {"generateName": "pv-", "labels": {"e2e-pv-pool": world.ns}},
        "spec": {
            "persistentVolumeReclaimPolicy": "Retain", "capacity": {"storage": size},
            "csi": {"driver": "e2e-driver", "volumeHandle": f"e2e-pv-{world.ns}"},
            "accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": ["nowhere"]}
            ]}]}},
        },
    }
    claim = {
        "metadata": {"generateName": "pvc-"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "resources": {"requests": {"storage": "1Gi"}},
            "selector": {"matchLabels": {"e2e-pv-pool": "another"}},
        },
    }
    claims = world.core("persistentvolumeclaims")
    return world.api.create(VOLUMES, volume), world.api.create(claims, claim), claims


@test("[sig-storage] PersistentVolumes CSI Conformance should run through the lifecycle of a PV and a PVC")
def volume_life(world):
    volume, claim, claims = pair(world)
    selector = f"e2e-pv-pool={world.ns}"
    equal(len(world.api.get(VOLUMES, labelSelector=selector)["items"]), 1)
    equal(len(world.api.get(claims)["items"]), 1)
    for path, object in ((VOLUMES, volume), (claims, claim)):
        one = f"{path}/{object['metadata']['name']}"
        world.api.patch(one, {"metadata": {"labels": {object["metadata"]["name"]: "patched"}}}, STRATEGIC)
        seen = world.api.get(one)
        equal(seen["metadata"]["labels"][object["metadata"]["name"]], "patched")
        equal(seen["metadata"]["uid"], object["metadata"]["uid"])
    for path, object in ((claims, claim), (VOLUMES, volume)):
        world.api.delete(f"{path}/{object['metadata']['name']}")
        world.gone(f"{path}/{object['metadata']['name']}", 60)
    volume, claim, claims = pair(world)
    for path, object in ((VOLUMES, volume), (claims, claim)):
        put_label(world, path, object["metadata"]["name"], {"e2e-pv-pool": world.ns, "x": "updated"})
    for path in (claims, VOLUMES):
        world.api.delete(path, labelSelector=f"x=updated,{selector}")
        none_left(world, path, f"x=updated,{selector}")


@test("[sig-storage] PersistentVolumes CSI Conformance should apply changes to a pv/pvc status")
def volume_status(world):
    volume, claim, claims = pair(world)
    volume_path = f"{VOLUMES}/{volume['metadata']['name']}"
    claim_path = f"{claims}/{claim['metadata']['name']}"
    until(lambda: world.api.get(claim_path + "/status")["status"].get("phase") == "Pending", 30, "a phase of the claim")
    until(lambda: world.api.get(volume_path + "/status")["status"].get("phase") in ("Available", "Pending"), 30, "a phase of the volume")
    said = {"type": "StatusPatched", "status": "True", "reason": "E2E patchedStatus", "message": "Set from e2e test"}
    patched = world.api.patch(claim_path + "/status", {"status": {"conditions": [said]}}, STRATEGIC)
    check("StatusPatched" in [c["type"] for c in patched["status"]["conditions"]], patched["status"])
    patched = world.api.patch(volume_path + "/status", {"status": {"message": "StatusPatched", "reason": "E2E patchStatus"}}, STRATEGIC)
    equal((patched["status"]["message"], patched["status"]["reason"]), ("StatusPatched", "E2E patchStatus"))

    def put(path, change):
        def once():
            seen = world.api.get(path)
            change(seen["status"])
            return world.api.update(path + "/status", seen)

        return until(once, 30, "the status to be put")

    other = {"type": "StatusUpdated", "status": "True", "reason": "E2E updatedStatus", "message": "Set from an e2e test"}
    seen = put(claim_path, lambda s: s.setdefault("conditions", []).append(other))
    check("StatusUpdated" in [c["type"] for c in seen["status"]["conditions"]], seen["status"])
    seen = put(volume_path, lambda s: s.update(reason="E2E updateStatus", message="StatusUpdated"))
    equal((seen["status"]["message"], seen["status"]["reason"]), ("StatusUpdated", "E2E updateStatus"))
    world.api.delete(claim_path)
    world.api.delete(volume_path)
    world.gone(claim_path, 60)
    world.gone(volume_path, 60)
