"""[sig-api-machinery]: test/e2e/apimachinery/webhook.go."""

import uuid

from frame import JSON, PAUSE, STRATEGIC, Refused, check, container, equal, refused, test, word

from .definitions import Definition
from .deployed import PORT, deploy
from .operations import discovery

GROUP = "[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin]"
V1 = "/apis/admissionregistration.k8s.io/v1"
VALIDATING, MUTATING = f"{V1}/validatingwebhookconfigurations", f"{V1}/mutatingwebhookconfigurations"
SERVICE = "e2e-test-webhook"
UNWANTED = {"webhook-e2e-test": "webhook-disallow"}


class Hooks:
    """The webhook server of a test, and the namespace for requests that show that a configuration holds."""

    def __init__(self, w):
        self.w, self.label = w, w.ns
        self.certificate = deploy(w, "webhook", SERVICE)
        w.api.patch(f"/api/v1/namespaces/{w.ns}", {"metadata": {"labels": {self.label: "true"}}}, STRATEGIC)
        self.markers = namespace(w, f"{w.ns}-markers"[-60:], {f"{self.label}-markers": "true"})

    def hook(self, name, path, operations, resources, group="", versions=("v1",), **more):
        """A webhook for this test's namespace."""
        return {
            "name": f"{name}.k8s.io", "sideEffects": "None", "admissionReviewVersions": ["v1", "v1beta1"],
            "rules": [{"operations": operations, "apiGroups": [group], "apiVersions": list(versions), "resources": resources}],
            "clientConfig": {"caBundle": self.certificate.ca, "service": {
                "namespace": self.w.ns, "name": SERVICE, "path": path, "port": PORT}},
            "namespaceSelector": {"matchLabels": {self.label: "true"}}, **more}

    def without_ca(self, hook):
        hook["clientConfig"].pop("caBundle")
        return hook

    def deny_pods(self):
        return self.hook("deny-unwanted-pod-container-name-and-label", "/pods", ["CREATE"], ["pods"])

    def deny_configmaps(self):
        selector = {"matchLabels": {self.label: "true"}, "matchExpressions": [
            {"key": "skip-webhook-admission", "operator": "NotIn", "values": ["yes"]}]}
        return self.hook("deny-unwanted-configmap-data", "/configmaps", ["CREATE", "UPDATE", "DELETE"], ["configmaps"],
                         namespaceSelector=selector)

    def mutate_configmaps(self, stage, **more):
        return self.hook(f"adding-configmap-data-stage-{stage}", "/mutating-configmaps", ["CREATE"], ["configmaps"], **more)

    def unreachable(self, name, **more):
        return self.without_ca(self.hook(name, "/configmaps", ["CREATE"], ["configmaps"], **more))

    def ready(self, kind):
        return self.hook(f"{kind}-is-webhook-configuration-ready", "/always-deny", ["CREATE"], ["configmaps"],
                         failurePolicy="Ignore", namespaceSelector={"matchLabels": {f"{self.label}-markers": "true"}},
                         objectSelector={"matchLabels": {self.label: "true"}})

    def create(self, kind, hooks, name=None, labels=None):
        """Creates a configuration that goes with the test."""
        name = name or self.w.ns
        word = "validating" if kind == VALIDATING else "mutating"
        made = self.w.api.create(kind, {"metadata": {"name": name, "labels": labels or {}}, "webhooks": [*hooks, self.ready(word)]})
        self.w.cleanups.append(lambda: self.w.api.delete(f"{kind}/{name}"))
        return made

    def register(self, kind, *hooks, name=None):
        made = self.create(kind, hooks, name)
        self.wait()
        return made

    def wait(self):
        path = self.w.core("configmaps", ns=self.markers)

        def denied():
            name = str(uuid.uuid4())
            try:
                self.w.api.create(path, {"metadata": {"name": name, "labels": {self.label: "true"}}})
            except Refused as refused:
                check("denied" in refused.text, refused.text)
                return True
            self.w.api.delete(f"{path}/{name}")
            return False

        self.w.until(denied, 30, "the configuration holds", every=0.1)


