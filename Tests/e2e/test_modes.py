"""Modes: write-through and write-behind, rules, stale values, missing keys, the breaker, prefetch, ferritectl."""

import json
import os
import signal
import subprocess
import tempfile
import threading
import time

from resp import Closed, ReplyError, Status, encode
from runner import expect, expect_below, expect_error, expect_true, test
from servers import ferrite_binary, ferritectl_binary, wait_until


def behind(t, upstream, **settings):
    return t.sidecar(upstream, settings={"mode": "write-behind", **settings}).wait_until_tracking()


def waiting(sidecar):
    return sidecar.metric("ferrite_sidecar_write_behind_queued")


def outcomes(sidecar, outcome):
    return sidecar.metrics()[f'ferrite_sidecar_write_behind_total{{outcome="{outcome}"}}']


# ---- write-through ----


@test("write-through: what was written is a hit, whatever wrote it, and is what the upstream has")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"mode": "write-through"}).wait_until_tracking()
    client, direct = t.client(sidecar), t.client(redis)
    client.call("SET", "k", "1")
    client.call("INCR", "k")
    client.call("APPEND", "k", "0")
    client.call("MSET", "a", "1", "b", "2")
    wait_until(lambda: sidecar.metric("ferrite_sidecar_fills_total") >= 5, what="the fetches behind the writes")
    misses = sidecar.metric("ferrite_keyspace_misses_total")
    expect(client.pipeline([("GET", "k"), ("MGET", "a", "b")]), [b"20", [b"1", b"2"]])
    expect(sidecar.metric("ferrite_keyspace_misses_total"), misses, "misses")
    # A later write elsewhere is announced: the copy is registered, as by any read.
    direct.call("SET", "k", "elsewhere")
    wait_until(lambda: client.call("GET", "k") == b"elsewhere", 2)
    client.call("SET", "k", "x", "NX")
    expect(client.call("GET", "k"), b"elsewhere")


@test("write-through: a write that is refused leaves what the upstream has")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"mode": "write-through"}).wait_until_tracking()
    client, direct = t.client(sidecar), t.client(redis)
    direct.call("RPUSH", "list", "x")
    expect_error(client.ask("APPEND", "list", "y"), "WRONGTYPE")
    client.call("SET", "k", "before")
    direct.call("CONFIG", "SET", "maxmemory", "1")
    expect_error(client.ask("SET", "k", "after"), "OOM")
    expect(client.call("GET", "k"), b"before")
    expect_error(client.ask("GET", "list"), "WRONGTYPE")


# ---- write-behind ----


@test("write-behind: writes are acknowledged at once, read back, and upstream in a moment")
def _(t):
    redis = t.redis()
    sidecar = behind(t, redis)
    client, other, direct = t.client(sidecar), t.client(sidecar), t.client(redis)
    redis.freeze()
    try:
        expect(client.call("SET", "k", "v"), Status("OK"))
        expect(client.call("SETEX", "e", "100", "v"), Status("OK"))
        expect(client.call("MSET", "a", "1", "b", "2"), Status("OK"))
        expect(other.call("MGET", "b", "a", "k"), [b"2", b"1", b"v"])
        expect(waiting(sidecar), 4.0)
    finally:
        redis.thaw()
    wait_until(lambda: waiting(sidecar) == 0, what="an empty queue")
    expect(direct.call("MGET", "k", "e", "a", "b"), [b"v", b"v", b"1", b"2"])
    expect_true(95 < direct.call("TTL", "e") <= 100, "the time to live is another")


@test("write-behind: whatever else touches a written key finds it upstream")
def _(t):
    redis = t.redis()
    sidecar = behind(t, redis)
    client, other, direct = t.client(sidecar), t.client(sidecar), t.client(redis)
    for n in range(100):
        client.call("SET", "n", n)
        expect(client.call("INCR", "n"), n + 1)
        client.call("SET", "s", "x" * n)
        expect(other.call("STRLEN", "s"), n)
        client.call("SET", "d", n)
        expect(client.call("DEL", "d"), 1)
        expect(client.call("GET", "d"), None)
        client.call("SET", "w", n)
        expect(other.call("EVAL", "return redis.call('GET', 'w')", "0"), b"%d" % n)
        client.call("SET", "t", n)
        expect(other.pipeline([("MULTI",), ("GET", "t"), ("EXEC",)])[2], [b"%d" % n])
        client.call("SET", "m", n)
        expect(other.call("MGET", "m", f"missing{n}"), [b"%d" % n, None])
        client.call("SET", "told", n)
        client.call("RPUSH", "news", n)
        expect(direct.call("GET", "told"), b"%d" % n, "what a message tells of")
    expect(direct.call("LLEN", "news"), 100)


@test("write-behind: what is written often is sent seldom, and its last value last")
def _(t):
    redis = t.redis()
    sidecar = behind(t, redis)
    client, direct = t.client(sidecar), t.client(redis)
    before = redis.calls_of("SET")
    for start in range(0, 20_000, 1_000):
        client.pipeline([("SET", f"k{n % 10}", n) for n in range(start, start + 1_000)])
    wait_until(lambda: waiting(sidecar) == 0, what="an empty queue")
    expect([direct.call("GET", f"k{n}") for n in range(10)], [b"%d" % (19_990 + n) for n in range(10)])
    expect_below(redis.calls_of("SET") - before, 10_000, "SETs at the upstream for 20,000")


