"""Upstreams by TLS: a real redis-server with certificates of openssl's. What is right works as it does plainly; what is
not trusted is told, and hears nothing of us."""

import contextlib
import os
import random
import shutil
import socket
import ssl
import subprocess
import threading
import time

import servers
from certificates import Authority
from resp import Closed, Status
from runner import expect, expect_error, expect_true, test
from servers import TLSRedis, wait_until

HOST = servers.HOST


class Chain:
    """An authority, and a server's certificate by it in `server`."""

    def __init__(self, t, names=f"DNS:localhost,IP:{HOST}", **signing):
        self.folder = t.folder()
        self.authority = Authority(f"{self.folder}/authority")
        self.server = f"{self.folder}/server"
        self.authority.sign(self.server, names, **signing)

    def redis(self, t, *options, **named):
        return t.stack.enter_context(TLSRedis(self.server, *options, **named))

    @property
    def trusted(self):
        return {"tls_ca_cert_file": self.authority.path}


def starts(t, redis, chain, url=None, **settings):
    sidecar = t.sidecar(url or redis.url(), settings={**chain.trusted, **settings})
    return sidecar.wait_until_tracking()


def is_refused(t, sidecar, *words):
    """It says so to clients and in the log, and no command of ours reached the server."""
    client = t.client(sidecar)
    kind = "handshake" if "does it speak TLS?" in words else "tls"
    said = "is unreachable" if kind == "handshake" else "do not agree on TLS"
    wait_until(lambda: said in str(client.ask("SET", "k", "v")), what=f"{said!r} in the answer")
    expect_true(sidecar.metrics()[f'ferrite_sidecar_upstream_failures_total{{kind="{kind}"}}'] > 0, f"none of {kind}")
    for word in words:
        wait_until(lambda: word in sidecar.log(200), what=f"{word!r} in the log")


# ---- it works ----------------------------------------------------------------------------------------------------


@test("a rediss:// upstream: hits, misses, writes, a transaction, a subscriber, a blocked pop, and changes elsewhere")
def _(t):
    chain = Chain(t)
    redis = chain.redis(t)
    sidecar = starts(t, redis, chain)
    client, direct = t.client(sidecar), t.client(redis)
    expect(client.call("SET", "k", "v"), Status("OK"))
    t.cache(client, direct, "1")
    hits = sidecar.metric("ferrite_keyspace_hits_total")
    expect(client.call("GET", "k"), b"1")
    expect(sidecar.metric("ferrite_keyspace_hits_total"), hits + 1)
    direct.call("SET", "k", "2")
    wait_until(lambda: client.call("GET", "k") == b"2", what="the change")
    expect(client.call("MGET", "k", "none"), [b"2", None])
    expect(client.call("MULTI"), Status("OK"))
    client.call("INCR", "n")
    expect(client.call("EXEC"), [1])
    subscriber = t.client(sidecar)
    subscriber.call("SUBSCRIBE", "news")
    direct.call("PUBLISH", "news", "x")
    expect(subscriber.read(), [b"message", b"news", b"x"])
    popper = t.client(sidecar)
    popper.send("BRPOP", "list", "5")
    wait_until(lambda: "blocked_clients:1" in direct.call("INFO", "clients").decode(), what="a blocked client")
    direct.call("LPUSH", "list", "y")
    expect(popper.read(), [b"list", b"y"])
    expect_true('"address":"rediss://' in sidecar.page("/stats")[1].replace(" ", ""), "/stats does not say rediss://")


@test("a rediss:// upstream by its name: it is told the name, and its certificate is for it")
def _(t):
    chain = Chain(t, names="DNS:localhost")
    redis = chain.redis(t)
    starts(t, redis, chain, redis.url("localhost"))
    # redis-server does not look at the name that it is told.
    told = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{chain.server}/tls.crt", f"{chain.server}/tls.key")
    context.sni_callback = lambda _socket, name, _context: told.append(name)
    with socket.create_server((HOST, 0)) as listener:
        def answer():
            with contextlib.suppress(OSError):
                context.wrap_socket(listener.accept()[0], server_side=True).close()
        threading.Thread(target=answer, daemon=True).start()
        t.sidecar(f"rediss://localhost:{listener.getsockname()[1]}", settings=chain.trusted)
        wait_until(lambda: told, what="a handshake")
    expect(told[0], "localhost")


