"""What operators are told of the upstream: how long it takes, what it refuses, and why it cannot be had."""

import time

import servers
from resp import ReplyError
from runner import expect, expect_true, test
from servers import wait_until

FAILURES = "ferrite_sidecar_upstream_failures_total"
ERRORS = "ferrite_sidecar_upstream_error_replies_total"
DURATION = "ferrite_sidecar_upstream_duration_seconds"


def difference(before, after, prefix):
    """What has changed among the metrics that begin so."""
    changes = {name: after[name] - before.get(name, 0) for name in after if name.startswith(prefix)}
    return {name: change for name, change in changes.items() if change}


@test("metrics: the upstream's latency counts each of its answers, and no hit")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    client = t.client(sidecar)
    client.call("SET", "k", "v")
    client.call("GET", "k")
    before = sidecar.metrics()
    for _ in range(50):
        expect(client.call("GET", "k"), b"v")
    expect(difference(before, sidecar.metrics(), DURATION), {})
    for turn in range(20):
        client.call("HSET", "h", str(turn), "x")
        client.call("GET", f"new{turn}")
    with redis.client() as direct:
        direct.call("CLIENT", "PAUSE", "30", "WRITE")
        client.call("HSET", "h", "last", "x")
    after = sidecar.metrics()
    expect(after[f"{DURATION}_count"] - before[f"{DURATION}_count"], 41)
    took = after[f"{DURATION}_sum"] - before[f"{DURATION}_sum"]
    expect_true(0.015 < took < 5, f"{took} s in all")


@test("metrics: error replies of the upstream are counted by their first word, ours are not")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    client = t.client(sidecar)
    client.call("LPUSH", "list", "x")
    before = sidecar.metrics()
    for words in (("INCR", "list"), ("HGET", "list", "f"), ("GET", "list"), ("NOSUCHCOMMAND",),
                  ("EVALSHA", "0" * 40, "0"), ("SHUTDOWN",), ("GET",)):
        expect_true(isinstance(client.ask(*words), ReplyError), f"{words} was answered without an error")
    with redis.client() as direct:
        direct.call("CONFIG", "SET", "maxmemory", "1")
        client.ask("SET", "k", "v")
    found = difference(before, sidecar.metrics(), ERRORS)
    # GET without a key is refused here, or there: by whom is no matter of this test.
    errors = found.pop(f'{ERRORS}{{code="ERR"}}')
    expect_true(1 <= errors <= 2, f"{errors} of ERR")
    expect(found, {f'{ERRORS}{{code="WRONGTYPE"}}': 3, f'{ERRORS}{{code="NOSCRIPT"}}': 1, f'{ERRORS}{{code="OOM"}}': 1})


@test("metrics: how long the oldest acknowledged write has been waiting, and nothing when none does")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"mode": "write-behind", "write_behind.memory": "8mb"}).wait_until_tracking()
    expect(sidecar.metric("ferrite_sidecar_write_behind_max_bytes"), 8 << 20)
    oldest = "ferrite_sidecar_write_behind_oldest_seconds"
    wait_until(lambda: sidecar.metric("ferrite_sidecar_write_behind_queued") == 0, what="an empty queue")
    expect(sidecar.metric(oldest), 0)
    redis.freeze()
    client = t.client(sidecar)
    began = time.monotonic()
    client.call("SET", "k", "1")
    time.sleep(0.6)
    client.call("SET", "k", "2")
    client.call("SET", "other", "x")
    waited = sidecar.metric(oldest)
    expect_true(0.5 < waited < time.monotonic() - began + 0.1, f"{waited} s")
    redis.thaw()
    wait_until(lambda: sidecar.metric(oldest) == 0, what="nothing that waits")
    expect(t.client(redis).call("GET", "k"), b"2")


