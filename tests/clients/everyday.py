"""What programs do every day with the Python client: list, watch, create, patch, exec, delete."""

import threading

from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import stream

config.load_kube_config()
core = client.CoreV1Api()
apps = client.AppsV1Api()

assert [n.metadata.name for n in core.list_node().items], "there must be a node"

pod = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "one", "labels": {"app": "one"}},
    "spec": {
        "containers": [
            {"name": "c", "image": "peapod.dev/demo:v1", "args": ["serve"]},
        ]
    },
}
seen = []
running = threading.Event()


def follow():
    for event in watch.Watch().stream(
        core.list_namespaced_pod, "default", label_selector="app=one", timeout_seconds=60
    ):
        seen.append(event["type"])
        if event["object"].status.phase == "Running":
            running.set()
        if event["type"] == "DELETED":
            return


follower = threading.Thread(target=follow)
follower.start()
core.create_namespaced_pod("default", pod)
assert running.wait(60), f"the pod does not run; seen {seen}"

try:
    core.create_namespaced_pod("default", pod)
    raise AssertionError("creating twice must fail")
except ApiException as error:
    assert error.status == 409, error

patched = core.patch_namespaced_pod("one", "default", {"metadata": {"labels": {"more": "yes"}}})
assert patched.metadata.labels == {"app": "one", "more": "yes"}, patched.metadata.labels

said = stream(
    core.connect_get_namespaced_pod_exec,
    "one",
    "default",
    command=["peapod-demo", "get", "http://127.0.0.1:8080/"],
    stderr=True,
    stdin=False,
    stdout=True,
    tty=False,
)
assert "hello v1 from" in said, said
assert "serving on" in core.read_namespaced_pod_log("one", "default")

page = core.list_namespaced_pod("default", limit=1)
assert len(page.items) == 1
assert core.read_namespaced_pod("one", "default").status.pod_ip

deployment = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "two"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "two"}},
        "template": {
            "metadata": {"labels": {"app": "two"}},
            "spec": {"containers": [{"name": "c", "image": "peapod.dev/demo:v1"}]},
        },
    },
}
apps.create_namespaced_deployment("default", deployment)
apps.patch_namespaced_deployment_scale("two", "default", {"spec": {"replicas": 1}})
assert apps.read_namespaced_deployment_scale("two", "default").spec.replicas == 1
apps.delete_namespaced_deployment("two", "default", propagation_policy="Foreground")

kinds = client.ApiextensionsV1Api()
custom = client.CustomObjectsApi()
definition = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {"size": {"type": "integer", "default": 1, "maximum": 9}},
                                "x-kubernetes-validations": [
                                    {"rule": "self.size >= oldSelf.size", "message": "may not shrink"}
                                ],
                            },
                            "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}},
                        },
                    }
                },
            }
        ],
    },
}
kinds.create_custom_resource_definition(definition)
for event in watch.Watch().stream(kinds.list_custom_resource_definition, timeout_seconds=60):
    conditions = event["object"].status.conditions or []
    if any(c.type == "Established" and c.status == "True" for c in conditions):
        break
where = ("example.com", "v1", "default", "widgets")
widget = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {}}
assert custom.create_namespaced_custom_object(*where, widget)["spec"] == {"size": 1}
custom.patch_namespaced_custom_object(*where, "w", {"spec": {"size": 3}})
ready = custom.patch_namespaced_custom_object_status(*where, "w", {"status": {"ready": True}})
assert ready["status"] == {"ready": True} and ready["metadata"]["generation"] == 2, ready
for size, told in [(10, "less than or equal to 9"), (2, "may not shrink")]:
    try:
        custom.patch_namespaced_custom_object(*where, "w", {"spec": {"size": size}})
        raise AssertionError(f"a size of {size} must be refused")
    except ApiException as error:
        assert error.status == 422 and told in error.body, error
custom.delete_namespaced_custom_object(*where, "w")
kinds.delete_custom_resource_definition("widgets.example.com")

core.delete_namespaced_pod("one", "default", grace_period_seconds=1)
follower.join(60)
assert not follower.is_alive(), f"the deletion was not seen: {seen}"
assert seen[0] == "ADDED" and seen[-1] == "DELETED", seen
print("all done")
