"""redis-py, sync and asyncio, with and without hiredis, RESP2 and RESP3; valkey-py."""

import asyncio
import threading
import time

import redis
import redis.asyncio
import valkey
from redis._parsers import _HiredisParser, _RESP2Parser, _RESP3Parser
from runner import expect, expect_true, test

PARSERS = {"hiredis": (2, _HiredisParser), "RESP2": (2, _RESP2Parser), "RESP3": (3, _RESP3Parser)}


def connected(sidecar, protocol=2, parser=None, **options):
    pool_options = dict(host="127.0.0.1", port=sidecar.port, protocol=protocol, decode_responses=True,
                        socket_timeout=10, **options)
    if parser:
        pool_options["parser_class"] = parser
    return redis.Redis(connection_pool=redis.ConnectionPool(**pool_options))


def ready(t, **settings):
    return t.sidecar(t.redis(), settings=settings).wait_until_tracking()


def every_type(client):
    """The usual commands, with the replies that redis-py makes of them."""
    client.set("k", "v")
    expect(client.get("k"), "v")
    expect(client.get("k"), "v")
    expect(client.get("missing"), None)
    expect(client.mget("k", "missing"), ["v", None])
    expect(client.set("k", "w", nx=True), None)
    expect(client.incr("n", 5), 5)
    expect(client.hset("h", mapping={"a": 1, "b": 2}), 2)
    expect(client.hgetall("h"), {"a": "1", "b": "2"})
    client.zadd("z", {"one": 1, "two": 2.5})
    expect([tuple(pair) for pair in client.zrange("z", 0, -1, withscores=True)], [("one", 1.0), ("two", 2.5)])
    expect(client.zscore("z", "two"), 2.5)
    client.rpush("l", "a", "b")
    expect(client.lrange("l", 0, -1), ["a", "b"])
    client.sadd("s", "m")
    expect(client.smembers("s"), {"m"})
    client.xadd("st", {"f": "v"}, id="1-1")
    expect(client.xlen("st"), 1)
    expect(client.config_get("maxmemory"), {"maxmemory": "0"})
    expect(client.info("server")["redis_mode"], "standalone")
    expect(client.type("h"), "hash")
    expect(list(client.scan_iter("k*")), ["k"])
    expect(client.eval("return redis.call('get', KEYS[1])", 1, "k"), "v")
    expect_true(client.ttl("k") == -1 and client.expire("k", 100) and client.ttl("k") > 90, "TTLs")
    client.delete("k")
    expect(client.get("k"), None)
    try:
        client.get("l")
        expect_true(False, "GET of a list did not raise")
    except redis.ResponseError as error:
        expect_true("WRONGTYPE" in str(error), str(error))


for _name, (_protocol, _parser) in PARSERS.items():
    @test(f"redis-py with {_name}: every type of value")
    def _(t, protocol=_protocol, parser=_parser):
        every_type(connected(ready(t), protocol, parser))


@test("valkey-py works as redis-py does")
def _(t):
    sidecar = ready(t)
    client = valkey.Valkey(port=sidecar.port, decode_responses=True)
    client.set("k", "v")
    expect(client.get("k"), "v")
    expect(client.pipeline().set("a", 1).get("a").execute(), [True, "1"])


@test("redis-py pipelines and transactions")
def _(t):
    client = connected(ready(t))
    pipe = client.pipeline(transaction=False)
    for n in range(500):
        pipe.set(f"k{n}", n).get(f"k{n}")
    expect(pipe.execute(), [value for n in range(500) for value in (True, str(n))])
    with client.pipeline() as pipe:
        expect(pipe.multi() or pipe.incr("n").incr("n").get("n").execute(), [1, 2, "2"])

    def increment(pipe):
        value = int(pipe.get("counter") or 0)
        pipe.multi()
        pipe.set("counter", value + 1)
    t.threads([lambda: [client.transaction(increment, "counter") for _ in range(25)] for _ in range(4)])
    expect(client.get("counter"), "100")