@test("write-behind: a dead upstream costs nothing that was acknowledged, and readers see it meanwhile")
def _(t):
    redis = t.redis("--appendonly", "yes", "--appendfsync", "always")
    sidecar = behind(t, redis)
    client = t.client(sidecar)
    for life in range(3):
        client.pipeline([("SET", f"k{n}", f"{life}-{n}") for n in range(2_000)])
        redis.kill()
        client.pipeline([("SET", f"k{n}", f"{life}-{n}-again") for n in range(0, 2_000, 2)])
        expect(client.call("GET", "k1998"), b"%d-1998-again" % life)
        redis.restart()
        wait_until(lambda: waiting(sidecar) == 0, 10, what="an empty queue")
        direct = t.client(redis)
        expect(direct.call("GET", "k1999"), b"%d-1999" % life)
        expect(direct.call("GET", "k1998"), b"%d-1998-again" % life)


@test("write-behind: what the upstream refuses for now is sent again, what it refuses for good is told and dropped")
def _(t):
    redis = t.redis()
    sidecar = behind(t, redis)
    client, direct = t.client(sidecar), t.client(redis)
    direct.call("CONFIG", "SET", "maxmemory", "1")
    expect(client.call("SET", "k", "v"), Status("OK"))
    wait_until(lambda: sidecar.metric("ferrite_sidecar_write_behind_retries_total") > 1, what="retries")
    expect(client.call("GET", "k"), b"v")
    direct.call("CONFIG", "SET", "maxmemory", "0")
    wait_until(lambda: waiting(sidecar) == 0, what="an empty queue")
    expect(direct.call("GET", "k"), b"v")
    direct.call("ACL", "SETUSER", "default", "-set")
    expect(client.call("SET", "forbidden", "secret value"), Status("OK"))
    wait_until(lambda: outcomes(sidecar, "refused") == 1, what="the dead letter")
    direct.call("ACL", "SETUSER", "default", "+@all")
    expect(client.call("GET", "forbidden"), None)
    wait_until(lambda: "given up" in sidecar.log() and "forbidden" in sidecar.log(), what="the log's line")
    expect_true("secret value" not in sidecar.log(), "the log tells the value")


@test("write-behind: who waits for what is queued is not idle")
def _(t):
    redis = t.redis()
    sidecar = behind(t, redis, idle_timeout="300ms")
    client, direct = t.client(sidecar), t.client(redis)
    direct.call("CONFIG", "SET", "maxmemory", "1")
    client.call("SET", "k", "abc")
    client.send_raw(encode("STRLEN", "k"))
    time.sleep(1)
    direct.call("CONFIG", "SET", "maxmemory", "0")
    expect(client.read(5), 3)


@test("write-behind: refused for longer than retry_for, a write is given up")
def _(t):
    redis = t.redis()
    sidecar = behind(t, redis, **{"write_behind.retry_for": "1"})
    client, direct = t.client(sidecar), t.client(redis)
    direct.call("CONFIG", "SET", "maxmemory", "1")
    client.call("SET", "k", "v")
    wait_until(lambda: outcomes(sidecar, "refused") == 1, 6, what="the dead letter")
    expect(waiting(sidecar), 0.0)


@test("write-behind: a full queue holds writers back while the upstream is there, and tells them when it is not")
def _(t):
    redis = t.redis()
    sidecar = behind(t, redis, **{"write_behind.memory": "256kb", "link_timeout": "30s"})
    client = t.client(sidecar)
    value = "x" * 1_000
    redis.freeze()
    try:
        for n in range(600):
            client.send("SET", f"k{n}", value)
        answered = 0
        try:
            while answered < 600:
                expect(client.read(timeout=0.5), Status("OK"))
                answered += 1
        except TimeoutError:
            pass
        expect_true(150 < answered < 260, f"{answered} of 600 writes were taken into 256 KiB")
    finally:
        redis.thaw()
    while answered < 600:
        expect(client.read(timeout=5), Status("OK"))
        answered += 1
    wait_until(lambda: waiting(sidecar) == 0, what="an empty queue")
    expect(t.client(redis).call("DBSIZE"), 600)
    # Half are on their way, and wait for room, when the upstream dies.
    redis.freeze()
    for n in range(600):
        client.send("SET", f"k{n}", value)
    time.sleep(0.1)
    redis.kill()
    replies = [client.read(timeout=5) for _ in range(600)]
    errors = [reply for reply in replies if isinstance(reply, ReplyError)]
    expect_true(300 < len(errors) < 450, f"{len(errors)} of 600 writes failed")
    expect_error(errors[0], "unreachable")
    redis.restart()
    wait_until(lambda: waiting(sidecar) == 0, what="an empty queue")


@test("write-behind: who waits for queued writes hears it when nobody takes them, and INFO waits for nothing")
def _(t):
    redis = t.redis()
    sidecar = behind(t, redis)
    client, other = t.client(sidecar), t.client(sidecar)
    redis.kill()
    client.call("SET", "k", "v")
    other.send("STRLEN", "k")
    expect_error(other.read(timeout=3), "unreachable")
    expect_error(client.ask("MGET", "k", "missing", timeout=3), "unreachable")
    expect_error(client.ask("INCR", "k", timeout=3), "unreachable")
    expect(client.call("MGET", "k", "k"), [b"v", b"v"])
    expect_true(b"# Sidecar" in client.ask("INFO", timeout=3), "INFO without the sidecar's section")
    redis.restart()
    wait_until(lambda: waiting(sidecar) == 0, what="an empty queue")


@test("write-behind: retry_for counts from the first refusal, not while nobody is there")
def _(t):
    redis = t.redis()
    sidecar = behind(t, redis, **{"write_behind.retry_for": "1"})
    client = t.client(sidecar)
    redis.kill()
    client.pipeline([("SET", f"k{n}", n) for n in range(50)])
    time.sleep(1.3)
    redis.arguments += ["--min-replicas-to-write", "1"]
    redis.restart()
    wait_until(lambda: sidecar.metric("ferrite_sidecar_write_behind_retries_total") > 50, what="retries")
    direct = t.client(redis)
    direct.call("CONFIG", "SET", "min-replicas-to-write", "0")
    wait_until(lambda: waiting(sidecar) == 0, what="an empty queue")
    expect(direct.call("DBSIZE"), 50)
    expect(outcomes(sidecar, "refused"), 0.0)


