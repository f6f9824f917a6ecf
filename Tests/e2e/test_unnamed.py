"""Keys that a command reads without naming them: what it has told of them is not contradicted by an older copy."""

import time

from resp import ReplyError
from runner import expect, expect_true, test
from servers import wait_until
from test_fence import ROUNDS, Rounds, redis_with_module

LIBRARY = """#!lua name=lib
local function look() return redis.call('GET', 'k') end
redis.register_function{function_name='look', flags={'no-writes'}, callback=look}
"""
SCRIPT = "return redis.call('GET', 'k')"
# The command, and where its reply holds the value of k.
READERS = {
    "SORT": (("SORT", "list", "BY", "nosort", "GET", "*"), lambda reply: reply[0]),
    "SORT_RO": (("SORT_RO", "list", "BY", "nosort", "GET", "*"), lambda reply: reply[0]),
    "EVAL_RO": (("EVAL_RO", SCRIPT, 0), lambda reply: reply),
    "FCALL_RO": (("FCALL_RO", "look", 0), lambda reply: reply),
}


def prepare(writer):
    writer.call("RPUSH", "list", "k")
    writer.call("FUNCTION", "LOAD", LIBRARY)


def pipelined(t, command, value_of, redis=None):
    """GET behind the command in one pipeline, while the announcement of the newer value is late."""
    rounds = Rounds(t, redis)
    prepare(rounds.writer)
    for _ in range(ROUNDS):
        rounds.writer.call("SET", "k", rounds.begin())
        told, read = rounds.reader.pipeline([command, ("GET", "k")])
        rounds.old += int(read) < int(value_of(told))
    rounds.end()


def unreachable(t, command, value_of):
    """A copy of an earlier epoch, then the command shows the newer value, then the upstream is gone."""
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    client, direct = t.client(sidecar), t.client(redis)
    prepare(direct)
    t.cache(client, direct, "old")
    epoch = sidecar.metric("ferrite_sidecar_upstream_epoch")
    direct.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    direct.call("SET", "k", "new")
    wait_until(lambda: sidecar.metric("ferrite_sidecar_upstream_epoch") > epoch, what="the next epoch")
    expect(value_of(wait_until(lambda: client.call(*command), what="an answer")), b"new")
    redis.kill()
    # Until the upstream counts as unreachable nothing suspect would be served.
    wait_until(lambda: "upstream_state:unreachable" in client.call("INFO").decode(), what="an unreachable upstream")
    for _ in range(5):
        reply = client.ask("GET", "k")
        expect_true(isinstance(reply, ReplyError) or reply == b"new", f"older than what was told: {reply!r}")
        time.sleep(0.02)


for _name, (_command, _value_of) in READERS.items():
    test(f"GET pipelined behind {_name} never reads backwards")(
        lambda t, command=_command, value_of=_value_of: pipelined(t, command, value_of))
test("GET pipelined behind a module's command never reads backwards")(lambda t: pipelined(
    t, ("undeclared.get", "declared", "k"), lambda reply: reply, redis_with_module(t)))
LOOKERS = {
    **{name: READERS[name] for name in ("SORT", "SORT_RO")},
    "EVAL_RO with its key declared": (("EVAL_RO", SCRIPT, 1, "k"), lambda reply: reply),
}
for _name, (_command, _value_of) in LOOKERS.items():
    test(f"what {_name} has told of a key is not taken back while the upstream is unreachable")(
        lambda t, command=_command, value_of=_value_of: unreachable(t, command, value_of))
