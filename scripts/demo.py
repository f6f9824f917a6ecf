"""demo — what scripts/run shows: an upstream, a sidecar in front of it, and the way of some requests, live.

Starts a redis-server (unless --upstream names one) and ferrite, plays the demonstration with redis-cli, prints where
things listen and stays until Ctrl-C, then stops what it started.
"""

import argparse
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "Tests" / "harness"))

import servers  # noqa: E402
from resp import Client, Closed, ReplyError  # noqa: E402

SEEDED_USERS = 5000
PREFIX = "ferrite-demo:"
IS_TTY = sys.stdout.isatty()


def bold(text):
    return f"\x1b[1m{text}\x1b[0m" if IS_TTY else text


def dim(text):
    return f"\x1b[2m{text}\x1b[0m" if IS_TTY else text


def say(text=""):
    print(text, flush=True)


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))  # who has it on any address is in the way of the metrics page
        except OSError:
            return False
        return True


def usual_or_free(port, what):
    if is_free(port):
        return port
    chosen = servers.free_port()
    say(dim(f"    port {port} is taken; {what} listens on {chosen} instead"))
    return chosen


def microseconds(client, *command):
    began = time.perf_counter_ns()
    client.call(*command)
    return (time.perf_counter_ns() - began) / 1000


def run(*arguments):
    return subprocess.run(arguments, capture_output=True, text=True, timeout=10)


def redis_cli(port, *words, host=servers.HOST):
    """Runs a real redis-cli and shows what was typed and what it said."""
    shown = " ".join(f'"{word}"' if " " in word else word for word in words)
    answer = run("redis-cli", "-h", host, "-p", str(port), *words)
    text = (answer.stdout + answer.stderr).rstrip("\n")
    return f"$ redis-cli -p {port} {shown}", text or "(empty)"


class Demonstration:
    def __init__(self, sidecar, upstream, own_upstream):
        self.sidecar, self.upstream, self.own_upstream = sidecar, upstream, own_upstream
        self.key = f"{PREFIX}greeting"

    def show(self, port, *words, note="", host=servers.HOST):
        typed, answer = redis_cli(port, *words, host=host)
        say(f"     {typed:<58} {bold(answer)}{'   ' + dim(note) if note else ''}")
        return answer

    def seed(self):
        if not self.own_upstream:
            return
        with Client(self.upstream) as client:
            for first in range(0, SEEDED_USERS, 1000):
                client.pipeline([("SET", f"user:{n}", '{"id": %d, "name": "user %d"}' % (n, n))
                                 for n in range(first, first + 1000)])
        say(dim(f"    seeded {SEEDED_USERS} keys, user:0 to user:{SEEDED_USERS - 1}"))

    def latencies(self):
        """Median microseconds of misses and of hits, as one client sees them."""
        keys = [f"user:{n}" for n in range(100, 400)] if self.own_upstream else [self.key]
        with self.sidecar.client() as client:
            misses = [microseconds(client, "GET", key) for key in keys]
            hits = [microseconds(client, "GET", key) for key in keys]
        return statistics.median(misses), statistics.median(hits)

    def seen_after(self, value):
        """Milliseconds until the sidecar answers a value that was written behind its back."""
        began = time.perf_counter()
        with self.sidecar.client() as client:
            while client.call("GET", self.key) != value:
                if time.perf_counter() - began > 5:
                    return None
        return (time.perf_counter() - began) * 1000

    def run(self):
        port = self.sidecar.port
        host, upstream_port = self.upstream
        with Client(self.upstream) as client:
            client.call("SET", self.key, "hello", "EX", 600)
        say(f"\n  {bold('1. A miss')} is fetched from the upstream, {bold('a hit')} comes from the sidecar's memory")
        self.show(port, "GET", self.key, note="miss: asked upstream, kept")
        self.show(port, "GET", self.key, note="hit: from the sidecar's memory")
        miss, hit = self.latencies()
        say(f"     median round trip of one client: miss {bold(f'{miss:.0f} us')}, hit {bold(f'{hit:.0f} us')}")
        say(f"\n  {bold('2. A write through the sidecar')} is on both sides at once")
        self.show(port, "SET", self.key, "from the app")
        self.show(port, "GET", self.key, note="through the sidecar")
        self.show(upstream_port, "GET", self.key, host=host, note="directly from the upstream")
        say(f"\n  {bold('3. A write past the sidecar')} is announced to it, and seen")
        self.show(upstream_port, "SET", self.key, "from elsewhere", host=host, note="directly on the upstream")
        passed = self.seen_after(b"from elsewhere")
        self.show(port, "GET", self.key, note="through the sidecar")
        if passed is None:
            say("     not seen within 5 s: the upstream does not announce changes (see the log above)")
        else:
            say(f"     the first read that asked for it had it ({passed:.1f} ms after the write)")
        say(f"\n  {bold('4. Everything else')} works as against any Redis")
        self.show(port, "LPUSH", f"{PREFIX}jobs", "b", "a")
        self.show(port, "EVAL", "return redis.call('lrange', KEYS[1], 0, -1)[1]", "1", f"{PREFIX}jobs")
        with Client(self.upstream) as client:
            client.call("DEL", self.key, f"{PREFIX}jobs")
        self.numbers()

    def numbers(self):
        say(f"\n  {bold('5. The numbers')} (ferritectl stats, the metrics page's /stats)")
        ctl = servers.ferritectl_binary()
        try:
            answer = run(ctl, "stats", "--url", f"http://{servers.HOST}:{self.sidecar.metrics_port}")
            text = answer.stdout if answer.returncode == 0 else self.sidecar.page("/stats")[1]
        except (OSError, subprocess.TimeoutExpired):
            text = self.sidecar.page("/stats")[1]
        for line in text.rstrip("\n").splitlines()[:40]:
            say(f"     {line}")


