"""runner — runs tests that start real servers. A test is a sentence and a function:

    @test("a write made directly on the upstream is seen")
    def _(t):
        redis = t.redis()
        sidecar = t.sidecar(redis)
        …

Each runs once on each network engine (t.network), the engines beside each other: tests wait more than they work. What t
starts is stopped after it; a ferrite that has died or that does not end with 0 fails the test. The last line printed is
"N passed, M failed".
"""

import argparse
import contextlib
import gc
import importlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import servers
from meddler import Meddler
from resp import ReplyError

END_TIMEOUT = 2.0
_tests = []


class Failure(Exception):
    """What was expected did not hold."""


class Skipped(Exception):
    """This machine cannot do what the test needs: counted neither as passed nor as failed."""


def test(sentence, once=False):
    """Registers a test; once: it does not depend on the network engine."""
    def register(function):
        _tests.append((sentence, function, once))
        return function
    return register


def expect(got, wanted, what=""):
    if got != wanted:
        raise Failure(f"{what + ': ' if what else ''}expected {_shown(wanted)}, got {_shown(got)}")


def expect_true(condition, what):
    if not condition:
        raise Failure(what)


def expect_error(reply, *words):
    """An error reply that holds all the words."""
    if not isinstance(reply, ReplyError):
        raise Failure(f"expected an error, got {_shown(reply)}")
    for word in words:
        if word not in str(reply):
            raise Failure(f"expected an error with {word!r}, got {str(reply)!r}")


def expect_below(value, limit, what):
    if not value < limit:
        raise Failure(f"{what}: {value} is not below {limit}")


def _shown(value):
    text = repr(value)
    return text if len(text) < 200 else f"{text[:100]}…{text[-60:]} ({len(text)} characters)"


class Context:
    """What a test may start."""

    def __init__(self, network):
        self.network = network
        self.sidecars = []
        self.stack = contextlib.ExitStack()
        self.clients = contextlib.ExitStack()
        self.notes = []
        self.skipped = None

    def note(self, text):
        """A figure worth showing beside the result."""
        self.notes.append(text)

    def redis(self, *options, **named):
        return self.stack.enter_context(servers.Redis(*options, **named))

    def sidecar(self, upstream, *options, **named):
        """upstream: a Redis, a Meddler, an address, or its text."""
        address = upstream if isinstance(upstream, (tuple, str)) else upstream.address
        sidecar = servers.Sidecar(address, *options, **{"network": self.network, **named})
        self.sidecars.append(sidecar)
        return sidecar

    def meddler(self, upstream):
        """upstream: a Redis, or an address."""
        return self.stack.enter_context(Meddler(upstream if isinstance(upstream, tuple) else upstream.address))

    def folder(self):
        """Empty, and gone after the test."""
        return self.stack.enter_context(tempfile.TemporaryDirectory(prefix="ferrite-test-"))

    def client(self, server, **options):
        return self.clients.enter_context(server.client(**options))

    def cache(self, client, direct, value, key="k"):
        """Has the sidecar of this client keep a copy of what the key holds upstream from here on."""
        direct.call("SET", key, value)
        for _ in range(2):
            expect(client.call("GET", key), value.encode())

    def threads(self, functions, timeout=60):
        """Runs functions at the same time and raises the first failure."""
        failures = []

        def guarded(function):
            try:
                function()
            except Exception as error:  # noqa: BLE001 - handed on to the test's thread
                failures.append(error)
        threads = [threading.Thread(target=guarded, args=(function,), daemon=True) for function in functions]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                raise Failure(f"a client was still waiting after {timeout} s")
        if failures:
            raise failures[0]

    def close(self):
        """Stops everything; raises if a ferrite did not live and end as it should."""
        troubles = []
        self.clients.close()
        gc.collect()  # client libraries leave connections to the collector
        for sidecar in self.sidecars:
            if sidecar.is_alive() or sidecar.child.returncode < 0:
                # A client library may keep a connection for the life of the process (redis-py's Lock does).
                connected = sidecar.is_alive() and sidecar.metric("ferrite_connections_active")
                began = time.monotonic()
                code = sidecar.stop(20.0)
                took = time.monotonic() - began
                if took > END_TIMEOUT and not connected:
                    troubles.append(f"ferrite took {took:.1f} s to end, though no client was connected")
                if code != 0:
                    troubles.append(f"ferrite ended with {code}; its last words:\n{sidecar.log()}")
        self.stack.close()
        for sidecar in self.sidecars:
            sidecar.forget()
        if troubles:
            raise Failure("\n".join(troubles))

    def logs(self):
        return "\n".join(f"ferrite's last words:\n{sidecar.log(15)}" for sidecar in self.sidecars)