@test("write-behind: SIGTERM sends what is acknowledged, and says so")
def _(t):
    redis = t.redis()
    sidecar = behind(t, redis)
    client = t.client(sidecar)
    redis.freeze()
    client.pipeline([("SET", f"k{n}", n) for n in range(20_000)])
    client.close()
    sidecar.signal(signal.SIGTERM)
    time.sleep(0.3)
    redis.thaw()
    sidecar.child.wait(5)
    expect(sidecar.child.returncode, 0, "exit status")
    expect(t.client(redis).call("DBSIZE"), 20_000)
    expect_true("every acknowledged write has been carried out" in sidecar.log(), "the log does not say so")


@test("write-behind: SIGTERM under a client that goes on writing loses nothing that was acknowledged")
def _(t):
    redis = t.redis()
    meddler = t.meddler(redis)
    meddler.lag = 0.02
    sidecar = behind(t, meddler, drain_timeout="700ms")
    client, direct = t.client(sidecar), t.client(redis)
    acknowledged, began = -1, time.monotonic()
    try:
        for n in range(100_000):
            if began and time.monotonic() - began > 0.3:
                began = None
                sidecar.signal(signal.SIGTERM)
            for key in range(200):
                client.send("SET", f"k{key}", n)
            for _ in range(200):
                expect(client.read(), Status("OK"))
            acknowledged = n
    except (Closed, OSError):
        pass
    expect(sidecar.child.wait(5), 0, "exit status")
    expect_true(acknowledged > 10, "too few writes")
    lost = [key for key in range(200) if int(direct.call("GET", f"k{key}")) < acknowledged]
    expect(lost, [], "keys without their last acknowledged write")
    expect_true("every acknowledged write has been carried out" in sidecar.log(), "the log does not say so")


@test("ferritectl drain, twice, and the SIGTERM of whoever stops the pod are one drain; another SIGTERM ends it")
def _(t):
    folder = t.stack.enter_context(tempfile.TemporaryDirectory(prefix="ferrite-test-"))
    path = os.path.join(folder, "admin.sock")
    sidecar = t.sidecar(t.redis(), settings={"admin_socket": path, "drain_timeout": "20s"}).wait_until_tracking()
    client = t.client(sidecar)
    client.call("SET", "k", "v")
    for _ in range(2):
        expect(steer(path, "drain")[0], 0)
    sidecar.signal(signal.SIGTERM)
    wait_until(lambda: "SIGTERM: draining already" in sidecar.log(), what="a word of the log")
    expect(steer(path, "drain")[0], 0)
    expect(client.call("GET", "k"), b"v", "an answer while it drains")
    sidecar.signal(signal.SIGTERM)
    expect(sidecar.child.wait(5), 128 + signal.SIGTERM, "exit status")


@test("write-behind: SIGTERM before an upstream that stays away says what is lost", once=True)
def _(t):
    redis = t.redis()
    sidecar = behind(t, redis, drain_timeout="1")
    client = t.client(sidecar)
    redis.kill()
    client.pipeline([("SET", f"k{n}", n) for n in range(1_000)])
    sidecar.signal(signal.SIGTERM)
    sidecar.child.wait(5)
    expect_true("1000 acknowledged writes are lost" in sidecar.log(), "the log does not say so")


@test("write-behind: a write's time to live runs from when it was acknowledged")
def _(t):
    redis = t.redis("--appendonly", "yes", "--appendfsync", "always")
    sidecar = behind(t, redis)
    client = t.client(sidecar)
    t.client(redis).call("SET", "k", "older")
    redis.kill()
    client.call("SET", "k", "v", "PX", "300")
    client.call("SET", "l", "v", "PX", "60000")
    time.sleep(0.4)
    expect(client.call("GET", "k"), None)
    redis.restart()
    wait_until(lambda: waiting(sidecar) == 0, what="an empty queue")
    direct = t.client(redis)
    expect(direct.call("GET", "k"), None, "what was there before")
    expect_below(direct.call("PTTL", "l"), 59_700, "milliseconds left")


# ---- rules ----


@test("write-behind: an upstream that stands still for a while neither brings a key back nor makes it live longer")
def _(t):
    redis = t.redis()
    sidecar = behind(t, redis)
    client = t.client(sidecar)
    redis.freeze()
    try:
        client.pipeline([("SET", "brief", "v", "PX", 200), ("SET", "long", "v", "PX", 5_000)])
        began = time.monotonic()
        seen = []
        while time.monotonic() < began + 0.8:
            seen.append(client.call("GET", "brief"))
            time.sleep(0.01)
    finally:
        redis.thaw()
    while time.monotonic() < began + 1.5:
        seen.append(client.call("GET", "brief"))
        time.sleep(0.002)
    changes = [seen[0], *(after for before, after in zip(seen, seen[1:]) if after != before)]
    expect(changes, [b"v", None])
    wait_until(lambda: waiting(sidecar) == 0, what="carried out")
    left, passed = redis.client().call("PTTL", "long"), 1_000 * (time.monotonic() - began)
    expect_true(left <= 5_000 - passed + 100, f"{left} ms are left after {passed:.0f}")