def namespace(w, name, labels):
    w.api.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
    w.cleanups.append(lambda: w.api.delete(f"/api/v1/namespaces/{name}"))
    return name


def configmap(name, data=None):
    return {"metadata": {"name": name}, "data": data or {}}


def pod(w, name, container_name, label=None):
    labels = {"webhook-e2e-test": label} if label else {}
    return w.pod(name, labels=labels, containers=[container(container_name, PAUSE)])


@test(f"{GROUP} should include webhook resources in discovery documents")
def in_discovery(w):
    discovery(w, "admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations", "validatingwebhookconfigurations")
    equal(w.api.get(V1)["groupVersion"], "admissionregistration.k8s.io/v1", "groupVersion")


@test(f"{GROUP} should be able to deny pod and configmap creation")
def deny_create(w):
    hooks = Hooks(w)
    hooks.register(VALIDATING, hooks.deny_pods(), hooks.deny_configmaps(), hooks.unreachable("fail-open", failurePolicy="Ignore"))
    create_pod = lambda body: (lambda: w.api.create(w.core("pods"), body))
    refused(create_pod(pod(w, "disallowed-pod", "webhook-disallow", "webhook-disallow")),
            "the pod contains unwanted container name", "the pod contains unwanted label")
    refused(create_pod(pod(w, "hanging-pod", "wait-forever", "wait-forever")), "webhook", "deadline")
    check(not w.exists(w.core("pods", "hanging-pod")), "the pod is not there")
    path, message = w.core("configmaps"), "the configmap contains unwanted key and value"
    refused(lambda: w.api.create(path, configmap("disallowed-configmap", UNWANTED)), message)
    w.api.create(path, configmap("allowed-configmap", {"admit": "this"}))
    at = f"{path}/allowed-configmap"
    refused(lambda: w.api.retry_update(at, lambda c: c["data"].update(UNWANTED)), message)
    refused(lambda: w.api.patch(at, {"data": UNWANTED}, STRATEGIC), message)
    skipped = namespace(w, f"exempted-{word()}", {"skip-webhook-admission": "yes", hooks.label: "true"})
    w.api.create(w.core("configmaps", ns=skipped), configmap("disallowed-configmap", UNWANTED))


@test(f"{GROUP} should be able to deny attaching pod")
def deny_attach(w):
    hooks = Hooks(w)
    hooks.register(VALIDATING, hooks.hook("deny-attaching-pod", "/pods/attach", ["CONNECT"], ["pods/attach"]))
    w.api.create(w.core("pods"), pod(w, "to-be-attached-pod", "container1"))
    w.phase("to-be-attached-pod", "Running")
    said = w.try_kubectl("attach", f"--namespace={w.ns}", "to-be-attached-pod", "-i", "-c=container1", timeout=30)
    check(said.returncode and "attaching to pod 'to-be-attached-pod' is not allowed" in said.stderr, said.stderr)


@test(f"{GROUP} should be able to deny custom resource creation, update and deletion")
def deny_custom(w):
    crd, hooks = Definition(w), Hooks(w)
    hooks.register(VALIDATING, hooks.hook("deny-unwanted-custom-resource-data", "/custom-resource",
                                          ["CREATE", "UPDATE", "DELETE"], [crd.plural], crd.group))
    unwanted = "the custom resource contains unwanted data"
    refused(lambda: crd.create("cr-instance-1", data=UNWANTED), unwanted)
    crd.create("cr-instance-2", data={"webhook-e2e-test": "webhook-nondeletable"})
    at = crd.path("cr-instance-2")
    refused(lambda: w.api.retry_update(at, lambda o: o["data"].update(UNWANTED)), unwanted)
    refused(lambda: w.api.delete(at), "the custom resource cannot be deleted because it contains unwanted key and value")
    w.api.retry_update(at, lambda o: o["data"].update({"webhook-e2e-test": "webhook-allow"}))
    w.api.delete(at)


