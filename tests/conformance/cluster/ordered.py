"""A watch whose events are looked at one by one, in their order."""

import contextlib
import json
import queue
import socket
import threading

from e2e import Refused, check


class Ordered:
    """The events of a watch that begins before this returns; `expect` takes the next one."""

    def __init__(self, w, path, seconds=120, **params):
        self.events = queue.Queue()
        query = {"watch": "1", "timeoutSeconds": str(seconds), **params}
        self.response = w.api.session.get(w.api.host + path, params=query, stream=True, timeout=seconds + 30)
        if self.response.status_code >= 400:
            raise Refused(self.response)
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
