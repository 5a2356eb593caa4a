"""Runs the suite against a cluster of `peapod up --nodes 2` and writes what each test came to.

KUBECONFIG names the cluster. With --load PEAPOD DATA_DIR the images are given to its nodes first.
Tests run side by side (--jobs), those that disturb the cluster alone at the end. --quick leaves out
what takes a minute and more; --only PATTERN chooses by name or file. --tables DIR writes node.md and
storage.md there.
"""

import argparse
import concurrent.futures
import importlib
import pathlib
import pkgutil
import re
import secrets
import sys
import threading
import time
import traceback

import suite
from suite import case, images
from suite.api import Api

count = 0
lock = threading.Lock()


def one(api, test, quick):
    """Runs a test; how long it took, and what went wrong."""
    global count
    with lock:
        count += 1
        namespace = f"c-{count}-{secrets.token_hex(3)}"
    start = time.monotonic()
    wrong = None
    try:
        api.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
        base = f"/api/v1/namespaces/{namespace}"
        case.until("the default service account", lambda: api.get(f"{base}/serviceaccounts/default"))
        case.until("the CA's config map", lambda: api.get(f"{base}/configmaps/kube-root-ca.crt"))
        test.run(case.World(api, namespace, quick))
    except Exception:
        wrong = traceback.format_exc()
    finally:
        took = time.monotonic() - start
        try:
            api.delete(f"/api/v1/namespaces/{namespace}")
        except Exception as error:
            wrong = wrong or f"the namespace cannot be deleted: {error}"
    return took, wrong, namespace


def report(test, took, wrong):
    with lock:
        print(f"{'FAIL' if wrong else 'ok  '} {took:6.1f} s  [{test.sig}] {test.name}", flush=True)
        if wrong:
            print("    " + wrong.strip().replace("\n", "\n    "), flush=True)


TABLE = """# [{sig}]

Upstream's conformance tests of this part, by the names that they have there (without tags), asked by
`tests/conformance/nodes`: the same objects and checks, with images of busybox in the place of
upstream's, on `peapod up --nodes 2`. Written by `run.py --tables`.

| test | asked by | result | on |
| --- | --- | --- | --- |
"""


def written(path):
    """The results of a table that was written before, by the test's name."""
    if not path.exists():
        return {}
    rows = [line.strip("| ").split(" | ") for line in path.read_text().splitlines()]
    return {row[0]: (row[2], row[3]) for row in rows if len(row) == 4}


def write_tables(directory, results):
    """A table for each part: every test, where it asks less than upstream's, how it ended last."""
    today = time.strftime("%Y-%m-%d")
    for sig in sorted({t.sig for t in case.CASES}):
        path = pathlib.Path(directory, sig.removeprefix("sig-") + ".md")
        before, text = written(path), TABLE.format(sig=sig)
        for test in sorted((t for t in case.CASES if t.sig == sig), key=lambda t: t.name):
            asked = "equal steps" + (f"; {test.note}" if test.note else "")
            result, on = before.get(test.name, ("not run", "-"))
            if test.name in results:
                result, on = results[test.name], today
            text += f"| {test.name} | {asked} | {result} | {on} |\n"
        path.write_text(text)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--load", nargs=2, metavar=("PEAPOD", "DATA_DIR"))
    arguments.add_argument("--only", default="")
    arguments.add_argument("--jobs", type=int, default=8)
    arguments.add_argument("--quick", action="store_true")
    arguments.add_argument("--tables", metavar="DIR")
    chosen = arguments.parse_args()
    for module in pkgutil.iter_modules(suite.__path__):
        importlib.import_module(f"suite.{module.name}")
    if chosen.load:
        images.load(*chosen.load, (case.BUSYBOX, case.TESTER, case.DATA, case.GRPC))
    api = Api()
    tests = [
        t for t in case.CASES
        if re.search(chosen.only, f"{t.module} [{t.sig}] {t.name}") and not (chosen.quick and t.slow)
    ]
    failed, namespaces, results = 0, [], {}
    beside = [t for t in tests if not t.serial]
    with concurrent.futures.ThreadPoolExecutor(chosen.jobs) as pool:
        # The long ones first, so that nobody waits for them at the end.
        asked = {pool.submit(one, api, t, chosen.quick): t for t in sorted(beside, key=lambda t: not t.slow)}
        for done in concurrent.futures.as_completed(asked):
            took, wrong, namespace = done.result()
            namespaces.append(namespace)
            failed += bool(wrong)
            report(asked[done], took, wrong)
            results[asked[done].name] = "fails" if wrong else "passes"
    for test in [t for t in tests if t.serial]:
        took, wrong, namespace = one(api, test, chosen.quick)
        namespaces.append(namespace)
        failed += bool(wrong)
        report(test, took, wrong)
        results[test.name] = "fails" if wrong else "passes"
    if chosen.tables:
        write_tables(chosen.tables, results)
    for namespace in namespaces:
        case.World(api, namespace, True).gone(f"/api/v1/namespaces/{namespace}")
    print(f"{len(tests)} tests, {failed} failed")
    sys.exit(1 if failed else 0)


main()
