"""Limits: slow readers, many clients, little memory."""

import selectors
import socket
import time

from resp import Closed, ReplyError, Status, encode
from runner import expect, expect_below, expect_true, test
from servers import wait_until

MB = 1 << 20


def peak_bytes(sidecar):
    """The most that was ever resident (VmHWM)."""
    with open(f"/proc/{sidecar.pid}/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def send_what_fits(client, data, seconds=1.0):
    """Sends until the peer takes no more, or for so long; returns the bytes sent."""
    client.socket.setblocking(False)
    sent, deadline = 0, time.monotonic() + seconds
    while sent < len(data) and time.monotonic() < deadline:
        try:
            sent += client.socket.send(data[sent:sent + 65536])
        except BlockingIOError:
            time.sleep(0.01)
    client.socket.setblocking(True)
    return sent


@test("a client that does not read is held back, hurts nobody, and gets every byte when it reads")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"local_memory": "32mb"}).wait_until_tracking()
    slow, other = t.client(sidecar), t.client(sidecar)
    value = b"0123456789" * 5000
    other.call("SET", "k", value)
    expect(other.call("GET", "k"), value)
    one = encode("GET", "k")
    count = send_what_fits(slow, one * 4000) // len(one)
    for n in range(200):
        expect(other.call("GET", "k"), value)
        expect(other.call("INCR", "n"), n + 1)
    expect_below(peak_bytes(sidecar), 32 * MB, "peak resident bytes")
    began = time.monotonic()
    for number in range(count):
        expect(slow.read(), value)
        expect_below(time.monotonic() - began, 30, f"seconds for {number + 1} of {count} replies")
    t.note(f"{count} replies, peak {peak_bytes(sidecar) / MB:.1f} MB")


@test("a client that does not read passed replies holds up nobody else")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"local_memory": "32mb"}).wait_until_tracking()
    slow, other = t.client(sidecar), t.client(sidecar)
    for _ in range(20):
        other.call("RPUSH", "l", b"x" * 10000)
    send_what_fits(slow, encode("LRANGE", "l", 0, -1) * 300)
    for n in range(200):
        expect(other.call("INCR", "n", timeout=2.0), n + 1)
    expect_below(peak_bytes(sidecar), 32 * MB, "peak resident bytes")


@test("two hundred clients that never read stay within the budget, and cost one who reads nothing")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"local_memory": "32mb"}).wait_until_tracking()
    value = b"v" * 20000
    first = t.client(sidecar)
    first.call("SET", "k", value)
    first.call("GET", "k")
    clients = []
    for _ in range(200):
        try:
            client = t.client(sidecar)
            client.socket.setblocking(False)
            client.socket.send(encode("GET", "k") * 100)
            clients.append(client)
        except (Closed, OSError):
            break
    time.sleep(0.5)
    expect(first.call("GET", "k") == value, True, "who reads is served, on the connection he had")
    t.note(f"{len(clients)} clients, peak {peak_bytes(sidecar) / MB:.1f} MB")
    expect_below(peak_bytes(sidecar), 32 * MB, "peak resident bytes")


@test("room for what a client may send that is not read from is kept, and given back with it")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"local_memory": "32mb"}).wait_until_tracking()
    clients = [t.client(sidecar) for _ in range(50)]
    clients[0].call("SET", "k", b"v" * 50000)
    clients[0].call("GET", "k")

    def arrivals():
        return sidecar.metrics()['ferrite_sidecar_memory_bytes{owner="arrivals"}']

    def more():
        for client in clients:
            client.send_raw(encode("GET", "k") * 100)
        return arrivals() > 0

    expect(arrivals(), 0)
    wait_until(more, 10, what="clients with many unread replies not read from")
    for client in clients:
        client.close()
    wait_until(lambda: arrivals() == 0, 5, what="the room given back")


