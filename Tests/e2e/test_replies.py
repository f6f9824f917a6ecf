"""Replies that Redis gives in odd places: the sidecar gives the same bytes."""

import time

from resp import Closed, encode
from runner import expect, expect_below, test
from servers import wait_until

END = b"+PONG\r\n"


def hear(server, commands):
    """All bytes of the answer to commands sent in one write, up to PING's; and how it ended, if not with that."""
    with server.client() as client:
        client.send_raw(b"".join(encode(*command) for command in commands))
        deadline = time.monotonic() + 3
        end = ""
        while not client.stream.buffer.endswith(END):
            try:
                client.stream.more(deadline)
            except Closed:
                end = "closed"
                break
            except TimeoutError:
                end = "nothing more came"
                break
        return bytes(client.stream.buffer), end


def compare(t, conversations):
    """On servers of their own, so that what one does is not there for the other."""
    plain, redis = t.redis(), t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    read = ("MGET", "a", "b", "c")
    for commands in conversations:
        said = ", ".join(" ".join(map(str, command)) for command in commands)
        expect(hear(sidecar, commands), hear(plain, commands), said)
        expect(t.client(redis).call(*read), t.client(plain).call(*read), f"what was written by {said}")
        for server in (redis, plain):
            t.client(server).call("FLUSHALL")


def executed(mode):
    return [("MULTI",), ("SET", "a", 1), ("CLIENT", "REPLY", mode), ("SET", "b", 2), ("EXEC",), ("GET", "a"),
            ("SET", "c", 3), ("CLIENT", "REPLY", "ON"), ("PING",)]


def discarded(mode):
    return [("MULTI",), ("SET", "a", 1), ("CLIENT", "REPLY", mode), ("DISCARD",), ("SET", "b", 2), ("GET", "b"),
            ("PING",)]


def refused(mode):
    return [("SUBSCRIBE", "news"), ("CLIENT", "REPLY", mode), ("GET", "a"), ("UNSUBSCRIBE", "news"), ("SET", "b", 2),
            ("GET", "b"), ("PING",)]


@test("CLIENT REPLY SKIP and ON in MULTI, carried out by EXEC")
def _(t):
    compare(t, [executed("SKIP"), executed("ON")])


@test("CLIENT REPLY OFF in MULTI, carried out by EXEC, whose array Redis leaves unfinished")
def _(t):
    compare(t, [executed("OFF")])


@test("CLIENT REPLY in MULTI, and then DISCARD, changes nothing")
def _(t):
    compare(t, [discarded(mode) for mode in ("OFF", "SKIP", "ON")])


@test("CLIENT REPLY while subscribed in RESP2 is refused, and changes nothing")
def _(t):
    compare(t, [refused(mode) for mode in ("OFF", "SKIP", "ON")])


@test("MULTI and DISCARD refused for their arguments leave CLIENT REPLY what it is")
def _(t):
    compare(t, [[("UNWATCH",), wrong, ("CLIENT", "REPLY", mode), ("SET", "a", 1), ("CLIENT", "REPLY", "ON"),
                 ("SET", "b", 2), ("GET", "a"), ("PING",)]
                for wrong in (("MULTI", "x"), ("DISCARD", "x"), ("EXEC", "x")) for mode in ("OFF", "SKIP", "ON")])
    compare(t, [[("MULTI",), ("DISCARD", "x"), ("CLIENT", "REPLY", mode), ("SET", "a", 1), ("EXEC",), ("DISCARD",),
                 ("CLIENT", "REPLY", "ON"), ("PING",)] for mode in ("SKIP", "ON")])