@test("values of any length pass through TLS unharmed, many at a time and both ways")
def _(t):
    chain = Chain(t)
    redis = chain.redis(t)
    sidecar = starts(t, redis, chain, local_memory="64mb", read_timeout="5s")
    chance = random.Random(7)
    values = {f"v{n}": chance.randbytes(length) for n, length in enumerate(
        [0, 1, 4046, 4096, 16383, 16384, 16385, 32768, 65536, 131072, 500_000, 1_000_000, 3_000_000])}

    def exchange(part):
        with sidecar.client() as client:
            names = list(values)[part:] + list(values)[:part]
            for name in names:
                key = f"{part}:{name}"
                expect(client.call("SET", key, values[name]), Status("OK"))
                expect_true(client.call("GET", key) == values[name], f"{name} came back otherwise")
            some = names[:6]
            expect_true(client.call("MGET", *[f"{part}:{name}" for name in some]) == [values[name] for name in some],
                        "MGET came back otherwise")
            replies = client.pipeline([("ECHO", values["v4"]) for _ in range(300)])
            expect_true(all(reply == values["v4"] for reply in replies), "ECHO came back otherwise")
    t.threads([lambda part=part: exchange(part) for part in range(4)])
    with redis.client() as direct:
        expect_true(all(direct.call("GET", f"3:{name}") == value for name, value in values.items()),
                    "what the upstream has is otherwise")


@test("TLS links that the upstream ends, or that break, are made again")
def _(t):
    chain = Chain(t)
    redis = chain.redis(t)
    meddler = t.meddler((HOST, redis.tls_port))
    sidecar = starts(t, redis, chain, f"rediss://{servers.spelled(meddler.address)}")
    client, direct = t.client(sidecar), t.client(redis)
    for break_it in (lambda: direct.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"), meddler.drop_all,
                     lambda: meddler.drop_all(reset=True)):
        epoch = sidecar.metric("ferrite_sidecar_upstream_epoch")
        break_it()
        wait_until(lambda: sidecar.metric("ferrite_sidecar_upstream_epoch") > epoch, what="another link")
        wait_until(lambda: client.ask("SET", "k", "v") == Status("OK"), what="a write")
    # A record that was meddled with ends its link: nothing of it is taken for a reply.
    epoch = sidecar.metric("ferrite_sidecar_upstream_epoch")
    meddler.alter = lambda data: data[:-1] + bytes([data[-1] ^ 1])
    try:
        client.ask("ECHO", "x")
    except Closed:
        pass
    wait_until(lambda: "bad record mac" in sidecar.log(200), what="the reason in the log")
    meddler.behave()
    wait_until(lambda: sidecar.metric("ferrite_sidecar_upstream_epoch") > epoch, what="another link")


@test("an upstream by TLS that freezes: hits are served, a miss fails in time, and it is found again")
def _(t):
    chain = Chain(t)
    redis = chain.redis(t)
    sidecar = starts(t, redis, chain)
    client, direct = t.client(sidecar), t.client(redis)
    t.cache(client, direct, "1")
    redis.freeze()
    expect_error(client.ask("GET", "other"), "did not answer within 50 ms")
    wait_until(lambda: client.ask("GET", "k") == b"1" and "is unreachable" in sidecar.log(200), 10, what="served stale")
    redis.thaw()
    wait_until(lambda: client.ask("SET", "k", "2") == Status("OK"), 10, what="a write")


# ---- whom it trusts ----------------------------------------------------------------------------------------------


@test("a certificate by another authority is not accepted, and the server hears no word of ours")
def _(t):
    chain, other = Chain(t), Chain(t)
    redis = chain.redis(t, password="s3cret-of-mine")
    sidecar = t.sidecar(redis.url(), settings={**other.trusted, "password": "s3cret-of-mine"})
    is_refused(t, sidecar, "the upstream's certificate is not accepted")
    expect(redis.calls_of("hello"), 0, "HELLO at the upstream")
    wait_until(lambda: "alert unknown ca" in redis.log(100), what="our reason in the server's log")
    expect_true("s3cret" not in sidecar.log(1000), "the password is in the log")


@test("without tls_ca_cert_file the system's authorities are asked, and ours is none of them")
def _(t):
    chain = Chain(t)
    redis = chain.redis(t)
    is_refused(t, t.sidecar(redis.url()), "the upstream's certificate is not accepted")


@test("a certificate that has expired is not accepted; a new one is, without a restart of the sidecar")
def _(t):
    chain = Chain(t, days=-1)
    redis = chain.redis(t)
    sidecar = t.sidecar(redis.url(), settings=chain.trusted)
    is_refused(t, sidecar, "the upstream's certificate is not accepted: certificate has expired")
    chain.authority.sign(chain.server, f"IP:{HOST}")
    with redis.client() as direct:
        direct.call("CONFIG", "SET", "tls-cert-file", f"{chain.server}/tls.crt", "tls-key-file",
                    f"{chain.server}/tls.key")
    sidecar.wait_until_tracking()