def parse_upstream(text):
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        sys.exit(f'--upstream "{text}": expected HOST:PORT, for example 127.0.0.1:6379')
    return host.strip("[]"), int(port)


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/run")
    parser.add_argument("--upstream", type=parse_upstream)
    parser.add_argument("--port", type=int)
    parser.add_argument("--metrics-port", type=int)
    parser.add_argument("--network", default="auto")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--once", action="store_true")
    return parser.parse_args()


def check_upstream(address):
    try:
        with Client(address, timeout=3.0) as client:
            client.ask("PING")
    except (OSError, Closed, TimeoutError) as error:
        sys.exit(f"No Redis answers at {address[0]}:{address[1]} ({error}).\n"
                 "Without --upstream, scripts/run starts one.")


def main():
    options = arguments()
    say(bold("starting"))
    if options.upstream:
        upstream = options.upstream
        check_upstream(upstream)
    else:
        upstream = servers.Redis().address
    port = options.port or usual_or_free(6379, "the sidecar")
    metrics_port = options.metrics_port or usual_or_free(9091, "its metrics page")
    flags = [word for pair in options.set for word in ("--set", pair)]
    sidecar = servers.Sidecar(upstream, *flags, network=options.network, port=port, metrics_port=metrics_port)
    demonstration = Demonstration(sidecar, upstream, own_upstream=not options.upstream)
    demonstration.seed()
    for line in sidecar.log(5).splitlines():
        say(dim(f"    {line}"))
    try:
        demonstration.run()
    except (OSError, Closed, TimeoutError, ReplyError) as error:
        say(f"\nThe demonstration stopped: {error}\n{sidecar.log()}")
        sys.exit(1)
    say(f"\n{bold('listening')}")
    say(f"    sidecar    {servers.HOST}:{port}          redis-cli -p {port}")
    say(f"    metrics    http://{servers.HOST}:{metrics_port}/metrics  /stats  /healthz  /readyz")
    say(f"    upstream   {servers.spelled(upstream)}          redis-cli -h {upstream[0]} -p {upstream[1]}")
    say(f"    log        {sidecar.log_path}")
    if options.once:
        return stop(sidecar)
    say(f"\n{bold('Ctrl-C')} stops all of it.")
    while sidecar.is_alive():
        time.sleep(0.2)
    sys.exit(f"ferrite ended with {sidecar.child.returncode}; its last words:\n{sidecar.log()}")


def stop(sidecar):
    code = sidecar.stop()
    say("stopped")
    return 0 if code == 0 else code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("\nstopping; clients that are connected have 5 seconds (Ctrl-C again does not wait)")
        try:
            servers.stop_gently()
        except KeyboardInterrupt:
            say("stopped at once")
        sys.exit(0)
    except RuntimeError as error:
        sys.exit(str(error))
