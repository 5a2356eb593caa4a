"""Prints the table of what came of a run.

    python3 table.py REPORTS [--failures]    `--failures`: what the tests that failed said
"""

import re
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

# What has changed in Kubernetes since 1.20, by the tests that ask for the old.
SINCE = {
    "Pods should run through the lifecycle of Pods and PodStatus":
        "changes an image and writes back a status that it read before the container has restarted, without trying again "
        "at a conflict; passes when it is faster than the node",
    "ServiceAccounts should mount an API token into pods":
        "wants the Secret that every service account had until 1.24",
    "ServiceAccounts should allow opting out of API token automount":
        "wants the Secret that every service account had until 1.24",
    "Daemon set [Serial] should update pod when spec was updated and update strategy is RollingUpdate":
        "compares a revision's bytes with a template that has `creationTimestamp: null`, which nobody writes since 1.34 "
        "(kubernetes/kubernetes#130989)",
}


def cases(reports):
    """The tests that were run: name, seconds, and what they said if they failed. The last report of a test counts."""
    found = {}
    for file in sorted(Path(reports).glob("junit_*.xml"), key=lambda file: file.stat().st_mtime):
        for case in xml.parse(file).iter("testcase"):
            name, failure = case.get("name"), case.find("failure")
            if case.find("skipped") is None and "[Conformance]" in name:
                said = None if failure is None else (failure.text or "").strip()
                found[short(name)] = (float(case.get("time")), said)
    return found


def short(name):
    """As the tables beside this one name tests: without the tags that say how they are chosen."""
    tags = r"\[(Conformance|NodeConformance|LinuxOnly|Slow|Disruptive|Privileged:ClusterAdmin|k8s\.io)\]"
    return re.sub(r"\s+", " ", re.sub(tags, "", name)).strip()


def since(name):
    return next((why for of, why in SINCE.items() if name.endswith(of)), "")


def main():
    found = cases(sys.argv[1])
    failed = {name: said for name, (_, said) in found.items() if said is not None}
    if "--failures" in sys.argv:
        for name, said in sorted(failed.items()):
            print(f"{name}\n    " + "\n    ".join(said.splitlines()[:12]))
        return
    print("| test | result | s | remark |\n| --- | --- | --- | --- |")
    for name, (took, said) in sorted(found.items()):
        result = "passed" if said is None else "failed"
        print(f"| {name} | {result} | {took:.0f} | {since(name) if said else ''} |")
    print(f"\n{len(found) - len(failed)} of {len(found)} passed.")


if __name__ == "__main__":
    main()
