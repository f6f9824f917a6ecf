"""redis-cli and redis-benchmark, as people use them."""

import subprocess

import servers
from runner import Failure, expect, expect_true, test


def tool(*arguments, stdin=None, timeout=120):
    words = [str(argument) for argument in arguments]
    result = subprocess.run(words, capture_output=True, text=True, input=stdin or "", timeout=timeout)
    said = result.stdout + result.stderr
    if result.returncode != 0:
        raise Failure(f"{arguments[0]} ended with {result.returncode}: {said[-1000:]}")
    return said


def ready(t, **options):
    return t.sidecar(t.redis(), **options).wait_until_tracking()


@test("redis-cli: single commands, RESP3, a script on its input, --scan, --bigkeys, --pipe")
def _(t):
    sidecar = ready(t)

    def cli(*words, stdin=None):
        return tool("redis-cli", "-h", servers.HOST, "-p", sidecar.port, *words, stdin=stdin)
    expect(cli("SET", "k", "hello world"), "OK\n")
    expect(cli("GET", "k"), "hello world\n")
    expect(cli("-3", "HSET", "h", "f", "v"), "1\n")
    expect(cli("-3", "HGETALL", "h"), "f v\n")
    expect(cli("-n", "2", "DBSIZE"), "0\n")
    expect(cli(stdin="SET a 1\nINCR a\nGET a\nMULTI\nINCR a\nEXEC\n"), "OK\n2\n2\nOK\nQUEUED\n3\n")
    expect(sorted(cli("--scan").split()), ["a", "h", "k"])
    expect_true("Biggest string" in cli("--bigkeys"), "--bigkeys found nothing")
    piped = "".join(f"*3\r\n$3\r\nSET\r\n${len(f'p{n}')}\r\np{n}\r\n$1\r\nx\r\n" for n in range(5000))
    expect_true("errors: 0, replies: 5000" in cli("--pipe", stdin=piped), "--pipe")
    expect(cli("GET", "p4999"), "x\n")
    expect_true("# Sidecar" in cli("INFO"), "INFO has no # Sidecar")
    expect(cli("--eval", "/dev/stdin", "k", ",", "a", stdin="return {KEYS[1], ARGV[1]}"), "k\na\n")


@test("redis-benchmark's whole list runs clean")
def _(t):
    sidecar = ready(t)
    for flags in (("-P", 1, "-n", 2000), ("-P", 16, "-n", 20000)):
        said = tool("redis-benchmark", "-h", servers.HOST, "-p", sidecar.port, "-q", "-r", 1000, "-c", 50, *flags)
        expect_true("ERR" not in said and "rror" not in said, said[-500:])
        expect_true("MSET" in said and "LRANGE_600" in said, "the list is not whole")


@test("redis-benchmark over the Unix socket")
def _(t):
    sidecar = ready(t, unix=True)
    said = tool("redis-benchmark", "-s", sidecar.unix_path, "-q", "-n", 20000, "-r", 1000, "-d", 64, "-t", "get,set")
    expect_true("ERR" not in said and "rror" not in said, said[-500:])
