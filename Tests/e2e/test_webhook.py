"""ferritectl webhook over real TLS: what it answers, its certificates, and how it ends."""

import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time

from certificates import Authority
from kubernetes import NAMESPACE, APIServer, Webhook
from runner import expect, expect_true, test
from servers import HOST, ferritectl_binary, wait_until

POD = {"metadata": {"annotations": {"ferrite.io/sidecar-inject": "true"}}, "spec": {"containers": [{"name": "app"}]}}
CONFIGURATION = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/ferrite-sidecar"
SECRET = f"/api/v1/namespaces/{NAMESPACE}/secrets/tls"


def review(uid="u1", inject="true", **request):
    pod = json.loads(json.dumps(POD))
    pod["metadata"]["annotations"]["ferrite.io/sidecar-inject"] = inject
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
        "uid": uid, "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE", "namespace": "shop",
        "object": pod, **request}}


@contextlib.contextmanager
def webhook(*words, **named):
    """With a certificate of a folder; the folder and its authority are `folder` and `signer`."""
    with tempfile.TemporaryDirectory(prefix="ferrite-test-") as folder:
        signer = Authority(os.path.join(folder, "authority"))
        files = os.path.join(folder, "tls")
        signer.sign(files, f"DNS:localhost,IP:{HOST}")
        with Webhook("--cert-dir", files, "--shutdown-delay", "0", *words, authority=signer.path, **named) as hook:
            hook.signer, hook.files = signer, files
            yield hook


@test("webhook: a review is answered with its uid, a patch, warnings or a refusal, each counted by its name", once=True)
def _(t):
    with webhook() as hook:
        response, patch = hook.decide(review())
        expect((response["uid"], response["allowed"], response["patchType"]), ("u1", True, "JSONPatch"))
        expect_true(any(change["path"] == "/spec/initContainers" for change in patch), patch)
        expect(hook.decide(review("dry", dryRun=True))[1], patch)
        response, patch = hook.decide(review("u2", namespace="kube-system"))
        expect((response["uid"], response["allowed"], patch), ("u2", True, []))
        expect_true("not injected" in response["warnings"][0], response)
        response, patch = hook.decide(review("u3", inject="yes"))
        expect((response["allowed"], response["status"]["code"], patch), (False, 422, []))
        for decision, count in (("injected", 2), ("system-namespace", 1), ("bad-annotation", 1), ("host-network", 0)):
            expect(hook.metric(f'ferrite_webhook_reviews_total{{decision="{decision}"}}'), float(count), decision)
        expect(hook.metric("ferrite_webhook_review_duration_seconds_count"), 4.0)


@test("webhook: both of its ports are on every address of both families", once=True)
def _(t):
    hosts = [HOST]
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        hosts.append("::1")
    with webhook(bind=None) as hook:
        for host in hosts:
            for port in (hook.port, hook.health_port):
                socket.create_connection((host, port), timeout=5).close()


@test("webhook: what is no review is refused with a status and a sentence, and nothing ends", once=True)
def _(t):
    with webhook() as hook:
        for status, body, options in (
                (415, review(), {"headers": {"Content-Type": "text/plain"}}),
                (415, review(), {"headers": {"Content-Type": "application/jsonp"}}),
                (400, b"{", {}), (400, b"", {}), (400, {"kind": "Pod"}, {}), (400, b"[" * 100_000, {}),
                (404, review(), {"path": "/"}), (404, review(), {"path": "/mutate/x"}),
                (405, review(), {"method": "PUT"}), (413, b" " * ((3 << 20) + 1), {})):
            try:
                got, said = hook.ask(body, **options)
            except OSError as error:
                # It closes before it has read all of what is too large, and who still writes may hear of that first.
                expect(status, 413, str(error))
                continue
            expect(got, status, said)
            expect_true(len(said) > 10, said)
        for code, count in ((400, 4), (404, 2), (405, 1), (413, 1), (415, 2)):
            expect(hook.metric(f'ferrite_webhook_refused_requests_total{{code="{code}"}}'), float(count), code)
        expect(hook.ask(review(), headers={"Content-Type": "Application/JSON; charset=utf-8"})[0], 200)


def connect(hook):
    link = socket.create_connection((HOST, hook.port), timeout=10)
    return hook.context().wrap_socket(link, server_hostname="localhost")