@test(f"{GROUP} should unconditionally reject operations on fail closed webhook")
def fail_closed(w):
    hooks = Hooks(w)
    selector = {"matchLabels": {hooks.label: "true"},
                "matchExpressions": [{"key": "fail-closed-webhook", "operator": "In", "values": ["yes"]}]}
    hooks.register(VALIDATING, hooks.unreachable("fail-closed", failurePolicy="Fail", namespaceSelector=selector))
    closed = namespace(w, f"fail-closed-{word()}", {"fail-closed-webhook": "yes", hooks.label: "true"})
    said = refused(lambda: w.api.create(w.core("configmaps", ns=closed), configmap("foo")))
    equal((said.code, said.reason), (500, "InternalError"), "refused")


@test(f"{GROUP} should mutate configmap")
def mutate_configmap(w):
    hooks = Hooks(w)
    hooks.register(MUTATING, hooks.mutate_configmaps(1), hooks.mutate_configmaps(2))
    made = w.api.create(w.core("configmaps"), configmap("to-be-mutated", {"mutation-start": "yes"}))
    equal(made["data"], {"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"}, "data")


@test(f"{GROUP} should mutate pod and apply defaults after mutation")
def mutate_pod(w):
    hooks = Hooks(w)
    hooks.register(MUTATING, hooks.hook("adding-init-container", "/mutating-pods", ["CREATE"], ["pods"]))
    made = w.api.create(w.core("pods"), pod(w, "webhook-to-be-mutated", "example"))["spec"]["initContainers"]
    equal([(c["name"], c["terminationMessagePolicy"]) for c in made], [("webhook-added-init-container", "File")], "init containers")


@test(f"{GROUP} should not be able to mutate or prevent deletion of webhook configuration objects")
def not_of_webhooks(w):
    hooks = Hooks(w)
    resources = ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"]
    group = {"group": "admissionregistration.k8s.io", "versions": ["*"], "failurePolicy": "Fail"}
    hooks.register(VALIDATING, hooks.hook("deny-webhook-configuration-deletions", "/always-deny", ["DELETE"], resources, **group),
                   name=f"{w.ns}-blocking")
    hooks.register(MUTATING, hooks.hook("add-label-to-webhook-configurations", "/add-label", ["CREATE"], resources, **group),
                   name=f"{w.ns}-blocking")
    for kind, name in [(VALIDATING, "dummy-validating-webhook"), (MUTATING, "dummy-mutating-webhook")]:
        dummy = hooks.without_ca(hooks.hook(name, "", ["CREATE"], ["invalid"], failurePolicy="Ignore"))
        made = hooks.register(kind, dummy)
        check("added-label" not in made["metadata"].get("labels", {}), made)
        w.api.delete(f"{kind}/{w.ns}")


def mutate_custom(hooks, crd, versions):
    hook = lambda stage, operations: hooks.hook(f"mutate-custom-resource-data-stage-{stage}", "/mutating-custom-resource",
                                                operations, [crd.plural], crd.group, versions)
    hooks.register(MUTATING, hook(1, ["CREATE", "UPDATE"]), hook(2, ["CREATE"]))


@test(f"{GROUP} should mutate custom resource")
def mutate_custom_resource(w):
    crd, hooks = Definition(w), Hooks(w)
    mutate_custom(hooks, crd, ["v1"])
    made = crd.create("cr-instance-1", data={"mutation-start": "yes"})
    equal(made["data"], {"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"}, "data")


@test(f"{GROUP} should deny crd creation")
def deny_definition(w):
    hooks = Hooks(w)
    hook = hooks.hook("deny-crd-with-unwanted-label", "/crd", ["CREATE"], ["customresourcedefinitions"], "apiextensions.k8s.io",
                      ["*"], objectSelector={"matchLabels": {hooks.label: "true"}})
    hook.pop("namespaceSelector")
    hooks.register(VALIDATING, hook)
    refused(lambda: Definition(w, labels={hooks.label: "true", **UNWANTED}), "the crd contains unwanted label")


