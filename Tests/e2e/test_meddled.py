"""Meddled: an upstream that sends garbage, half replies, too much, or nothing. The sidecar answers errors, connects
again, and never falls."""

import random
import time

from resp import Closed, Status
from runner import expect, expect_true, test
from servers import wait_until

DEEP = b"*1\r\n" * 5000
GREETINGS = {
    "closes at once": lambda c: True,
    "sends garbage": lambda c: c.sendall(b"\x00\xff\xfeSSH-2.0-OpenSSH_9.2\r\n\r\n"),
    "speaks HTTP": lambda c: c.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n") or True,
    "is silent": lambda c: time.sleep(1.0) or True,
    "sends half a reply and closes": lambda c: c.recv(65536) and c.sendall(b"%7\r\n$6\r\nserv") or True,
    "answers HELLO with OK": lambda c: c.recv(65536) and c.sendall(b"+OK\r\n"),
    "answers HELLO with an empty map": lambda c: c.recv(65536) and c.sendall(b"%0\r\n"),
    "answers HELLO with a number": lambda c: c.recv(65536) and c.sendall(b":42\r\n"),
    "answers HELLO with an odd error": lambda c: c.recv(65536) and c.sendall(b"-LOADING Redis is loading\r\n"),
    "announces an endless bulk": lambda c: c.recv(65536) and c.sendall(b"$9223372036854775807\r\nx"),
    "announces an overflowing bulk": lambda c: c.recv(65536) and c.sendall(b"$99999999999999999999999\r\n"),
    "announces a negative bulk": lambda c: c.recv(65536) and c.sendall(b"$-7\r\n"),
    "announces a huge array": lambda c: c.recv(65536) and c.sendall(b"*2147483647\r\n"),
    "nests arrays without end": lambda c: c.recv(65536) and c.sendall(DEEP) or True,
    "never ends its line": lambda c: c.recv(65536) and c.sendall(b"+" + b"a" * 2_000_000) or True,
    "sends nothing but line ends": lambda c: c.sendall(b"\r\n" * 10000) or True,
    "pushes before it is asked": lambda c: c.sendall(b">2\r\n$10\r\ninvalidate\r\n_\r\n") and False,
    "pushes nonsense": lambda c: c.sendall(b">0\r\n>1\r\n:1\r\n>2\r\n$10\r\ninvalidate\r\n:5\r\n") and False,
}


def honest_again(sidecar, meddler):
    """After the meddling has ended, values come as they are."""
    meddler.behave()
    meddler.drop_all()

    def written():
        # A write that was under way when its connection went is of unknown fate: its client is closed, rightly.
        try:
            with sidecar.client() as client:
                return client.ask("SET", "k", "v") == Status("OK")
        except (Closed, OSError):
            return False
    wait_until(written, 10, what="a write after the meddling")
    with sidecar.client() as client:
        wait_until(lambda: client.ask("GET", "k") == b"v", 5, what="a read after the meddling")
        expect(client.ask("HSET", "hash", "f", "v") in (0, 1), True)
        expect(client.ask("HGET", "hash", "f"), b"v")


def answered(sidecar, *command, timeout=8.0):
    """A reply, whatever it says, or a closed connection; silence is a failure."""
    with sidecar.client() as client:
        try:
            return client.ask(*command, timeout=timeout)
        except Closed:
            return None


def survive(t, name, greeting):
    redis = t.redis()
    meddler = t.meddler(redis)
    meddler.greet = greeting
    sidecar = t.sidecar(meddler)
    for command in (("GET", "k"), ("SET", "k", "w"), ("HGET", "h", "f"), ("BLPOP", "l", "0.1"), ("MULTI",)):
        answered(sidecar, *command)
        sidecar.must_live()
        with sidecar.client() as client:
            expect(client.ask("PING"), Status("PONG"), f"PING while the upstream {name}")
    honest_again(sidecar, meddler)


for _name, _greeting in GREETINGS.items():
    test(f"an upstream that {_name} at its start")(lambda t, n=_name, g=_greeting: survive(t, n, g))


def one_time(change):
    """An alteration that is made to the next piece of data only."""
    done = []

    def alter(data):
        if done:
            return data
        done.append(True)
        return change(data)
    return alter


