"""Coherence: what one side writes, every reader of this pod sees, as soon as it is said to."""

import random
import threading
import time

from meddler import Gate
from resp import Status
from runner import expect, expect_below, expect_true, test
from servers import wait_until

KEYS = [f"k{n}" for n in range(8)]


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def seconds_until_seen(reader, key, value, timeout=3.0):
    began = time.perf_counter()
    while reader.call("GET", key) != value:
        if time.perf_counter() - began > timeout:
            return None
    return time.perf_counter() - began


def see_all(t, writer, reader, count):
    """Writes count values and waits for each to be seen; notes how long it took."""
    delays = []
    for n in range(count):
        value = b"%d" % n
        reader.call("GET", "k")
        writer.call("SET", "k", value)
        delay = seconds_until_seen(reader, "k", value)
        expect_true(delay is not None, f"write {n} was not seen within 3 s")
        delays.append(delay)
    t.note(f"p50 {percentile(delays, 0.5) * 1000:.2f} ms, p99 {percentile(delays, 0.99) * 1000:.2f} ms")
    expect_below(percentile(delays, 0.5), 0.1, "median seconds until a write was seen")


@test("a write made directly on the upstream is seen")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    see_all(t, t.client(redis), t.client(sidecar), 500)


@test("a write through a second sidecar is seen")
def _(t):
    redis = t.redis()
    one, two = t.sidecar(redis).wait_until_tracking(), t.sidecar(redis).wait_until_tracking()
    see_all(t, t.client(one), t.client(two), 500)


@test("a FLUSHALL on the upstream is seen")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    writer, reader = t.client(redis), t.client(sidecar)
    for n in range(20):
        writer.call("SET", "k", n)
        wait_until(lambda: reader.call("GET", "k") == b"%d" % n)
        writer.call("FLUSHALL")
        wait_until(lambda: reader.call("GET", "k") is None, what="the key's end")


@test("a read value is served from the cache, not from the upstream")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    client = t.client(sidecar)
    client.call("SET", "k", "v")
    client.call("GET", "k")
    before = redis.calls_of("get") + redis.calls_of("mget")
    for _ in range(1000):
        expect(client.call("GET", "k"), b"v")
    expect(redis.calls_of("get") + redis.calls_of("mget") - before, 0, "reads that reached the upstream")


@test("a hundred clients on one missing key cause one read upstream")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"read_timeout": "5s"}).wait_until_tracking()
    t.client(redis).call("SET", "popular", "v" * 5000)
    clients = [t.client(sidecar) for _ in range(100)]
    for client in clients:
        client.call("PING")
    before = redis.calls_of("get") + redis.calls_of("mget")
    redis.freeze()
    for client in clients:
        client.send("GET", "popular")
    time.sleep(0.2)
    redis.thaw()
    for client in clients:
        expect(client.read(), b"v" * 5000)
    expect(redis.calls_of("get") + redis.calls_of("mget") - before, 1, "reads upstream")


@test("a pipeline of one missing key causes one read upstream")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    t.client(redis).call("SET", "popular", "v")
    before = redis.calls_of("get") + redis.calls_of("mget")
    expect(t.client(sidecar).pipeline([("GET", "popular")] * 500), [b"v"] * 500)
    expect(redis.calls_of("get") + redis.calls_of("mget") - before, 1, "reads upstream")


def random_write(client, choose):
    """One write of a random kind whose keys can be named; its reply does not matter."""
    key, other = choose.sample(KEYS, 2)
    value = str(choose.randrange(1000))
    kind = choose.randrange(14)
    if kind == 0:
        client.ask("SET", key, value)
    elif kind == 1:
        client.ask("DEL", key, other)
    elif kind == 2:
        client.ask("APPEND", key, value)
    elif kind == 3:
        client.ask("INCR", key)
    elif kind == 4:
        client.ask("RENAME", key, other)
    elif kind == 5:
        client.ask("MSET", key, value, other, value)
    elif kind == 6:
        client.ask("COPY", key, other, "REPLACE")
    elif kind == 7:
        client.ask("SETRANGE", key, 1, value)
    elif kind == 8:
        client.ask("GETDEL", key)
    elif kind == 9:
        client.pipeline([("MULTI",), ("SET", key, value), ("INCR", other), ("EXEC",)])
    elif kind == 10:
        client.ask("EVAL", "return redis.call('set', KEYS[1], ARGV[1])", 1, key, value)
    elif kind == 11:
        client.pipeline([("SET", key, "first"), ("GET", key), ("SET", key, value)])
    elif kind == 12:
        client.ask("SETEX", key, 100, value)
    elif kind == 13 and choose.randrange(20) == 0:
        client.ask("FLUSHALL")
    else:
        client.ask("GETSET", key, value)