@test("a certificate for another host is not accepted; tls_server_name says whom it must name")
def _(t):
    chain = Chain(t, names="DNS:redis.example.org")
    redis = chain.redis(t)
    is_refused(t, t.sidecar(redis.url(), settings=chain.trusted), "IP address mismatch")
    is_refused(t, t.sidecar(redis.url("localhost"), settings=chain.trusted), "hostname mismatch")
    starts(t, redis, chain, tls_server_name="redis.example.org")


@test("a server that wants a certificate of ours: one by its authority is let in, none and another are told so")
def _(t):
    chain, other = Chain(t), Chain(t)
    redis = chain.redis(t, trusts=chain.authority.path)
    chain.authority.sign(f"{chain.folder}/ours", "DNS:sidecar")
    other.authority.sign(f"{other.folder}/ours", "DNS:sidecar")

    def shown(folder):
        return {"tls_cert_file": f"{folder}/tls.crt", "tls_key_file": f"{folder}/tls.key"}
    is_refused(t, t.sidecar(redis.url(), settings=chain.trusted), "handshake: TLS: tlsv13 alert certificate required")
    is_refused(t, t.sidecar(redis.url(), settings={**chain.trusted, **shown(f"{other.folder}/ours")}),
               "handshake: TLS: tlsv1 alert unknown ca")
    starts(t, redis, chain, **shown(f"{chain.folder}/ours"))


def distrusts(t, chain, redis, **settings):
    """A sidecar that is connected, and will not take the server's certificate the next time."""
    bundle = f"{chain.folder}/trusted.crt"
    shutil.copy(chain.authority.path, bundle)
    sidecar = t.sidecar(redis.url(), settings={"tls_ca_cert_file": bundle, **settings}).wait_until_tracking()
    shutil.copy(Chain(t).authority.path, f"{bundle}.new")
    os.replace(f"{bundle}.new", bundle)
    wait_until(lambda: "connections made from now on use what they hold" in sidecar.log(200), 15, what="a new reading")
    return sidecar


@test("who is not trusted any more is there all the same: no copy is served that others may have changed")
def _(t):
    chain = Chain(t)
    redis = chain.redis(t)
    sidecar = distrusts(t, chain, redis)
    client, direct = t.client(sidecar), t.client(redis)
    t.cache(client, direct, "old")
    direct.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    direct.call("SET", "k", "new")
    wait_until(lambda: "do not agree on TLS" in sidecar.log(200), what="the reason in the log")
    for _ in range(20):
        expect_error(client.ask("GET", "k"), "do not agree on TLS", "certificate is not accepted")
        time.sleep(0.05)


@test("a client's own connection that finds no trust is told of, counted and logged, while the tracked one is up")
def _(t):
    chain = Chain(t)
    sidecar = distrusts(t, chain, chain.redis(t))
    before = sidecar.metrics()
    for _ in range(3):
        expect_error(t.client(sidecar).ask("SUBSCRIBE", "news"), "certificate is not accepted")
    name = 'ferrite_sidecar_upstream_failures_total{kind="tls"}'
    expect(sidecar.metrics()[name] - before[name], 3)
    wait_until(lambda: sidecar.log(200).count("do not agree on TLS") == 1, what="one line in the log")
    expect(sidecar.metric("ferrite_sidecar_upstream_up"), 1)


@test("a server whose chain of certificates is endless is refused, and one with a long chain keeps to the budget")
def _(t):
    chain = Chain(t)
    names = ",".join(f"DNS:host-{n}.some-long-domain-name.example.org" for n in range(20))
    with open(f"{chain.server}/tls.crt", encoding="ascii") as file:
        own = file.read()
    long = ""
    for place in range(14):
        Authority(f"{chain.folder}/more{place}", f"more {place}").sign(f"{chain.folder}/fat{place}", names)
        with open(f"{chain.folder}/fat{place}/tls.crt", encoding="ascii") as file:
            long += file.read()
        if place == 6:
            with open(f"{chain.server}/tls.crt", "w", encoding="ascii") as file:
                file.write(own + long)
            redis = chain.redis(t)
    sidecar = starts(t, redis, chain, local_memory="32mb")
    clients = [sidecar.client(timeout=30) for _ in range(150)]
    for client in clients:
        client.send("SUBSCRIBE", "news")
    wait_until(lambda: sidecar.metric("ferrite_sidecar_connections_pinned") > 10, 15, what="connections of their own")
    time.sleep(1)
    with open(f"/proc/{sidecar.pid}/status", encoding="ascii") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    t.note(f"{sidecar.metric('ferrite_sidecar_connections_pinned'):.0f} connections, VmHWM {peak / 1024:.1f} MiB")
    expect_true(peak < 32 << 10, f"the process held {peak} KiB")
    for client in clients:
        client.close()
    with open(f"{chain.server}/tls.crt", "w", encoding="ascii") as file:
        file.write(own + long * 2)
    with redis.client() as direct:
        direct.call("CONFIG", "SET", "tls-cert-file", f"{chain.server}/tls.crt", "tls-key-file",
                    f"{chain.server}/tls.key")
    expect_error(t.client(sidecar).ask("SUBSCRIBE", "news"), "TLS: excessive message size")


