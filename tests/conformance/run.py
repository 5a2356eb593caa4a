"""Runs the equivalents of upstream's conformance tests against a cluster.

Tests run side by side, those that disturb the cluster alone at the end. kubectl must be on PATH.
"""

import argparse
import importlib
import re
import sys
from pathlib import Path

from frame import CASES, Api, runner, tables
from images import contents

HERE = Path(__file__).parent


def arguments():
    say = argparse.ArgumentParser(description=__doc__)
    say.add_argument("kubeconfig")
    say.add_argument("patterns", nargs="*", metavar="REGEX", help="of names, `[sig-node] Pods should ...`; all if none")
    say.add_argument("-j", "--jobs", type=int, default=4, help="how many tests run at a time (4)")
    say.add_argument("--quick", action="store_true", help="leave out what takes a minute or more")
    say.add_argument("--load", nargs=2, metavar=("PEAPOD", "DATA_DIR"), help="give the cluster's nodes the images first")
    say.add_argument("--images", default="stand-in,small", help="which: `stand-in`, `small` (of sig-node and sig-storage)")
    say.add_argument("--tables", action="store_true", help="write what came of it into the tables in `results`")
    return say.parse_intermixed_args()


def main():
    asked = arguments()
    for file in sorted(HERE.glob("sigs/*.py")):
        importlib.import_module(f"sigs.{file.stem}")
    chosen = [
        case for case in CASES
        if not (asked.quick and case.slow)
        and (not asked.patterns or any(re.search(pattern, case.name) for pattern in asked.patterns))
    ]
    if asked.load:
        contents.load(*asked.load, asked.images.split(","))
    results = runner.run(Api(asked.kubeconfig), chosen, asked.jobs)
    if asked.tables:
        tables.write(HERE / "results", CASES, results)
    failed = sum(bool(result.error) for result in results)
    print(f"{len(results)} tests, {failed} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
