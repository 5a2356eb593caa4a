"""[sig-api-machinery]: test/e2e/apimachinery/{validatingadmissionpolicy,mutatingadmissionpolicy,flowcontrol}.go."""

from frame import MERGE, STRATEGIC, Refused, check, container, equal, test

from .operations import discovery, operations, removals

SIG = "[sig-api-machinery]"
POLICIES = f"{SIG} ValidatingAdmissionPolicy [Privileged:ClusterAdmin]"
V1 = "/apis/admissionregistration.k8s.io/v1"
POLICY, BINDING = f"{V1}/validatingadmissionpolicies", f"{V1}/validatingadmissionpolicybindings"


def rule(group, version, resource):
    return {"apiGroups": [group], "apiVersions": [version], "resources": [resource], "operations": ["CREATE", "UPDATE"]}


def enforce(w, **spec):
    """A policy for Deployments of this namespace, once it denies one of a single replica."""
    w.api.patch(f"/api/v1/namespaces/{w.ns}", {"metadata": {"labels": {w.ns: "true"}}}, STRATEGIC)
    selector = {"namespaceSelector": {"matchLabels": {w.ns: "true"}}}
    policy, binding = f"{w.ns}.policy.example.com", f"{w.ns}.binding.example.com"
    w.api.create(POLICY, {"metadata": {"name": policy}, "spec": {
        "matchConstraints": {**selector, "resourceRules": [rule("apps", "v1", "deployments")]}, **spec}})
    w.cleanups.append(lambda: w.api.delete(f"{POLICY}/{policy}"))
    w.api.create(BINDING, {"metadata": {"name": binding}, "spec": {
        "policyName": policy, "matchResources": selector, "validationActions": ["Deny"]}})
    w.cleanups.append(lambda: w.api.delete(f"{BINDING}/{binding}"))

    def denied():
        try:
            create(w, "deployments", "marker-deployment", 1)
        except Refused as said:
            equal((said.code, said.reason), (422, "Invalid"), "refused")
            return True
        return False

    w.until(denied, 60, "the marker is denied", every=0.1)


def create(w, kind, name, replicas):
    labels, path = {"app": "nginx"}, w.apis("apps/v1", kind)
    made = w.api.create(path, {"metadata": {"name": name, "labels": labels}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container("nginx", "nginx:latest")]}}}})
    w.api.delete(f"{path}/{name}")
    return made


@test(f"{POLICIES} should validate against a Deployment")
def of_deployments(w):
    enforce(w, validations=[
        {"expression": "object.spec.replicas > 1",
         "messageExpression": "'wants replicas > 1, got ' + object.spec.replicas"},
        {"expression": f"namespaceObject.metadata.name == '{w.ns}'", "message": "Internal error! Other namespace should not be allowed."}])
    create(w, "deployments", "replicated", 2)
    create(w, "replicasets", "non-replicated", 1)


@test(f"{POLICIES} should allow expressions to refer variables.")
def variables(w):
    enforce(w, variables=[{"name": "replicas", "expression": "object.spec.replicas"},
                          {"name": "oddReplicas", "expression": "variables.replicas % 2 == 1"}],
            validations=[{"expression": "variables.replicas > 1"}, {"expression": "variables.oddReplicas"}])
    create(w, "deployments", "replicated", 3)
    create(w, "replicasets", "non-replicated", 1)


def statuses(w, path, made, patched, updated):
    """get, patch and update of /status."""
    at = f"{path}/{made['metadata']['name']}/status"
    found = w.api.get(at)
    equal((found["kind"], found["metadata"]["uid"]), (made["kind"], made["metadata"]["uid"]), "/status")
    types = lambda found: [c["type"] for c in found["status"]["conditions"]]
    check(patched["type"] in types(w.api.patch(at, {"status": {"conditions": [patched]}}, MERGE)), "patched")
    append = lambda found: found["status"].setdefault("conditions", []).append(updated)
    check(updated["type"] in types(w.api.retry_update(at, append)), "updated")


@test(f"{POLICIES} should support ValidatingAdmissionPolicy API operations")
def policy_api(w):
    discovery(w, "admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", "validatingadmissionpolicies/status")
    template = {"spec": {"matchConstraints": {"namespaceSelector": {"matchLabels": {w.ns: "true"}},
                                              "resourceRules": [rule("apps", "v1", "deployments")]},
                         "validations": [{"expression": "object.spec.replicas <= 100", "messageExpression": "'wants replicas <= 100'"}]}}
    name, made, _, selector = operations(w, POLICY, template, label="example-e2e-vap-label")
    failed = {"reason": "e2e", "message": "Set from an e2e test", "lastTransitionTime": "2024-01-01T00:00:00Z"}
    statuses(w, POLICY, made, {"type": "PatchStatusFailed", "status": "False", **failed},
             {"type": "StatusUpdateFailed", "status": "False", **failed})
    removals(w, POLICY, name, selector)


