"""Failure: the upstream dies, freezes, restarts, refuses; clients hear of it in time and the sidecar recovers alone."""

import contextlib
import os
import resource
import shutil
import tempfile
import threading
import time

from resp import Closed, ReplyError, Status, encode
from runner import expect, expect_below, expect_error, expect_true, test
from servers import wait_until

READ_TIMEOUT = 0.05
# What the test machine may add: it has few cores and many processes.
SLACK = 0.25


def timed(function):
    began = time.monotonic()
    value = function()
    return value, time.monotonic() - began


def answer_or_close(client, *command, timeout=8.0):
    """The reply, or None if the connection was closed instead."""
    try:
        return client.ask(*command, timeout=timeout)
    except Closed:
        return None


@test("a killed upstream: cached keys answer, misses fail in time, writes at once, and all recovers")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    client = t.client(sidecar)
    client.call("SET", "k", "v")
    expect(client.call("GET", "k"), b"v")
    redis.kill()
    wait_until(lambda: client.ask("GET", "k") == b"v", 3, what="the cached key's answer")
    for _ in range(20):
        expect(client.ask("GET", "k"), b"v", "a cached key while the upstream is down")
    slowest = 0
    for n in range(10):
        reply, seconds = timed(lambda: client.ask("GET", f"missing{n}"))
        expect_error(reply)
        slowest = max(slowest, seconds)
    t.note(f"slowest miss {slowest * 1000:.0f} ms")
    expect_below(slowest, READ_TIMEOUT + SLACK, "seconds until a miss failed")
    reply, seconds = timed(lambda: client.ask("SET", "other", "v"))
    expect_error(reply)
    expect_below(seconds, SLACK, "seconds until a write failed")
    redis.restart()
    _, seconds = timed(lambda: wait_until(lambda: client.ask("SET", "k", "new") == Status("OK"), 10))
    t.note(f"recovered after {seconds:.2f} s")
    expect(client.call("GET", "k"), b"new")


@test("the error of a miss names the upstream")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    client = t.client(sidecar)
    redis.kill()
    reply = wait_until(lambda: isinstance(reply := client.ask("GET", "missing"), ReplyError) and reply)
    expect_error(reply, str(redis.port))


@test("a frozen upstream: misses fail within read_timeout, and all recovers when it thaws")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    client = t.client(sidecar)
    client.call("SET", "k", "v")
    expect(client.call("GET", "k"), b"v")
    redis.freeze()
    slowest = 0
    for n in range(10):
        reply, seconds = timed(lambda: client.ask("GET", f"missing{n}"))
        expect_error(reply)
        slowest = max(slowest, seconds)
    t.note(f"slowest miss {slowest * 1000:.0f} ms")
    expect_below(slowest, READ_TIMEOUT + SLACK, "seconds until a miss failed")
    wait_until(lambda: client.ask("GET", "k") == b"v", 6, what="the cached key's answer")
    redis.thaw()
    wait_until(lambda: client.ask("GET", "missing0") is None, 6, what="an answer from the thawed upstream")
    expect(client.call("SET", "k", "new"), Status("OK"))
    expect(client.call("GET", "k"), b"new")


@test("a frozen upstream with more writes on their way than a link holds: reads fail within read_timeout all the same")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    writers = [t.client(sidecar) for _ in range(8)]
    client = t.client(sidecar)
    t.cache(client, t.client(redis), "v")
    redis.freeze()
    try:
        for n, writer in enumerate(writers):
            # More than the sockets' buffers take.
            threading.Thread(target=swallow, args=(writer, n), daemon=True).start()
        time.sleep(0.2)
        for n in range(10):
            reply, seconds = timed(lambda: client.ask("GET", f"missing{n}"))
            expect_error(reply, "upstream")
            expect_below(seconds, READ_TIMEOUT + SLACK, "seconds until a miss failed")
            expect(client.call("GET", "k"), b"v")
    finally:
        redis.thaw()


