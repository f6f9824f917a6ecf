"""A client with an upstream connection of its own, for what holds state there, is a client of the cache again when
nothing is held any more; and not before."""

import time

from resp import ReplyError, Status, encode
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
    [("AUTH", "nobody", "wrong")],
    [("WATCH", "k"), ("SELECT", "1"), ("RESET",)],
    [("CLIENT", "TRACKING", "ON"), ("RESET",)],
    [("OBJECT", "ENCODING", "k"), ("CLIENT", "LIST")],
)
HELD = (
    [("MULTI",)],
    [("WATCH", "k")],
    [("WAIT", "0", "10")],
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


# Each list in one write. A server without RESET is Redis before 6.2, or one whose administrator has taken it away.
AS_REDIS = (
    ([("WATCH", "k")], [("RESET",), ("CLIENT", "REPLY", "OFF"), ("SELECT", "1"), ("CLIENT", "REPLY", "ON")],
     [("GET", "k")], [("SET", "kk", "1")], [("SELECT", "0"), ("GET", "kk")]),
    ([("WATCH", "k")], [("RESET",), ("CLIENT", "REPLY", "SKIP"), ("SELECT", "1"), ("PING",)], [("GET", "k")]),
    ([("WATCH", "k")], [("RESET",), ("CLIENT", "REPLY", "OFF"), ("AUTH", "bob", "bobpw"), ("CLIENT", "REPLY", "ON")],
     [("GET", "k")], [("ACL", "WHOAMI")]),
    ([("HELLO", "3", "AUTH", "nobody", "wrong")], [("GET", "missing")], [("HGETALL", "missing")]),
    ([("WATCH", "k")], [("HELLO", "3", "BADOPT")], [("UNWATCH",)], [("GET", "missing")]),
    ([("HELLO", "3")], [("WATCH", "k")], [("HELLO", "2", "BADOPT")], [("UNWATCH",)], [("GET", "missing")]),
    ([("HELLO", "3", "AUTH", "bob", "bobpw", "BADOPT")], [("GET", "k")], [("ACL", "WHOAMI")]),
    ([("MULTI",)], [("RESET", "x")], [("SET", "m", "1")], [("EXEC",)], [("GET", "m")]),
    ([("MULTI",)], [("DISCARD", "x")], [("SET", "m", "2")], [("EXEC",)], [("GET", "m")]),
    ([("MULTI",)], [("EXEC", "x")], [("SET", "m", "3")], [("EXEC",)], [("GET", "m")]),
    ([("SUBSCRIBE", "c"), ("MULTI",), ("UNSUBSCRIBE", "c"), ("MULTI",), ("DISCARD", "x")], [("SET", "m", "4")],
     [("EXEC",)], [("GET", "m")]),
    ([("MULTI",), ("SELECT", "1"), ("EXEC",)], [("GET", "k")], [("SELECT", "0")], [("GET", "k")]),
)


def plain(reply):
    """What is compared: HELLO's map tells of who is asked."""
    return "HELLO" if isinstance(reply, (list, dict)) and "proto" in str(reply) else str(reply)


@test("own connections: whatever is refused, or unanswered, replies are those of a plain Redis")
def _(t):
    for without_reset in (False, True):
        redis, sidecar = cached_by(t, *(("--rename-command", "RESET", "") if without_reset else ()))
        for pieces in AS_REDIS:
            told = []
            for server in (redis, sidecar):
                with redis.client() as direct:
                    direct.pipeline([("FLUSHALL",), ("SET", "k", "zero"), ("SELECT", "1"), ("SET", "k", "one")])
                with sidecar.client() as reader:
                    wait_until(lambda reader=reader: reader.call("GET", "k") == b"zero", what="a copy of k")
                client = t.client(server)
                replies = []
                for piece in pieces:
                    client.send_raw(b"".join(encode(*words) for words in piece))
                    silent = sum(words[:2] == ("CLIENT", "REPLY") and words[2] != "ON" for words in piece)
                    replies += [plain(client.read()) for _ in range(len(piece) - silent - bool(silent))]
                client.close()
                told.append(replies)
            expect(told[1], told[0], f"{pieces}, without RESET: {without_reset}")


def cached_by(t, *options):
    redis = t.redis(*options)
    with redis.client() as direct:
        direct.call("ACL", "SETUSER", "bob", "on", ">bobpw", "~bob*", "+@all")
    return redis, t.sidecar(redis).wait_until_tracking()


@test("own connections: where nobody may DISCARD, what comes behind it is queued as ever")
def _(t):
    redis, sidecar = cached(t)
    with redis.client() as direct:
        direct.call("ACL", "SETUSER", "default", "-discard")
    client = t.client(sidecar)
    client.call("MULTI")
    expect_true(isinstance(client.ask("DISCARD"), ReplyError), "DISCARD was let through")
    expect(client.call("SET", "k", "x"), Status("QUEUED"))
    client.close()


@test("own connections: CLIENT KILL by its id closes a client that has given its own back")
def _(t):
    _redis, sidecar = cached(t)
    client, other = t.client(sidecar), t.client(sidecar)
    client.pipeline([("MULTI",), ("EXEC",)])
    number = client.call("CLIENT", "ID")
    expect(other.call("CLIENT", "KILL", "ID", number), 1)
    expect_true(client.is_closed(), "it lives on")


@test("own connections: while the upstream cannot be reached a kept one is of no use, and is told so at once")
def _(t):
    redis, sidecar = cached(t)
    client = t.client(sidecar)
    client.pipeline([("MULTI",), ("EXEC",)])
    redis.freeze()
    wait_until(lambda: sidecar.metrics()['ferrite_sidecar_upstream_state{state="unreachable"}'] == 1)
    began = time.monotonic()
    expect_true(isinstance(client.ask("MULTI", timeout=5), ReplyError), "MULTI was taken")
    expect_true(time.monotonic() - began < 1, "it took long")
    expect(client.call("GET", "k"), b"v")
    redis.thaw()
    wait_until(lambda: client.ask("MULTI") == Status("OK"), what="a transaction")


@test("own connections: one that is lost while its transaction waits for acknowledged writes is made anew")
def _(t):
    redis, sidecar = cached(t, mode="write-behind")
    client = t.client(sidecar)
    client.pipeline([("MULTI",), ("EXEC",)])
    with redis.client() as direct:
        direct.call("CONFIG", "SET", "maxmemory", "1")
        expect(client.call("SET", "w", "1"), Status("OK"))
        client.send("MULTI")
        time.sleep(0.2)
        for line in direct.call("CLIENT", "LIST").decode().splitlines():
            if "cmd=exec" in line:
                direct.call("CLIENT", "KILL", "ID", line.split()[0].split("=")[1])
        time.sleep(0.2)
        direct.call("CONFIG", "SET", "maxmemory", "0")
    expect(client.read(timeout=5), Status("OK"))
    expect(client.call("INCR", "n"), Status("QUEUED"))
    expect(client.call("EXEC"), [1])
