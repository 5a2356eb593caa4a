"""Custom resource definitions of the tests' own."""

from frame import MERGE, Refused, condition_of, word

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


class Definition:
    """A definition that is served; it goes with its test."""

    def __init__(self, w, group=None, versions=("v1",), scope="Namespaced", schema=ANYTHING, labels=None, **spec):
        name = f"e2e-test-{word(8)}-crd"
        self.w, self.group, self.versions = w, group or f"{w.ns}.example.com", list(versions)
        self.plural, self.kind, self.scope = f"{name}s", f"E2e-test-{name[9:-4]}-crd", scope
        self.name = f"{self.plural}.{self.group}"
        self.body = {"metadata": {"name": self.name, "labels": labels or {}}, "spec": {
            "group": self.group, "scope": scope,
            "names": {"plural": self.plural, "singular": name, "kind": self.kind, "listKind": f"{self.kind}List"},
            "versions": [self.version(v, i == 0, schema) for i, v in enumerate(versions)], **spec}}
        self.made = w.api.create(CRDS, self.body)
        w.cleanups.append(self.delete)
        w.until(lambda: condition_of(w.api.get(f"{CRDS}/{self.name}"), "Established") == "True", 30, "established")
        for version in versions:
            w.until(lambda v=version: self.listed(v), 30, f"{self.name} in discovery of {version}")

    @staticmethod
    def version(name, storage, schema=ANYTHING, served=True):
        return {"name": name, "served": served, "storage": storage, "schema": {"openAPIV3Schema": schema}}

    def listed(self, version):
        found = self.w.api.get(f"/apis/{self.group}/{version}")["resources"]
        return any(r["name"] == self.plural for r in found)

    def path(self, name=None, version=None, ns=None):
        version = version or self.versions[0]
        where = f"namespaces/{ns or self.w.ns}/" if self.scope == "Namespaced" else ""
        return f"/apis/{self.group}/{version}/{where}{self.plural}" + (f"/{name}" if name else "")

    def object(self, name, version=None, **fields):
        return {"apiVersion": f"{self.group}/{version or self.versions[0]}", "kind": self.kind,
                "metadata": {"name": name}, **fields}

    def create(self, name, version=None, **fields):
        return self.w.api.create(self.path(version=version), self.object(name, version, **fields))

    def patch(self, change, kind=MERGE):
        return self.w.api.patch(f"{CRDS}/{self.name}", change, kind)

    def delete(self):
        try:
            self.w.api.delete(f"{CRDS}/{self.name}")
        except Refused as refused:
            if refused.code != 404:
                raise