def swallow(writer, n):
    """1 MB writes until nothing takes them any more."""
    with contextlib.suppress(OSError, TimeoutError, Closed):
        for _ in range(4):
            writer.send("SET", f"large{n}", "x" * 1_000_000)


@test("an upstream that freezes under a SORT: what it may have read without naming it is still served when it is gone")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    client, sorting, direct = t.client(sidecar), t.client(sidecar), t.client(redis)
    direct.call("RPUSH", "list", "k")
    t.cache(client, direct, "v")
    redis.freeze()
    sorting.send("SORT", "list", "BY", "nosort", "GET", "*")
    wait_until(lambda: client.ask("GET", "k") == b"v" and sidecar.metric("ferrite_sidecar_suspect_served_total"), 4,
               what="the copy, once the upstream counts as gone")
    redis.thaw()
    expect(sorting.read(), [b"v"])


@test("an upstream that is killed under a SORT, and a client that leaves behind one: what is cached is still served")
def _(t):
    for command in ("SORT", "SORT_RO"):
        redis = t.redis()
        sidecar = t.sidecar(redis).wait_until_tracking()
        client, sorting, direct = t.client(sidecar), t.client(sidecar), t.client(redis)
        direct.call("RPUSH", "list", "k")
        t.cache(client, direct, "v")
        redis.freeze()
        sorting.send(command, "list", "BY", "nosort", "GET", "*")
        time.sleep(0.1)
        redis.kill()
        wait_until(lambda: client.ask("GET", "k") == b"v", 4, what=f"the copy, {command} and the upstream gone")
        sorting.close()
        expect(client.call("GET", "k"), b"v")


@test("a read in MULTI whose EXEC is not answered, and old writes under CLIENT REPLY OFF, leave what is cached")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    client, mute, other, direct = t.client(sidecar), t.client(sidecar), t.client(sidecar), t.client(redis)
    mute.send("CLIENT", "REPLY", "OFF")
    mute.send_raw(encode("SET", "k", "v") + b"".join(encode("SET", f"other{n}", "v") for n in range(9000)))
    wait_until(lambda: direct.call("GET", "other8999") == b"v", what="the last write")
    time.sleep(0.1)
    for _ in range(2):
        expect(client.call("GET", "k"), b"v")
    other.call("MULTI")
    other.call("GET", "k")
    redis.freeze()
    other.send("EXEC")
    time.sleep(0.1)
    redis.kill()
    wait_until(lambda: client.ask("GET", "k") == b"v", 4, what="the copy")


def turn_away_beside_a_subscriber(t):
    """An upstream that takes no new connection, and a pod with a copy of k and an idle link of a client's own."""
    redis = t.redis()
    meddler = t.meddler(redis)
    sidecar = t.sidecar(meddler).wait_until_tracking()
    client, direct = t.client(sidecar), t.client(redis)
    t.cache(client, direct, "old")
    t.client(sidecar).call("SUBSCRIBE", "news")
    meddler.greet = lambda connection: True
    return meddler, client, direct


