"""The fence (rule 3), on real servers: the tracked link alone hears the upstream 20 ms late.

What a client has been told by another way must never be contradicted by what the pod reads afterwards from its cache.

FERRITE_FENCE_ROUNDS: rounds of each way, 25 if not set; `make soak` takes 1,000."""

import os
import shutil
import subprocess
import tempfile

from resp import Status
from runner import Failure, expect, expect_true, test

ROUNDS = int(os.environ.get("FERRITE_FENCE_ROUNDS", "25"))
LAG = 0.02


class Rounds:
    """A pod whose tracked link lags, a writer elsewhere, and a reader that has the key in its cache."""

    def __init__(self, t, redis=None, **options):
        self.redis = redis or t.redis()
        meddler = t.meddler(self.redis)
        meddler.lag = LAG
        self.sidecar = t.sidecar(meddler, settings={"read_timeout": "2s", **options}).wait_until_tracking()
        self.t = t
        self.writer = t.client(self.redis)
        self.reader = self.client()
        self.value = 0
        self.old = 0

    def client(self, protocol=2, **options):
        client = self.t.client(self.sidecar, **options)
        if protocol == 3:
            client.call("HELLO", "3")
        return client

    def begin(self):
        """The key is cached with its value, and `value` is the next."""
        current = b"%d" % self.value
        while self.writer.call("GET", "k") != current:
            self.writer.call("SET", "k", current)
        while self.reader.call("GET", "k") != current:
            pass
        self.value += 1
        return b"%d" % self.value

    def look(self):
        """Reads the key as another client of the pod that has just been told the new value."""
        self.old += int(self.reader.call("GET", "k")) < self.value

    def end(self):
        self.t.note(f"{self.old} old reads in {ROUNDS} rounds")
        expect(self.old, 0, "old reads")


def by_message(rounds, protocol):
    subscriber = rounds.client(protocol)
    subscriber.send("SUBSCRIBE", "news")
    subscriber.read()
    for _ in range(ROUNDS):
        value = rounds.begin()
        rounds.writer.call("SET", "k", value)
        rounds.writer.call("PUBLISH", "news", value)
        expect(subscriber.read()[2], value)
        rounds.look()


def by_job(rounds, protocol):
    worker = rounds.client(protocol)
    for _ in range(ROUNDS):
        value = rounds.begin()
        worker.send("BLPOP", "jobs", 0)
        rounds.writer.call("SET", "k", value)
        rounds.writer.call("RPUSH", "jobs", value)
        expect(worker.read(), [b"jobs", value])
        rounds.look()


def by_exec(rounds, protocol):
    client = rounds.client(protocol)
    for _ in range(ROUNDS):
        value = rounds.begin()
        rounds.writer.call("SET", "k", value)
        rounds.writer.call("SET", "told", value)
        client.call("MULTI")
        client.call("GET", "told")
        expect(client.call("EXEC"), [value])
        rounds.look()


def by_script(rounds, protocol):
    """A write that the sidecar cannot know of."""
    client = rounds.client(protocol)
    for _ in range(ROUNDS):
        value = rounds.begin()
        expect(client.call("EVAL", "return redis.call('SET', 'k', ARGV[1])", 0, value), Status("OK"))
        rounds.look()