ALTERATIONS = {
    "cuts a reply in half and closes": lambda data: None if len(data) < 2 else data[:len(data) // 2] + b"",
    "swallows a reply": lambda data: b"",
    "doubles a reply": lambda data: data + data,
    "puts garbage into a reply": lambda data: b"?!garbage\r\n" + data,
    "changes a reply's type": lambda data: b":" + data[1:],
    "changes a length": lambda data: data.replace(b"$5\r\n", b"$500\r\n"),
    "answers an error instead": lambda data: b"-ERR something else\r\n",
    "answers what nobody asked": lambda data: data + b"+surprise\r\n" * 1000,
    "pushes a storm of changes": lambda data: b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n" * 50000 + data,
    "pushes a null for a key": lambda data: b">2\r\n$10\r\ninvalidate\r\n*1\r\n$-1\r\n" + data,
    "pushes an unknown kind": lambda data: b">3\r\n$5\r\nnovel\r\n:1\r\n*0\r\n" + data,
    "sends an attribute first": lambda data: b"|1\r\n+ttl\r\n:3600\r\n" + data,
    "closes instead of answering": lambda data: None,
}


def survive_alteration(t, name, change):
    redis = t.redis()
    meddler = t.meddler(redis)
    sidecar = t.sidecar(meddler).wait_until_tracking()
    t.client(redis).call("SET", "five", "12345")
    for command in (("GET", "five"), ("SET", "k", "12345"), ("HGET", "hash", "f"), ("MGET", "five", "k")):
        meddler.alter = one_time(change)
        answered(sidecar, *command)
        sidecar.must_live()
        with sidecar.client() as client:
            expect(client.ask("PING"), Status("PONG"), f"PING while the upstream {name}")
        meddler.alter = None
    honest_again(sidecar, meddler)


for _name, _change in ALTERATIONS.items():
    test(f"an upstream that {_name}")(lambda t, n=_name, c=_change: survive_alteration(t, n, c))


@test("replies that arrive byte by byte are whole to clients")
def _(t):
    redis = t.redis()
    meddler = t.meddler(redis)
    sidecar = t.sidecar(meddler).wait_until_tracking()

    def drip(data):
        if len(data) > 400:
            return data
        with meddler.lock:
            sockets = [s for s in meddler.pairs if s.getsockname() == meddler.address]
        if len(sockets) != 1:
            return data
        for n in range(len(data) - 1):
            sockets[0].sendall(data[n:n + 1])
            time.sleep(0.0002)
        return data[-1:]
    meddler.alter = drip
    client = t.client(sidecar)
    for n in range(20):
        expect(client.ask("SET", f"k{n}", f"value{n}"), Status("OK"))
        expect(client.ask("GET", f"k{n}"), b"value%d" % n)
    client.ask("RPUSH", "l", "a", "b", "c")
    expect(client.ask("LRANGE", "l", 0, -1), [b"a", b"b", b"c"])


@test("random bytes changed in what the upstream sends never bring it down")
def _(t):
    redis = t.redis()
    meddler = t.meddler(redis)
    seed = random.randrange(1 << 30)
    t.note(f"seed {seed}")
    choose = random.Random(seed)

    def corrupt(data):
        if choose.random() < 0.9:
            return data
        changed = bytearray(data)
        for _ in range(choose.randrange(1, 4)):
            changed[choose.randrange(len(changed))] = choose.choice(b"\r\n$*+-:>_%#,0123456789\x00\xff")
        return bytes(changed)
    sidecar = t.sidecar(meddler).wait_until_tracking()
    meddler.alter = corrupt
    commands = [("GET", "k"), ("SET", "k", "12345"), ("MGET", "k", "j"), ("HGETALL", "h"), ("LRANGE", "l", 0, -1),
                ("INCR", "n"), ("SUBSCRIBE", "c"), ("MULTI",), ("EVAL", "return {1, {2, 'x'}}", 0), ("INFO",)]
    deadline = time.monotonic() + 6
    while time.monotonic() < deadline:
        try:
            with sidecar.client() as client:
                for _ in range(5):
                    client.ask(*choose.choice(commands), timeout=0.3)
        except (Closed, TimeoutError, ValueError, Exception):  # noqa: B014 - what a client makes of it does not matter
            pass
        expect_true(sidecar.is_alive(), f"ferrite fell (seed {seed})")
    meddler.behave()
    meddler.drop_all(reset=True)
    honest_again(sidecar, meddler)


@test("random bytes from clients never bring it down")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    seed = random.randrange(1 << 30)
    t.note(f"seed {seed}")
    choose = random.Random(seed)
    pieces = [b"*", b"$", b"\r\n", b"1", b"3", b"-1", b"GET", b"SET", b"k", b" ", b"\x00",
              b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
              b"MULTI\r\n", b"EXEC\r\n", b"HELLO 3\r\n", b"\"", b"'", b"SUBSCRIBE a\r\n", b"99999999999", b"QUIT\r\n",
              b"*1\r\n$4\r\nPING\r\n", b"RESET\r\n", b"CLIENT REPLY OFF\r\n", b"\xff" * 50, b"SELECT 1\r\n"]
    for _ in range(1500):
        try:
            with sidecar.client() as client:
                client.send_raw(b"".join(choose.choice(pieces) for _ in range(choose.randrange(1, 30))))
                if choose.random() < 0.3:
                    client.is_closed(0.005)
        except (Closed, ConnectionError):
            pass
    expect_true(sidecar.is_alive(), f"ferrite fell (seed {seed})")
    with sidecar.client() as client:
        client.call("SET", "k", "v")
        expect(client.call("GET", "k"), b"v")