def expect_nothing_old(client, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        expect_error(client.ask("GET", "k"))
        time.sleep(0.01)


@test("a silent tracked link, and new connections turned away: nothing old is served while a client's own link lives")
def _(t):
    meddler, client, direct = turn_away_beside_a_subscriber(t)
    meddler.silence()
    time.sleep(2)
    direct.call("SET", "k", "new")
    expect_nothing_old(client, 2)


@test("an upstream that cannot save (MISCONF) serves all but writes, new links and new sidecars too")
def _(t):
    folder = tempfile.mkdtemp(prefix="ferrite-test-")
    redis = t.redis("--dir", folder)
    direct = t.client(redis)
    direct.call("SET", "k", "v")
    direct.call("CONFIG", "SET", "save", "3600 1000000")
    sidecar = t.sidecar(redis).wait_until_tracking()
    shutil.rmtree(folder)
    direct.call("BGSAVE")
    wait_until(lambda: "MISCONF" in str(direct.ask("PING")), 5, what="a save that fails")
    for _ in range(2):
        for server in (sidecar, t.sidecar(redis)):
            client, subscriber = t.client(server), t.client(server)
            expect(client.call("GET", "k"), b"v")
            expect(client.call("MULTI"), Status("OK"))
            expect(client.call("EXEC"), [])
            expect(subscriber.call("SUBSCRIBE", "news"), [b"subscribe", b"news", 1])
            expect_error(t.client(server).ask("SET", "k", "w"), "MISCONF")
        direct.call("CLIENT", "KILL", "TYPE", "normal")
        wait_until(lambda: t.client(sidecar).ask("GET", "k") == b"v", 5, what="reads on new links")
    redis.kill()  # it does not end without saving


@test("without a socket for a new connection nobody counts as gone: nothing old is served")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    client, direct = t.client(sidecar), t.client(redis)
    t.cache(client, direct, "old")
    client.call("GET", "other")
    resource.prlimit(sidecar.pid, resource.RLIMIT_NOFILE, (1, resource.prlimit(sidecar.pid, resource.RLIMIT_NOFILE)[1]))
    tracked = next(line for line in direct.call("CLIENT", "LIST").decode().splitlines() if "flags=t" in line)
    direct.call("CLIENT", "KILL", "ID", tracked.split()[0].removeprefix("id="))
    direct.call("SET", "k", "new")
    until = time.monotonic() + 1.5
    time.sleep(0.1)
    while time.monotonic() < until:
        expect_error(client.ask("GET", "k"), "the system has no socket")
        time.sleep(0.01)
    limit = resource.prlimit(sidecar.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(sidecar.pid, resource.RLIMIT_NOFILE, (limit, limit))
    wait_until(lambda: client.ask("GET", "k") == b"new", 5, what="the value of now")


@test("an idle link of a client's own, and new connections turned away: nothing old is served while it lives")
def _(t):
    meddler, client, direct = turn_away_beside_a_subscriber(t)
    meddler.drop_tracked()
    direct.call("SET", "k", "new")
    time.sleep(0.1)
    expect_nothing_old(client, 2)
    meddler.drop_all()
    wait_until(lambda: client.ask("GET", "k") == b"old", 5, what="the copy, once no link is left")


@test("a late reply keeps its place: what comes behind a timed out read is not shifted")
def _(t):
    redis = t.redis()
    direct = t.client(redis)
    direct.pipeline([("SET", f"k{n}", f"value{n}") for n in range(50)])
    sidecar = t.sidecar(redis).wait_until_tracking()
    client = t.client(sidecar)
    redis.freeze()
    for n in range(25):
        client.send("GET", f"k{n}")
    for n in range(25):
        expect_error(client.read())
    redis.thaw()
    wait_until(lambda: client.ask("GET", "k0") == b"value0", 6)
    for n in range(50):
        expect(client.ask("GET", f"k{n}"), b"value%d" % n)


@test("it starts without its upstream, and works when that comes")
def _(t):
    redis = t.redis()
    redis.kill()
    sidecar = t.sidecar(redis)
    client = t.client(sidecar)
    expect(client.call("PING"), Status("PONG"))
    reply, seconds = timed(lambda: client.ask("GET", "k"))
    expect_error(reply)
    expect_below(seconds, 1.0, "seconds until a read failed")
    expect(sidecar.page("/healthz")[0], 200, "/healthz")
    redis.restart()
    wait_until(lambda: client.ask("SET", "k", "v") == Status("OK"), 10)
    expect(client.call("GET", "k"), b"v")


@test("a restarted, empty upstream: old values are not served as its own")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    client = t.client(sidecar)
    client.call("SET", "k", "old")
    expect(client.call("GET", "k"), b"old")
    redis.kill()
    redis.restart()
    wait_until(lambda: client.ask("GET", "k") is None, 6, what="the old value's end")
    for _ in range(100):
        expect(client.ask("GET", "k"), None)


@test("a write whose fate is unknown closes the client's connection")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    writer, reader = t.client(sidecar), t.client(sidecar)
    reader.call("PING")
    redis.freeze()
    writer.send("SET", "k", "v")
    time.sleep(0.1)
    redis.kill()
    expect_true(writer.is_closed(8.0), "the writer's connection stayed open")
    expect(reader.call("PING"), Status("PONG"))


@test("a killed upstream closes pinned clients instead of leaving them waiting")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    blocked, subscribed, queued = t.client(sidecar), t.client(sidecar), t.client(sidecar)
    subscribed.call("SUBSCRIBE", "ch")
    expect(queued.call("MULTI"), Status("OK"))
    blocked.send("BLPOP", "l", 0)
    time.sleep(0.1)
    redis.kill()
    for client, who in ((blocked, "blocked"), (subscribed, "subscribed"), (queued, "in MULTI")):
        expect_true(client.is_closed(8.0), f"the client {who} was not closed")
    expect(t.client(sidecar).call("PING"), Status("PONG"))


@test("connections cut by the upstream are made again, and writes elsewhere are seen after that")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    direct, client = t.client(redis), t.client(sidecar)
    for n in range(5):
        client.ask("GET", "k")
        direct.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        direct.call("SET", "k", n)
        wait_until(lambda: client.ask("GET", "k") == b"%d" % n, 6, what=f"value {n}")
        direct.call("SET", "k", f"again{n}")
        wait_until(lambda: client.ask("GET", "k") == b"again%d" % n, 6, what=f"value again{n}")


@test("a password is sent upstream: from the config, the environment and a file")
def _(t):
    redis = t.redis(password="open sesame")
    secret = os.path.join(redis.folder, "secret")
    with open(secret, "w") as file:
        file.write("open sesame\n")
    ways = [dict(settings={"password": "open sesame"}), dict(env={"FERRITE_SIDECAR_PASSWORD": "open sesame"}),
            dict(settings={"password_file": secret})]
    for way in ways:
        sidecar = t.sidecar(redis, **way)
        client = t.client(sidecar)
        wait_until(lambda: client.ask("SET", "k", "v") == Status("OK"), 5, what=f"a write with {way}")
        expect(client.call("GET", "k"), b"v")
        expect_true("open sesame" not in sidecar.log(1000), "the password stands in the log")


@test("a wrong password is told to clients, and the sidecar lives on")
def _(t):
    redis = t.redis(password="right")
    sidecar = t.sidecar(redis, settings={"password": "wrong"})
    client = t.client(sidecar)
    reply = wait_until(lambda: isinstance(reply := client.ask("GET", "k"), ReplyError) and reply)
    expect_error(reply)
    expect(client.call("PING"), Status("PONG"))
    expect_true("right" not in sidecar.log(1000) and '"wrong"' not in sidecar.log(1000), "a password in the log")


@test("an upstream user by name")
def _(t):
    redis = t.redis()
    t.client(redis).call("ACL", "SETUSER", "pod", "on", ">secret", "~*", "&*", "+@all")
    t.client(redis).call("ACL", "SETUSER", "default", "off")
    sidecar = t.sidecar(redis, settings={"username": "pod", "password": "secret"})
    client = t.client(sidecar)
    wait_until(lambda: client.ask("SET", "k", "v") == Status("OK"))
    expect(client.call("GET", "k"), b"v")
    expect(client.call("ACL", "WHOAMI"), b"pod")


@test("an upstream without HELLO: everything works in RESP2, by TTL only")
def _(t):
    redis = t.redis("--rename-command", "HELLO", "")
    sidecar = t.sidecar(redis, settings={"ttl_default": "1"})
    client = t.client(sidecar)
    wait_until(lambda: client.ask("SET", "k", "v") == Status("OK"))
    expect(client.call("GET", "k"), b"v")
    expect(client.call("HSET", "h", "f", "v"), 1)
    expect(client.call("HGETALL", "h"), [b"f", b"v"])
    expect(client.call("LPUSH", "l", "x"), 1)
    expect(client.call("BLPOP", "l", 1), [b"l", b"x"])
    expect_error(t.client(sidecar).ask("HELLO", "3"), "NOPROTO")


@test("an upstream named by a host name")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(("localhost", redis.port))
    client = t.client(sidecar)
    wait_until(lambda: client.ask("SET", "k", "v") == Status("OK"))
    expect(client.call("GET", "k"), b"v")


@test("an upstream whose name does not resolve is an error in time")
def _(t):
    sidecar = t.sidecar(("no-such-host.invalid", 6379))
    client = t.client(sidecar)
    expect(client.call("PING"), Status("PONG"))
    reply, seconds = timed(lambda: answer_or_close(client, "GET", "k"))
    expect_error(reply)
    expect_below(seconds, 2.0, "seconds until a read failed")


@test("a write that cannot be sent leaves what is cached")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    client = t.client(sidecar)
    client.call("SET", "k", "v")
    client.call("GET", "k")
    redis.kill()
    wait_until(lambda: client.ask("GET", "k") == b"v", 3, what="the cached key's answer")
    expect_error(client.ask("SET", "k", "other"), "unreachable")
    expect_error(client.ask("FLUSHALL"), "unreachable")
    expect(client.ask("GET", "k"), b"v")


@test("a large value may take longer than read_timeout to arrive, and is an error once it stops arriving")
def _(t):
    redis = t.redis()
    meddler = t.meddler(redis)
    sidecar = t.sidecar(meddler).wait_until_tracking()
    client, other, direct = t.client(sidecar), t.client(sidecar), t.client(redis)
    value = b"v" * 900_000
    direct.call("MSET", "large", value, "stops", value, "small", "s")
    passed, stops_at = 0, float("inf")

    def slow(data):
        nonlocal passed
        if len(data) > 1000:
            time.sleep(0.01)
        passed += len(data)
        return data if passed < stops_at else b""

    meddler.alter = slow
    client.send("GET", "large")
    time.sleep(0.02)
    other.send("GET", "small")
    expect(client.read(), value)
    expect(other.read(), b"s")
    passed, stops_at = 0, len(value) // 2
    began = time.monotonic()
    expect_error(client.ask("GET", "stops"), "did not answer within 50 ms")
    expect_true(time.monotonic() - began > READ_TIMEOUT, "it waited while the value was arriving")


@test("a new connection that is slow to answer is no proof: nothing old is served before 500 ms of silence")
def _(t):
    redis = t.redis()
    meddler = t.meddler(redis)
    sidecar = t.sidecar(meddler).wait_until_tracking()
    client, direct = t.client(sidecar), t.client(redis)
    direct.call("SET", "k", "old")
    client.call("GET", "k")
    expect(client.call("GET", "k"), b"old")
    began = time.monotonic()

    def slow(data):
        time.sleep(max(0, began + 0.3 - time.monotonic()))
        return data
    meddler.alter = slow
    began = time.monotonic()
    meddler.drop_all()
    direct.call("SET", "k", "new")
    seen = set()
    while time.monotonic() < began + 0.8:
        seen.add(str(client.ask("GET", "k")))
    expect_true(str(b"old") not in seen, f"nothing old among {seen}")
    expect(client.call("GET", "k"), b"new")


@test("what a client has read on its own link while the upstream was lost is not taken back by an older copy")
def _(t):
    redis = t.redis()
    meddler = t.meddler(redis)
    sidecar = t.sidecar(meddler).wait_until_tracking()
    client, direct, pinned = t.client(sidecar), t.client(redis), t.client(sidecar)
    tracked = set(meddler.pairs)
    pinned.call("WATCH", "other")
    direct.call("SET", "k", "old")
    client.call("GET", "k")
    meddler.listener.close()
    for one in tracked:
        with contextlib.suppress(OSError):  # the meddler closes the other end of a pair by itself
            one.shutdown(2)
    direct.call("SET", "k", "new")
    expect(pinned.call("GET", "k"), b"new")
    for _ in range(20):
        reply = client.ask("GET", "k")
        expect_true(reply != b"old", f"not the older copy: {reply!r}")
        time.sleep(0.05)


@test("who has seen that a key is gone is not given its copy when the upstream is")
def _(t):
    for seen in (("KEYS", "*"), ("SCAN", 0), ("DBSIZE",), ("RANDOMKEY",), ("EXISTS", "k"), ("TYPE", "k"),
                 ("XREAD", "COUNT", 1, "STREAMS", "k", 0)):
        redis = t.redis()
        meddler = t.meddler(redis)
        sidecar = t.sidecar(meddler).wait_until_tracking()
        client, direct = t.client(sidecar), t.client(redis)
        t.cache(client, direct, "v")
        epoch = sidecar.metric("ferrite_sidecar_upstream_epoch")
        meddler.greet = lambda connection: True
        meddler.drop_tracked()
        direct.call("DEL", "k")
        meddler.behave()
        wait_until(lambda: sidecar.metric("ferrite_sidecar_upstream_epoch") > epoch, 5, what="a new link")
        t.client(sidecar).call(*seen)
        redis.kill()
        expect_nothing_old(client, 0.7)


@test("an upstream that wants a password serves clients that bring it, on links of their own")
def _(t):
    redis = t.redis(password="secret")
    sidecar = t.sidecar(redis)
    client = t.client(sidecar)
    expect_error(client.ask("GET", "k"), "NOAUTH")
    expect_error(client.ask("AUTH", "wrong"), "WRONGPASS")
    expect(client.call("AUTH", "secret"), Status("OK"))
    expect(client.call("SET", "k", "v"), Status("OK"))
    expect(client.call("GET", "k"), b"v")
    expect_error(t.client(sidecar).ask("GET", "k"), "NOAUTH")


STUCK_SECONDS = 5
# It ends by itself in the end: a failing test must not wait for a server that cannot be stopped.
STUCK = """
local function now() local time = redis.call('TIME') return time[1] + time[2] / 1e6 end
local began = now()
while now() - began < %d do end""" % STUCK_SECONDS
STUCK_LIBRARY = """#!lua name=lib
redis.register_function('stuck', function()%s
end)""" % STUCK


def kill_stuck(t, run, kill):
    redis = t.redis("--lua-time-limit", 100)
    direct = t.client(redis, timeout=2 * STUCK_SECONDS)
    direct.call("FUNCTION", "LOAD", STUCK_LIBRARY)
    sidecar = t.sidecar(redis).wait_until_tracking()
    pinned = t.client(sidecar)
    pinned.call("WATCH", "other")
    killers = {
        "a new client": lambda: t.client(sidecar), "a RESP3 client": lambda: t.client(sidecar, protocol=3),
        "a pinned client": lambda: pinned,
    }
    for who, killer in killers.items():
        direct.send(*run)
        with redis.client() as other:
            wait_until(lambda: str(other.ask("PING")).startswith("BUSY"), what="a stuck server")
        expect(killer().ask(*kill), Status("OK"), f"{' '.join(kill)} of {who}")
        expect_error(direct.read(), "killed by user")
    expect_error(t.client(sidecar).ask(*kill), "NOTBUSY")


@test("a stuck script is killed through the sidecar")
def _(t):
    kill_stuck(t, ("EVAL", STUCK, 0), ("SCRIPT", "KILL"))


@test("a stuck function is killed through the sidecar")
def _(t):
    kill_stuck(t, ("FCALL", "stuck", 0), ("FUNCTION", "KILL"))