def _run(sentence, function, network):
    """Runs a test; returns (seconds, notes, None or the story of its failure, None or why it was skipped)."""
    context = Context(network)
    began = time.monotonic()
    story = None
    try:
        function(context)
    except Skipped as skipped:
        context.skipped = str(skipped)
    except Failure as failure:
        place = traceback.extract_tb(failure.__traceback__)
        lines = [frame for frame in place if frame.filename != __file__]
        where = f"{os.path.relpath(lines[-1].filename, servers.ROOT)}:{lines[-1].lineno}: " if lines else ""
        story = f"{where}{failure}\n{context.logs()}"
    except Exception:  # noqa: BLE001 - any failure is a result
        story = f"{traceback.format_exc()}\n{context.logs()}"
    try:
        context.close()
    except Failure as failure:
        story = f"{story or ''}{failure}"
    except Exception:  # noqa: BLE001
        story = f"{story or ''}{traceback.format_exc()}"
    return time.monotonic() - began, context.notes, story, context.skipped


def main(folder, description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("words", nargs="*", help="run only tests whose sentence or file holds one of these")
    parser.add_argument("--network", help="io_uring, epoll, or both with a comma")
    parser.add_argument("--beside", action="store_true", help=argparse.SUPPRESS)  # the other engine runs the rest
    options = parser.parse_args()
    if options.network:
        os.environ["FERRITE_NETWORK"] = options.network
    sys.path.insert(0, folder)
    for name in sorted(os.listdir(folder)):
        if name.startswith("test_") and name.endswith(".py"):
            importlib.import_module(name[:-3])
    chosen = [(sentence, function, once) for sentence, function, once in _tests
              if not options.words or any(word in sentence or word in function.__module__ for word in options.words)]
    if not chosen:
        print("nothing to run")
        return 0
    passed = failed = 0
    network, *others = servers.network_engines()
    beside = [_Beside(engine, options.words) for engine in others]
    if others or options.beside:
        servers.share_ports(int(options.beside), 2)
    for sentence, function, once in chosen:
        if once and options.beside:
            continue
        seconds, notes, story, skipped = _run(sentence, function, network)
        where = "" if once else network
        extra = f"   [{'; '.join(notes)}]" if notes else ""
        label = f"{where:<8} {seconds:6.2f} s  {sentence}{extra}"
        if skipped and not story:
            sys.stdout.write(f"skipped {label}: {skipped}\n")
            sys.stdout.flush()
            continue
        passed, failed = passed + (not story), failed + bool(story)
        # In one piece: another engine's lines come between.
        sys.stdout.write(f"FAILED {label}\n{story}\n" if story else f"ok     {label}\n")
        sys.stdout.flush()
    for other in beside:
        passed, failed = passed + other.counts()[0], failed + other.counts()[1]
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


class _Beside:
    """The same tests on another engine, in a process of its own."""

    def __init__(self, network, words):
        self._child = subprocess.Popen(
            [sys.executable, "-u", sys.argv[0], *words, "--network", network, "--beside"], stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True)
        self._counts = None
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self._child.stdout:
            counted = re.fullmatch(r"(\d+) passed, (\d+) failed\n", line)
            if counted:
                self._counts = int(counted[1]), int(counted[2])
            else:
                sys.stdout.write(line)
                sys.stdout.flush()

    def counts(self):
        """How many have passed and failed; that it has ended without a count is a failure."""
        self._reader.join()
        self._child.wait()
        return self._counts or (0, 1)