@test("write-behind: a key that is written again and again while it is refused holds nobody up beyond retry_for")
def _(t):
    redis = t.redis("--maxmemory", "1")
    sidecar = behind(t, redis, **{"write_behind.retry_for": "1s"})
    writer, other = t.client(sidecar), t.client(sidecar, timeout=10.0)
    writer.call("SET", "hot", "0")
    done = threading.Event()

    def write():
        while not done.wait(0.2):
            writer.call("SET", "hot", "1")

    def ask():
        try:
            expect(other.call("DBSIZE"), 0)
        finally:
            done.set()
    t.threads([write, ask])
    expect_true(outcomes(sidecar, "refused") >= 1, "given up")
    wait_until(lambda: "refuses acknowledged writes for now: OOM" in sidecar.log(), what="the log's line")


@test("rules: mode, ttl and cache by pattern, the first that matches")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={
        "rules": '[{pattern = "never:*", cache = false}, {pattern = "brief:*", ttl = 1},'
                 ' {pattern = "fast:[ab]*", mode = "write-behind"}]'}).wait_until_tracking()
    client, direct = t.client(sidecar), t.client(redis)
    for key in ("never:1", "brief:1", "other"):
        direct.call("SET", key, "v")
        client.call("GET", key)
    before = redis.calls_of("GET")
    for _ in range(5):
        for key in ("never:1", "brief:1", "other"):
            expect(client.call("GET", key), b"v")
    expect(redis.calls_of("GET") - before, 5, "reads of the uncached key at the upstream")
    time.sleep(1.1)
    before = redis.calls_of("GET")
    client.call("GET", "other")
    client.call("GET", "brief:1")
    expect(redis.calls_of("GET") - before, 1, "reads at the upstream when the brief key's time is over")
    redis.freeze()
    try:
        expect(client.ask("SET", "fast:a", "1", timeout=1), Status("OK"))
    finally:
        redis.thaw()
    expect(client.call("SET", "fast:c", "1"), Status("OK"))
    expect(direct.call("GET", "fast:c"), b"1")


@test("patterns match what KEYS matches", once=True)
def _(t):
    redis = t.redis()
    direct = t.client(redis)
    names = ["a", "ab", "abc", "b", "[", "]", "a]", "-", "*", "a*c", "\\", "a\\", "h.llo", "hello", "hallo",
             "user:1:x"]
    patterns = ["*", "a*", "*c", "?", "a?c", "[ab]", "[^ab]", "[a-b]c", "h[a-e]llo", "[", "[a", "[^", "[]", "\\*",
                "a\\*c", "a\\", "\\[", "user:*:x", "**", "*b*", "[b-a]", "[a\\]]", "[\\-]", "a[bc]c"]
    for name in names:
        direct.call("SET", name, "v")
    for pattern in patterns:
        literal = "'" + pattern + "'"
        sidecar = t.sidecar(redis, settings={
            "rules": f"[{{pattern = 'ferrite-test:*'}}, {{pattern = {literal}, cache = false}}]"}).wait_until_tracking()
        client = t.client(sidecar)
        for name in names:
            client.call("GET", name)
        misses = sidecar.metric("ferrite_keyspace_misses_total")
        uncached = set()
        for name in names:
            client.call("GET", name)
            now = sidecar.metric("ferrite_keyspace_misses_total")
            if now > misses:
                uncached.add(name.encode())
            misses = now
        expect(uncached, set(direct.call("KEYS", pattern)) & {name.encode() for name in names}, pattern)
        client.close()
        sidecar.stop()


# ---- stale ----


@test("a value past its ttl answers when the upstream is slow or gone, until stale_max, and is fresh again after")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"ttl_default": "1", "stale_max": "3"}).wait_until_tracking()
    client, direct = t.client(sidecar), t.client(redis)
    direct.call("SET", "k", "v")
    client.call("GET", "k")
    time.sleep(1.1)
    redis.freeze()
    try:
        expect(client.ask("GET", "k", timeout=1), b"v", "while the upstream is slow")
        expect_true(sidecar.metric("ferrite_sidecar_stale_served_total") > 0, "it is not counted")
    finally:
        redis.thaw()
    wait_until(lambda: client.ask("GET", "k") == b"v")
    direct.call("SET", "k", "newer")
    wait_until(lambda: client.ask("GET", "k") == b"newer")
    redis.kill()
    time.sleep(1.1)
    expect(client.ask("GET", "k"), b"newer", "while the upstream is gone")
    time.sleep(3.2)
    expect_error(client.ask("GET", "k"), "unreachable")


@test("no value is served past the expiry it had upstream, nor with serve_stale = false past its ttl")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"ttl_default": "1"}).wait_until_tracking()
    strict = t.sidecar(redis, settings={"ttl_default": "1", "serve_stale": "false"}).wait_until_tracking()
    client, other, direct = t.client(sidecar), t.client(strict), t.client(redis)
    direct.call("SET", "expires", "v", "PX", "1500")
    direct.call("SET", "k", "v")
    for one in (client, other):
        one.call("GET", "expires")
        one.call("GET", "k")
    redis.kill()
    wait_until(lambda: other.ask("GET", "k") == b"v", 3, what="the suspect copy")
    time.sleep(1.6)
    expect(client.ask("GET", "k"), b"v")
    expect_error(client.ask("GET", "expires"), "unreachable")
    expect_error(other.ask("GET", "k"), "unreachable")


@test("the breaker opens before an upstream that answers too late, sends single reads, and closes when one is in time")
def _(t):
    redis = t.redis()
    meddler = t.meddler(redis)
    sidecar = t.sidecar(meddler).wait_until_tracking()
    client = t.client(sidecar)
    meddler.alter = lambda data: time.sleep(0.12) or data
    for n in range(25):
        expect_error(client.ask("GET", f"slow{n}"))
    expect(sidecar.metric("ferrite_sidecar_breaker_open"), 1.0)
    before = redis.calls_of("GET")
    began = time.monotonic()
    while time.monotonic() < began + 1.0:
        expect_error(client.ask("GET", f"refused{int(time.monotonic() * 1e6)}"))
    expect_below(redis.calls_of("GET") - before, 12, "reads sent in a second")
    meddler.alter = None
    wait_until(lambda: client.ask("GET", "k") is None, 3, what="an answer")
    wait_until(lambda: sidecar.metric("ferrite_sidecar_breaker_open") == 0, 3, what="a closed breaker")