@test(f"{POLICIES} should support ValidatingAdmissionPolicyBinding API operations")
def binding_api(w):
    discovery(w, "admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings")
    template = {"spec": {"policyName": "replicalimit-policy.example.com", "validationActions": ["Deny"]}}
    name, _, _, selector = operations(w, BINDING, template, label="example-e2e-vapb-label")
    removals(w, BINDING, name, selector)


# === mutating ===

MUTATING = f"{SIG} MutatingAdmissionPolicy [Privileged:ClusterAdmin]"
MUTATION = f"{V1}/mutatingadmissionpolicies"
MUTATION_BINDING = f"{V1}/mutatingadmissionpolicybindings"
AS_V1 = "by v1, where upstream's sources that were at hand have v1beta1"


def annotate(name, value):
    expression = f'Object{{metadata: Object.metadata{{annotations: {{"{name}": "{value}"}}}}}}'
    return {"reinvocationPolicy": "Never",
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]}


@test(f"{MUTATING} should mutate a Deployment", AS_V1)
def mutate(w):
    w.api.patch(f"/api/v1/namespaces/{w.ns}", {"metadata": {"labels": {w.ns: "true"}}}, STRATEGIC)
    selector, name = {"namespaceSelector": {"matchLabels": {w.ns: "true"}}}, f"{w.ns}.policy.example.com"
    w.api.create(MUTATION, {"metadata": {"name": name}, "spec": {
        "matchConstraints": {**selector, "resourceRules": [rule("apps", "v1", "deployments")]}, **annotate("mutated-by", "admission-policy")}})
    w.cleanups.append(lambda: w.api.delete(f"{MUTATION}/{name}"))
    w.api.create(MUTATION_BINDING, {"metadata": {"name": name}, "spec": {"policyName": name, "matchResources": selector}})
    w.cleanups.append(lambda: w.api.delete(f"{MUTATION_BINDING}/{name}"))
    w.until(lambda: create(w, "deployments", "test-deployment", 2)["metadata"].get("annotations", {}).get("mutated-by") == "admission-policy",
            30, "it is mutated")


@test(f"{MUTATING} should support MutatingAdmissionPolicy API operations", AS_V1)
def mutating_api(w):
    discovery(w, "admissionregistration.k8s.io", "v1", "mutatingadmissionpolicies")
    template = {"spec": {"matchConstraints": {"resourceRules": [rule("apps", "v1", "deployments")], "namespaceSelector": {"matchLabels": {w.ns: "true"}}},
                         **annotate("my-foo-annotation", "myAnnotationValue")}}
    name, made, _, selector = operations(w, MUTATION, template, update=lambda p: p["spec"].update(failurePolicy="Ignore"), label="example-e2e-map-label")
    equal(made["spec"]["failurePolicy"], "Ignore", "updated")
    removals(w, MUTATION, name, selector)


@test(f"{MUTATING} should support MutatingAdmissionPolicyBinding API operations", AS_V1)
def mutating_binding_api(w):
    discovery(w, "admissionregistration.k8s.io", "v1", "mutatingadmissionpolicybindings")
    template = {"spec": {"policyName": "replicalimit-policy.example.com"}}
    name, _, _, selector = operations(w, MUTATION_BINDING, template, label="example-e2e-mapb-label")
    removals(w, MUTATION_BINDING, name, selector)


# === priority and fairness ===

FLOWS = f"{SIG} API priority and fairness"
FLOW = "/apis/flowcontrol.apiserver.k8s.io/v1"


def flow_api(w, kind, spec, change, changed):
    discovery(w, "flowcontrol.apiserver.k8s.io", "v1", kind, f"{kind}/status")
    path = f"{FLOW}/{kind}"
    name, made, _, selector = operations(w, path, {"spec": spec}, update=change, label="example-e2e-label")
    equal(changed(made), True, "changed")
    # Typed clients write conditions without a time.
    statuses(w, path, made, {"type": "PatchStatusFailed", "status": "False", "reason": "e2e"},
             {"type": "StatusUpdateFailed", "status": "False", "lastTransitionTime": None, "reason": "E2E", "message": "Set from an e2e test"})
    removals(w, path, name, selector)


@test(f"{FLOWS} should support FlowSchema API operations")
def flow_schemas(w):
    spec = {"matchingPrecedence": 10000, "priorityLevelConfiguration": {"name": "global-default"},
            "distinguisherMethod": {"type": "ByUser"}, "rules": [{
                "subjects": [{"kind": "User", "user": {"name": "example-e2e-non-existent-user"}}],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}
    flow_api(w, "flowschemas", spec, lambda f: f["spec"].update(matchingPrecedence=9000),
             lambda f: f["spec"]["matchingPrecedence"] == 9000)


@test(f"{FLOWS} should support PriorityLevelConfiguration API operations")
def priority_levels(w):
    spec = {"type": "Limited", "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}}
    flow_api(w, "prioritylevelconfigurations", spec, lambda p: p["spec"]["limited"].update(nominalConcurrencyShares=6),
             lambda p: p["spec"]["limited"]["nominalConcurrencyShares"] == 6)
