"""Upstreams that change: another server, one that loads, one with another password, one that refuses tracking or stops
for a while. What was kept before is never taken for what the upstream has now, and nothing is lost without need."""

import time

from resp import Closed, ReplyError, Status
from runner import expect, expect_error, expect_true, test
from servers import wait_until

KEYS = [f"k{n}" for n in range(20)]
# Longer than from one PING to the next and half a second for its answer: a heartbeat is late whenever it begins.
PAUSE_SECONDS = 1.6


def cache(client):
    """Reads the keys twice, and returns what is then in the cache."""
    for _ in range(2):
        values = [client.call("GET", key) for key in KEYS]
    return values


def read_upstream(redis):
    return redis.calls_of("get") + redis.calls_of("mget")


def cut(direct):
    """The upstream ends every connection but this one."""
    direct.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def wait_for_epoch(sidecar, epoch):
    wait_until(lambda: sidecar.metric("ferrite_sidecar_upstream_epoch") > epoch
               and sidecar.metric("ferrite_sidecar_upstream_up"), 10, what="the next epoch")


def ask_or_closed(client, *command):
    try:
        return client.ask(*command)
    except Closed:
        return None


# ---- another server ----------------------------------------------------------------------------------------------


def fail_over(t, values):
    """The address leads to another server from now on, which holds these values."""
    first, second = t.redis(), t.redis()
    t.client(first).pipeline([("SET", key, f"new {key}") for key in KEYS])
    other = t.client(second)
    for key, value in zip(KEYS, values):
        if value is not None:
            other.call("SET", key, value)
    meddler = t.meddler(first)
    sidecar = t.sidecar(meddler).wait_until_tracking()
    client = t.client(sidecar)
    cache(client)
    epoch = sidecar.metric("ferrite_sidecar_upstream_epoch")
    meddler.upstream = second.address
    meddler.drop_all()
    wait_for_epoch(sidecar, epoch)
    for _ in range(2):
        expect([client.call("GET", key) for key in KEYS], values)
    expect(sidecar.metric("ferrite_sidecar_suspect_served_total"), 0, "suspect copies served")
    # What it announces is heard, and its commands are learnt: it is not taken for the first.
    other.call("SET", KEYS[0], "changed")
    wait_until(lambda: client.call("GET", KEYS[0]) == b"changed", what="a change on the other server")
    expect_true(second.calls_of("command") > 0, "its commands were not asked for")
    expect(client.call("SET", KEYS[1], "own"), Status("OK"))
    expect([client.call("GET", KEYS[1]), other.call("GET", KEYS[1])], [b"own", b"own"])


@test("a failover to an older server: reads are what that has, and its changes are seen")
def _(t):
    fail_over(t, [b"old " + key.encode() for key in KEYS])


@test("a failover to an empty server: no copy of the other is served")
def _(t):
    fail_over(t, [None for _ in KEYS])


# ---- one that does not serve -------------------------------------------------------------------------------------


@test("an upstream that loads its data: cached keys answer, the others' errors say so, then it is read afresh")
def _(t):
    first = t.redis()
    t.client(first).pipeline([("SET", key, "new") for key in KEYS])
    second = t.redis("--key-load-delay", 300, "--loading-process-events-interval-bytes", 1024)
    with second.client() as other:
        other.pipeline([("SET", key, "old") for key in KEYS])
        other.call("DEBUG", "POPULATE", 8000)
        other.call("SAVE")
    second.kill()
    meddler = t.meddler(first)
    sidecar = t.sidecar(meddler).wait_until_tracking()
    client = t.client(sidecar)
    cache(client)
    second.spawn()
    wait_until(lambda: isinstance(reply := ask_loading(second), ReplyError) and str(reply).startswith("LOADING"),
               what="a server that loads")
    meddler.upstream = second.address
    meddler.drop_all()
    wait_until(lambda: client.ask("GET", KEYS[0]) == b"new", what="a cached key's answer")
    expect_error(client.ask("GET", "missing"), "LOADING")
    expect_error(client.ask("SET", KEYS[0], "own"), "LOADING")
    expect([client.ask("GET", key) for key in KEYS], [b"new"] * len(KEYS))
    expect_true(isinstance(ask_loading(second), ReplyError), "it was still loading")
    wait_until(lambda: client.ask("SET", "other", "v") == Status("OK"), 30, what="a write when it has loaded")
    expect([client.call("GET", key) for key in KEYS], [b"old"] * len(KEYS))


def ask_loading(redis):
    with redis.client() as client:
        return client.ask("PING")