@test("own writes of every kind are seen at once on every connection")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    truth = t.client(redis)
    clients = [t.client(sidecar, protocol=2 + n % 2) for n in range(6)]
    seed = random.randrange(1 << 30)
    t.note(f"seed {seed}")
    choose = random.Random(seed)
    for step in range(1500):
        random_write(choose.choice(clients), choose)
        key = choose.choice(KEYS)
        wanted = truth.ask("GET", key)
        for number, client in enumerate(clients):
            got = client.ask("GET", key)
            same = got == wanted or str(got) == str(wanted)
            expect_true(same, f"step {step}, seed {seed}: client {number} read {key} as {got!r}, not {wanted!r}")


def remove_on_pinned_link(t, *command):
    """A flight between the write's parsing and its reply stores the older value, and the announcement comes later."""
    redis, other = t.redis(), t.redis()
    meddler = t.meddler(redis)
    meddler.lag = 0.03
    sidecar = t.sidecar(meddler, settings={"fence": "false", "read_timeout": "2s"}).wait_until_tracking()
    direct, pinned, reader = t.client(redis), t.client(sidecar), t.client(sidecar)
    pinned.call("WATCH", "other")
    old = 0
    for _ in range(5):
        t.client(other).call("FLUSHALL")
        direct.call("SET", "k", "old")
        meddler.gate = Gate()
        pinned.send(*[word.format(port=other.port) for word in command])
        expect_true(meddler.gate.reached.wait(5), "the write was not sent")
        wait_until(lambda: reader.call("GET", "k") == b"old", what="the older value")
        meddler.gate.opened.set()
        expect_true(pinned.read() in (1, "OK"), "carried out")
        meddler.gate = None
        old += reader.call("GET", "k") is not None
    expect(old, 0, "reads of the older value after the write's reply")


for _command in (("DEL", "k"), ("MIGRATE", "127.0.0.1", "{port}", "k", "0", "1000")):
    test(f"an own {_command[0]} on a pinned link is seen by all when it is answered, without the fence")(
        lambda t, command=_command: remove_on_pinned_link(t, *command))


@test("reads of one key never go backwards while it is written elsewhere")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    writer = t.client(redis)
    readers = [t.client(sidecar) for _ in range(4)]
    writer.call("SET", "n", 0)
    done = threading.Event()

    def write():
        for _ in range(5000):
            writer.call("INCR", "n")
        done.set()

    def read():
        newest = turns = 0
        while not done.is_set() or turns % 4:
            value = int(readers[turns % 4].call("GET", "n"))
            expect_true(value >= newest, f"read {value} after {newest}")
            newest = value
            turns += 1
        t.note(f"{turns} reads")
    t.threads([write, read])
    wait_until(lambda: readers[0].call("GET", "n") == b"5000", what="the last value")


@test("no read returns less than what the pod had acknowledged when it was sent")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    acknowledged = [0]
    done = threading.Event()
    t.client(sidecar).call("SET", "n", 0)

    def write():
        client = t.client(sidecar)
        for n in range(1, 3001):
            expect(client.call("SET", "n", n), Status("OK"))
            acknowledged[0] = n
        done.set()

    def read():
        client = t.client(sidecar)
        while not done.is_set():
            floor = acknowledged[0]
            value = int(client.call("GET", "n"))
            expect_true(value >= floor, f"read {value} when {floor} had been acknowledged")
    t.threads([write, read, read, read])


@test("random reads through two sidecars end in what the upstream has")
def _(t):
    redis = t.redis()
    sidecars = [t.sidecar(redis).wait_until_tracking() for _ in range(2)]
    seed = random.randrange(1 << 30)
    t.note(f"seed {seed}")

    def work(number):
        choose = random.Random(seed + number)
        client = t.client(sidecars[number % 2])
        for _ in range(1500):
            if choose.random() < 0.4:
                random_write(client, choose)
            else:
                client.ask("GET", choose.choice(KEYS))
    t.threads([lambda number=number: work(number) for number in range(4)])
    truth = t.client(redis)
    readers = [t.client(sidecar) for sidecar in sidecars]
    for key in KEYS:
        for reader in readers:
            wait_until(lambda: str(reader.ask("GET", key)) == str(truth.ask("GET", key)), 3,
                       what=f"agreement on {key} (seed {seed})")


