"""The tables of results, one for each sig."""

import time

HEAD = """# [sig-{sig}]

Upstream's conformance tests of this part, by the names that they have there, asked by equal steps
(`tests/conformance/run.py`) of `peapod up --nodes 2`.

| test | result | s | on | steps that are not upstream's |
| --- | --- | --- | --- | --- |
"""


def write(folder, cases, results):
    """Every test with what came of it now; one that was not run keeps its row."""
    now = {result.case.name: result for result in results}
    for sig in sorted({result.case.sig for result in results}):
        path = folder / f"{sig}.md"
        before = read(path)
        rows = [row(case, now.get(case.name), before.get(case.short)) for case in cases if case.sig == sig]
        path.write_text(HEAD.format(sig=sig) + "".join(f"| {' | '.join(cells)} |\n" for cells in sorted(rows)))


def row(case, result, before):
    if result:
        said = "failed: " + result.error.splitlines()[0][:160].replace("|", "\\|") if result.error else "passed"
        cells = [said, f"{result.seconds:.0f}", time.strftime("%Y-%m-%d")]
    else:
        cells = before or ["not run", "-", "-"]
    return [case.short, *cells, case.note]


def read(path):
    """The cells of a table that was written before, by the test's name."""
    if not path.exists():
        return {}
    rows = [line.strip().removeprefix("|").removesuffix("|") for line in path.read_text().splitlines()]
    rows = [[cell.strip() for cell in row.split(" | ")] for row in rows]
    return {cells[0]: cells[1:4] for cells in rows if len(cells) == 5 and cells[0] != "test"}