@test(f"{GROUP} should mutate custom resource with different stored version")
def mutate_stored(w):
    crd, hooks = Definition(w, versions=["v1", "v2"]), Hooks(w)
    mutate_custom(hooks, crd, ["v1", "v2"])
    crd.create("cr-instance-1", data={"mutation-start": "yes"})
    # Upstream sends a strategic merge patch, and both versions whole.
    crd.patch({"spec": {"versions": [crd.version("v1", False), crd.version("v2", True)]}}, STRATEGIC)
    found = w.api.patch(crd.path("cr-instance-1", "v2"), [{"op": "add", "path": "/dummy", "value": "test"}], JSON)
    equal(found["data"], {"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"}, "data")
    equal(found["dummy"], "test", "dummy")


@test(f"{GROUP} should mutate custom resource with pruning")
def mutate_pruned(w):
    data = {"type": "object", "properties": {"mutation-start": {"type": "string"}, "mutation-stage-1": {"type": "string"}}}
    crd = Definition(w, versions=["v1", "v2"], schema={"type": "object", "properties": {"data": data}})
    mutate_custom(Hooks(w), crd, ["v1", "v2"])
    made = crd.create("cr-instance-1", data={"mutation-start": "yes"})
    equal(made["data"], {"mutation-start": "yes", "mutation-stage-1": "yes"}, "data")


@test(f"{GROUP} should honor timeout")
def timeouts(w):
    hooks, path = Hooks(w), w.core("configmaps")

    def slow(policy, seconds):
        hook = hooks.hook("allow-configmap-with-delay-webhook", "/always-allow-delay-5s", ["CREATE"], ["configmaps"], failurePolicy=policy)
        hooks.register(VALIDATING, hook | ({"timeoutSeconds": seconds} if seconds else {}))

    def allowed():
        w.api.create(path, configmap("e2e-test-slow-webhook-configmap"))
        w.api.delete(f"{path}/e2e-test-slow-webhook-configmap")
        w.api.delete(f"{VALIDATING}/{w.ns}")

    slow("Fail", 1)
    said = refused(lambda: w.api.create(path, configmap("e2e-test-slow-webhook-configmap")), "/always-allow-delay-5s?timeout=1s")
    check("context deadline exceeded" in said.text or "timeout" in said.text, said.text)
    w.api.delete(f"{VALIDATING}/{w.ns}")
    for policy, seconds in [("Ignore", 1), ("Fail", 10), ("Fail", None)]:
        slow(policy, seconds)
        allowed()


def eventually(w, what, attempt):
    """Creates ConfigMaps until one fares as wanted; deletes those that were created."""

    def condition():
        name = str(uuid.uuid4())
        try:
            made = w.api.create(w.core("configmaps"), configmap(name, what))
        except Refused as said:
            check("denied" in said.text, said.text)
            return attempt(None)
        w.api.delete(w.core("configmaps", name))
        return attempt(made)

    w.until(condition, 30, "as wanted", every=0.1)


DENIED = (UNWANTED, lambda made: made is None)
ALLOWED = (UNWANTED, lambda made: made is not None)
MUTATED = ({"mutation-start": "yes"}, lambda made: "mutation-stage-1" in made["data"])
UNTOUCHED = ({"mutation-start": "yes"}, lambda made: "mutation-stage-1" not in made["data"])


def changing(w, kind, hook_of, applied, not_applied):
    hooks = Hooks(w)
    hooks.register(kind, hook_of(hooks))
    at = f"{kind}/{w.ns}"
    eventually(w, *applied)
    w.api.retry_update(at, lambda c: c["webhooks"][0]["rules"][0].update(operations=["UPDATE"]))
    eventually(w, *not_applied)
    w.api.patch(at, [{"op": "replace", "path": "/webhooks/0/rules/0/operations", "value": ["CREATE"]}], JSON)
    eventually(w, *applied)