def response(link):
    """The next whole answer's first line."""
    got = b""
    while b"\r\n\r\n" not in got:
        got += link.recv(65536)
    head, body = got.split(b"\r\n\r\n", 1)
    length = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    while length and len(body) < int(length[0].split(b":")[1]):
        body += link.recv(65536)
    return head.split(b"\r\n")[0].decode()


@test("webhook: a body in chunks, or in single bytes, is one body; one without end is cut off", once=True)
def _(t):
    with webhook() as hook:
        body = json.dumps(review()).encode()
        head = b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        with connect(hook) as link:
            whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
            for byte in range(0, len(whole), 7):
                link.sendall(whole[byte:byte + 7])
            expect(response(link), "HTTP/1.1 200 OK", "seven bytes at a time")
            link.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n")
            expect(response(link), "HTTP/1.1 200 OK", "chunked")
            link.sendall(head + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
            expect(response(link), "HTTP/1.1 100 Continue")
            link.sendall(body)
            expect(response(link), "HTTP/1.1 200 OK", "behind 100")
        with connect(hook) as link:
            link.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
            got = b""
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                for _ in range(10):
                    link.sendall(b"100000\r\n" + b" " * 0x100000 + b"\r\n")
                while part := link.recv(65536):
                    got += part
            expect_true(got == b"" or got.startswith(b"HTTP/1.1 413"), got)
        wait_until(lambda: hook.metric('ferrite_webhook_refused_requests_total{code="413"}') == 1, what="413 counted")


@test("webhook: TLS 1.1 and plain HTTP get nowhere; silent connections do not keep the API server out", once=True)
def _(t):
    with webhook() as hook:
        old = hook.context()
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with contextlib.suppress(OSError):
            with old.wrap_socket(socket.create_connection((HOST, hook.port), timeout=5), server_hostname="localhost"):
                expect_true(False, "TLS 1.1 was taken")
        with socket.create_connection((HOST, hook.port), timeout=5) as plain:
            plain.sendall(b"POST /mutate HTTP/1.1\r\nHost: x\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                expect_true(b"200" not in plain.recv(4096), "plain HTTP was answered")
        body = json.dumps(review()).encode()
        head = b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        with contextlib.ExitStack() as stack:
            older, asking = stack.enter_context(connect(hook)), stack.enter_context(connect(hook))
            older.sendall(head % len(body) + body)
            expect(response(older), "HTTP/1.1 200 OK")
            asking.sendall(head % len(body) + body[:100])
            for _ in range(400):
                stack.enter_context(socket.create_connection((HOST, hook.port), timeout=5))
            expect(hook.decide(review())[0]["allowed"], True)
            asking.sendall(body[100:])
            expect(response(asking), "HTTP/1.1 200 OK", "one that was in the midst of asking")
            older.sendall(head % len(body) + body)
            expect(response(older), "HTTP/1.1 200 OK", "one that had asked before")


@test("webhook: a body of arrays within arrays is refused at once, and a wide one is read", once=True)
def _(t):
    with webhook() as hook, connect(hook) as link:
        def ask(x):
            body = json.dumps(review())[:-1].encode() + b',"x":' + x + b"}"
            link.sendall(b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                         b"Content-Length: %d\r\n\r\n" % len(body) + body)
            return response(link)
        deep = b"[" * 480 + b"]" * 480
        expect(ask(b"[" + b",".join([deep] * 2_000) + b"]"), "HTTP/1.1 400 Bad Request")
        shallow = b"[" * 100 + b"]" * 100
        expect(ask(b"[" + b",".join([shallow] * 10_000) + b"]"), "HTTP/1.1 200 OK")


@test("webhook: those that do not get on with what they ask do not keep the API server out", once=True)
def _(t):
    with webhook() as hook, contextlib.ExitStack() as stack:
        half = b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 3000000\r\n\r\n{"
        for _ in range(260):
            with contextlib.suppress(OSError):
                stack.enter_context(connect(hook)).sendall(half)
        time.sleep(1.1)
        for _ in range(3):
            expect(hook.decide(review())[0]["allowed"], True)
    # Four that hold all there is room for.
    with webhook() as hook, contextlib.ExitStack() as stack:
        size = 3 << 20
        head = (b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n" % size)
        for _ in range(4):
            stack.enter_context(connect(hook)).sendall(head + b" " * (size - 1))
        time.sleep(1.5)
        for _ in range(3):
            expect(hook.decide(review())[0]["allowed"], True)


def is_gone(link):
    """The webhook has closed it."""
    try:
        link.settimeout(0.01)
        return link.recv(4096) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


@test("webhook: who asks and does not read, and bodies that never end, cost it little memory", once=True)
def _(t):
    def resident():
        with open(f"/proc/{hook.pid}/status") as status:
            return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) >> 10
    with webhook() as hook, contextlib.ExitStack() as stack:
        hook.decide(review())
        before = resident()
        link = stack.enter_context(socket.create_connection((HOST, hook.health_port), timeout=2))
        with contextlib.suppress(OSError):
            for _ in range(100):
                link.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000)
        half = b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (3 << 20)
        links = []
        for _ in range(40):
            link = stack.enter_context(connect(hook))
            links.append(link)
            with contextlib.suppress(OSError):
                link.settimeout(0.2)
                link.sendall(half + b" " * (2 << 20))
                link.recv(4096)  # 503, if those before it have all the room and have not had it for long
        living = sum(not is_gone(link) for link in links)
        expect_true(living <= (12 << 20) // (2 << 20), f"{living} of 40 were let go on")
        expect_true(resident() < before + 64, f"{before} MB, then {resident()} MB")
        expect(hook.health("/healthz")[0], 200)
    with webhook() as hook:
        expect(hook.decide(review())[0]["allowed"], True)


@test("webhook: a lost Secret makes a new authority, and what the one before has signed is trusted on", once=True)
def _(t):
    with cluster() as api, self_signed(api) as one:
        wait_until(lambda: one.health("/readyz")[0] == 200, 15.0, what="ready")
        api.objects.pop(SECRET)
        with self_signed(api) as two:
            wait_until(lambda: two.health("/readyz")[0] == 200, 15.0, what="ready")
            expect(bundle(api).count("BEGIN CERTIFICATE"), 2)
            expect_true(served(one, bundle(api)) != served(two, bundle(api)), "two certificates")


@test("webhook: a certificate that changes is served within seconds; one that is no good is not", once=True)
def _(t):
    with webhook() as hook:
        first = ssl.get_server_certificate((HOST, hook.port))
        with open(os.path.join(hook.files, "tls.key"), "w") as file:
            file.write("no key\n")
        wait_until(lambda: "is no good" in hook.log(), 15.0, 0.1, "the log's line")
        expect(ssl.get_server_certificate((HOST, hook.port)), first)
        expect_true(hook.metric('ferrite_webhook_certificate_loads_total{result="failed"}') >= 1, "failed")
        expect(hook.health("/readyz")[0], 200)
        hook.signer.sign(hook.files, f"DNS:localhost,IP:{HOST}", days=2)
        wait_until(lambda: ssl.get_server_certificate((HOST, hook.port)) != first, 15.0, 0.1, "the new certificate")
        expect(hook.decide(review())[0]["allowed"], True)
        ends = hook.metric("ferrite_webhook_certificate_not_after_timestamp_seconds")
        expect_true(ends > time.time() + 86_400, f"it ends at {ends}")


@test("webhook: what cannot be at the start is said in a sentence", once=True)
def _(t):
    with tempfile.TemporaryDirectory(prefix="ferrite-test-") as folder:
        def start(*words, **env):
            done = subprocess.run([ferritectl_binary(), "webhook", "--bind", HOST, *words], capture_output=True,
                                  text=True, timeout=20, env={**os.environ, **env})
            return done.returncode, done.stderr
        for words, code, said in (
                ((), 64, "--cert-dir FOLDER, or --self-signed"),
                (("--cert-dir", folder, "--self-signed", "tls"), 64, "not both"),
                (("--cert-dir", folder), 69, f"cannot read {folder}/tls.crt"),
                (("--self-signed", "tls"), 69, "KUBERNETES_SERVICE_HOST"),
                (("--cert-dir", folder, "--memory", "12"), 64, "--memory 12"),
                (("--cert-dir", folder, "--port", "x"), 64, "--port")):
            got = start(*words)
            expect_true(got[0] == code and said in got[1], f"{words}: {got}")
        with tempfile.TemporaryDirectory(prefix="ferrite-test-") as other:
            Authority(other).sign(other, f"DNS:localhost,IP:{HOST}")
            files = {}
            for name in ("tls.crt", "tls.key"):
                with open(os.path.join(other, name), encoding="ascii") as file:
                    files[name] = file.read()
        Authority(folder).sign(folder, f"DNS:localhost,IP:{HOST}")
        lock = ["openssl", "pkcs8", "-topk8", "-in", f"{folder}/tls.key", "-passout", "pass:secret"]
        encrypted = subprocess.run(lock, capture_output=True, text=True, check=True).stdout
        for name, text, said in (("tls.key", files["tls.key"], "tls.key does not belong to the first certificate"),
                                 ("tls.key", encrypted, "tls.key is encrypted"),
                                 ("tls.key", "", "tls.key is no private key"),
                                 ("tls.crt", "no certificate", "tls.crt is no certificate")):
            with open(os.path.join(folder, name), "w", encoding="ascii") as file:
                file.write(text)
            got = start("--cert-dir", folder)
            expect_true(got[0] == 69 and said in got[1], f"{said}: {got}")
    with webhook() as hook:
        got = start("--cert-dir", hook.files, "--port", str(hook.port), "--health-port", "0")
        expect_true(got[0] == 69 and str(hook.port) in got[1] and "in use" in got[1], got)


@test("webhook: on SIGTERM it is not ready, answers on, and ends with what is under way answered", once=True)
def _(t):
    with webhook("--shutdown-delay", "4") as hook:
        kept = http.client.HTTPSConnection("localhost", hook.port, context=hook.context(), timeout=10)
        body = json.dumps(review())

        def ask():
            kept.request("POST", "/mutate", body, {"Content-Type": "application/json"})
            answer = kept.getresponse()
            answer.read()
            return answer
        expect(ask().headers["Connection"], None)
        link = connect(hook)  # half a request
        half = body.encode()
        link.sendall(b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                     % len(half) + half[:100])
        hook.signal(signal.SIGTERM)
        wait_until(lambda: hook.health("/readyz")[0] == 503, what="not ready")
        expect(hook.health("/healthz")[0], 200)
        answer = ask()
        expect((answer.status, answer.headers["Connection"]), (200, "close"))
        time.sleep(4.5)
        expect_true(hook.is_alive(), "it waits for the half request")
        link.sendall(half[100:])
        expect(response(link), "HTTP/1.1 200 OK", "the half request's answer")
        link.close()
        expect(hook.child.wait(5), 0)


@contextlib.contextmanager
def cluster(service="localhost"):
    api = APIServer()
    try:
        api.put(CONFIGURATION, {"metadata": {"name": "ferrite-sidecar"}, "webhooks": [
            {"name": "one", "clientConfig": {"service": {"name": service}}},
            {"name": "two", "clientConfig": {"service": {"name": service}, "caBundle": "b2xk"}}]})
        yield api
    finally:
        api.stop()


def self_signed(api):
    return Webhook("--self-signed", "tls", "--shutdown-delay", "0", "--service-account", api.folder,
                   env=api.environment)


def bundle(api):
    bundles = {hook["clientConfig"].get("caBundle") for hook in api.get(CONFIGURATION)["webhooks"]}
    return base64.b64decode(bundles.pop()).decode() if len(bundles) == 1 and None not in bundles else None


def served(hook, trusted):
    """What it serves, if `trusted` (PEM) vouches for it under the Service's name."""
    context = ssl.create_default_context(cadata=trusted)
    with socket.create_connection((HOST, hook.port), timeout=5) as link:
        with context.wrap_socket(link, server_hostname=f"ferrite-sidecar.{NAMESPACE}.svc") as tls:
            return tls.getpeercert(binary_form=True)


@test("webhook: without cert-manager it makes a certificate, tells the API server, and replicas share it", once=True)
def _(t):
    with cluster() as api, self_signed(api) as one:
        wait_until(lambda: one.health("/readyz")[0] == 200, 15.0, what="ready")
        trusted = bundle(api)
        expect_true(trusted and "BEGIN CERTIFICATE" in trusted, trusted)
        expect(api.get(SECRET)["type"], "kubernetes.io/tls")
        with self_signed(api) as two:
            wait_until(lambda: two.health("/readyz")[0] == 200, 15.0, what="ready")
            expect(served(one, trusted), served(two, trusted))
        expect(one.stop(), 0)
        calls = len([call for call in api.calls if call[0] in ("POST", "PUT", "PATCH")])
        expect(calls, 2, "writes: one Secret, one caBundle")


@test("webhook: a certificate that is due is renewed, and a caBundle that was emptied is filled, in half a minute",
      once=True)
def _(t):
    with cluster() as api, self_signed(api) as hook:
        wait_until(lambda: hook.health("/readyz")[0] == 200, 15.0, what="ready")
        # What the Secret's own authority has signed, and ends tomorrow.
        secret, folder = api.get(SECRET), t.folder()
        for name, file in (("ca.crt", "ca.crt"), ("ca.key", "ca.key")):
            with open(os.path.join(folder, file), "wb") as out:
                out.write(base64.b64decode(secret["data"][name]))
        Authority.at(folder).sign(folder, f"DNS:ferrite-sidecar.{NAMESPACE}.svc")
        for name in ("tls.crt", "tls.key"):
            with open(os.path.join(folder, name), "rb") as file:
                secret["data"][name] = base64.b64encode(file.read()).decode()
        secret["metadata"]["labels"] = {"mine": "too"}
        api.put(SECRET, secret)
        configuration = api.get(CONFIGURATION)
        for one in configuration["webhooks"]:
            del one["clientConfig"]["caBundle"]
        api.put(CONFIGURATION, configuration)
        wait_until(lambda: bundle(api), 40.0, what="a caBundle")
        wait_until(lambda: api.get(SECRET)["data"]["tls.crt"] != secret["data"]["tls.crt"], 5.0, what="a renewal")
        expect(api.get(SECRET)["metadata"]["labels"], {"mine": "too"})
        expect(api.get(SECRET)["data"]["ca.crt"], secret["data"]["ca.crt"], "the authority")
        own = ssl.PEM_cert_to_DER_cert(base64.b64decode(api.get(SECRET)["data"]["tls.crt"]).decode())
        wait_until(lambda: served(hook, bundle(api)) == own, 5.0, what="the new one served")
        expect_true(hook.metric("ferrite_webhook_certificate_not_after_timestamp_seconds") > time.time() + 80 * 86400,
                    "it ends soon")


@test("webhook: replicas that start at once agree on one certificate", once=True)
def _(t):
    with cluster() as api:
        hooks = []
        # A process ends with the thread that has started it: these wait until the others are ready.
        done = threading.Event()

        def start():
            hook = self_signed(api)
            hooks.append(hook)
            done.wait(60)
            hook.stop()
        threads = [threading.Thread(target=start) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: len(hooks) == 3 and all(hook.health("/readyz")[0] == 200 for hook in hooks), 20.0,
                       what="three are ready")
            expect(len({served(hook, bundle(api)) for hook in hooks}), 1, "certificates")
        finally:
            done.set()
            for thread in threads:
                thread.join()


@test("webhook: without rights it is not ready and says why; it goes on when there are", once=True)
def _(t):
    with cluster() as api:
        api.refuse = "GET .*secrets"
        with self_signed(api) as hook:
            wait_until(lambda: "forbidden" in hook.log(), what="the reason in the log")
            expect(hook.health("/readyz"), (503, "there is no certificate yet\n"))
            expect(hook.health("/healthz")[0], 200)
            with contextlib.suppress(OSError):
                ssl.get_server_certificate((HOST, hook.port))
            expect_true(hook.is_alive(), "alive")
            api.refuse = "PATCH"
            wait_until(lambda: "caBundle of ferrite-sidecar cannot be written" in hook.log(), 10.0, what="the reason")
            expect(hook.health("/readyz")[0], 503)
            api.refuse = None
            wait_until(lambda: hook.health("/readyz")[0] == 200, 10.0, what="ready")
            # No secret in the log.
            key = api.get(SECRET)["data"]["tls.key"]
            expect_true(key not in hook.log(1000) and "PRIVATE" not in hook.log(1000), "a key is in the log")
