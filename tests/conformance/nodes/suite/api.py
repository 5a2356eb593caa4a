"""The API as plain JSON over HTTPS: what a test sends is what is on the wire."""

import json
import ssl
import urllib.parse

import urllib3
from kubernetes import config
from kubernetes.client import Configuration

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status, body):
        self.status = status
        try:
            self.object = json.loads(body)
            self.message = self.object.get("message", "")
            self.reason = self.object.get("reason", "")
        except ValueError:
            self.object, self.message, self.reason = {}, body, ""
        super().__init__(f"{status} {self.reason}: {self.message}")


class Api:
    """A connection as the administrator of the kubeconfig."""

    def __init__(self):
        self.settings = Configuration()
        config.load_kube_config(client_configuration=self.settings)
        self.host = self.settings.host
        self.pool = urllib3.PoolManager(
            maxsize=32,
            cert_file=self.settings.cert_file,
            key_file=self.settings.key_file,
            ca_certs=self.settings.ssl_ca_cert,
        )

    def raw(self, method, path, body=None, headers=None, timeout=30, **query):
        """A request; the answer's status, headers and text."""
        url = self.host + path
        if query:
            url += ("&" if "?" in path else "?") + urllib.parse.urlencode(query, doseq=True)
        headers = {"Accept": "application/json", **(headers or {})}
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        answer = self.pool.request(
            method, url, body=body, headers=headers, timeout=timeout, redirect=False, retries=False
        )
        return answer.status, answer.headers, answer.data.decode(errors="replace")

    def ask(self, method, path, body=None, headers=None, **query):
        """A request whose answer must be a success, as JSON."""
        status, _, text = self.raw(method, path, body, headers, **query)
        if status >= 300:
            raise Refused(status, text)
        return json.loads(text) if text else {}

    def get(self, path, **query):
        return self.ask("GET", path, **query)

    def text(self, path, **query):
        status, _, text = self.raw("GET", path, **query)
        if status >= 300:
            raise Refused(status, text)
        return text

    def create(self, path, body, **query):
        return self.ask("POST", path, body, **query)

    def update(self, path, body, **query):
        return self.ask("PUT", path, body, **query)

    def patch(self, path, body, kind=STRATEGIC, **query):
        return self.ask("PATCH", path, json.dumps(body), {"Content-Type": kind}, **query)

    def delete(self, path, body=None, **query):
        return self.ask("DELETE", path, body, **query)

    def watch(self, path, timeout=60, **query):
        """The events of a watch, until the time is over."""
        query = {"watch": "true", "timeoutSeconds": int(timeout), **query}
        url = self.host + path + "?" + urllib.parse.urlencode(query)
        answer = self.pool.request(
            "GET", url, headers={"Accept": "application/json"}, preload_content=False,
            timeout=urllib3.Timeout(connect=10, read=timeout + 5), retries=False,
        )
        if answer.status >= 300:
            raise Refused(answer.status, answer.data.decode(errors="replace"))
        rest = b""
        try:
            for piece in answer.stream(65536, decode_content=True):
                rest += piece
                *lines, rest = rest.split(b"\n")
                for line in lines:
                    if line:
                        yield json.loads(line)
        finally:
            answer.release_conn()
            answer.close()

    def websocket(self, path, protocols, **query):
        """A WebSocket, with the administrator's certificate."""
        import websocket

        url = self.host.replace("https", "wss", 1) + path
        if query:
            url += "?" + urllib.parse.urlencode(query, doseq=True)
        options = {
            "ca_certs": self.settings.ssl_ca_cert,
            "certfile": self.settings.cert_file,
            "keyfile": self.settings.key_file,
            "cert_reqs": ssl.CERT_REQUIRED,
        }
        return websocket.create_connection(
            url, sslopt=options, subprotocols=protocols, timeout=30
        )
