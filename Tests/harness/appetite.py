"""appetite — what applications, ordinary and hostile, do to a cache's memory: every kind at once, for some seconds.

Being refused, told of a lack of memory, or closed is an answer; each kind must get something done all the same.
"""

import collections
import contextlib
import random
import threading
import time

from resp import Client, Closed, ReplyError, encode

# Bytes of a value, and how many keys there are of it.
SIZES = ((10, 100_000), (1_000, 50_000), (100_000, 500), (2_000_000, 20))
ROUND_BYTES = 4_000_000


def key(size):
    return f"{size}:{random.randrange(dict(SIZES)[size])}"


def each_key():
    """(size, some keys) until there are no more."""
    for size, count in SIZES:
        step = max(1, min(1_000, ROUND_BYTES // size))
        for first in range(0, count, step):
            yield size, [f"{size}:{n}" for n in range(first, min(first + step, count))]


def fill(direct):
    """The upstream, with all keys that are read."""
    for size, names in each_key():
        direct.pipeline([("SET", name, b"x" * size) for name in names], timeout=60)
    direct.call("SET", "huge", b"x" * 20_000_000)


def warm(client):
    """The cache, with as much of it as there is room for."""
    for _, names in each_key():
        client.pipeline([("GET", name) for name in names], timeout=60)


def batches():
    """Keys of each size, as many as are some megabytes."""
    return [(size, [key(size) for _ in range(max(1, min(200, ROUND_BYTES // size)))]) for size, _ in SIZES]


def reads(connect):
    client = connect()
    for _, names in batches():
        client.pipeline([("GET", name) for name in names])


def writes(connect):
    client = connect()
    for size, names in batches():
        client.pipeline([("SET", name, b"y" * size) for name in names])


def many_keys(connect):
    client = connect()
    for size, names in batches():
        client.ask("MGET", *names)
        client.ask("MSET", *[word for name in names[:50] for word in (name, b"z" * size)])


def hashes_and_lists(connect):
    client = connect()
    name = random.randrange(100)
    client.call("HSET", f"hash:{name}", *[word for n in range(100) for word in (f"field{n}", b"h" * 1_000)])
    client.call("RPUSH", f"list:{name}", *[b"l" * 10_000] * 20)
    client.pipeline([("HGETALL", f"hash:{name}"), ("LRANGE", f"list:{name}", 0, -1)] * 20)
    client.call("DEL", f"list:{name}")


def transactions(connect):
    clients = [connect() for _ in range(30)]
    for client in clients:
        client.call("WATCH", "watched")
        client.call("MULTI")
        client.pipeline([("SET", key(1_000), b"t" * 1_000), ("GET", key(100_000))] * 10)
    for client in clients:
        client.call("EXEC")


def subscribers(connect):
    """Half of them never read."""
    clients = [connect() for _ in range(10)]
    for client in clients:
        client.call("SUBSCRIBE", "news")
    publisher = connect()
    for _ in range(20):
        publisher.call("PUBLISH", "news", b"n" * 100_000)
        for client in clients[:5]:
            client.read()


def slow_readers(connect):
    for _ in range(100):
        connect().send_raw(encode("GET", key(100_000)) * 50)
    time.sleep(2.0)


def connections(connect):
    clients = [connect() for _ in range(300)]
    for client in clients:
        client.call("PING")
    time.sleep(0.5)


def pipelines(connect):
    connect().pipeline([("GET", key(10)) for _ in range(2_000)])


def blocked(connect):
    clients = [connect() for _ in range(50)]
    for client in clients:
        client.send("BLPOP", "nothing", 1)
    for client in clients:
        client.read()


def half_requests(connect):
    for _ in range(50):
        connect().send_raw(encode("SET", key(1_000), b"half" * 100_000)[:200_000])
    time.sleep(1.0)


def huge(connect):
    client = connect()
    client.ask("GET", "huge")
    client.ask("SET", "huge", b"x" * 20_000_000)


KINDS = (reads, reads, reads, writes, writes, many_keys, hashes_and_lists, transactions, subscribers, slow_readers,
         connections, pipelines, blocked, half_requests, huge)


def feed(address, direct, seconds, watch):
    """How many rounds of each kind were carried out, by its name. Meanwhile `watch` is called again and again, and the
    upstream stops now and then, so that what is on its way piles up."""
    end = time.monotonic() + seconds
    rounds, refusals = collections.Counter(), {}

    def work(kind):
        while time.monotonic() < end:
            with contextlib.ExitStack() as held:
                try:
                    kind(lambda: held.enter_context(Client(address, timeout=10.0)))
                    rounds[kind.__name__] += 1
                except (OSError, Closed, ReplyError) as error:
                    refusals[kind.__name__] = f"{type(error).__name__}: {error}"
                    time.sleep(0.05)

    threads = [threading.Thread(target=work, args=(kind,), daemon=True) for kind in KINDS]
    for thread in threads:
        thread.start()
    while time.monotonic() < end:
        direct.call("CLIENT", "PAUSE", 400, "ALL")
        for _ in range(4):
            time.sleep(0.5)
            watch()
    for thread in threads:
        thread.join(60)
    idle = {kind.__name__ for kind in KINDS} - set(rounds)
    if idle:
        raise AssertionError("got nothing done: " + ", ".join(f"{name} ({refusals[name]})" for name in sorted(idle)))
    return rounds