@test("certificates are read again when they change; a file that is no good changes nothing, and the log says so")
def _(t):
    chain, other = Chain(t), Chain(t)
    redis = chain.redis(t)
    meddler = t.meddler((HOST, redis.tls_port))
    url = f"rediss://{servers.spelled(meddler.address)}"
    bundle = f"{chain.folder}/trusted.crt"
    shutil.copy(chain.authority.path, bundle)
    sidecar = t.sidecar(url, settings={"tls_ca_cert_file": bundle}).wait_until_tracking()
    client = t.client(sidecar)
    epoch = sidecar.metric("ferrite_sidecar_upstream_epoch")

    def replaced(text):
        with open(f"{bundle}.new", "w", encoding="ascii") as file:
            file.write(text)
        os.replace(f"{bundle}.new", bundle)
    replaced("no certificate")
    wait_until(lambda: "what was read before is used on: tls_ca_cert_file" in sidecar.log(200), 15,
               what="the complaint in the log")
    meddler.drop_all()
    wait_until(lambda: sidecar.metric("ferrite_sidecar_upstream_epoch") > epoch,
               what="another link, by what was read before")
    # As a bundle is rotated: first both authorities are trusted, then the server shows the new one's certificate.
    epoch = sidecar.metric("ferrite_sidecar_upstream_epoch")
    with open(other.authority.path, encoding="ascii") as new:
        replaced(new.read())
    wait_until(lambda: "connections made from now on use what they hold" in sidecar.log(200), 15, what="a new reading")
    expect(client.call("SET", "k", "v"), Status("OK"))
    expect(sidecar.metric("ferrite_sidecar_upstream_epoch"), epoch, "links were made anew")
    with redis.client() as direct:
        direct.call("CONFIG", "SET", "tls-cert-file", f"{other.server}/tls.crt", "tls-key-file",
                    f"{other.server}/tls.key")
    meddler.drop_all()
    wait_until(lambda: sidecar.metric("ferrite_sidecar_upstream_epoch") > epoch, what="another link")
    wait_until(lambda: client.ask("SET", "k", "w") == Status("OK"), what="a write")


# ---- what is spoken ----------------------------------------------------------------------------------------------


@test("tls_min_version: a server of TLS 1.2 only is refused by a sidecar that wants 1.3, and taken by others")
def _(t):
    chain = Chain(t)
    redis = chain.redis(t, "--tls-protocols", "TLSv1.2")
    is_refused(t, t.sidecar(redis.url(), settings={**chain.trusted, "tls_min_version": "1.3"}), "handshake: TLS: ")
    sidecar = starts(t, redis, chain)
    expect(t.client(sidecar).call("SET", "k", "v"), Status("OK"))


@test("TLS where the server speaks none, and none where it speaks TLS: both are told")
def _(t):
    chain = Chain(t)
    redis = chain.redis(t)
    host, port = redis.address
    is_refused(t, t.sidecar(f"rediss://{host}:{port}", settings=chain.trusted), "does it speak TLS?")
    meddler = t.meddler(redis)
    meddler.greet = lambda connection: connection.sendall(b"-ERR no\r\n" * 9)
    is_refused(t, t.sidecar(f"rediss://{servers.spelled(meddler.address)}", settings=chain.trusted),
               "TLS: wrong version number (does it speak TLS?)")
    sidecar = t.sidecar((HOST, redis.tls_port))
    expect_error(t.client(sidecar).ask("SET", "k", "v"), "is unreachable: handshake")


# ---- files -------------------------------------------------------------------------------------------------------


