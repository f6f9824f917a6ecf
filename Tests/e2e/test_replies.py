"""Replies that Redis gives in odd places: the sidecar gives the same bytes."""

import time

from resp import Closed, encode
from runner import expect, test
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
    blocked.call("MULTI")
    blocked.call("EXEC")
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