@test("more keys than fit are evicted, every value stays right, and memory within the budget")
def _(t):
    redis = t.redis()
    count = 60000
    with redis.client() as direct:
        for first in range(0, count, 2000):
            direct.pipeline([("SET", f"key:{n}", b"%d:" % n + b"v" * (n % 1800)) for n in range(first, first + 2000)])
    for policy in ("lru", "lfu", "random"):
        settings = {"local_memory": "32mb", "eviction": policy, "read_timeout": "2s"}
        sidecar = t.sidecar(redis, settings=settings).wait_until_tracking()
        client = t.client(sidecar)
        for first in range(0, count, 200):
            replies = client.pipeline([("GET", f"key:{n}") for n in range(first, first + 200)])
            for n, reply in enumerate(replies, first):
                expect(reply, b"%d:" % n + b"v" * (n % 1800), f"key:{n} with {policy}")
        expect_true(sidecar.metric("ferrite_evicted_keys_total") > 0, f"nothing was evicted with {policy}")
        expect_below(peak_bytes(sidecar), 32 * MB, f"peak resident bytes with {policy}")
        t.note(f"{policy}: peak {peak_bytes(sidecar) / MB:.1f} MB")
        sidecar.stop()


@test("the sum of memory by owner never exceeds the budget")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"local_memory": "32mb"}).wait_until_tracking()
    client = t.client(sidecar)
    for n in range(3000):
        client.ask("SET", f"k{n}", b"v" * 3000)
        client.ask("GET", f"k{n}")
    metrics = sidecar.metrics()
    owners = sum(value for name, value in metrics.items() if name.startswith("ferrite_sidecar_memory_bytes"))
    expect_true(owners > 0, "no owner has memory")
    expect(metrics["ferrite_memory_max_bytes"], 32 * MB)
    expect_true(owners <= 32 * MB, f"owners hold {owners} bytes")


@test("clients come and go by the thousand")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"max_clients": "100"}).wait_until_tracking()
    keeper = t.client(sidecar)
    keeper.call("SET", "k", "v")
    for n in range(2000):
        try:
            with sidecar.client() as client:
                if n % 3 == 0:
                    client.send("GET", "k")
                elif n % 3 == 1:
                    client.send("BLPOP", "nothing", 0)
                else:
                    client.send_raw(b"*2\r\n$3\r\nGET\r\n$1")
        except (Closed, OSError):
            pass
    expect(keeper.call("GET", "k"), b"v")
    wait_until(lambda: sidecar.metric("ferrite_connections_active") == 1, 5, what="one client left")


@test("a thousand pipelined commands of every way come back in order")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    client = t.client(sidecar)
    commands, wanted = [], []
    for n in range(2000):
        kind = n % 6
        if kind == 0:
            commands.append(("SET", f"k{n}", n)), wanted.append(Status("OK"))
        elif kind == 1:
            commands.append(("GET", f"k{n - 1}")), wanted.append(b"%d" % (n - 1))
        elif kind == 2:
            commands.append(("ECHO", n)), wanted.append(b"%d" % n)
        elif kind == 3:
            commands.append(("INCRBY", "counter", 1)), wanted.append(n // 6 + 1)
        elif kind == 4:
            commands.append(("GET", f"missing{n}")), wanted.append(None)
        else:
            commands.append(("HGET", "h", n)), wanted.append(None)
    expect(client.pipeline(commands, timeout=20), wanted)


@test("a pipeline larger than every buffer is answered while it is still being sent")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"local_memory": "32mb"}).wait_until_tracking()
    client = t.client(sidecar)
    value = b"v" * 5000
    count = 4000

    def send():
        pairs = (encode("SET", f"k{n % 50}", value) + encode("GET", f"k{n % 50}") for n in range(count))
        client.send_raw(b"".join(pairs))

    def receive():
        for _ in range(count):
            expect(client.stream.reply(time.monotonic() + 30), Status("OK"))
            expect(client.stream.reply(time.monotonic() + 30), value)
    client.timeout = 60
    t.threads([send, receive])
    expect_below(peak_bytes(sidecar), 32 * MB, "peak resident bytes")


@test("too many pinned clients are refused with an error, not left waiting")
def _(t):
    redis = t.redis("--maxclients", "30")
    sidecar = t.sidecar(redis).wait_until_tracking()
    clients = [t.client(sidecar) for _ in range(60)]
    for client in clients:
        client.send("BLPOP", "nothing", 0)
    refused = waiting = 0
    deadline = time.monotonic() + 8
    for client in clients:
        try:
            reply = client.read(max(0.05, min(0.3, deadline - time.monotonic())))
            expect_true(isinstance(reply, ReplyError), f"BLPOP answered {reply!r}")
            refused += 1
        except Closed:
            refused += 1
        except TimeoutError:
            waiting += 1
    t.note(f"{waiting} wait, {refused} refused")
    expect_true(refused > 0, "nobody was refused")
    expect(t.client(sidecar).call("PING"), Status("PONG"))