def redis_with_module(t):
    """A server with a command of which COMMAND tells less than it does."""
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "undeclared.c")
    library = os.path.join(t.stack.enter_context(tempfile.TemporaryDirectory(prefix="ferrite-test-")), "undeclared.so")
    subprocess.run([shutil.which("cc") or "clang", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    return t.redis("--loadmodule", library)


def by_module(rounds, protocol):
    client = rounds.client(protocol)
    for _ in range(ROUNDS):
        expect(client.call("undeclared.set", "declared", "k", rounds.begin()), Status("OK"))
        rounds.look()


def by_own_write(rounds, protocol):
    client = rounds.client(protocol)
    for _ in range(ROUNDS):
        expect(client.call("SET", "k", rounds.begin()), Status("OK"))
        rounds.look()


def by_own_pinned_write(rounds, protocol):
    client = rounds.client(protocol)
    client.call("WATCH", "other")
    for _ in range(ROUNDS):
        expect(client.call("SET", "k", rounds.begin()), Status("OK"))
        rounds.look()


def by_other_identity(rounds, protocol):
    """A link with credentials of the client's own."""
    rounds.writer.call("ACL", "SETUSER", "somebody", "on", ">secret", "allkeys", "allchannels", "+@all")
    client = rounds.client(2)
    client.call("AUTH", "somebody", "secret")
    for _ in range(ROUNDS):
        value = rounds.begin()
        rounds.writer.call("SET", "k", value)
        expect(client.call("GET", "k"), value)
        rounds.look()


def by_separate_reply(rounds, protocol):
    """A reply that a RESP2 client gets by the shared RESP2 link."""
    client = rounds.client(2)
    rounds.writer.call("XGROUP", "CREATE", "stream", "group", "$", "MKSTREAM")
    for n in range(ROUNDS):
        rounds.writer.call("SET", "k", rounds.begin())
        rounds.writer.call("XADD", "stream", "*", "field", "value")
        rounds.writer.call("XREADGROUP", "GROUP", "group", "me", "STREAMS", "stream", ">")
        expect(client.call("XPENDING", "stream", "group")[0], n + 1)
        rounds.look()


def by_watch(rounds, protocol):
    """From WATCH on the client reads past the cache, or it would write over what it has not seen."""
    client = rounds.client(protocol)
    for _ in range(ROUNDS):
        value = rounds.begin()
        rounds.writer.call("SET", "k", value)
        # In one piece, or the fence that WATCH's reply waits for would have seen to it.
        rounds.old += client.pipeline([("WATCH", "k"), ("GET", "k")])[1] != value
        client.call("UNWATCH")


WAYS = {
    "a pub/sub message": by_message, "a popped job": by_job, "the reply of EXEC": by_exec,
    "a script with an undeclared key": by_script, "an own SET": by_own_write,
    "an own SET on a pinned link": by_own_pinned_write, "WATCH": by_watch,
}


def run(t, way, protocol, **options):
    rounds = Rounds(t, **options)
    way(rounds, protocol)
    return rounds


for _name, _way in WAYS.items():
    for _protocol in (2, 3):
        test(f"after {_name} no older value is read (RESP{_protocol})")(
            lambda t, way=_way, protocol=_protocol: run(t, way, protocol).end())
for _protocol in (2, 3):
    test(f"after a module's command with an undeclared key no older value is read (RESP{_protocol})")(
        lambda t, protocol=_protocol: run(t, by_module, protocol, redis=redis_with_module(t)).end())
test("after a reply on a link with other credentials no older value is read")(
    lambda t: run(t, by_other_identity, 2).end())
test("after a reply of the shared RESP2 link no older value is read")(lambda t: run(t, by_separate_reply, 2).end())


@test("without the fence old values are read", once=True)
def _(t):
    """Or the tests above would prove nothing."""
    for way in (by_message, by_job, by_exec, by_script, by_other_identity, by_separate_reply):
        rounds = run(t, way, 2, fence="false")
        expect_true(rounds.old > 0, f"{way.__name__}: nothing old was read")


@test("a message is late by the fence alone, and comes when the tracked link is lost")
def _(t):
    rounds = Rounds(t)
    subscriber = rounds.client()
    subscriber.send("SUBSCRIBE", "news")
    subscriber.read()
    for n in range(3):
        rounds.writer.call("PUBLISH", "news", n)
        expect(subscriber.read()[2], b"%d" % n)
    rounds.redis.client().call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    rounds.writer = t.client(rounds.redis)

    def told():
        rounds.writer.call("PUBLISH", "news", "last")
        try:
            return subscriber.read(timeout=1.0)[2] == b"last"
        except TimeoutError:
            return False
    if not any(told() for _ in range(10)):
        raise Failure("no message came after the tracked link was lost")
