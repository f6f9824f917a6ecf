"""tracking = auto | optin | broadcast | off."""

from runner import expect, expect_true, test
from servers import wait_until


def hits(sidecar):
    return sidecar.metric("ferrite_keyspace_hits_total")


def tracking_of(redis):
    """What the upstream says of its links that track."""
    with redis.client() as client:
        return [line for line in client.call("CLIENT", "LIST").decode().splitlines() if "t" in flags(line)]


def flags(line):
    return dict(field.split("=", 1) for field in line.split())["flags"]


@test("broadcast: every change under the prefixes is heard of, and nothing else is kept")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={
        "tracking": "broadcast", "tracking_prefixes": "user:,user:vip:,config:,ferrite-test:"}).wait_until_tracking()
    client, direct = t.client(sidecar), t.client(redis)
    expect_true(all("B" in flags(line) for line in tracking_of(redis)), "its link is not in broadcast mode")
    direct.call("MSET", "user:1", "a", "user:vip:1", "b", "config:x", "c", "other", "d")
    for _ in range(2):
        expect(client.call("MGET", "user:1", "user:vip:1", "config:x"), [b"a", b"b", b"c"])
        expect(client.call("GET", "other"), b"d")
        expect(client.call("GET", "user:none"), None)
    before = hits(sidecar)
    expect(client.pipeline([("GET", "user:1"), ("GET", "config:x"), ("GET", "user:none"), ("GET", "other")]),
           [b"a", b"c", None, b"d"])
    expect(hits(sidecar) - before, 3.0, "hits")
    # The first change is announced, and the second, without a read in between.
    for n in range(20):
        direct.call("SET", "user:1", n)
        direct.call("SET", "user:none", n)
        wait_until(lambda: client.call("GET", "user:1") == b"%d" % n, 2)
        wait_until(lambda: client.call("GET", "user:none") == b"%d" % n, 2)
    direct.call("EVAL", "return redis.call('SET', 'config:x', 'by script')", "0")
    wait_until(lambda: client.call("GET", "config:x") == b"by script", 2)
    direct.call("FLUSHALL")
    wait_until(lambda: client.call("GET", "user:1") is None, 2)


@test("broadcast: own writes, scripts and what other links bring are never missed")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"tracking": "broadcast"}).wait_until_tracking()
    client, other, direct = t.client(sidecar), t.client(sidecar), t.client(redis)
    script = "redis.call('SET', 'scripted', ARGV[1]); return ARGV[1]"
    for n in range(200):
        client.call("SET", "k", n)
        expect(other.call("GET", "k"), b"%d" % n)
        other.call("GET", "scripted")
        client.call("EVAL", script, "0", n)
        expect(other.call("GET", "scripted"), b"%d" % n)
        other.call("GET", "told")
        direct.call("SET", "told", n)
        direct.call("RPUSH", "jobs", n)
        client.call("BLPOP", "jobs", 1)
        expect(other.call("GET", "told"), b"%d" % n)
    expect_true(hits(sidecar) > 0, "nothing was served")


@test("broadcast: the fleet's control key is watched as well")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={
        "tracking": "broadcast", "tracking_prefixes": "ferrite-test:"}).wait_until_tracking()
    direct = t.client(redis)
    for word, value in (("bypass", 1.0), ("on", 0.0), ("bypass", 1.0)):
        direct.call("SET", "ferrite:control", word)
        wait_until(lambda: sidecar.metric("ferrite_sidecar_bypass") == value, what=f"what {word} does")


@test("optin: what the upstream cannot announce is not kept; auto: it is, for its ttl; off: nothing is asked")
def _(t):
    redis = t.redis()
    redis.client().call("ACL", "SETUSER", "plain", "on", ">secret", "~*", "&*", "+@all", "-client|tracking")
    identity = {"username": "plain", "password": "secret"}
    for tracking, keeps in (("auto", True), ("optin", False), ("broadcast", False)):
        sidecar = t.sidecar(redis, settings={"tracking": tracking, **identity})
        client = t.client(sidecar)
        wait_until(lambda: sidecar.metric("ferrite_sidecar_upstream_up") == 1, what="the upstream is up")
        client.call("SET", "k", "v")
        for _ in range(3):
            expect(client.call("GET", "k"), b"v")
        expect(hits(sidecar) > 0, keeps, f"{tracking}: hits")
        expect(sidecar.metric("ferrite_sidecar_tracking"), 0.0)
    sidecar = t.sidecar(redis, settings={"tracking": "off"})
    client = t.client(sidecar)
    wait_until(lambda: sidecar.metric("ferrite_sidecar_upstream_up") == 1, what="the upstream is up")
    for _ in range(3):
        expect(client.call("GET", "k"), b"v")
    expect_true(hits(sidecar) > 0, "off: hits")
    expect(tracking_of(redis), [])


@test("tracking: prefixes without broadcast are refused", once=True)
def _(t):
    redis = t.redis()
    other = t.sidecar(redis, settings={"tracking_prefixes": "user:"}, wait=False)
    wait_until(lambda: not other.is_alive(), what="it has ended")
    expect(other.gone(), 78)
    expect_true('is for tracking = "broadcast" only' in other.log(), f"it says: {other.log()}")
