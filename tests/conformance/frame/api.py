"""A client of the API: JSON over HTTPS, what a test sends is what is on the wire."""

import base64
import json
import os
import ssl
import tempfile
import urllib.parse

import requests
import yaml

from .case import Failed, Refused

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"


class Api:
    """A connection as the user of a kubeconfig. What is given by further names goes into the query."""

    def __init__(self, kubeconfig):
        self.kubeconfig = kubeconfig
        with open(kubeconfig) as file:
            config = yaml.safe_load(file)
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.scratch = tempfile.mkdtemp(prefix="conformance-")
        self.session = requests.Session()
        # A CA bundle of the environment is not this cluster's.
        self.session.trust_env = False
        self.session.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=64, pool_connections=8))
        self.host = cluster["server"]
        self.session.verify = self._file("ca.crt", cluster["certificate-authority-data"])
        self.session.cert = (
            self._file("client.crt", user["client-certificate-data"]),
            self._file("client.key", user["client-key-data"]),
        )

    def _file(self, name, data):
        path = os.path.join(self.scratch, name)
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))
        return path

    def call(self, method, path, body=None, kind="application/json", accept="application/json", headers=None,
             timeout=60, allow_redirects=True, **query):
        """A request whose answer must be a success; the response."""
        data = body if isinstance(body, (str, bytes, type(None))) else json.dumps(body)
        response = self.session.request(
            method, self.host + path, params=query, data=data, timeout=timeout, allow_redirects=allow_redirects,
            headers={"Content-Type": kind, "Accept": accept, **(headers or {})},
        )
        if response.status_code >= 400:
            raise Refused(response)
        return response

    def get(self, path, **more):
        return self.call("GET", path, **more).json()

    def create(self, path, body, **more):
        return self.call("POST", path, body, **more).json()

    def update(self, path, body, **more):
        return self.call("PUT", path, body, **more).json()

    def patch(self, path, body, kind=MERGE, **more):
        return self.call("PATCH", path, body, kind=kind, **more).json()

    def delete(self, path, body=None, **more):
        return self.call("DELETE", path, body, **more).json()

    def open_watch(self, path, seconds, **query):
        """The response of a watch that has begun, for so many seconds at most."""
        query = {"watch": "true", "timeoutSeconds": str(seconds), **query}
        response = self.session.get(self.host + path, params=query, stream=True, timeout=seconds + 30)
        if response.status_code >= 400:
            raise Refused(response)
        return response

    def watch(self, path, seconds=60, **query):
        """The events of a watch."""
        with self.open_watch(path, seconds, **query) as response:
            for line in response.iter_lines(chunk_size=None):
                if line:
                    yield json.loads(line)

    def retry_update(self, path, change, tries=10):
        """GET, change, PUT until there is no conflict."""
        for _ in range(tries):
            found = self.get(path)
            change(found)
            try:
                return self.update(path, found)
            except Refused as refused:
                if refused.code != 409:
                    raise
        raise Failed(f"conflicts without end at {path}")

    def websocket(self, path, protocols, **query):
        """A WebSocket, with the user's certificate."""
        import websocket

        url = self.host.replace("https", "wss", 1) + path + "?" + urllib.parse.urlencode(query, doseq=True)
        cert, key = self.session.cert
        options = {"ca_certs": self.session.verify, "certfile": cert, "keyfile": key, "cert_reqs": ssl.CERT_REQUIRED}
        return websocket.create_connection(url, sslopt=options, subprotocols=protocols, timeout=30)