@test("files of TLS that are no good: which, what is wrong and what is right, and nothing starts", once=True)
def _(t):
    chain, other = Chain(t), Chain(t)
    here, there = chain.server, other.server
    empty, text, locked = (f"{chain.folder}/{name}" for name in ("empty", "text", "locked"))
    open(empty, "w", encoding="ascii").close()
    with open(text, "w", encoding="ascii") as file:
        file.write("s3cret-of-mine")
    subprocess.run(["openssl", "pkey", "-in", f"{here}/tls.key", "-aes256", "-passout", "pass:x", "-out", locked],
                   check=True, capture_output=True)
    with open(f"{here}/tls.crt", encoding="ascii") as file:
        lines = file.read().splitlines()
    with open(f"{chain.folder}/torn", "w", encoding="ascii") as file:
        file.write("\n".join(lines[:3] + lines[6:]))

    def refuses(settings, *words, url="rediss://h:1"):
        arguments = [servers.ferrite_binary(), "--sidecar", "--upstream", url, "--check-config"]
        for key, value in settings.items():
            arguments += ["--set", f"{key}={value}"]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=20, check=False)
        expect(done.returncode, 78, done.stderr)
        for word in words:
            expect_true(word in done.stderr, f"{word!r} is missing in: {done.stderr}")
        expect_true("s3cret" not in done.stdout + done.stderr, "what stands in a file is shown")
    pipe = f"{chain.folder}/pipe"
    os.mkfifo(pipe)
    ours = {"tls_cert_file": f"{here}/tls.crt"}
    refuses({"tls_ca_cert_file": pipe}, "tls_ca_cert_file", "is no file")
    refuses({"tls_ca_cert_file": chain.folder}, "tls_ca_cert_file", "is no file")
    refuses({"tls_ca_cert_file": "/nowhere1", "tls_cert_file": "/nowhere2", "tls_key_file": "/nowhere3"},
            "/nowhere1", "/nowhere2", "/nowhere3")
    for name in (".example.org", "host:6380", "[::1]", " ", "a\nb", "localhost%evil", "a" * 300):
        refuses({"tls_server_name": name}, "tls_server_name", "is no host's name")
    refuses({"tls_ca_cert_file": "/nowhere"}, "tls_ca_cert_file", '"/nowhere" cannot be read: No such file')
    refuses({"tls_ca_cert_file": empty}, "is empty")
    refuses({"tls_ca_cert_file": text}, "tls_ca_cert_file", "there is no certificate in it", "in PEM")
    refuses({"tls_ca_cert_file": f"{chain.folder}/torn"}, "tls_ca_cert_file", "torn")
    refuses({**ours, "tls_key_file": f"{there}/tls.key"}, "tls_key_file", "another one than the certificate's")
    refuses({**ours, "tls_key_file": locked}, "tls_key_file", "has a passphrase")
    refuses({**ours, "tls_key_file": text}, "there is no private key in it")
    refuses({**ours, "tls_key_file": f"{here}/tls.crt"}, "there is no private key in it")
    refuses({"tls_cert_file": f"{here}/tls.key", "tls_key_file": f"{here}/tls.key"}, "there is no certificate in it")
    refuses(ours, "tls_cert_file", "of no use without tls_key_file")
    refuses({"tls_key_file": f"{here}/tls.key"}, "tls_key_file", "of no use without tls_cert_file")
    refuses({"tls_ca_cert_file": chain.authority.path}, "tls_ca_cert_file", "by TLS only", url="h:1")
    refuses({"tls_min_version": "1.1"}, "tls_min_version", "1.2")


@test("many connections of their own to an upstream by TLS stay within the budget, and give it back")
def _(t):
    chain = Chain(t)
    redis = chain.redis(t)
    sidecar = starts(t, redis, chain, local_memory="32mb")
    before = sidecar.metrics()['ferrite_sidecar_memory_bytes{owner="tls"}']
    clients = [sidecar.client(timeout=30) for _ in range(150)]
    refused = 0
    for client in clients:
        try:
            client.call("SUBSCRIBE", "news")
        except Exception:  # noqa: BLE001 - no room: counted
            refused += 1
    metrics = sidecar.metrics()
    links = metrics["ferrite_sidecar_upstream_connections"]
    expect_true(metrics['ferrite_sidecar_memory_bytes{owner="tls"}'] > before, "nothing is booked for TLS")
    expect_true(metrics["ferrite_memory_used_bytes"] <= metrics["ferrite_memory_max_bytes"], "over the budget")
    with open(f"/proc/{sidecar.pid}/status", encoding="ascii") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    expect_true(peak < 32 << 10, f"the process held {peak} KiB")
    t.note(f"{links:.0f} links, {refused} refused, VmHWM {peak / 1024:.1f} MiB")
    for client in clients:
        client.close()
    wait_until(lambda: sidecar.metrics()['ferrite_sidecar_memory_bytes{owner="tls"}'] <= before + 65536,
               what="memory given back")
