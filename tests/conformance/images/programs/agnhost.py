#!/usr/bin/python3
"""A stand-in for upstream's test image: the subcommands of agnhost that the conformance tests use.

It answers what the tests look at, no more, by the standard library only.
"""

import base64
import http.server
import json
import os
import random
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

import sample_apiserver
import webhook_server


def flags(argv):
    """`--name=value`, `--name value` and `--name` of a command line; names without dashes."""
    found, rest, i = {}, [], 0
    while i < len(argv):
        word = argv[i]
        if word.startswith("-"):
            name, eq, value = word.lstrip("-").partition("=")
            if not eq and i + 1 < len(argv) and not argv[i + 1].startswith("--"):
                i += 1
                value = argv[i]
            found[name] = value if (eq or value) else "true"
        else:
            rest.append(word)
        i += 1
    return found, rest


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "agnhost", self.server_address[1]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, form, *args):
        print(form % args, flush=True)

    def reply(self, text, status=200, kind="text/plain; charset=utf-8", headers=()):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def handle_one(self):
        raise NotImplementedError

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = (
        lambda self: self.handle_one()
    )


def handler(answer):
    return type("Answering", (Handler,), {"handle_one": answer})


def serve(port, answer, cert=None, client_ca=None):
    server = Server(("::", int(port)), handler(answer))
    if cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*cert)
        if client_ca:
            context.load_verify_locations(cadata=client_ca)
            context.verify_mode = ssl.CERT_OPTIONAL
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"serving on {port}", flush=True)
    return server


def serve_udp(port):
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", int(port)))

    def loop():
        while True:
            data, peer = sock.recvfrom(2048)
            text = data.decode(errors="replace").strip()
            low = text.lower()
            if low == "hostname":
                said = socket.gethostname()
            elif low == "clientip":
                said = peer[0].removeprefix("::ffff:")
            elif low.startswith("echo "):
                said = text[5:]
            else:
                continue
            print(f"udp: {text} from {peer[0]}", flush=True)
            sock.sendto(said.encode(), peer)

    threading.Thread(target=loop, daemon=True).start()


def until_term(delay=0.0):
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    signal.signal(signal.SIGINT, lambda *_: done.set())
    done.wait()
    time.sleep(delay)


# === netexec ===


def dial_once(host, port, protocol, request, timeout=5):
    if protocol == "udp":
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.settimeout(timeout)
            sock.connect((host, port))
            sock.send(request.encode())
            return sock.recv(2048).decode()
    target = f"[{host}]" if ":" in host else host
    with urllib.request.urlopen(f"http://{target}:{port}/{request}", timeout=timeout) as answer:
        return answer.read().decode()


def dial(query):
    one = lambda name, default="": query.get(name, [default])[0]
    responses, errors = [], []
    for _ in range(int(one("tries", "1"))):
        try:
            said = dial_once(one("host"), int(one("port")), one("protocol"), one("request"))
            responses.append(said)
        except OSError as error:
            errors.append(str(error))
    found = {}
    if responses:
        found["responses"] = responses
    if errors:
        found["errors"] = errors
    return json.dumps(found)


