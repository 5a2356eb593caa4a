"""Watches that go on beside a test."""

import contextlib
import json
import queue
import socket
import threading

from .case import check, until


class Events:
    """The events of a watch, collected while the test goes on."""

    def __init__(self, world, path, seconds=300, **query):
        self.world, self.seen, self.lock = world, [], threading.Lock()
        if "resourceVersion" not in query:
            query["resourceVersion"] = world.api.get(path, limit=1)["metadata"]["resourceVersion"]
        self.thread = threading.Thread(target=self._follow, args=(path, seconds, query), daemon=True)
        self.thread.start()

    def _follow(self, path, seconds, query):
        with contextlib.suppress(Exception):
            for event in self.world.api.watch(path, seconds, **query):
                with self.lock:
                    self.seen.append(event)

    def wait(self, kind, matches=lambda _: True, seconds=60):
        """The first event of a kind whose object matches."""

        def condition():
            with self.lock:
                return next((e for e in self.seen if e["type"] == kind and matches(e["object"])), None)

        return until(condition, seconds, f"event {kind}; seen {[e['type'] for e in self.seen]}")


class Ordered:
    """The events of a watch that begins before this returns; `expect` takes the next one."""

    def __init__(self, w, path, seconds=120, **query):
        self.events = queue.Queue()
        self.response = w.api.open_watch(path, seconds, **query)
        w.cleanups.append(self.close)
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self):
        try:
            for line in self.response.iter_lines(chunk_size=None):
                if line:
                    self.events.put(json.loads(line))
        except Exception as error:  # noqa: BLE001 - a watch that was closed ends in any way
            self.events.put({"type": f"ended: {error}", "object": None})

    def next(self, seconds=60):
        """The next event; none when there is none in time."""
        try:
            return self.events.get(timeout=seconds)
        except queue.Empty:
            return None

    def expect(self, kind, name=None, same=None):
        """The next event, which must be of this kind, and of this object if one is given."""
        event = self.next()
        check(event is not None and event["type"] == kind, f"wanted {kind} of {name}, got {event}")
        found = event["object"]
        check(name is None or found["metadata"]["name"] == name, event)
        check(same is None or found == same, f"wanted {same}, got {found}")
        return found

    def nothing(self, seconds=5):
        event = self.next(seconds)
        check(event is None, f"wanted no event, got {event}")

    def close(self):
        # Closing alone would wait for whoever reads.
        connection = self.response.raw.connection
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
