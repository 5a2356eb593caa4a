"""Reading objects, and the containers that most tests have."""

from images.names import AGNHOST, SMALL


def condition_of(thing, kind, field="status"):
    for condition in thing.get("status", {}).get("conditions", []) or []:
        if condition["type"] == kind:
            return condition.get(field)
    return None


def is_ready(pod):
    return condition_of(pod, "Ready") == "True"


def status_of(pod, container):
    """The status of a container of any sort."""
    for kind in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for status in pod["status"].get(kind, []):
            if status["name"] == container:
                return status
    return None


def restarts(pod):
    return sum(s["restartCount"] for s in pod["status"].get("containerStatuses", []))


def container(name, image=AGNHOST, **more):
    return {"name": name, "image": image, "imagePullPolicy": "IfNotPresent", **more}


def busybox(script=None, name="test-container", **more):
    """A container that runs a script of busybox; nothing given: it sleeps."""
    command = ["sh", "-c", script] if script else ["sleep", "10000"]
    return {"name": name, "image": SMALL, "command": command, **more}


def pause(name="pause", **more):
    return busybox("trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done", name, **more)