def netexec(argv):
    found, _ = flags(argv)

    def answer(self):
        url = urllib.parse.urlparse(self.path)
        query = urllib.parse.parse_qs(url.query)
        one = lambda name, default="": query.get(name, [default])[0]
        path = url.path
        if path.lower() == "/hostname":
            self.reply(socket.gethostname())
        elif path == "/echo":
            self.body()
            self.reply(one("msg"))
        elif path == "/clientip":
            self.reply(f"{self.client_address[0].removeprefix('::ffff:')}:{self.client_address[1]}")
        elif path == "/dial":
            self.reply(dial(query))
        elif path == "/healthz":
            self.reply("ok")
        elif path == "/readyz":
            self.reply("ok")
        elif path == "/header":
            self.reply(self.headers.get(one("key")) or "")
        elif path == "/redirect":
            self.reply("", int(one("code", "302")), headers=[("Location", one("location"))])
        elif path == "/exit":
            self.reply("bye")
            os._exit(int(one("code", "0")))
        elif path == "/shell":
            run = subprocess.run(["/bin/sh", "-c", one("cmd")], capture_output=True, text=True)
            said = {"output": run.stdout + run.stderr}
            if run.returncode:
                said["error"] = f"exit status {run.returncode}"
            self.reply(json.dumps(said))
        elif path == "/":
            self.reply(f"NOW: {time.strftime('%Y-%m-%d %H:%M:%S %z')}")
        else:
            self.reply("404 page not found\n", 404)

    serve(found.get("http-port", "8080"), answer)
    if found.get("udp-port", "8081") != "-1":
        serve_udp(found.get("udp-port", "8081"))
    until_term(float(found.get("delay-shutdown", "0")))


# === serve-hostname, porter ===


def serve_hostname(argv):
    found, _ = flags(argv)
    name = socket.gethostname()
    serve(found.get("port", "9376"), lambda self: self.reply(name))
    until_term()


def porter(argv):
    found, _ = flags(argv)
    as_json = "json-response" in found

    def answering(body):
        def answer(self):
            self.body()
            if as_json:
                self.reply(json.dumps({"Method": self.command, "Body": body}), kind="application/json")
            else:
                self.reply(body, kind="text/html; charset=utf-8")

        return answer

    cert = ("/localhost.crt", "/localhost.key")
    for key, value in os.environ.items():
        if key.startswith("SERVE_PORT_"):
            serve(key.removeprefix("SERVE_PORT_"), answering(value))
        elif key.startswith("SERVE_TLS_PORT_"):
            serve(key.removeprefix("SERVE_TLS_PORT_"), answering(value), cert)
    until_term()


# === guestbook ===


def guestbook(argv):
    found, _ = flags(argv)
    store, replicas, lock = {}, set(), threading.Lock()
    backend = int(found.get("backend-port", "6379"))
    leader = found.get("replicaof") or found.get("slaveof")

    def fetch(host, path):
        target = f"[{host}]" if ":" in host else host
        with urllib.request.urlopen(f"http://{target}:{backend}{path}", timeout=5) as said:
            return json.loads(said.read())

    def answer(self):
        url = urllib.parse.urlparse(self.path)
        query = urllib.parse.parse_qs(url.query)
        one = lambda name: query.get(name, [""])[0]
        if url.path == "/register":
            with lock:
                replicas.add(one("host"))
            return self.reply(json.dumps({"data": "", "entries": store}))
        if url.path == "/set":
            with lock:
                store[one("key")] = one("value")
                others = list(replicas)
            for host in others:
                fetch(host, f"/set?key={one('key')}&value={one('value')}")
            return self.reply(json.dumps({"data": "Updated"}))
        if url.path == "/get":
            return self.reply(json.dumps({"data": store.get(one("key"), "")}))
        if url.path == "/guestbook":
            if one("cmd") == "set":
                return self.reply(
                    json.dumps(fetch("agnhost-primary", f"/set?key={one('key')}&value={one('value')}"))
                )
            return self.reply(json.dumps(fetch("agnhost-replica", f"/get?key={one('key')}")))
        self.reply("404", 404)

    serve(found.get("http-port", "80"), answer)
    if str(backend) != found.get("http-port", "80"):
        serve(backend, answer)
    if leader:
        for _ in range(60):
            try:
                with urllib.request.urlopen(
                    f"http://{leader}:{backend}/register?host={own_address()}", timeout=5
                ) as said:
                    store.update(json.loads(said.read())["entries"])
                break
            except OSError as error:
                print(f"cannot register: {error}", flush=True)
                time.sleep(1)
    until_term()


def own_address():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))
        return sock.getsockname()[0]


# === logs-generator, entrypoint-tester, pause, oidc ===


