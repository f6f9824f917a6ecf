"""A client with an upstream connection of its own, for what holds state there, is a client of the cache again when
nothing is held any more; and not before."""

from resp import ReplyError, Status
from runner import expect, expect_true, test
from servers import wait_until

HITS = 'ferrite_sidecar_commands_total{family="string",outcome="hit"}'
OWN = "ferrite_sidecar_connections_pinned"


def cached(t, **settings):
    """A sidecar that has a value of k."""
    redis = t.redis()
    sidecar = t.sidecar(redis, settings=settings).wait_until_tracking()
    with redis.client() as direct:
        direct.call("SET", "k", "v")
    client = t.client(sidecar)
    client.call("GET", "k")
    return redis, sidecar


def hits(sidecar):
    return sidecar.metrics().get(HITS, 0)


def is_served(sidecar, client):
    """Whether its reads are answered from the cache."""
    client.call("GET", "k")  # which another database's k may have taken out
    before = hits(sidecar)
    for _ in range(3):
        expect(client.call("GET", "k"), b"v")
    got = hits(sidecar) - before
    expect_true(got in (0, 3), f"{got} of 3 reads from the cache")
    return got == 3


GIVEN_BACK = (
    [("MULTI",), ("INCR", "n"), ("EXEC",)],
    [("MULTI",), ("GET", "k"), ("DISCARD",)],
    [("MULTI",), ("NOSUCH",), ("EXEC",)],
    [("WATCH", "k"), ("UNWATCH",)],
    [("WATCH", "k"), ("MULTI",), ("EXEC",)],
    [("BLPOP", "none", "0.05")],
    [("XREAD", "BLOCK", "20", "STREAMS", "none", "$")],
    [("SELECT", "1"), ("SET", "k", "other"), ("SELECT", "0")],
    [("SELECT", "99")],
    [("NOSUCH", "x")],
    [("WAIT", "0", "10")],
    [("AUTH", "nobody", "wrong")],
    [("WATCH", "k"), ("SELECT", "1"), ("RESET",)],
    [("CLIENT", "TRACKING", "ON"), ("RESET",)],
    [("OBJECT", "ENCODING", "k"), ("CLIENT", "LIST")],
)
HELD = (
    [("MULTI",)],
    [("WATCH", "k")],
    [("SELECT", "1"), ("SET", "k", "v")],
    [("CLIENT", "NO-EVICT", "ON"), ("WATCH", "k"), ("MULTI",)],
)
for _protocol in (2, 3):
    @test(f"own connections: after what ends a state reads come from the cache again (RESP{_protocol})")
    def _(t, protocol=_protocol):
        _redis, sidecar = cached(t)
        for lines in GIVEN_BACK:
            client = t.client(sidecar)
            client.call("HELLO", str(protocol))
            for words in lines:
                client.ask(*words)
                if words == ("RESET",) and protocol == 3:
                    client.call("HELLO", "3")
            expect_true(is_served(sidecar, client), f"{lines}: not from the cache")
            # And once more, by the connection that it has kept.
            for words in lines:
                client.ask(*words)
            expect_true(is_served(sidecar, client), f"{lines}, again: not from the cache")
            client.close()
        for lines in HELD:
            client = t.client(sidecar)
            client.call("HELLO", str(protocol))
            for words in lines:
                client.call(*words)
            if ("MULTI",) in lines:
                before = hits(sidecar)
                expect(client.call("GET", "k"), Status("QUEUED"))
                expect(hits(sidecar), before)
            else:
                expect_true(not is_served(sidecar, client), f"{lines}: from the cache")
            client.close()
        wait_until(lambda: sidecar.metric(OWN) == 0, what="no connection left")