@test("a WATCHed key changed elsewhere raises WatchError")
def _(t):
    client = connected(ready(t))
    with client.pipeline() as pipe:
        pipe.watch("k")
        client.set("k", "changed")
        pipe.multi()
        pipe.set("k", "mine")
        try:
            pipe.execute()
            expect_true(False, "EXEC went through")
        except redis.WatchError:
            pass
    expect(client.get("k"), "changed")


@test("redis-py locks keep two owners apart")
def _(t):
    sidecar = ready(t)
    inside, most, turns = [0], [0], [0]

    def work():
        client = connected(sidecar)
        for _ in range(10):
            with client.lock("lock", timeout=10, sleep=0.002):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                turns[0] += 1
                time.sleep(0.001)
                inside[0] -= 1
    t.threads([work] * 4)
    expect(most[0], 1, "owners at one time")
    expect(turns[0], 40)
    client = connected(sidecar)
    lock = client.lock("other", timeout=0.2)
    expect(lock.acquire(), True)
    expect(client.lock("other").acquire(blocking=False), False)
    expect(lock.extend(0.3), True)
    expect(lock.reacquire(), True)
    time.sleep(0.35)
    expect(client.lock("other", timeout=5).acquire(blocking=False), True)


for _protocol in (2, 3):
    @test(f"redis-py pub/sub in RESP{_protocol}")
    def _(t, protocol=_protocol):
        sidecar = ready(t)
        client = connected(sidecar, protocol)
        pubsub = client.pubsub(ignore_subscribe_messages=True)
        pubsub.subscribe("a")
        pubsub.psubscribe("news.*")
        heard = []
        done = threading.Event()

        def listen():
            while len(heard) < 201 and not done.is_set():
                message = pubsub.get_message(timeout=1)
                if message:
                    heard.append((message["channel"], message["data"]))
        thread = threading.Thread(target=listen)
        thread.start()
        while client.pubsub_numsub("a")[0][1] == 0 or client.pubsub_numpat() == 0:
            time.sleep(0.005)
        for n in range(200):
            client.publish("a", n)
        client.publish("news.today", "x")
        thread.join(10)
        done.set()
        expect(heard, [("a", str(n)) for n in range(200)] + [("news.today", "x")])
        pubsub.unsubscribe()
        pubsub.punsubscribe()
        pubsub.close()


@test("redis-py blocking pops in threads")
def _(t):
    sidecar = ready(t)
    popped = []

    def pop():
        client = connected(sidecar)
        for _ in range(25):
            popped.append(client.blpop("queue", timeout=10)[1])

    def push():
        client = connected(sidecar)
        for n in range(100):
            client.rpush("queue", n)
    t.threads([pop] * 4 + [push])
    expect(sorted(popped, key=int), [str(n) for n in range(100)])


@test("redis-py asyncio: many tasks at once")
def _(t):
    sidecar = ready(t)

    async def main():
        client = redis.asyncio.Redis(port=sidecar.port, decode_responses=True, max_connections=50)

        async def work(number):
            for n in range(20):
                await client.set(f"k{number}", n)
                expect(await client.get(f"k{number}"), str(n))
            return await client.incr("n")
        expect(sorted(await asyncio.gather(*(work(number) for number in range(40)))), list(range(1, 41)))
        async with client.pipeline(transaction=True) as pipe:
            expect(await pipe.set("a", 1).get("a").execute(), [True, "1"])
        async with client.pubsub() as pubsub:
            await pubsub.subscribe("ch")
            await pubsub.get_message(timeout=5)
            await client.publish("ch", "hello")
            message = None
            while message is None:
                message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=5)
            expect(message["data"], "hello")
        async with client.lock("l", timeout=5):
            expect(await client.exists("l"), 1)
        await client.aclose()
    asyncio.run(main())


@test("redis-py chooses a database and a client name at its start")
def _(t):
    sidecar = ready(t)
    client = connected(sidecar, db=3, client_name="worker")
    client.set("k", "three")
    expect(client.get("k"), "three")
    expect(client.client_getname(), "worker")
    expect(connected(sidecar).get("k"), None)
    expect(connected(sidecar, db=3).get("k"), "three")