def change_password(t, before, words):
    """The upstream's password is another from now on, and then again what it was."""
    redis = t.redis(password=before)
    direct = t.client(redis)
    direct.pipeline([("SET", key, "old") for key in KEYS])
    sidecar = t.sidecar(redis, settings={"password": before} if before else {}).wait_until_tracking()
    client, pinned = t.client(sidecar), t.client(sidecar)
    cache(client)
    pinned.call("WATCH", "other")
    direct.call("CONFIG", "SET", "requirepass", "another")
    cut(direct)
    direct.call("SET", KEYS[0], "new")
    wait_until(lambda: words in str(client.ask("GET", "missing")), what=f"an error with {words}")
    # It is there, and others write: what is cached may be old, and is not served.
    for key in (KEYS[0], KEYS[1]):
        expect_error(client.ask("GET", key), words, str(redis.port))
    expect_error(client.ask("SET", "other", "v"), words, str(redis.port))
    expect_true(pinned.is_closed(), "the client of a killed link was not closed")
    expect_true("another" not in sidecar.log(1000), "a password in the log")
    direct.call("CONFIG", "SET", "requirepass", before or "")
    wait_until(lambda: ask_or_closed(client, "SET", "other", "v") == Status("OK"), 10, what="a write")
    expect([client.call("GET", key) for key in KEYS], [b"new"] + [b"old"] * (len(KEYS) - 1))


@test("an upstream that wants a password of a sidecar without one: errors say NOAUTH, and nothing old is served")
def _(t):
    change_password(t, None, "NOAUTH")


@test("an upstream whose password was changed: errors say WRONGPASS, and nothing old is served")
def _(t):
    change_password(t, "open sesame", "WRONGPASS")


def fill_up(redis, direct):
    """Nobody else may connect."""
    direct.call("CONFIG", "SET", "maxclients", len(direct.call("CLIENT", "LIST").splitlines()))


@test("a silent tracked link, and an upstream that takes no more clients: nothing older than 1.5 s is served")
def _(t):
    redis = t.redis()
    meddler = t.meddler(redis)
    sidecar = t.sidecar(meddler).wait_until_tracking()
    client, direct = t.client(sidecar), t.client(redis)
    t.cache(client, direct, "old")
    fill_up(redis, direct)
    meddler.silence()
    direct.call("SET", "k", "new")
    time.sleep(1.6)
    until = time.monotonic() + 5
    seen = []
    while time.monotonic() < until:
        seen.append(client.ask("GET", "k"))
        time.sleep(0.005)
    expect(seen.count(b"old"), 0, "reads of what was too old")
    expect_true(any(isinstance(reply, ReplyError) for reply in seen), "the silence had no effect")


@test("a lost tracked link, and an upstream that takes no more clients: who is told of a change reads nothing older")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    client, direct, subscriber = t.client(sidecar), t.client(redis), t.client(sidecar)
    t.cache(client, direct, "old")
    subscriber.call("SUBSCRIBE", "news")
    fill_up(redis, direct)
    direct.call("CONFIG", "SET", "maxclients", int(direct.call("CONFIG", "GET", "maxclients")[1]) - 1)
    tracked = next(line for line in direct.call("CLIENT", "LIST").decode().splitlines() if "flags=t" in line)
    direct.call("CLIENT", "KILL", "ID", tracked.split()[0].removeprefix("id="))
    direct.call("SET", "k", "new")
    direct.call("PUBLISH", "news", "k is new")
    expect(subscriber.read()[2], b"k is new")
    until = time.monotonic() + 3
    while time.monotonic() < until:
        expect_error(client.ask("GET", "k"), "max number of clients")
        time.sleep(0.005)


@test("an address that moves to another server: who has a link of his own to the one before is closed")
def _(t):
    first, second = t.redis(), t.redis()
    meddler = t.meddler(first)
    sidecar = t.sidecar(meddler).wait_until_tracking()
    pinned, client, free = t.client(sidecar), t.client(sidecar), t.client(sidecar)
    pinned.call("WATCH", "other")
    free.pipeline([("WATCH", "other"), ("UNWATCH",)])
    epoch = sidecar.metric("ferrite_sidecar_upstream_epoch")
    meddler.upstream = second.address
    meddler.drop_tracked()
    wait_for_epoch(sidecar, epoch)
    expect_true(pinned.is_closed(), "what it writes would be read by nobody")
    for one in (client, free):
        expect(one.call("INCR", "k"), 1 if one is client else 2)
    expect(free.pipeline([("MULTI",), ("INCR", "k"), ("EXEC",)])[2], [3])
    expect(t.client(second).call("GET", "k"), b"3")


