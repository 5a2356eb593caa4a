"""[sig-api-machinery]: test/e2e/apimachinery/crd_publish_openapi.go."""

import json
import re

import yaml

from frame import JSON, check, equal, test

from .definitions import ANYTHING, CRDS, Definition

GROUP = "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin]"

FOO = yaml.safe_load("""
description: Foo CRD for Testing
type: object
properties:
  spec:
    type: object
    description: Specification of Foo
    properties:
      bars:
        description: List of Bars and their specs.
        type: array
        items:
          type: object
          required: [name]
          properties:
            name: {description: Name of Bar., type: string}
            age: {description: Age of Bar., type: string}
            feeling: {description: Whether Bar is feeling great., type: string, enum: [Great, Down]}
            bazs: {description: List of Bazs., items: {type: string}, type: array}
  status:
    description: Status of Foo
    type: object
    properties:
      bars:
        description: List of Bars and their statuses.
        type: array
        items:
          type: object
          properties:
            name: {description: Name of Bar., type: string}
            available: {description: Whether the Bar is installed., type: boolean}
            quxType: {description: Indicates to external qux type., pattern: in-tree|out-of-tree, type: string}
""")
WALDO = yaml.safe_load("""
description: Waldo CRD for Testing
type: object
properties:
  spec:
    description: Specification of Waldo
    type: object
    properties:
      dummy: {description: Dummy property., type: object}
  status:
    description: Status of Waldo
    type: object
    properties:
      bars: {description: List of Bars and their statuses., type: array, items: {type: object}}
""")
AT_ROOT = WALDO | {"description": "preserve-unknown-properties at root for Testing",
                   "x-kubernetes-preserve-unknown-fields": True}
NESTED = json.loads(json.dumps(WALDO)) | {"description": "preserve-unknown-properties in nested field for Testing"}
NESTED["properties"]["spec"]["x-kubernetes-preserve-unknown-fields"] = True


class Swagger:
    """/openapi/v2, fetched anew only when its ETag changes."""

    def __init__(self, w):
        self.w, self.etag, self.definitions = w, None, {}

    def fetch(self):
        headers = {"If-None-Match": f'"{self.etag}"'} if self.etag else {}
        said = self.w.api.call("GET", "/openapi/v2", headers=headers)
        if said.status_code != 304:
            self.etag = said.headers["ETag"].strip('"')
            self.definitions = said.json()["definitions"]
        return self.definitions

    def until(self, right, what):
        # As upstream: ten times in a row.
        self.w.until(lambda: all(right(self.fetch()) for _ in range(10)), 60, what, every=0.5)


def name_of(crd, version):
    return f"{'.'.join(reversed(crd.group.split('.')))}.{version}.{crd.kind}"


def own(found):
    """A definition without what is added to it when it is published."""
    found = {k: v for k, v in found.items() if k not in {"x-kubernetes-group-version-kind", "x-kubernetes-selectable-fields"}}
    added = {"metadata", "apiVersion", "kind"}
    properties = {k: v for k, v in found.pop("properties", {}).items() if k not in added}
    return found | ({"properties": properties} if properties else {})


def published(w, crd, version, schema):
    def right(definitions):
        found = definitions.get(name_of(crd, version))
        return found is not None and (schema is None or own(found) == schema)

    Swagger(w).until(right, f"{name_of(crd, version)} as {schema}")


def unpublished(w, crd, version):
    Swagger(w).until(lambda definitions: name_of(crd, version) not in definitions, f"{name_of(crd, version)} is gone")


def setup(w, schema, suffix, *versions, expect=True):
    group = f"{w.ns}-test-{suffix}.example.com"
    crd = Definition(w, group=group, versions=versions, schema=schema or ANYTHING)
    for version in versions:
        published(w, crd, version, (schema or {"type": "object"}) if expect else None)
    return crd


def cleanup(w, *crds):
    for crd in crds:
        crd.delete()
        for version in crd.versions:
            unpublished(w, crd, version)


def explained(w, what, pattern):
    said = w.kubectl("explain", what)
    check(re.search(pattern, said, re.S), f"{pattern} in {said}")


def create_and_apply(w, crd, body, name):
    text = json.dumps(body)
    for verb in ["create", "apply"]:
        w.kubectl(verb, "-f", "-", stdin=text)
        w.kubectl("delete", crd.plural, name)


def refuses(w, verb, body, *words):
    said = w.try_kubectl("-n", w.ns, verb, "-f", "-", stdin=json.dumps(body))
    check(said.returncode and any(word in said.stderr for word in words), f"{words} in {said.stderr}")


