"""[sig-api-machinery]: test/e2e/apimachinery/field_validation.go."""

import json

from frame import APPLY, Refused, check, test

from .definitions import ANYTHING, Definition

GROUP = "[sig-api-machinery] FieldValidation"
STRICT = {"fieldManager": "field_validation_mgr", "fieldValidation": "Strict"}

NUMBER, TEXT = {"type": "integer", "format": "int32"}, {"type": "string"}
PORTS = {"type": "array", "x-kubernetes-list-map-keys": ["containerPort", "protocol"], "x-kubernetes-list-type": "map", "items": {
    "type": "object", "required": ["containerPort", "protocol"], "properties": {
        "containerPort": NUMBER, "hostIP": TEXT, "hostPort": NUMBER, "name": TEXT, "protocol": TEXT}}}
CRON = {"type": "string", "pattern": r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$"}
FIELDS = {"foo": TEXT, "cronSpec": CRON, "ports": PORTS}
TEMPLATE = {"type": "object", "x-kubernetes-embedded-resource": True, "properties": {
    "metadata": {"type": "object", "properties": {"name": TEXT}}, "spec": {"type": "object"}}}


def schema(**spec):
    return {"type": "object", "properties": {"spec": {"type": "object", **spec}}}


def definition(w, of):
    return Definition(w, scope="Cluster", versions=["v1beta1", "v1"], schema=of)


def apply(w, crd, root="", meta="", spec="  foo: foo1\n"):
    """Applies YAML, whose lines are upstream's."""
    body = (f"\napiVersion: {crd.group}/v1beta1\nkind: {crd.kind}\nmetadata:\n  name: mytest\n{meta}{root}spec:\n{spec}"
            '  cronSpec: "* * * * */5"\n  ports:\n  - name: x\n    containerPort: 80\n    protocol: TCP')
    return w.api.patch(crd.path("mytest"), body, APPLY, **STRICT)


def refused(call, *any_of):
    try:
        call()
    except Refused as said:
        check(any(text in said.text for text in any_of), f"none of {any_of} in {said.text}")
        return
    check(False, f"allowed, and should say {any_of}")


def deployment(w, text):
    w.api.call("POST", w.apis("apps/v1", "deployments"), text, **STRICT)


SELECTED = ('"selector": {"matchLabels": {"app": "nginx"}}, "template": {"metadata": {"labels": {"app": "nginx"}}, '
            '"spec": {"containers": [{"name": "nginx", "image": "nginx:latest"}]}}')


@test(f"{GROUP} should detect unknown and duplicate fields of a typed object")
def typed(w):
    body = ('{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "my-dep", "labels": {"app": "nginx"}}, '
            '"spec": {"unknownField": "foo", "replicas": 2, "replicas": 3, ' + SELECTED + "}}")
    wanted = 'strict decoding error: unknown field "spec.unknownField", duplicate field "spec.replicas"'
    refused(lambda: deployment(w, body), json.dumps(wanted)[1:-1])


@test(f"{GROUP} should detect unknown metadata fields of a typed object")
def typed_metadata(w):
    body = ('{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "my-dep", "unknownMeta": "foo", '
            '"labels": {"app": "nginx"}}, "spec": {' + SELECTED + "}}")
    refused(lambda: deployment(w, body), json.dumps('strict decoding error: unknown field "metadata.unknownMeta"')[1:-1])


@test(f"{GROUP} should create/apply a valid CR for CRD with validation schema")
def valid(w):
    apply(w, definition(w, schema(properties=FIELDS)))


@test(f"{GROUP} should create/apply a CR with unknown fields for CRD with no validation schema")
def no_schema(w):
    apply(w, definition(w, ANYTHING), spec="  unknown: uk1\n")


@test(f"{GROUP} should create/apply an invalid CR with extra properties for CRD with validation schema")
def extra(w):
    crd = definition(w, schema(properties=FIELDS))
    refused(lambda: apply(w, crd, root="unknownField: unknown\n"), ".unknownField: field not declared in schema")


@test(f"{GROUP} should detect unknown metadata fields in both the root and embedded object of a CR")
def metadata(w):
    crd = definition(w, schema(**{"x-kubernetes-preserve-unknown-fields": True}, properties={"template": TEMPLATE, **FIELDS}))
    template = ("  template:\n    apiversion: foo/v1\n    kind: Sub\n    metadata:\n        unknownSubMeta: unknown\n"
                f"        name: subobject\n        namespace: {w.ns}\n  foo: foo1\n")
    refused(lambda: apply(w, crd, meta="  unknownMeta: unknown\n", spec=template),
            ".spec.template.metadata.unknownSubMeta: field not declared in schema",
            ".metadata.unknownMeta: field not declared in schema")


@test(f"{GROUP} should detect duplicates in a CR when preserving unknown fields")
def duplicates(w):
    crd = definition(w, schema(**{"x-kubernetes-preserve-unknown-fields": True}, properties=FIELDS))
    refused(lambda: apply(w, crd, spec="  unknown: uk1\n  foo: foo1\n  foo: foo2\n"),
            json.dumps('line 9: key "foo" already set in map')[1:-1])