# ---- missing keys ----


@test("that a key is missing is cached while changes are announced, and its creation is seen")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    client, direct = t.client(sidecar), t.client(redis)
    expect(client.call("GET", "none"), None)
    before = redis.calls_of("GET")
    for _ in range(10):
        expect(client.call("GET", "none"), None)
        expect(client.call("MGET", "none", "none"), [None, None])
    expect(redis.calls_of("GET") - before, 0, "reads at the upstream")
    direct.call("SET", "none", "now")
    wait_until(lambda: client.call("GET", "none") == b"now", 2)
    client.call("DEL", "none")
    expect(client.call("GET", "none"), None)
    client.call("SET", "none", "own")
    expect(client.call("GET", "none"), b"own")


@test("without tracking that a key is missing is not cached")
def _(t):
    redis = t.redis()
    t.client(redis).call("ACL", "SETUSER", "default", "-client|tracking", "-client|caching")
    sidecar = t.sidecar(redis)
    client = t.client(sidecar)
    wait_until(lambda: client.ask("GET", "none") is None)
    before = redis.calls_of("GET")
    for _ in range(5):
        expect(client.call("GET", "none"), None)
    expect(redis.calls_of("GET") - before, 5, "reads at the upstream")


# ---- prefetch ----


def prefetch_state(sidecar):
    return json.loads(sidecar.page("/stats")[1])["prefetch"]


def filled(t, redis, count, pattern="item:{}"):
    direct = t.client(redis)
    for start in range(0, count, 1_000):
        direct.pipeline([("SET", pattern.format(n), "x" * 50) for n in range(start, min(start + 1_000, count))])
    return direct


@test("prefetch: keys of the patterns are hits before anybody has asked, and stay true")
def _(t):
    redis = t.redis()
    direct = filled(t, redis, 500)
    direct.call("SET", "other", "v")
    direct.call("RPUSH", "item:list", "x")
    sidecar = t.sidecar(redis, settings={
        "prefetch.enabled": "true", "prefetch.patterns": "item:*", "prefetch.jitter": "0"})
    wait_until(lambda: prefetch_state(sidecar)["state"] == "done", what="the end of the prefetch")
    expect_true(prefetch_state(sidecar)["fetched"] >= 500, f"{prefetch_state(sidecar)}")
    client = t.client(sidecar)
    expect(client.pipeline([("GET", f"item:{n}") for n in range(500)]), [b"x" * 50] * 500)
    expect(sidecar.metric("ferrite_keyspace_misses_total"), 0.0, "misses")
    direct.call("SET", "item:7", "changed")
    wait_until(lambda: client.call("GET", "item:7") == b"changed", 2)
    for words in ("prefetch has begun", "prefetch has fetched"):
        wait_until(lambda: words in sidecar.log(), what=words)


@test("prefetch: one walk serves all patterns, and what a rule never keeps is not fetched", once=True)
def _(t):
    redis = t.redis()
    filled(t, redis, 3_000, "other:{}")
    filled(t, redis, 10, "nc:{}")
    filled(t, redis, 10)
    sidecar = t.sidecar(redis, settings={
        "prefetch.enabled": "true", "prefetch.patterns": "absent:*,nc:*,item:*", "prefetch.jitter": "0",
        "rules": '[{pattern = "nc:*", cache = false}]'})
    wait_until(lambda: prefetch_state(sidecar)["state"] == "done", what="the end of the prefetch")
    state = prefetch_state(sidecar)
    expect((state["names"], state["fetched"], state["not_kept"]), (20, 10, 10), "names, fetched, not kept")
    expect_true(30 <= state["pages"] <= 40, f"{state}")
    wait_until(lambda: "not_kept=10" in sidecar.log() and "none is fetched ahead" in sidecar.log(), what="the log")


@test("prefetch: its rates hold, and a flush begins it anew")
def _(t):
    redis = t.redis()
    direct = filled(t, redis, 2_000)
    scans = redis.calls_of("SCAN")
    sidecar = t.sidecar(redis, settings={
        "prefetch.enabled": "true", "prefetch.patterns": "item:*", "prefetch.jitter": "0", "prefetch.fill_rate": "500",
        "prefetch.scan_rate": "20"})
    began = time.monotonic()
    wait_until(lambda: prefetch_state(sidecar)["state"] == "done", 20, what="the end of the prefetch")
    took = time.monotonic() - began
    expect_true(took > 3.2, f"2,000 keys at 500 a second took {took:.1f} s")
    expect_below(redis.calls_of("SCAN") - scans, 20 * took + 5, "SCAN calls")
    direct.call("FLUSHALL")
    filled(t, redis, 10)
    wait_until(lambda: prefetch_state(sidecar)["names"] <= 10 and prefetch_state(sidecar)["state"] == "done", 20)


@test("prefetch: why it has fetched nothing is in the log", once=True)
def _(t):
    redis = t.redis()
    filled(t, redis, 10).call("ACL", "SETUSER", "default", "-scan")
    sidecar = t.sidecar(redis, settings={
        "prefetch.enabled": "true", "prefetch.patterns": "item:*", "prefetch.jitter": "0"})
    wait_until(lambda: "prefetch has fetched" in sidecar.log(), 10, what="the end of the prefetch")
    line = next(line for line in sidecar.log().splitlines() if "prefetch has fetched" in line)
    expect_true("errors=5" in line and 'last_error="NOPERM' in line, line)


