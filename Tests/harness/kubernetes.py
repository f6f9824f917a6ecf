"""kubernetes — a webhook process, and in place of an API server, which cannot be had here, its few answers that the
webhook needs: Secrets and one MutatingWebhookConfiguration, over TLS, for one token."""

import base64
import copy
import json
import os
import re
import ssl
import tempfile
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from certificates import Authority
from servers import HOST, Process, ferritectl_binary, free_port

TOKEN = "the-pods-own-token"
NAMESPACE = "ferrite-system"


class Webhook(Process):
    """ferritectl webhook; its clients trust `authority` (a path)."""

    name = "webhook"

    def __init__(self, *words, authority=None, env=None, bind=HOST):
        """bind: None for its own default."""
        self.port, self.health_port = free_port(), free_port()
        self.authority = authority
        folder = tempfile.mkdtemp(prefix="ferrite-test-")
        super().__init__([
            ferritectl_binary(), "webhook", "--port", str(self.port), "--health-port", str(self.health_port),
            *(["--bind", bind] if bind else []), *words], folder=folder, env=env)
        self.wait_ready(lambda: self.health("/healthz")[0] == 200, 20.0)

    def health(self, path):
        """(status, text); (0, the reason) when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.health_port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def metric(self, sample):
        for line in self.health("/metrics")[1].splitlines():
            if line.startswith(sample + " "):
                return float(line.split()[-1])
        raise KeyError(sample)

    def context(self):
        context = ssl.create_default_context(cafile=self.authority)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def ask(self, review, path="/mutate?timeout=5s", headers=(), method="POST"):
        """(status, body) as the API server would be answered."""
        body = review if isinstance(review, bytes) else json.dumps(review).encode()
        request = urllib.request.Request(f"https://localhost:{self.port}{path}", data=body, method=method, headers={
            "Content-Type": "application/json", "Accept": "application/json, */*", "Accept-Encoding": "gzip",
            "User-Agent": "kube-apiserver-admission", **dict(headers)})
        try:
            with urllib.request.urlopen(request, timeout=10, context=self.context()) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def decide(self, review):
        """(response, patch) of an AdmissionReview."""
        status, body = self.ask(review)
        if status != 200:
            raise AssertionError(f"{status}: {body}")
        response = json.loads(body)["response"]
        patch = json.loads(base64.b64decode(response["patch"])) if "patch" in response else []
        return response, patch


class APIServer:
    """Objects by path. `refuse`: a method and path, as a regular expression, that is forbidden."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="ferrite-test-")
        self.objects = {}
        self.refuse = None
        self.calls = []
        self._version = 1
        self._lock = threading.Lock()
        authority = Authority(self.folder)
        authority.sign(self.folder, f"DNS:kubernetes,IP:{HOST}")
        for name, text in (("token", TOKEN), ("namespace", NAMESPACE)):
            with open(os.path.join(self.folder, name), "w") as file:
                file.write(text)
        self._server = ThreadingHTTPServer((HOST, 0), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(os.path.join(self.folder, "tls.crt"), os.path.join(self.folder, "tls.key"))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.environment = {"KUBERNETES_SERVICE_HOST": HOST,
                            "KUBERNETES_SERVICE_PORT": str(self._server.server_address[1])}
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()

    def put(self, path, thing):
        with self._lock:
            self._put(path, thing)

    def _put(self, path, thing):
        thing.setdefault("metadata", {})["resourceVersion"] = str(self._version)
        self._version += 1
        self.objects[path] = thing

    def get(self, path):
        with self._lock:
            return copy.deepcopy(self.objects.get(path))

    def answer(self, method, path, token, content_type, body):
        with self._lock:
            self.calls.append((method, path))
            if token != f"Bearer {TOKEN}":
                return 401, {"message": "Unauthorized"}
            if self.refuse and re.search(self.refuse, f"{method} {path}"):
                return 403, {"message": f"forbidden: {method} {path}"}
            if method == "POST":
                path = f"{path}/{body['metadata']['name']}"
                if path in self.objects:
                    return 409, {"message": "already exists"}
                self._put(path, body)
                return 201, body
            there = self.objects.get(path)
            if there is None:
                return 404, {"message": "not found"}
            if method == "PUT":
                if body["metadata"].get("resourceVersion") != there["metadata"]["resourceVersion"]:
                    return 409, {"message": "the object has been modified"}
                self._put(path, body)
            if method == "PATCH":
                if content_type != "application/json-patch+json":
                    return 415, {"message": content_type}
                changed = copy.deepcopy(there)
                for change in body:
                    *way, last = change["path"].lstrip("/").split("/")
                    at = changed
                    for step in way:
                        at = at[int(step)] if isinstance(at, list) else at[step]
                    if change["op"] == "test" and at[last] != change["value"]:
                        return 422, {"message": "test failed"}
                    at[last] = change["value"]
                self._put(path, changed)
            return 200, self.objects[path]

    def _handler(api):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def serve(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                status, thing = api.answer(self.command, self.path, self.headers.get("Authorization"),
                                           self.headers.get("Content-Type"), body)
                text = json.dumps(thing).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_PATCH = serve

            def log_message(self, *_):
                pass

        return Handler