@test("a pipeline that is sent whole before its first reply is read is answered whole")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, unix=True).wait_until_tracking()
    value = b"v" * 1000
    t.client(sidecar).call("SET", "k", value)
    one = encode("GET", "k")
    for unix in (False, True):
        slow = t.client(sidecar, unix=unix)
        slow.send_raw(one * 50_000)
        for number in range(50_000):
            expect(slow.read(timeout=10.0), value, f"reply {number}")


@test("a reply that is too large to hold is an error for who asked, and nobody else's")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"local_memory": "32mb", "read_timeout": "5s"}).wait_until_tracking()
    t.client(redis).call("SET", "big", b"x" * (20 * MB))
    asking, other = t.client(sidecar), t.client(sidecar)
    for command in (("GET", "big"), ("GETRANGE", "big", 0, -1), ("MGET", "big", "n")):
        asking.send(*command)
        for n in range(20):
            other.call("INCR", "n", timeout=10.0)
        reply = asking.read(timeout=10.0)
        is_named = isinstance(reply, ReplyError) and "larger" in str(reply)
        expect_true(is_named, f"an error for {command}, not {reply!r:.60}")
    expect(asking.call("STRLEN", "big"), 20 * MB)
    expect(other.call("INCR", "n"), 61)
    expect_below(peak_bytes(sidecar), 32 * MB, "peak resident bytes")


@test("a subscriber that does not read is closed before it takes everybody's memory")
def _(t):
    redis = t.redis("--client-output-buffer-limit", "pubsub 0 0 0")
    sidecar = t.sidecar(redis, settings={"local_memory": "32mb"}).wait_until_tracking()
    other, publisher, subscriber = t.client(sidecar), t.client(redis), t.client(sidecar)
    for n in range(500):
        other.call("SET", f"k{n}", "v" * 1000)
        expect(other.call("GET", f"k{n}"), b"v" * 1000)
    keys = sidecar.metric("ferrite_keys")
    subscriber.call("SUBSCRIBE", "channel")
    for _ in range(30):
        publisher.pipeline([("PUBLISH", "channel", "x" * 20000)] * 50)
    wait_until(lambda: sidecar.metric("ferrite_sidecar_connections_starved_total") == 1, 5, what="the subscriber's end")
    wait_until(lambda: sidecar.metric("ferrite_connections_active") == 1, 5, what="its connection's end")
    expect(sidecar.metric("ferrite_keys"), keys, "cached keys")
    expect(other.call("HSET", "h", "f", "v"), 1)
    expect_below(peak_bytes(sidecar), 32 * MB, "peak resident bytes")


@test("under CLIENT REPLY OFF a client is held back while its own link does not take what it sends")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"local_memory": "32mb"}).wait_until_tracking()
    other, silent = t.client(sidecar), t.client(sidecar)
    for n in range(500):
        other.call("SET", f"k{n}", "v" * 1000)
        other.call("GET", f"k{n}")
    keys = sidecar.metric("ferrite_keys")
    silent.send("CLIENT", "REPLY", "OFF")
    wait_until(lambda: sidecar.metric("ferrite_sidecar_connections_pinned") == 1, 5, what="its own link")
    redis.freeze()
    one = encode("SET", "m", "x" * 8000)
    sent = send_what_fits(silent, one * 4000, seconds=0.3)
    expect_below(sent, 16 * MB, "bytes taken from it")
    expect(sidecar.metric("ferrite_keys"), keys, "cached keys")
    redis.thaw()
    silent.socket.sendall((one * 4000)[sent:])
    silent.send("CLIENT", "REPLY", "ON")
    expect(silent.read(), Status("OK"))
    expect(silent.call("GET", "m"), b"x" * 8000)


@test("large requests that waited together are sent one by one, and the shared link lives on")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"local_memory": "32mb"}).wait_until_tracking()
    clients = [t.client(sidecar) for _ in range(4)]
    redis.freeze()

    def write(n, size, after):
        time.sleep(after)
        expect(clients[n].call("SET", f"b{n}", "x" * size), Status("OK"))

    def thaw():
        time.sleep(0.7)
        redis.thaw()

    t.threads([lambda: write(0, 2_500_000, 0), thaw] +
              [lambda n=n: write(n, 3_900_000, 0.2) for n in (1, 2, 3)])
    expect(sidecar.metric("ferrite_sidecar_upstream_reconnects_total"), 0)


