"""As much of upstream's end-to-end framework as the tests in `sigs` need."""
# ruff: noqa: F401, F403 - what tests import from here

from images.names import *

from .api import APPLY, JSON, MERGE, STRATEGIC, Api
from .case import CASES, Failed, Refused, check, equal, matches, name, refused, test, until, word
from .events import Events, Ordered
from .objects import busybox, condition_of, container, is_ready, pause, restarts, status_of
from .world import START, World