@test("prefetch: with ready_after_prefetch the pod is ready when it has ended, and after ten seconds in any case")
def _(t):
    redis = t.redis()
    filled(t, redis, 400)
    settings = {"prefetch.enabled": "true", "prefetch.patterns": "item:*", "prefetch.jitter": "0",
                "prefetch.fill_rate": "400", "prefetch.ready_after_prefetch": "true"}
    sidecar = t.sidecar(redis, settings=settings)
    expect(sidecar.page("/readyz"), (503, "prefetching\n"))
    wait_until(lambda: sidecar.page("/readyz")[0] == 200, 9, what="readiness")
    expect(prefetch_state(sidecar)["state"], "done")
    redis.kill()
    begun = time.monotonic()
    other = t.sidecar(redis, settings=settings)
    expect(other.page("/readyz")[0], 503)
    wait_until(lambda: other.page("/readyz")[0] == 200, 15, what="readiness")
    expect_true(8 < time.monotonic() - begun < 13, "it is ready sooner or later than after ten seconds")


@test("prefetch: it takes no more than its share, and nobody's place", once=True)
def _(t):
    redis = t.redis()
    direct = t.client(redis)
    for start in range(0, 20_000, 1_000):
        direct.pipeline([("SET", f"item:{n}", "x" * 2_000) for n in range(start, start + 1_000)])
        direct.pipeline([("SET", f"mine:{n}", "y" * 2_000) for n in range(start // 20, start // 20 + 50)])
    sidecar = t.sidecar(redis, settings={
        "local_memory": "32mb", "prefetch.enabled": "true", "prefetch.patterns": "item:*", "prefetch.jitter": "0",
        "prefetch.share": "30", "prefetch.fill_rate": "50000", "prefetch.scan_rate": "5000"})
    client = t.client(sidecar)
    client.pipeline([("GET", f"mine:{n}") for n in range(1_000)])
    wait_until(lambda: prefetch_state(sidecar)["state"] == "full", 20, what="the end of the prefetch")
    expect(sidecar.metric("ferrite_evicted_keys_total"), 0.0, "evictions")
    memory = sidecar.metrics()
    held = sum(memory[f'ferrite_sidecar_memory_bytes{{owner="{owner}"}}'] for owner in ("slabs", "index"))
    expect_below(held, 0.36 * (32 << 20), "bytes of the store")
    misses = sidecar.metric("ferrite_keyspace_misses_total")
    client.pipeline([("GET", f"mine:{n}") for n in range(1_000)])
    expect(sidecar.metric("ferrite_keyspace_misses_total"), misses, "misses of what clients had asked for")


@test("warm start: the hottest keys are hits in the next process before anybody has asked for them")
def _(t):
    redis = t.redis()
    filled(t, redis, 3_000)
    path = os.path.join(redis.folder, "warm")
    for eviction in ("lru", "lfu"):
        sidecar = t.sidecar(redis, settings={
            "warm_start": path, "eviction": eviction, "drain_timeout": "500ms",
            "prefetch.jitter": "0"}).wait_until_tracking()
        with t.client(sidecar) as client:
            client.pipeline([("GET", f"item:{n}") for n in range(1_000)])
            for _ in range(20):
                client.pipeline([("GET", f"item:{n}") for n in range(100)])
        expect(sidecar.stop(), 0)
        with open(path, "rb") as file:
            lines = file.read().split(b"\n")
        expect_true(b"7 item:42" in lines and len(lines) > 100, "the names are not in the file")
        sidecar.spawn()
        sidecar.wait_until_up()
        wait_until(lambda: prefetch_state(sidecar)["state"] == "done", what="the end of the prefetch")
        client = t.client(sidecar)
        client.pipeline([("GET", f"item:{n}") for n in range(100)])
        expect(sidecar.metric("ferrite_keyspace_misses_total"), 0.0, "misses")
        client.call("GET", "item:2999")
        expect(sidecar.metric("ferrite_keyspace_misses_total"), 1.0, "misses of what was not there")
        sidecar.stop()
        os.unlink(path)
    with open(path, "w") as file:
        file.write("something else")
    sidecar = t.sidecar(redis, settings={"warm_start": path}).wait_until_tracking()
    wait_until(lambda: "is no file of warm_start" in sidecar.log(), what="a warning")
    with t.client(sidecar) as client:
        client.call("GET", "item:1")
    expect(sidecar.stop(), 0)
    with open(path) as file:
        expect(file.read(), "something else")


@test("warm start: a process that lives for moments leaves the list as long as it was", once=True)
def _(t):
    redis = t.redis()
    filled(t, redis, 1_000)
    path = os.path.join(redis.folder, "warm")
    text = "FERRITE WARM 1\n" + "".join(f"{len(f'item:{n}')} item:{n}\n" for n in range(1_000))
    with open(path, "w") as file:
        file.write(text)
    sidecar = t.sidecar(redis, settings={"warm_start": path, "prefetch.jitter": "1m"}).wait_until_tracking()
    with t.client(sidecar) as client:
        client.call("GET", "item:700")
        client.call("GET", "item:701")
    expect(sidecar.stop(), 0)
    with open(path) as file:
        left = file.read().splitlines()
    expect(sorted(left), sorted(text.splitlines()), "names in the file")
    expect(sorted(left[1:3]), ["8 item:700", "8 item:701"], "those that were hot")


@test("warm start: of keys that are all as hot as many are noted as there is room for, the hottest first", once=True)
def _(t):
    redis = t.redis()
    filled(t, redis, 12_000)
    path = os.path.join(redis.folder, "warm")
    for eviction in ("lru", "lfu"):
        sidecar = t.sidecar(redis, settings={"warm_start": path, "eviction": eviction}).wait_until_tracking()
        with t.client(sidecar) as client:
            for start in range(0, 12_000, 1_000):
                client.pipeline([("GET", f"item:{n}") for n in range(start, start + 1_000)])
            for _ in range(50):
                client.pipeline([("GET", f"item:{n}") for n in range(11_900, 12_000)])
        expect(sidecar.stop(), 0)
        with open(path, "rb") as file:
            names = {line.split(b" ")[1] for line in file.read().splitlines()[1:]}
        expect(len(names), 10_000, f"names with {eviction}")
        if eviction == "lfu":
            expect_true(all(b"item:%d" % n in names for n in range(11_900, 12_000)), "the hottest are not among them")
        os.unlink(path)


# ---- the admin socket ----


def steer(path, *words):
    """(exit status, output) of ferritectl."""
    done = subprocess.run([ferritectl_binary(), *words, "--socket", path], capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout + done.stderr


@test("ferritectl flushes, prefetches, bypasses and drains over a socket that only its owner may open")
def _(t):
    redis = t.redis()
    folder = t.stack.enter_context(tempfile.TemporaryDirectory(prefix="ferrite-test-"))
    path = os.path.join(folder, "admin.sock")
    sidecar = t.sidecar(redis, settings={"admin_socket": path}).wait_until_tracking()
    expect(os.stat(path).st_mode & 0o777, 0o600, "mode of the socket")
    client, direct = t.client(sidecar), t.client(redis)
    for n in range(3_000):
        direct.send("SET", f"user:{n}", n)
    for _ in range(3_000):
        direct.read()
    direct.call("SET", "other", "v")
    client.pipeline([("GET", f"user:{n}") for n in range(3_000)] + [("GET", "other")])
    expect(sidecar.metrics()['ferrite_keys{database="0"}'], 3_001.0)
    code, text = steer(path, "flush", "user:1*")
    expect((code, text), (0, "flushed: 1111 keys that match user:1*\n"))
    expect(sidecar.metrics()['ferrite_keys{database="0"}'], 1_890.0)
    misses = sidecar.metric("ferrite_keyspace_misses_total")
    expect(client.pipeline([("GET", "user:2"), ("GET", "other")]), [b"2", b"v"])
    expect(sidecar.metric("ferrite_keyspace_misses_total"), misses, "misses of what was not flushed")
    expect(steer(path, "flush")[0], 0)
    client.call("GET", "other")
    expect(sidecar.metric("ferrite_keyspace_misses_total"), misses + 1, "misses after a flush")
    for key in (b"bytes:\xff", b"bytes:\xfe"):
        client.call("GET", key)
    code, text = steer(path, "flush", b"bytes:\xff")
    expect_true(code == 0 and text.startswith("flushed: 1 keys"), text)
    expect(steer(path, "flush")[0], 0)
    client.call("GET", "other")
    expect(steer(path, "prefetch", "user:2?")[0], 0)
    wait_until(lambda: sidecar.metrics()['ferrite_keys{database="0"}'] == 11.0, what="ten keys that were fetched")
    expect(steer(path, "bypass", "on")[0], 0)
    before = redis.calls_of("GET")
    for _ in range(5):
        expect(client.call("GET", "other"), b"v")
    expect(redis.calls_of("GET") - before, 5, "reads at the upstream under bypass")
    expect(sidecar.metric("ferrite_sidecar_bypass"), 1.0)
    steer(path, "bypass", "off")
    client.call("GET", "other")
    before = redis.calls_of("GET")
    client.call("GET", "other")
    expect(redis.calls_of("GET") - before, 0, "reads at the upstream without bypass")
    client.close()
    expect(steer(path, "drain")[0], 0)
    sidecar.child.wait(5)
    expect(sidecar.child.returncode, 0, "exit status")
    expect_true(not os.path.exists(path), "the socket's file is left")
    code, text = steer(path, "flush")
    expect_true(code == 69 and "nothing listens" in text, text)


@test("ferritectl flush has prefetch begin anew, and one of a pattern has not")
def _(t):
    redis = t.redis()
    filled(t, redis, 50)
    path = os.path.join(redis.folder, "admin.sock")
    sidecar = t.sidecar(redis, settings={
        "admin_socket": path, "prefetch.enabled": "true", "prefetch.patterns": "item:*", "prefetch.jitter": "0"})

    def keys():
        return sidecar.metrics()['ferrite_keys{database="0"}']
    wait_until(lambda: keys() == 50, what="fifty keys that were fetched")
    wait_until(lambda: prefetch_state(sidecar)["state"] == "done", what="the end of the prefetch")
    expect(steer(path, "flush", "item:1*"), (0, "flushed: 11 keys that match item:1*\n"))
    time.sleep(0.3)
    expect(keys(), 39.0)
    expect(steer(path, "flush")[0], 0)
    wait_until(lambda: keys() == 50, what="fifty keys that were fetched again")


@test("ferritectl shows dead letters without their values", once=True)
def _(t):
    redis = t.redis()
    folder = t.stack.enter_context(tempfile.TemporaryDirectory(prefix="ferrite-test-"))
    path = os.path.join(folder, "admin.sock")
    sidecar = behind(t, redis, admin_socket=path)
    client, direct = t.client(sidecar), t.client(redis)
    expect(steer(path, "dead-letters"), (0, "no acknowledged write has been given up\n"))
    direct.call("ACL", "SETUSER", "default", "-set")
    client.call("SET", "forbidden key", "secret value")
    wait_until(lambda: outcomes(sidecar, "refused") == 1, what="the dead letter")
    direct.call("ACL", "SETUSER", "default", "+@all")
    code, text = steer(path, "dead-letters")
    expect_true(code == 0 and '"forbidden key"  NOPERM' in text and "secret value" not in text, text)


@test("an admin socket that cannot be had is an error of the start, and what is no socket is left alone", once=True)
def _(t):
    redis = t.redis()
    folder = t.stack.enter_context(tempfile.TemporaryDirectory(prefix="ferrite-test-"))

    def refused(path, *words):
        done = subprocess.run(
            [ferrite_binary(), "--sidecar", "--upstream", f"127.0.0.1:{redis.port}", "--port", "0", "--metrics-port",
             "0", "--set", f"admin_socket={path}"], capture_output=True, text=True, timeout=10)
        expect(done.returncode, 69, "exit status")
        for word in ("admin_socket", path, *words):
            expect_true(word in done.stderr, done.stderr)
    refused("/no/such/folder/admin.sock", "folder")
    path, link = os.path.join(folder, "precious"), os.path.join(folder, "link")
    with open(path, "w") as file:
        file.write("precious")
    os.symlink(path, link)
    for name in (path, link, folder):
        refused(name, "no socket", "another path")
    with open(link) as file:
        expect(file.read(), "precious")
    sidecar = t.sidecar(redis, settings={"admin_socket": os.path.join(folder, "admin.sock")}).wait_until_tracking()
    refused(os.path.join(folder, "admin.sock"), "another process")
    sidecar.kill()
    sidecar.child.returncode = 0  # killed on purpose
    again = t.sidecar(redis, settings={"admin_socket": os.path.join(folder, "admin.sock")}).wait_until_tracking()
    expect(steer(os.path.join(folder, "admin.sock"), "flush")[0], 0)
    expect(again.stop(), 0)


@test("under bypass every read is the upstream's, that of a queued write's key too, and a write is one command")
def _(t):
    redis = t.redis()
    path = os.path.join(redis.folder, "admin.sock")
    sidecar = behind(t, redis, admin_socket=path, rules='[{pattern = "through:*", mode = "write-through"}, '
                                                        '{pattern = "never:*", cache = false}]')
    client, other, direct = t.client(sidecar), t.client(sidecar), t.client(redis)

    def waits_for_the_write(command, key):
        direct.call("SET", key, "old")
        before = redis.calls_of(command)
        direct.call("CLIENT", "PAUSE", "20000", "WRITE")
        expect(client.call("SET", key, "new"), Status("OK"))
        other.send(command, key)
        time.sleep(0.2)
        expect(waiting(sidecar), 1.0, "queued writes")
        direct.call("CLIENT", "UNPAUSE")
        expect(other.read(), b"new" if command == "GET" else [b"new"], f"{command} {key}")
        expect(redis.calls_of(command) - before, 1, f"upstream's {command} calls")
    for command in ("GET", "MGET"):
        waits_for_the_write(command, "never:1")
    expect(steer(path, "bypass", "on")[0], 0)
    for command in ("GET", "MGET"):
        waits_for_the_write(command, "k")
    before = redis.calls_of("GET")
    for n in range(20):
        client.call("SET", f"through:{n}", n)
    expect(redis.calls_of("GET") - before, 0, "fetches behind writes")
    code, text = steer(path, "prefetch", "through:*")
    expect_true(code != 0 and "bypass is on" in text, text)
    steer(path, "bypass", "off")
    redis.kill()
    code, text = steer(path, "prefetch", "through:*")
    expect_true(code == 69 and "not connected" in text, text)
    expect(client.call("SET", "k", "queued"), Status("OK"))
    expect(client.call("GET", "k"), b"queued")
    steer(path, "bypass", "on")
    expect_error(client.ask("GET", "k"), "upstream")
    fetched = sidecar.metric("ferrite_sidecar_fetches_behind_total")
    redis.restart()
    wait_until(lambda: waiting(sidecar) == 0, 10, what="an empty queue")
    expect(sidecar.metric("ferrite_sidecar_fetches_behind_total"), fetched, "fetches behind writes")
    wait_until(lambda: client.ask("GET", "k") == b"queued", 5, what="the write at the upstream")


@test("one key at the upstream steers every sidecar")
def _(t):
    redis = t.redis()
    path = os.path.join(redis.folder, "admin.sock")
    pods = [t.sidecar(redis, settings=settings).wait_until_tracking() for settings in ({"admin_socket": path}, {})]
    clients = [t.client(pod) for pod in pods]
    direct = t.client(redis)
    direct.call("SET", "k", "v")
    for client in clients:
        client.call("GET", "k")
    direct.call("SET", "ferrite:control", "bypass")
    for pod in pods:
        wait_until(lambda pod=pod: pod.metric("ferrite_sidecar_bypass") == 1, 2, what="the bypass")
    before = redis.calls_of("GET")
    for client in clients:
        expect(client.call("GET", "k"), b"v")
    expect(redis.calls_of("GET") - before, 2, "reads at the upstream")
    code, text = steer(path, "bypass", "off")
    expect_true(code == 0 and text.startswith("the fleet's bypass is still on"), text)
    expect(pods[0].metric("ferrite_sidecar_bypass"), 1.0)
    direct.call("DEL", "ferrite:control")
    for pod in pods:
        wait_until(lambda pod=pod: pod.metric("ferrite_sidecar_bypass") == 0, 2, what="the end of the bypass")
    expect(steer(path, "bypass", "off"), (0, "bypass is off: the cache serves again\n"))
    for client in clients:
        client.call("GET", "k")
    direct.call("SET", "ferrite:control", "flush")
    for pod in pods:
        wait_until(lambda pod=pod: pod.metrics()['ferrite_keys{database="0"}'] == 0, 2, what="an empty cache")
    late = t.sidecar(redis).wait_until_tracking()
    direct.call("SET", "ferrite:control", "bypass")
    wait_until(lambda: late.metric("ferrite_sidecar_bypass") == 1, 2, what="the bypass of one that came later")