@test("many MGETs of many keys at once wait for each other rather than end their client")
def _(t):
    sidecar = t.sidecar(t.redis(), settings={"max_clients": "10"}).wait_until_tracking()
    commands = [["MGET", *(f"k{n}:{key}" for key in range(128))] for n in range(100)]
    expect(len(t.client(sidecar).pipeline(commands)), 100)


@test("memory stays within the budget when the metrics page is first asked for with the store full")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"local_memory": "32mb"})
    client, direct = t.client(sidecar), t.client(redis)
    for first in range(0, 40000, 500):
        direct.pipeline([("SET", f"k{n}", "v" * (n % 1000)) for n in range(first, first + 500)])
    time.sleep(2.5)
    for _ in range(2):
        for first in range(0, 40000, 500):
            client.pipeline([("GET", f"k{n}") for n in range(first, first + 500)])
    for path in ("/metrics", "/stats"):
        sidecar.page(path)
    client.call("INFO")
    expect_below(peak_bytes(sidecar), 32 * MB, "peak resident bytes")


@test("large requests of many clients take turns: all are carried out, and nobody else is hurt")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"local_memory": "32mb"}).wait_until_tracking()
    value = b"x" * 1_000_000

    def write(n):
        client = t.client(sidecar, timeout=30)
        for _ in range(5):
            expect(client.call("SET", f"b{n}", value), Status("OK"))

    def small():
        client = t.client(sidecar)
        for n in range(200):
            expect(client.call("SET", "n", n), Status("OK"))
            expect(client.call("GET", "n"), b"%d" % n)

    t.threads([lambda n=n: write(n) for n in range(30)] + [small])
    expect(sidecar.metric("ferrite_sidecar_upstream_reconnects_total"), 0)
    expect_below(peak_bytes(sidecar), 32 * MB, "peak resident bytes")


@test("a large request that is not sent on keeps nobody waiting for long")
def _(t):
    sidecar = t.sidecar(t.redis(), settings={"local_memory": "32mb"}).wait_until_tracking()
    stuck = [t.client(sidecar) for _ in range(5)]
    for client in stuck:
        client.send_raw(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000\r\n" + b"x" * 1000)
    time.sleep(0.2)
    other = t.client(sidecar, timeout=10)
    expect(other.call("SET", "k", b"y" * 1_000_000), Status("OK"))
    for client in stuck:
        client.send_raw(b"x" * 999_000 + b"\r\n")
        expect(client.read(10), Status("OK"))


@test("a large request behind replies that its client does not read keeps nobody waiting for long")
def _(t):
    sidecar = t.sidecar(t.redis()).wait_until_tracking()
    other = t.client(sidecar, timeout=10)
    other.call("SET", "big", b"x" * 500_000)
    other.call("GET", "big")
    deaf = t.client(sidecar)
    deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    deaf.send_raw(encode("GET", "big") * 3)
    deaf.send_raw(encode("SET", "mine", b"y" * (17 << 20)))
    time.sleep(0.5)
    expect(other.call("SET", "k", b"z" * 1_000_000), Status("OK"))


@test("a read of a very long key is carried out or refused by itself, and ends no link")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"local_memory": "32mb", "read_timeout": "5s"}).wait_until_tracking()
    client = t.client(sidecar, timeout=15)
    t.client(redis).call("SET", b"k" * 100_000, "v")
    for size, value in ((100_000, b"v"), (4_000_000, None), (7_500_000, None)):
        for reply, wanted in ((client.ask("GET", b"k" * size), value), (client.ask("MGET", b"k" * size), [value])):
            if not (isinstance(reply, ReplyError) and "local_memory" in str(reply)):
                expect(reply, wanted, f"{size} bytes")
    # Many that are just short enough to be cached.
    keys = [b"%d" % n + b"k" * 15_000 for n in range(1_000)]
    expect(client.pipeline([("GET", key) for key in keys], timeout=20), [None] * 1_000)
    expect(sidecar.metric("ferrite_sidecar_upstream_reconnects_total"), 0)


