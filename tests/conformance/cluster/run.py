"""Runs the equivalents of upstream's conformance tests against a cluster.

    kubectl must be on PATH;  python3 run.py KUBECONFIG [-j N] [--tables] [REGEX...]

Tests of the serial suites run alone, after the others. `--tables` writes what came of a run of
everything into the tables in the folder above.
"""

import datetime
import importlib
import re
import sys
from pathlib import Path

import e2e

HERE = Path(__file__).parent


def main():
    kubeconfig, words, workers, tables = sys.argv[1], sys.argv[2:], 4, False
    if "-j" in words:
        at = words.index("-j")
        workers = int(words[at + 1])
        del words[at:at + 2]
    if "--tables" in words:
        words.remove("--tables")
        tables = True
    for file in sorted(HERE.glob("sig_*.py")):
        importlib.import_module(file.stem)
    chosen = [t for t in e2e.TESTS if not words or any(re.search(w, t[0]) for w in words)]
    api = e2e.Api(kubeconfig)
    serial = [t for t in chosen if "[Serial]" in t[0]]
    results = e2e.run(api, [t for t in chosen if t not in serial], workers)
    results += e2e.run(api, serial, 1)
    failed = [r for r in results if r[2]]
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    if tables:
        write_tables(results)
    sys.exit(bool(failed))


def write_tables(results):
    """A table for each sig: what was run, and what came of it."""
    sigs, today = {}, datetime.date.today().isoformat()
    for name, took, error in results:
        sig, short = re.match(r"\[sig-([a-z-]+)\] (.*)", name).groups()
        result = "failed: " + error.splitlines()[0][:160].replace("|", "\\|") if error else "passed"
        sigs.setdefault(sig, []).append((short, result, f"{took:.0f}", e2e.NOTES[name]))
    for sig, rows in sigs.items():
        lines = [f"# [sig-{sig}]", "", f"Run by equivalent steps (`sig_*.py`) on {today}, two nodes on one machine.", "",
                 "| test | result | s | steps that are not upstream's |", "| --- | --- | --- | --- |"]
        lines += [f"| {short} | {result} | {took} | {note} |" for short, result, took, note in sorted(rows)]
        (HERE.parent / f"{sig}.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