@test(f"{GROUP} patching/updating a validating webhook should work")
def change_validating(w):
    changing(w, VALIDATING, Hooks.deny_configmaps, DENIED, ALLOWED)


@test(f"{GROUP} patching/updating a mutating webhook should work")
def change_mutating(w):
    changing(w, MUTATING, lambda hooks: hooks.mutate_configmaps(1), MUTATED, UNTOUCHED)


def listing(w, kind, hook_of, applied, not_applied):
    hooks, of = Hooks(w), str(uuid.uuid4())
    for index in range(10):
        hooks.create(kind, [hook_of(hooks)], f"{w.ns}-{index}", {"e2e-list-test-uuid": of})
    selector = f"?labelSelector=e2e-list-test-uuid%3D{of}"
    equal(len(w.api.get(kind + selector)["items"]), 10, "listed")
    hooks.wait()
    eventually(w, *applied)
    w.api.call("DELETE", kind + selector)
    eventually(w, *not_applied)


@test(f"{GROUP} listing validating webhooks should work")
def list_validating(w):
    listing(w, VALIDATING, Hooks.deny_configmaps, DENIED, ALLOWED)


@test(f"{GROUP} listing mutating webhooks should work")
def list_mutating(w):
    listing(w, MUTATING, lambda hooks: hooks.mutate_configmaps(1), MUTATED, UNTOUCHED)


def conditional(hooks, kind, conditions):
    if kind == VALIDATING:
        return hooks.hook("validation-webhook-with-match-conditions", "/always-deny", ["CREATE"], ["configmaps"],
                          matchPolicy="Equivalent", admissionReviewVersions=["v1"], matchConditions=conditions)
    return hooks.hook("adding-configmap-data", "/mutating-configmaps", ["CREATE"], ["configmaps"], matchConditions=conditions)


def conditions_kept(w, kind):
    hooks = Hooks(w)
    first = [{"name": "expression-1", "expression": "object.metadata.namespace == 'production'"}]
    both = [*first, {"name": "expression-2", "expression": "object.metadata.namespace == 'staging'"}]
    hooks.create(kind, [conditional(hooks, kind, first)])
    at = f"{kind}/{w.ns}"
    found = w.api.get(at)
    equal(found["webhooks"][0]["matchConditions"], first, "created")
    found["webhooks"][0]["matchConditions"] = both
    w.api.update(at, found)
    equal(w.api.get(at)["webhooks"][0]["matchConditions"], both, "updated")


@test(f"{GROUP} should be able to create and update validating webhook configurations with match conditions")
def validating_conditions(w):
    conditions_kept(w, VALIDATING)


@test(f"{GROUP} should be able to create and update mutating webhook configurations with match conditions")
def mutating_conditions(w):
    conditions_kept(w, MUTATING)


def bad_condition(w, kind):
    hooks = Hooks(w)
    bad = [{"name": "invalid-expression-1", "expression": "... [] bad expression"}]
    refused(lambda: hooks.create(kind, [conditional(hooks, kind, bad)]), "compilation failed")


@test(f"{GROUP} should reject validating webhook configurations with invalid match conditions")
def bad_validating(w):
    bad_condition(w, VALIDATING)


@test(f"{GROUP} should reject mutating webhook configurations with invalid match conditions")
def bad_mutating(w):
    bad_condition(w, MUTATING)


@test(f"{GROUP} should mutate everything except 'skip-me' configmaps")
def skip_me(w):
    hooks = Hooks(w)
    hooks.register(MUTATING, hooks.mutate_configmaps(1, matchConditions=[
        {"name": "skip-me", "expression": "object.metadata.name != 'skip-me'"}]))
    create = lambda name: w.api.create(w.core("configmaps"), configmap(name, {"mutation-start": "yes"}))["data"]
    equal(create(str(uuid.uuid4())), {"mutation-start": "yes", "mutation-stage-1": "yes"}, "mutated")
    equal(create("skip-me"), {"mutation-start": "yes"}, "skipped")