@test("databases are kept apart and invalidated together")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    clients = [t.client(sidecar) for _ in range(16)]
    direct = t.client(redis)
    for number, client in enumerate(clients):
        client.call("SELECT", number)
        client.call("SET", "k", number)
        client.call("GET", "k")
    for number, client in enumerate(clients):
        expect(client.call("GET", "k"), b"%d" % number)
    direct.call("SELECT", 9)
    direct.call("SET", "k", "new")
    wait_until(lambda: clients[9].call("GET", "k") == b"new")
    for number, client in enumerate(clients):
        expect(client.call("GET", "k"), b"new" if number == 9 else b"%d" % number)


@test("an expiry set elsewhere ends a cached value")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    direct, client = t.client(redis), t.client(sidecar)
    direct.call("SET", "k", "v")
    expect(client.call("GET", "k"), b"v")
    direct.call("PEXPIRE", "k", 150)
    time.sleep(0.25)
    expect(client.call("GET", "k"), None)
    direct.call("SET", "k", "v", "PX", 200)
    wait_until(lambda: client.call("GET", "k") == b"v")
    time.sleep(0.3)
    expect(client.call("GET", "k"), None)


@test("without tracking a value is never older than ttl_default")
def _(t):
    redis = t.redis()
    t.client(redis).call("ACL", "SETUSER", "default", "-client|tracking", "-client|caching")
    sidecar = t.sidecar(redis, settings={"ttl_default": "1"})
    direct, client = t.client(redis), t.client(sidecar)
    direct.call("SET", "k", "old")
    wait_until(lambda: client.ask("GET", "k") == b"old")
    direct.call("SET", "k", "new")
    began = time.monotonic()
    wait_until(lambda: client.call("GET", "k") == b"new", 3, what="the new value")
    expect_below(time.monotonic() - began, 1.6, "seconds until the value was fresh")
    client.call("SET", "k", "own")
    expect(client.call("GET", "k"), b"own", "an own write")


@test("without PTTL's permission a group of misses is not kept past its expiry")
def _(t):
    redis = t.redis()
    direct = t.client(redis)
    direct.call("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-pttl")
    sidecar = t.sidecar(redis, settings={"username": "app", "password": "pw"})
    client = t.client(sidecar)
    wait_until(lambda: client.ask("GET", "a") is None, 5, what="the upstream")
    direct.call("SET", "a", "1", "PX", 400)
    direct.call("SET", "b", "2", "PX", 400)
    direct.call("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    expect(client.pipeline([("GET", "a"), ("GET", "b")]), [b"1", b"2"])
    time.sleep(0.5)
    expect(client.pipeline([("GET", "a"), ("GET", "b")]), [None, None])


@test("trace_key tells the life of one key, and of no other")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"trace_key": "k", "log_level": "error"}).wait_until_tracking()
    client, writer = t.client(sidecar), t.client(redis)
    for key in ("k", "other"):
        writer.call("SET", key, "12345")
        client.call("GET", key)
    for _ in range(3):
        client.call("GET", "k")
    before = sidecar.metric("ferrite_sidecar_invalidations_total")
    writer.call("SET", "k", "1")
    wait_until(lambda: sidecar.metric("ferrite_sidecar_invalidations_total") > before, what="the announcement")
    client.call("GET", "k")
    client.call("SET", "k", "2")
    client.call("MGET", "k", "absent")
    client.call("FLUSHALL")
    told = ["fetched from the upstream", "kept, 5 bytes", "answered from the copy, 3 times", "announced a change",
            "fetched from the upstream", "kept, 1 bytes", "written by a client of this pod",
            "fetched from the upstream", "kept, 1 bytes", "everything is dropped"]

    def lines():
        return [line for line in sidecar.log().splitlines() if "key=k" in line]
    wait_until(lambda: "everything is dropped" in str(lines()), what="the last line")
    rest = iter(lines())
    for words in told:
        expect_true(any(words in line for line in rest), f"'{words}' is not told in its place: {lines()}")
    expect(str(lines()).count("answered from the copy"), 1, "an MGET that was fetched whole is told as a hit")
    expect_true("key=other" not in sidecar.log(), "another key is told of")
    expect_true("trace_key" not in sidecar.page("/stats")[1], "a key's name is told over HTTP")
