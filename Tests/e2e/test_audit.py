"""The audit: hits compared with the upstream behind the reply."""

import time

from runner import expect, expect_true, test
from servers import wait_until


def audited(sidecar):
    metrics = sidecar.metrics()
    return {result: metrics[f'ferrite_sidecar_audit_total{{result="{result}"}}']
            for result in ("same", "changed", "stale")}


def settled(sidecar, count):
    wait_until(lambda: sum(audited(sidecar).values()) >= count, what=f"{count} audits")
    return audited(sidecar)


@test("audit: every hit is compared when all are wanted, and each is the same while changes are announced")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"audit": 1}).wait_until_tracking()
    client, direct = t.client(sidecar), t.client(redis)
    before = sum(audited(sidecar).values())
    for n in range(100):
        direct.call("SET", "k", n)
        wait_until(lambda: client.call("GET", "k") == b"%d" % n)
        client.call("GET", "k")
        client.call("GET", "missing")
    hits = sidecar.metric("ferrite_keyspace_hits_total")
    found = settled(sidecar, before + 150)
    expect(found["stale"], 0.0, "stale")
    expect_true(found["same"] >= 100, f"{found} of {hits} hits")
    before = sum(found.values())
    for key in ("a", "b"):
        t.cache(client, direct, key, key=key)
    settled(sidecar, before + 2)  # of the second read of each
    before = sum(audited(sidecar).values())
    expect(client.call("MGET", "a", "b"), [b"a", b"b"])
    expect(settled(sidecar, before + 2)["stale"], 0.0, "stale")


@test("audit: a share of the hits is compared, and no more than that")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"audit": 0.01}).wait_until_tracking()
    client = t.client(sidecar)
    client.call("SET", "k", "v")
    client.call("GET", "k")
    gets = redis.calls_of("get")
    for _ in range(10):
        client.pipeline([("GET", "k")] * 2_000)
    settled(sidecar, 1)
    found = sum(audited(sidecar).values())
    # Of 20,000; one at a time is under way for one key.
    expect_true(5 <= found <= 400, f"{found} audits")
    expect_true(redis.calls_of("get") - gets <= found + 2, "reads at the upstream")


@test("audit: what nobody has announced is told as stale; what is being announced is not")
def _(t):
    redis = t.redis()
    meddler = t.meddler(redis)
    meddler.lag = 0.001
    sidecar = t.sidecar(meddler, settings={"audit": 1}).wait_until_tracking()
    client, direct = t.client(sidecar), t.client(redis)
    t.cache(client, direct, "old")
    settled(sidecar, 1)
    time.sleep(0.1)  # the audit of that hit is over
    meddler.lag = 0.02
    before = audited(sidecar)
    direct.call("SET", "k", "new")
    expect(client.call("GET", "k"), b"old")
    wait_until(lambda: audited(sidecar)["changed"] > before["changed"], what="an audit that met a change")
    expect(audited(sidecar)["stale"], 0.0)
    # SWAPDB by somebody else is announced to nobody.
    sidecar = t.sidecar(redis, settings={"audit": 1}).wait_until_tracking()
    client = t.client(sidecar)
    direct.call("SELECT", 1)
    direct.call("SET", "k", "behind")
    direct.call("SELECT", 0)
    t.cache(client, direct, "before")
    direct.call("SWAPDB", 0, 1)
    expect(client.call("GET", "k"), b"before")
    wait_until(lambda: audited(sidecar)["stale"] == 1, what="a stale answer")
    wait_until(lambda: client.call("GET", "k") == b"behind", what="what it has found is kept")


@test("audit: without it nothing is asked for")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    client = t.client(sidecar)
    client.call("SET", "k", "v")
    client.call("GET", "k")
    gets = redis.calls_of("get")
    client.pipeline([("GET", "k")] * 1_000)
    expect(redis.calls_of("get"), gets)
    expect(sum(audited(sidecar).values()), 0.0)