def logs_generator(argv):
    found, _ = flags(argv)
    total = int(found.get("log-lines-total", os.environ.get("LOGS_GENERATOR_LINES_TOTAL", "1")))
    length = found.get("run-duration", os.environ.get("LOGS_GENERATOR_DURATION", "1s"))
    seconds = float(length.rstrip("ms")) * (0.001 if length.endswith("ms") else 1)
    if length.endswith("m"):
        seconds *= 60
    for number in range(total):
        verb, name = random.choice(["GET", "PUT", "POST"]), f"{random.randrange(16**3):03x}"
        stamp = time.strftime("%m%d %H:%M:%S") + ".000000"
        print(
            f"I{stamp}       1 logs_generator.go:76] {number} {verb} /api/v1/namespaces/ns/pods/{name} 200",
            flush=True,
        )
        time.sleep(seconds / max(total, 1))
    time.sleep(3600)


def service_account_issuer_discovery(argv):
    found, _ = flags(argv)
    base = "/var/run/secrets/kubernetes.io/serviceaccount"
    token = open(found.get("token-path", f"{base}/token")).read()
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    issuer = claims["iss"]
    context = ssl.create_default_context(cafile=f"{base}/ca.crt")
    headers = {"Authorization": f"Bearer {open(f'{base}/token').read()}"}
    host = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"

    def fetch(url):
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, context=context, timeout=10) as said:
            return json.loads(said.read())

    try:
        document = fetch(issuer.rstrip("/") + "/.well-known/openid-configuration")
        print("OK: Got issuer's document at the issuer's URL", flush=True)
    except OSError as error:
        print(f"falling back to {host}: {error}", flush=True)
        document = fetch(host + "/.well-known/openid-configuration")
    assert document["issuer"] == issuer, (document, issuer)
    assert document["id_token_signing_alg_values_supported"], document
    try:
        keys = fetch(document["jwks_uri"])
    except OSError as error:
        print(f"jwks_uri {document['jwks_uri']}: {error}", flush=True)
        keys = fetch(host + "/openid/v1/jwks")
    assert keys["keys"], keys
    assert "oidc-discovery-test" in claims["aud"], claims
    print("completed successfully", flush=True)


# === webhooks, an aggregated API server ===


def webhook(argv):
    found, _ = flags(argv)

    def answer(self):
        path = urllib.parse.urlparse(self.path).path
        if path == "/readyz":
            return self.reply("ok")
        said = webhook_server.answer(path, self.body())
        if said is None:
            return self.reply("404 page not found\n", 404)
        self.reply(json.dumps(said), kind="application/json")

    serve(found["port"], answer, (found["tls-cert-file"], found["tls-private-key-file"]))
    until_term()


def sample_server(argv):
    found, _ = flags(argv)
    front, store = sample_apiserver.Front(), sample_apiserver.Store()

    def answer(self):
        code, said = sample_apiserver.answer(
            front, store, self.command, self.path, self.connection.getpeercert(), self.headers, self.body()
        )
        self.reply(json.dumps(said), code, "application/json")

    serve(found["port"], answer, (found["tls-cert-file"], found["tls-private-key-file"]), front.ca)
    until_term()


def pause(_argv):
    until_term()


COMMANDS = {
    "netexec": netexec,
    "serve-hostname": serve_hostname,
    "porter": porter,
    "guestbook": guestbook,
    "logs-generator": logs_generator,
    "entrypoint-tester": lambda argv: print([sys.argv[0], "entrypoint-tester", *argv]),
    "test-service-account-issuer-discovery": service_account_issuer_discovery,
    "webhook": webhook,
    "crd-conversion-webhook": webhook,
    "sample-apiserver": sample_server,
    "pause": pause,
}

if __name__ == "__main__":
    name = sys.argv[1] if len(sys.argv) > 1 else "pause"
    COMMANDS[name](sys.argv[2:])
