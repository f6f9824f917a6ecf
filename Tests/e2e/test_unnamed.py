"""Keys that a command reads without naming them: what it has told of them is not contradicted by an older copy."""

from runner import test
from test_fence import ROUNDS, Rounds

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


def pipelined(t, command, value_of):
    """GET behind the command in one pipeline, while the announcement of the newer value is late."""
    rounds = Rounds(t)
    prepare(rounds.writer)
    for _ in range(ROUNDS):
        rounds.writer.call("SET", "k", rounds.begin())
        told, read = rounds.reader.pipeline([command, ("GET", "k")])
        rounds.old += int(read) < int(value_of(told))
    rounds.end()


for _name, (_command, _value_of) in READERS.items():
    test(f"GET pipelined behind {_name} never reads backwards")(
        lambda t, command=_command, value_of=_value_of: pipelined(t, command, value_of))