@test("a client that asks and ends its side gets the whole reply, full socket or not")
def _(t):
    sidecar = t.sidecar(t.redis(), unix=True).wait_until_tracking()
    # With this many clients a socket of the next is small.
    crowd = [t.client(sidecar) for _ in range(40)]
    for client in crowd:
        expect(client.call("PING"), Status("PONG"))
    for size in (60_000, 200_000):
        crowd[0].call("SET", "k", b"x" * size)
        crowd[0].call("GET", "k")
        for _ in range(20):
            with sidecar.client(unix=True) as client:
                client.send_raw(encode("GET", "k"))
                client.socket.shutdown(socket.SHUT_WR)
                time.sleep(0.005)
                expect(len(client.read(10)), size)


@test("a reply for which there is no memory is an error for who asked, and the client stays")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"local_memory": "32mb", "read_timeout": "5s"}).wait_until_tracking()
    t.client(redis).call("SET", "big", b"x" * 3_000_000)
    outcomes = []

    def read():
        client = t.client(sidecar, timeout=30)
        for _ in range(5):
            try:
                reply = client.ask("GET", "big")
            except Closed:
                # On a busy machine a client may not come to read what is due to it, and most is due to it.
                outcomes.append("closed")
                client = t.client(sidecar, timeout=30)
                continue
            outcomes.append(len(reply) if isinstance(reply, bytes) else " ".join(str(reply).split()[:4]))

    t.threads([read] * 8)
    expect(len(outcomes), 40)
    expect(outcomes.count("closed"), sidecar.metric("ferrite_sidecar_connections_starved_total"), "closed, and told so")
    known = {3_000_000, "ERR local_memory is spent:", "ERR the reply is", "closed"}
    expect_true(set(outcomes) <= known, f"{set(outcomes)}")
    expect_below(peak_bytes(sidecar), 32 * MB, "peak resident bytes")


@test("four hundred clients that pipeline thousands of reads, and take the replies as they come, are all served")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"local_memory": "32mb", "read_timeout": "5s"}).wait_until_tracking()
    count, value = 3000, b"v" * 50
    t.client(redis).pipeline([("SET", f"key:{n}", value) for n in range(count)])
    time.sleep(0.3)  # a start's own code is let go within a tenth of a second: until then 32mb have room for a few less
    requests = b"".join(encode("GET", f"key:{n}") for n in range(count))
    wanted = count * len(b"$50\r\n%s\r\n" % value)
    chooser = selectors.DefaultSelector()
    left = {}  # socket: [bytes sent, bytes received, the last of them]
    for _ in range(400):
        client = t.client(sidecar)
        client.socket.setblocking(False)
        left[client.socket] = [0, 0, b""]
        chooser.register(client.socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
    served, ends = 0, {}
    deadline = time.monotonic() + 40

    def end(one, how):
        chooser.unregister(one)
        sent, received, _ = left.pop(one)
        asked = "all" if sent == len(requests) else "some"
        story = f"{how} after {asked} requests and {'some replies' if received else 'none'}"
        ends[story] = ends.get(story, 0) + 1

    while left and time.monotonic() < deadline:
        for ready, events in chooser.select(1):
            one, state = ready.fileobj, left[ready.fileobj]
            try:
                if events & selectors.EVENT_READ:
                    data = one.recv(262144)
                    if not data:
                        end(one, "closed")
                        continue
                    state[1] += len(data)
                    tail = state[2] + data
                    state[2] = tail[-4:]
                    if b"-ERR" in tail:
                        end(one, tail[tail.index(b"-ERR"):].split(b"\r\n")[0].decode())
                    elif state[1] == wanted:
                        chooser.unregister(one)
                        left.pop(one)
                        served += 1
                    continue
                state[0] += one.send(requests[state[0]:state[0] + 65536])
                if state[0] == len(requests):
                    chooser.modify(one, selectors.EVENT_READ)
            except BlockingIOError:
                pass
            except OSError as error:
                end(one, type(error).__name__)
    t.note(f"{served} served, {len(left)} waiting, peak {peak_bytes(sidecar) / MB:.1f} MB")
    expect_true(served == 400, f"{served} of 400 were served; {len(left)} were left waiting; the others: {ends}")
    expect_below(peak_bytes(sidecar), 32 * MB, "peak resident bytes")