def moved(t):
    """An address that leads new connections to another server, while those to the one before live on."""
    first, second = t.redis(), t.redis()
    for redis in (first, second):
        t.client(redis).call("SET", "k", "old")
    meddler = t.meddler(first)
    sidecar = t.sidecar(meddler).wait_until_tracking()
    client = t.client(sidecar)
    expect([client.call("GET", "k") for _ in range(2)], [b"old", b"old"])
    meddler.upstream = second.address
    return meddler, sidecar, client, second


def read_of(redis):
    with redis.client() as direct:
        return direct.call("GET", "k")


def expect_moved(sidecar, epoch, client, second):
    wait_for_epoch(sidecar, epoch)
    wait_until(lambda: "new connections lead to another server" in sidecar.log(), what="the log's reason")
    expect([client.call("GET", "k"), read_of(second)], [b"new", b"new"])


@test("new connections lead to another server: the first client with a link of its own makes the tracked one follow")
def _(t):
    _, sidecar, client, second = moved(t)
    epoch = sidecar.metric("ferrite_sidecar_upstream_epoch")
    # Its write would be told to nobody here; so it waits, or is told, until both links lead to one server.
    pinned = t.client(sidecar)

    def write():
        watched = pinned.ask("WATCH", "other")
        return watched == Status("OK") and pinned.ask("SET", "k", "new") == Status("OK")
    wait_until(write, 5, what="a link of its own")
    expect_moved(sidecar, epoch, client, second)


@test("new connections lead to another server: so does the shared RESP2 link")
def _(t):
    _, sidecar, client, second = moved(t)
    epoch = sidecar.metric("ferrite_sidecar_upstream_epoch")
    expect_error(client.ask("XPENDING", "none", "group"), "lead to another server")
    wait_for_epoch(sidecar, epoch)
    wait_until(lambda: "NOGROUP" in str(client.ask("XPENDING", "none", "group")), 5, what="the RESP2 link")
    expect(client.call("SET", "k", "new"), Status("OK"))
    expect_moved(sidecar, epoch, client, second)


@test("new connections lead to another server: a silent tracked link is given up as soon as a probe has seen it")
def _(t):
    meddler, sidecar, client, second = moved(t)
    epoch = sidecar.metric("ferrite_sidecar_upstream_epoch")
    meddler.silence()
    started = time.monotonic()
    wait_for_epoch(sidecar, epoch)
    wait_until(lambda: "new connections lead to another server" in sidecar.log(), what="the log's reason")
    expect_true(time.monotonic() - started < 4, "it took as long as link_timeout")
    expect(client.call("SET", "k", "new"), Status("OK"))
    expect(read_of(second), b"new")


# ---- one that refuses tracking -----------------------------------------------------------------------------------


@test("tracking refused after a reconnect: copies live for ttl_default at most, and tracking comes back")
def _(t):
    redis = t.redis()
    direct = t.client(redis)
    direct.pipeline([("SET", key, "old") for key in KEYS])
    sidecar = t.sidecar(redis, settings={"ttl_default": "1"}).wait_until_tracking()
    client = t.client(sidecar)
    cache(client)
    epoch = sidecar.metric("ferrite_sidecar_upstream_epoch")
    direct.call("ACL", "SETUSER", "default", "-client|tracking", "-client|caching")
    cut(direct)
    direct.pipeline([("SET", key, "new") for key in KEYS])
    wait_for_epoch(sidecar, epoch)
    expect(sidecar.metric("ferrite_sidecar_tracking"), 0, "tracking")
    # What was kept with tracking is suspect: it counts no more, whatever its age.
    expect([client.call("GET", key) for key in KEYS], [b"new"] * len(KEYS))
    direct.pipeline([("SET", key, "newest") for key in KEYS])
    for key in KEYS:
        wait_until(lambda: client.call("GET", key) == b"newest", 3, what="the end of a copy's time")
    client.call("SET", KEYS[0], "own")
    expect(client.call("GET", KEYS[0]), b"own")
    direct.call("ACL", "SETUSER", "default", "+client|tracking", "+client|caching")
    cut(direct)
    wait_for_epoch(sidecar, epoch + 1)
    expect(sidecar.metric("ferrite_sidecar_tracking"), 1, "tracking")
    expect(client.call("GET", KEYS[0]), b"own")
    direct.call("SET", KEYS[0], "announced")
    wait_until(lambda: client.call("GET", KEYS[0]) == b"announced", 0.9, what="an announced change")


