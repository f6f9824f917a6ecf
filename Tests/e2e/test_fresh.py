"""The port that never answers from the cache."""

from resp import Client, Status
from runner import expect, expect_error, expect_true, test
from servers import free_port, wait_until


def fresh(t, redis, **settings):
    port = free_port()
    sidecar = t.sidecar(redis, settings={"fresh_port": port, **settings}).wait_until_tracking()
    return sidecar, Port(sidecar, port)


class Port:
    def __init__(self, sidecar, port):
        self.sidecar, self.address = sidecar, (sidecar.address[0], port)

    def client(self, **options):
        return Client(self.address, **options)


@test("fresh_port: every read is the upstream's, at the moment at which it is asked")
def _(t):
    redis = t.redis()
    sidecar, port = fresh(t, redis)
    cached, exact, direct = t.client(sidecar), t.client(port), t.client(redis)
    direct.call("MSET", "a", "1", "b", "2")
    for _ in range(3):
        expect(cached.call("MGET", "a", "b"), [b"1", b"2"])
    reads = redis.calls_of("get") + redis.calls_of("mget")
    hits = sidecar.metric("ferrite_keyspace_hits_total")
    for n in range(50):
        direct.call("SET", "a", n)
        expect(exact.call("GET", "a"), b"%d" % n)
        expect(exact.call("MGET", "b", "a"), [b"2", b"%d" % n])
    expect(redis.calls_of("get") + redis.calls_of("mget") - reads, 100, "reads at the upstream")
    expect(sidecar.metric("ferrite_keyspace_hits_total"), hits, "hits")
    expect(exact.call("SET", "a", "x"), Status("OK"))
    expect(cached.call("GET", "a"), b"x")
    expect(exact.pipeline([("MULTI",), ("GET", "a"), ("EXEC",)])[2], [b"x"])


@test("fresh_port: a queued write is upstream before it is read there, and nothing is answered without the upstream")
def _(t):
    redis = t.redis()
    sidecar, port = fresh(t, redis, mode="write-behind")
    client, exact = t.client(sidecar), t.client(port)
    for n in range(50):
        client.call("SET", "k", n)
        expect(exact.call("GET", "k"), b"%d" % n)
    expect(client.call("GET", "k"), b"49")
    redis.kill()
    wait_until(lambda: sidecar.metric("ferrite_sidecar_upstream_up") == 0, what="the upstream is gone")
    expect_error(exact.ask("GET", "k"), "upstream")


@test("fresh_port: a port that cannot be is refused with the remedy", once=True)
def _(t):
    redis = t.redis()
    port = free_port()
    for settings, words in (
        ({"fresh_port": t.redis().port}, "choose another with fresh_port"),
        ({"fresh_port": port, "port": port}, "two different ports"),
        ({"fresh_port": redis.port}, "is where this sidecar itself would listen with fresh_port"),
    ):
        other = t.sidecar(redis, port=settings.get("port"), settings=settings, wait=False)
        wait_until(lambda: not other.is_alive(), what="it has ended")
        expect_true(words in other.log(), f"it says: {other.log()}")
