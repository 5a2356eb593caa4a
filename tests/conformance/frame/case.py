"""What a test is, and how it says what is not as it should be."""

import json
import random
import re
import string
import time
import uuid
from dataclasses import dataclass
from typing import Callable

CASES = []


@dataclass
class Case:
    """A test: upstream's name for it, sig and all, and a function that takes a `World` and raises."""

    name: str
    run: Callable
    # It disturbs others, and runs alone.
    serial: bool
    # It takes a minute or more.
    slow: bool
    # Where its steps are not upstream's.
    note: str

    @property
    def sig(self):
        return re.match(r"\[sig-([a-z-]+)\] ", self.name)[1]

    @property
    def short(self):
        return self.name.split("] ", 1)[1]


def test(name, note="", serial=False, slow=False):
    """Declares a test by upstream's name for it."""

    def declare(function):
        CASES.append(Case(name, function, serial or "[Serial]" in name, slow, note))
        return function

    return declare


class Failed(AssertionError):
    """Something is not as it should be."""


class Refused(Exception):
    """An answer that is no success: its code, and the `metav1.Status` that it holds."""

    def __init__(self, response):
        self.code, self.text = response.status_code, response.text
        try:
            said = response.json()
        except ValueError:
            said = None
        self.status = said if isinstance(said, dict) else {}
        self.reason, self.message = self.status.get("reason"), self.status.get("message", "")
        super().__init__(f"{response.request.method} {response.url}: {self.code} {response.text[:600]}")


def check(condition, *said):
    """Fails with what was seen, objects as JSON."""
    if not condition:
        raise Failed(" ".join(s if isinstance(s, str) else json.dumps(s, default=str)[:1500] for s in said) or "no")


def equal(found, wanted, *what):
    check(found == wanted, *what, f"found {found!r}, wanted {wanted!r}")


def matches(pattern, text):
    check(re.search(pattern, text), f"{pattern!r} is not in {text!r}")


def refused(ask, *texts, code=None):
    """What must be refused, with this code if one is given and all of these texts; the refusal."""
    try:
        answer = ask()
    except Refused as said:
        check(code is None or said.code == code, f"wanted {code}: {said}")
        for text in texts:
            check(text in said.text, f"{text!r} in {said.text}")
        return said
    raise Failed(f"not refused ({code or ''} {', '.join(texts)}): {answer}")


def until(condition, seconds=60, what="", every=0.2):
    """The condition's first true value; fails with what it last said or raised."""
    deadline, last = time.monotonic() + seconds, None
    while True:
        try:
            found = condition()
            if found:
                return found
            last = found
        except (Refused, AssertionError, KeyError, IndexError, TypeError) as error:
            last = error
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds} s: {what}; last: {last!s:.800}")
        time.sleep(every)


def word(length=5):
    return "".join(random.choice(string.ascii_lowercase) for _ in range(length))


def name(prefix):
    """A name that nothing else has."""
    return f"{prefix}-{uuid.uuid4()}"