# ---- one that stops for a while ----------------------------------------------------------------------------------


def sleep_there(redis, direct):
    direct.call("DEBUG", "SLEEP", PAUSE_SECONDS)


SLOW_SCRIPT = """
local function now() local time = redis.call('TIME') return time[1] + time[2] / 1e6 end
local began = now()
while now() - began < tonumber(ARGV[1]) do end"""


def run_script_there(redis, direct):
    direct.call("EVAL", SLOW_SCRIPT, 0, PAUSE_SECONDS)


def stop_there(redis, direct):
    redis.freeze()
    time.sleep(PAUSE_SECONDS)
    redis.thaw()


PAUSES = {
    "a slow command on the upstream": sleep_there, "a slow script on the upstream": run_script_there,
    "an upstream that stands still": stop_there,
}


def links_of(redis):
    with redis.client() as direct:
        lines = direct.call("CLIENT", "LIST").decode().splitlines()
    return {line.split()[0] for line in lines if "name=ferrite-sidecar" in line}


def pause(t, way):
    redis = t.redis()
    direct = t.client(redis, timeout=15)
    direct.pipeline([("SET", key, "v") for key in KEYS])
    sidecar = t.sidecar(redis).wait_until_tracking()
    client, pinned = t.client(sidecar), t.client(sidecar)
    cache(client)
    pinned.call("WATCH", "other")
    names = ["reconnects_total", "epoch"]
    before = {name: sidecar.metric(f"ferrite_sidecar_upstream_{name}") for name in names}
    late = sidecar.metric("ferrite_sidecar_heartbeats_late_total")
    fills, links, reads = sidecar.metric("ferrite_sidecar_fills_total"), links_of(redis), read_upstream(redis)
    way(redis, direct)
    wait_until(lambda: sidecar.metric("ferrite_sidecar_heartbeats_late_total") > late, what="the suspension")
    wait_until(lambda: sidecar.metric("ferrite_sidecar_upstream_up"), what="trust")
    expect([client.call("GET", key) for key in KEYS], [b"v"] * len(KEYS))
    expect(read_upstream(redis) - reads, 0, "reads that reached the upstream")
    expect(sidecar.metric("ferrite_sidecar_fills_total") - fills, 0, "fills")
    expect({name: sidecar.metric(f"ferrite_sidecar_upstream_{name}") for name in names}, before)
    expect_true(links <= links_of(redis), "a link was closed")
    expect(pinned.call("GET", KEYS[0]), b"v")
    # And announcements are heard as before.
    direct.call("SET", KEYS[0], "new")
    wait_until(lambda: client.call("GET", KEYS[0]) == b"new", what="an announced change")


for _name, _way in PAUSES.items():
    test(f"{_name}: suspended and trusted again, no link closed, nothing fetched again")(
        lambda t, way=_way: pause(t, way))


# ---- one that forgets its links ----------------------------------------------------------------------------------


@test("half-open: what the upstream has forgotten is noticed by silence, and a write's unknown fate ends its client")
def _(t):
    redis = t.redis()
    meddler = t.meddler(redis)
    sidecar = t.sidecar(meddler, settings={"link_timeout": "2s"}).wait_until_tracking()
    client, writer, direct = t.client(sidecar), t.client(sidecar), t.client(redis)
    direct.pipeline([("SET", key, "old") for key in KEYS])
    cache(client)
    epoch = sidecar.metric("ferrite_sidecar_upstream_epoch")
    meddler.forget()
    direct.pipeline([("SET", key, "new") for key in KEYS])
    written = time.monotonic()
    writer.send("INCR", "n")
    seen = []
    while sidecar.metric("ferrite_sidecar_upstream_epoch") == epoch:
        sent = time.monotonic()
        seen.append((sent - written, client.ask("GET", KEYS[0])))
        expect_true(sent - written < 10, "the half-open link was not given up")
        time.sleep(0.01)
    oldest = max((age for age, value in seen if value == b"old"), default=0)
    t.note(f"the oldest read {oldest:.2f} s")
    expect_true(oldest < 1.75, f"a value was read {oldest:.2f} s after it was written over")
    expect_true(writer.is_closed(), "the writer's connection stayed open")
    expect([client.call("GET", key) for key in KEYS], [b"new"] * len(KEYS))
    expect(direct.call("GET", "n"), None, "what was swallowed was sent again")
