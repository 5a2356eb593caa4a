"""Runs tests and tells what came of each."""

import concurrent.futures
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import requests

from .case import Case, Refused
from .world import World

FRAME = str(Path(__file__).parent)
lock = threading.Lock()


@dataclass
class Result:
    case: Case
    seconds: float
    error: Optional[str]


def run(api, cases, jobs):
    """Runs the serial ones after the others, and waits until the namespaces of all are gone."""
    # The long ones first, so that nobody waits for them at the end.
    beside = sorted((c for c in cases if not c.serial), key=lambda c: not c.slow)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        ran = list(pool.map(lambda case: one(api, case), beside))
    ran += [one(api, case) for case in cases if case.serial]
    for result, world in ran:
        if world:
            try:
                world.gone(world.namespace)
            except AssertionError as error:
                result.error = result.error or str(error)
                report(result)
    return [result for result, _ in ran]


def one(api, case):
    began, error, world = time.monotonic(), None, None
    try:
        world = World(api, case.short)
        case.run(world)
    except Exception as caught:  # noqa: BLE001 - every failure is a result
        error = told(caught)
    finally:
        seconds = time.monotonic() - began
        try:
            if world:
                world.end()
        except Exception as caught:  # noqa: BLE001
            error = error or f"the namespace cannot be deleted: {caught}"
    result = Result(case, seconds, error)
    report(result)
    return result, world


def told(caught):
    """An error with the place in the test; what nobody foresaw with all of its stack."""
    said = f"{type(caught).__name__}: {caught}"
    if not isinstance(caught, (AssertionError, Refused, requests.RequestException)):
        return f"{said}\n{traceback.format_exc()}"
    place = [f for f in traceback.extract_tb(caught.__traceback__) if not f.filename.startswith(FRAME)]
    return f"{Path(place[-1].filename).name}:{place[-1].lineno}: {said}" if place else said


def report(result):
    with lock:
        print(f"{'FAIL' if result.error else 'ok  '} {result.seconds:6.1f} s  {result.case.name}", flush=True)
        if result.error:
            print("    " + result.error.strip().replace("\n", "\n    ")[:2000], flush=True)