@test("wrong arguments of MULTI, RESET, EXEC, and SUBSCRIBE behind CLIENT REPLY SKIP, leave every answer in its place")
def _(t):
    mute = ("CLIENT", "REPLY", "OFF")
    loud = ("CLIENT", "REPLY", "ON")
    compare(t, [
        [("EXEC", "x"), ("PING",)],
        [("MULTI",), ("MULTI", "x"), mute, ("SET", "a", 1), ("EXEC",), ("SET", "b", 1), ("PING",)],
        [("MULTI",), ("RESET", "x"), mute, ("SET", "a", 1), ("EXEC",), ("SET", "b", 1), ("PING",)],
        [mute, ("MULTI", "x"), loud, ("SET", "a", 1), ("PING",)],
        [mute, ("SUBSCRIBE",), loud, ("SET", "a", 1), ("PING",)],
        [("CLIENT", "REPLY", "SKIP"), ("UNSUBSCRIBE",), ("SET", "a", 1), ("GET", "a"), ("PING",)],
        [("CLIENT", "REPLY", "SKIP"), ("SUBSCRIBE",), ("GET", "a"), ("PING",)],
        [("CLIENT", "REPLY", "SKIP"), ("SUBSCRIBE", "news"), ("UNSUBSCRIBE",), ("GET", "a"), ("PING",)],
    ])


@test("QUIT is answered in its turn: behind what blocks, and not at all when replies are off")
def _(t):
    slow = "for i = 1, 4000000 do end return 7"
    compare(t, [[*before, ("QUIT",), ("GET", "a")] for before in (
        [("BLPOP", "q", "0.3")],
        [("SET", "a", 1), ("WAIT", 1, 200)],
        [("XREAD", "BLOCK", 200, "STREAMS", "s", "$")],
        [("WATCH", "a"), ("EVAL", slow, 0)],
        [("MULTI",), ("SET", "a", 1)],
        [("SUBSCRIBE", "news")],
    )])
    # Redis leaves the connection open then, for want of a reply behind which to close it.
    sidecar = t.sidecar(t.redis()).wait_until_tracking()
    expect(hear(sidecar, [("CLIENT", "REPLY", "OFF"), ("SET", "a", 1), ("QUIT",)])[0], b"")


@test("the keys of a MULTI are kept within a bound, and its EXEC drops all that it wrote")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    client, other = t.client(sidecar), t.client(sidecar)
    count = 20_000
    other.pipeline([("SET", f"k{n}", "old") for n in range(count)])
    client.call("MULTI")
    expect(set(client.pipeline([("SET", f"k{n}", "new") for n in range(count)])), {"QUEUED"})
    expect(other.pipeline([("GET", f"k{n}") for n in range(count)]), [b"old"] * count)
    kept = sidecar.metrics()['ferrite_sidecar_memory_bytes{owner="slots"}']
    expect_below(kept, 600_000, "bytes of slots")
    client.call("EXEC")
    expect(other.pipeline([("GET", f"k{n}") for n in range(count)]), [b"new"] * count)


@test("what was asked before QUIT is carried out, answered or not")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    client = t.client(sidecar)
    client.send_raw(encode("CLIENT", "REPLY", "OFF") + encode("INCR", "n") * 100_000 + encode("QUIT"))
    wait_until(lambda: t.client(redis).call("GET", "n") == b"100000", 10, what="a hundred thousand INCR")


@test("CLIENT ID stays the same, and names the client to CLIENT UNBLOCK, KILL, LIST and TRACKING REDIRECT")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    other = t.client(sidecar)
    blocked = t.client(sidecar)
    number = blocked.call("CLIENT", "ID")
    blocked.call("WATCH", "other")
    expect(blocked.call("CLIENT", "ID"), number, "the id, once it has a link of its own")
    expect(other.call("CLIENT", "LIST", "ID", number).count(b"id="), 1, "clients listed")
    blocked.send("BLPOP", "empty", 0)
    deadline = time.monotonic() + 3
    while other.call("CLIENT", "UNBLOCK", number) == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    expect(blocked.read(), None, "what the unblocked client was told")

    listener = t.client(sidecar)
    number = listener.call("CLIENT", "ID")
    listener.call("SUBSCRIBE", "__redis__:invalidate")
    reader = t.client(sidecar)
    expect(reader.call("CLIENT", "TRACKING", "ON", "REDIRECT", number), "OK", "CLIENT TRACKING")
    expect(reader.call("CLIENT", "GETREDIR"), number, "CLIENT GETREDIR")
    reader.call("GET", "k")
    t.client(redis).call("SET", "k", 1)
    expect(listener.read(), [b"message", b"__redis__:invalidate", [b"k"]], "what the listener was told")

    expect(other.call("CLIENT", "KILL", "ID", number), 1, "clients killed")
    expect(listener.is_closed(3), True, "the killed client's connection has ended")