@test(f"{GROUP} works for CRD with validation schema")
def with_schema(w):
    crd = setup(w, FOO, "foo", "v1")
    cr = lambda **spec: crd.object("test-foo", spec=spec)
    create_and_apply(w, crd, cr(bars=[{"name": "test-bar"}]), "test-foo")
    refuses(w, "create", cr(bars=[{"name": "test-bar", "feeling": "NonExistentValue"}]), 'Unsupported value: "NonExistentValue"')
    for verb in ["create", "apply"]:
        refuses(w, verb, cr(foo=True), 'unknown field "foo"', 'unknown field "spec.foo"')
        refuses(w, verb, cr(bars=[{"age": "10"}]), 'missing required field "name"', "spec.bars[0].name: Required value")
    explained(w, crd.plural, "DESCRIPTION:.*Foo CRD for Testing.*FIELDS:.*apiVersion.*<string>.*APIVersion defines.*spec.*<Object>.*Specification of Foo")
    explained(w, f"{crd.plural}.metadata", "DESCRIPTION:.*Standard object's metadata.*FIELDS:.*creationTimestamp.*<string>.*CreationTimestamp is a timestamp")
    explained(w, f"{crd.plural}.spec", r"DESCRIPTION:.*Specification of Foo.*FIELDS:.*bars.*<\[\]Object>.*List of Bars and their specs")
    explained(w, f"{crd.plural}.spec.bars", r"(FIELD|RESOURCE):.*bars.*<\[\]Object>.*DESCRIPTION:.*List of Bars and their specs.*FIELDS:.*bazs.*<\[\]string>.*List of Bazs.*name.*<string>.*Name of Bar")
    said = w.try_kubectl("explain", f"{crd.plural}.spec.bars2")
    check(said.returncode and 'field "bars2" does not exist' in said.stderr, said.stderr)
    cleanup(w, crd)


@test(f"{GROUP} works for CRD without validation schema")
def without_schema(w):
    crd = setup(w, None, "empty", "v1")
    create_and_apply(w, crd, crd.object("test-cr", a={"b": [{"c": "d"}]}), "test-cr")
    explained(w, crd.plural, "DESCRIPTION:.*<empty>")
    cleanup(w, crd)


@test(f"{GROUP} works for CRD preserving unknown fields at the schema root")
def at_root(w):
    crd = setup(w, AT_ROOT, "unknown-at-root", "v1", expect=False)
    create_and_apply(w, crd, crd.object("test-cr", a={"b": [{"c": "d"}]}), "test-cr")
    explained(w, crd.plural, f"KIND:.*{crd.kind}")
    cleanup(w, crd)


@test(f"{GROUP} works for CRD preserving unknown fields in an embedded object")
def nested(w):
    crd = setup(w, NESTED, "unknown-in-nested", "v1", expect=False)
    create_and_apply(w, crd, crd.object("test-cr", spec={"a": None, "b": [{"c": "d"}]}), "test-cr")
    explained(w, crd.plural, "DESCRIPTION:.*preserve-unknown-properties in nested field for Testing")
    cleanup(w, crd)


@test(f"{GROUP} works for multiple CRDs of different groups")
def groups(w):
    foo, waldo = setup(w, FOO, "foo", "v1"), setup(w, WALDO, "waldo", "v1beta1")
    check(foo.group != waldo.group, "two groups")
    published(w, waldo, "v1beta1", WALDO)
    published(w, foo, "v1", FOO)
    cleanup(w, foo, waldo)


@test(f"{GROUP} works for multiple CRDs of same group but different versions")
def versions(w):
    several = setup(w, FOO, "multi-ver", "v2", "v3")
    cleanup(w, several)
    foo, waldo = setup(w, FOO, "common-group", "v4"), setup(w, WALDO, "common-group", "v5")
    equal(foo.group, waldo.group, "group")
    published(w, waldo, "v5", WALDO)
    published(w, foo, "v4", FOO)
    cleanup(w, foo, waldo)


@test(f"{GROUP} works for multiple CRDs of same group and version but different kinds")
def kinds(w):
    foo, waldo = setup(w, FOO, "common-group", "v6"), setup(w, WALDO, "common-group", "v6")
    published(w, waldo, "v6", WALDO)
    published(w, foo, "v6", FOO)
    cleanup(w, foo, waldo)


@test(f"{GROUP} updates the published spec when one version gets renamed")
def renamed(w):
    crd = setup(w, FOO, "multi-ver", "v2", "v3")
    crd.patch([{"op": "test", "path": "/spec/versions/1/name", "value": "v3"},
               {"op": "replace", "path": "/spec/versions/1/name", "value": "v4"}], JSON)
    published(w, crd, "v4", FOO)
    unpublished(w, crd, "v3")
    published(w, crd, "v2", FOO)
    crd.versions[1] = "v4"
    cleanup(w, crd)


@test(f"{GROUP} removes definition from spec when one version gets changed to not be served")
def unserved(w):
    crd = setup(w, FOO, "multi-to-single-ver", "v5", "v6alpha1")
    w.api.retry_update(f"{CRDS}/{crd.name}", lambda c: c["spec"]["versions"][1].update(served=False))
    unpublished(w, crd, "v6alpha1")
    published(w, crd, "v5", FOO)
    cleanup(w, crd)