@test("metrics: why the upstream cannot be had is counted by its kind")
def _(t):
    redis = t.redis(password="right")

    def counts(kind, upstream, **settings):
        sidecar = t.sidecar(upstream, settings=settings)
        wait_until(lambda: sidecar.metrics()[f'{FAILURES}{{kind="{kind}"}}'] > 0, what=f"a failure of kind {kind}")
        others = {name: count for name, count in sidecar.metrics().items()
                  if name.startswith(FAILURES) and count and kind not in name}
        expect(others, {}, f"beside {kind}")
    counts("connect", (servers.HOST, servers.free_port()))
    counts("resolve", "no-such-host.invalid:6379")
    counts("refused", redis.address, password="wrong")
    meddler = t.meddler(redis)
    meddler.greet = lambda connection: connection.sendall(b"-LOADING Redis is loading\r\n" * 4)
    counts("busy", meddler.address, password="right")
    meddler.greet = lambda connection: connection.sendall(b"garbage\r\n")
    counts("handshake", meddler.address, password="right")
    meddler.behave()
    sidecar = t.sidecar(meddler, settings={"password": "right"}).wait_until_tracking()
    meddler.drop_all()
    wait_until(lambda: sidecar.metrics()[f'{FAILURES}{{kind="lost"}}'] == 1, what="a loss")


COMMANDS = "ferrite_sidecar_commands_total"
TIMED = "ferrite_command_duration_seconds_count"


@test("metrics: each command is counted and timed once, by its family and by how it was answered")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"mode": "write-behind"}).wait_until_tracking()
    client = t.client(sidecar)
    with redis.client() as direct:
        direct.call("SET", "k", "v")
    before = sidecar.metrics()
    asked = {
        ("string", "miss"): [("GET", "k"), ("GET", "none"), ("MGET", "k", "other")],
        ("string", "hit"): [("GET", "k"), ("MGET", "k", "none")],
        ("string", "negative"): [("GET", "none"), ("MGET", "none", "other")],
        ("string", "behind"): [("SET", "w", "1"), ("MSET", "w", "2", "x", "3")],
        ("string", "passed"): [("STRLEN", "k")],
        ("string", "written"): [("APPEND", "a", "x")],
        ("hash", "written"): [("HSET", "h", "f", "v"), ("HSET", "h", "g", "v")],
        ("hash", "passed"): [("HGET", "h", "f")],
        ("hash", "error"): [("HGET", "k", "f"), ("HGET", "k")],
        ("sorted-set", "passed"): [("ZRANGE", "z", "0", "-1")],
        ("connection", "local"): [("PING",), ("CLIENT", "SETNAME", "me")],
        ("server", "error"): [("SHUTDOWN",)],
        ("scripting", "written"): [("EVAL", "return 1", "0")],
        ("transactions", "pinned"): [("MULTI",), ("DISCARD",)],
    }
    for lines in asked.values():
        for words in lines:
            client.ask(*words)
    client.ask("NOSUCHCOMMAND")
    # A copy behind whose upstream nobody answers.
    other = t.client(sidecar)
    redis.stop()
    wait_until(lambda: sidecar.metrics()['ferrite_sidecar_upstream_state{state="unreachable"}'] == 1)
    other.call("GET", "k")
    after = sidecar.metrics()
    found = difference(before, after, COMMANDS)
    expected = {f'{COMMANDS}{{family="{family}",outcome="{outcome}"}}': float(len(lines))
                for (family, outcome), lines in asked.items()}
    expected[f'{COMMANDS}{{family="other",outcome="error"}}'] = 1.0
    expected[f'{COMMANDS}{{family="string",outcome="stale"}}'] = 1.0
    expect(found, expected)
    outcomes = {}
    for name, change in found.items():
        outcome = name.split('outcome="')[1].split('"')[0]
        outcomes[f'{TIMED}{{outcome="{outcome}"}}'] = outcomes.get(f'{TIMED}{{outcome="{outcome}"}}', 0) + change
    expect(difference(before, after, TIMED), outcomes)