@test("own connections: subscribers are served from the cache when the last subscription is gone")
def _(t):
    _redis, sidecar = cached(t)
    for protocol in ("2", "3"):
        client = t.client(sidecar)
        client.call("HELLO", protocol)
        for kind, name in (("SUBSCRIBE", "c"), ("PSUBSCRIBE", "c*")):
            client.send(kind, name)
            client.read()
        if protocol == "3":
            expect_true(not is_served(sidecar, client), "a subscriber was served from the cache")
        client.send("UNSUBSCRIBE", "c")
        client.read()
        client.send("PUNSUBSCRIBE")
        client.read()
        expect_true(is_served(sidecar, client), "not served when the last subscription is gone")


@test("own connections: a client keeps its own for the next transaction, and another protocol or name needs another")
def _(t):
    redis, sidecar = cached(t)

    def opened():
        with redis.client() as direct:
            text = direct.call("INFO", "stats").decode()
        return int(text.split("total_connections_received:")[1].split()[0]) - 1

    client = t.client(sidecar)
    client.call("MULTI")
    client.call("EXEC")
    before = opened()
    for _ in range(20):
        client.pipeline([("MULTI",), ("INCR", "n"), ("EXEC",)])
        expect(client.call("GET", "k"), b"v")
    expect(opened() - before, 1, "connections made, of which one is this test's")
    client.call("CLIENT", "SETNAME", "new")
    client.call("MULTI")
    client.call("EXEC")
    expect(client.call("CLIENT", "GETNAME"), b"new")
    with redis.client() as direct:
        names = direct.call("CLIENT", "LIST").decode()
    expect_true("name=new" in names, names)
    client.call("HELLO", "3")
    client.call("MULTI")
    client.call("HGETALL", "none")
    expect(client.call("EXEC"), [{}])
    wait_until(lambda: sidecar.metric(OWN) == 1, what="one connection of its own")


@test("own connections: what comes behind EXEC in the same pipeline is no older than its reply")
def _(t):
    redis, sidecar = cached(t)
    client, reader = t.client(sidecar), t.client(sidecar)
    with redis.client() as direct:
        for n in range(300):
            direct.call("SET", "k", f"{n}")
            reader.call("GET", "k")
            got = client.pipeline([("MULTI",), ("SET", "k", f"new{n}"), ("GET", "k"), ("EXEC",), ("GET", "k")])
            expect(got[3][1], f"new{n}".encode())
            expect(got[4], f"new{n}".encode())
            expect(reader.call("GET", "k"), f"new{n}".encode())
            expect(client.call("GET", "k"), f"new{n}".encode())


@test("own connections: one that is lost while nothing is held on it is not missed, another closes its client")
def _(t):
    redis, sidecar = cached(t)
    free, held = t.client(sidecar), t.client(sidecar)
    free.pipeline([("MULTI",), ("EXEC",)])
    held.call("WATCH", "k")
    expect(free.call("GET", "k"), b"v")
    with redis.client() as direct:
        for line in direct.call("CLIENT", "LIST").decode().splitlines():
            if "cmd=exec" in line or "cmd=watch" in line:
                direct.call("CLIENT", "KILL", "ID", line.split()[0].split("=")[1])
    expect_true(held.is_closed(), "a client that watches goes with its connection")
    wait_until(lambda: sidecar.metric(OWN) == 0, what="no connection left")
    expect_true(is_served(sidecar, free), "served from the cache")
    expect(free.pipeline([("MULTI",), ("INCR", "n"), ("EXEC",)])[-1], [1])
    expect(free.ask("AUTH", "x", "y").__class__, ReplyError)
    free.socket.shutdown(1)
    expect_true(free.is_closed(), "a client that ends its side is let go")


@test("own connections: a client that ends its side behind a transaction is answered and let go at once")
def _(t):
    _redis, sidecar = cached(t)
    client = t.client(sidecar)
    client.send_raw(b"MULTI\r\nINCR n\r\nEXEC\r\n")
    client.socket.shutdown(1)
    expect([client.read() for _ in range(3)], [Status("OK"), Status("QUEUED"), [1]])
    expect_true(client.is_closed(), "it is not let go")
    wait_until(lambda: sidecar.metric(OWN) == 0, what="no connection left")
