"""servers — starts the real processes that tests talk to: redis-server and ferrite, each on ports of its own.

Everything started is stopped by its pid: by stop(), at the exit of this process, and by the kernel if this process is
killed. FERRITE_BINARY names the ferrite to test (else .build/release/ferrite); FERRITE_NETWORK the engine; FERRITE_MODE
the mode of sidecars for which a test says none.
"""

import atexit
import ctypes
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from resp import Client, Closed, ReplyError

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
_running = []


def ferrite_binary():
    return os.environ.get("FERRITE_BINARY") or str(ROOT / ".build" / "release" / "ferrite")


def ferritectl_binary():
    return os.environ.get("FERRITECTL_BINARY") or str(Path(ferrite_binary()).with_name("ferritectl"))


def network_engines():
    """The engines to test: those named by FERRITE_NETWORK, else both that the kernel lets us have."""
    named = os.environ.get("FERRITE_NETWORK")
    if named:
        return named.split(",")
    return ["io_uring", "epoll"] if io_uring_refusal() is None else ["epoll"]


def io_uring_refusal():
    """None if the kernel lets this process make a ring, else the errno's text. Asks the kernel, not ferrite."""
    parameters = (ctypes.c_ubyte * 120)()
    ring = _libc.syscall(425, 8, parameters)
    if ring < 0:
        return os.strerror(ctypes.get_errno())
    os.close(ring)
    return None


_PORTS = range(12000, 32000)
_port_numbers = itertools.count(random.randrange(len(_PORTS)))


def share_ports(part, parts):
    """Of the ports only those of this part, where others of as many take the rest at the same time."""
    global _PORTS
    size = len(_PORTS) // parts
    _PORTS = _PORTS[part * size:(part + 1) * size]


def free_port():
    """A port nobody listens on, below the range the kernel gives to outgoing connections, and never the same twice: it
    is some time until who asked listens on it."""
    while True:
        port = _PORTS[next(_port_numbers) % len(_PORTS)]
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port


def wait_until(condition, timeout=5.0, every=0.005, what="the condition"):
    """Polls until condition() is true and returns what it gave; an exception of the network counts as not yet."""
    deadline = time.monotonic() + timeout
    last = None
    while True:
        try:
            value = condition()
            if value:
                return value
        except (OSError, Closed, TimeoutError, ReplyError) as error:
            last = error
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come true within {timeout} s" + (f" (last: {last})" if last else ""))
        time.sleep(every)


def _die_with_parent():
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A child with its output in a file. Subclasses say how it is started and when it is ready."""

    name = "process"

    def __init__(self, arguments, env=None, folder=None):
        self.folder = folder or tempfile.mkdtemp(prefix="ferrite-test-")
        self.log_path = os.path.join(self.folder, "log")
        self.arguments = [str(argument) for argument in arguments]
        self.env = env
        self.child = None
        self.spawn()

    def spawn(self):
        log = open(self.log_path, "ab")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("FERRITE_SIDECAR_")}
        environment.update(self.env or {})
        self.child = subprocess.Popen(
            self.arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder,
            env=environment, preexec_fn=_die_with_parent, start_new_session=True)
        log.close()
        _running.append(self)

    @property
    def pid(self):
        return self.child.pid

    def log(self, lines=40):
        with open(self.log_path, errors="replace") as log:
            return "".join(log.readlines()[-lines:])

    def is_alive(self):
        return self.child.poll() is None

    def must_live(self):
        if not self.is_alive():
            raise RuntimeError(f"{self.name} ended with {self.child.returncode}; its last words:\n{self.log()}")

    def wait_ready(self, ready, timeout):
        deadline = time.monotonic() + timeout
        while True:
            self.must_live()
            try:
                if ready():
                    return
            except (OSError, Closed, TimeoutError, ReplyError):
                pass
            if time.monotonic() > deadline:
                words = self.log()
                self.kill()
                raise RuntimeError(f"{self.name} was not ready within {timeout} s; its last words:\n{words}")
            time.sleep(0.002)

    def signal(self, number):
        self.child.send_signal(number)

    def freeze(self):
        self.signal(signal.SIGSTOP)

    def thaw(self):
        self.signal(signal.SIGCONT)

    def stop(self, timeout=10.0):
        """SIGTERM, then SIGKILL; returns the exit code (negative: the signal that ended it)."""
        if self.is_alive():
            self.thaw()
            self.signal(signal.SIGTERM)
            try:
                self.child.wait(timeout)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        return self.gone()

    def kill(self):
        if self.is_alive():
            self.child.kill()
            self.child.wait()
        return self.gone()

    def gone(self):
        if self in _running:
            _running.remove(self)
        return self.child.returncode

    def forget(self):
        """Removes its folder, log included; after stop()."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        self.forget()


class Redis(Process):
    """A real redis-server, empty, without persistence."""

    name = "redis-server"

    def __init__(self, *options, port=None, password=None):
        self.port = port or free_port()
        self.password = password
        arguments = ["redis-server", "--port", self.port, "--bind", HOST, "--save", "", "--appendonly", "no",
                     "--enable-debug-command", "yes", "--loglevel", "notice", *options]
        if password:
            arguments += ["--requirepass", password]
        super().__init__(arguments)
        self.wait_until_up()

    def wait_until_up(self):
        def answers():
            with Client(self.address, timeout=1.0) as client:
                return str(client.ask("PING")) == "PONG" or self.password
        self.wait_ready(answers, 10.0)

    @property
    def address(self):
        return (HOST, self.port)

    def client(self, **options):
        client = Client(self.address, **options)
        if self.password:
            client.call("AUTH", self.password)
        return client

    def restart(self):
        """Again on the same port, after kill() or stop()."""
        self.spawn()
        self.wait_until_up()

    def calls_of(self, command):
        """How often the upstream has carried out a command, by its own count."""
        with self.client() as client:
            for line in client.call("INFO", "commandstats").decode().splitlines():
                if line.startswith(f"cmdstat_{command.lower()}:"):
                    return int(line.split("calls=")[1].split(",")[0])
        return 0


def spelled(address):
    """HOST:PORT, with an IPv6 host in brackets; a text is spelled already."""
    if isinstance(address, str):
        return address
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class TLSRedis(Redis):
    """A redis-server that speaks TLS on a port of its own, and plainly on the other. `folder` holds its tls.crt and
    tls.key; `trusts`: who must have signed what clients show, None: they show nothing."""

    def __init__(self, folder, *options, trusts=None, **named):
        self.tls_port = free_port()
        super().__init__("--tls-port", self.tls_port, "--tls-cert-file", f"{folder}/tls.crt",
                         "--tls-key-file", f"{folder}/tls.key", "--tls-auth-clients", "yes" if trusts else "no",
                         *(["--tls-ca-cert-file", trusts] if trusts else []), *options, **named)

    def url(self, host=HOST):
        return f"rediss://{host}:{self.tls_port}"


class Sidecar(Process):
    """A real ferrite in front of an upstream."""

    name = "ferrite"

    def __init__(self, upstream, *options, network=None, port=None, metrics_port=None, unix=False, settings=None,
                 env=None, wait=True, under=(), bind=HOST):
        """bind: None for the daemon's own default."""
        self.port = port or free_port()
        self.metrics_port = metrics_port or free_port()
        self.network = network or network_engines()[0]
        arguments = [*under, ferrite_binary(), "--sidecar", "--upstream", spelled(upstream), "--port", self.port,
                     "--metrics-port", self.metrics_port, "--network", self.network]
        if bind:
            arguments += ["--bind", bind]
        folder = tempfile.mkdtemp(prefix="ferrite-test-")
        self.unix_path = os.path.join(folder, "socket") if unix else None
        if unix:
            arguments += ["--unix-socket", self.unix_path]
        # A sanitizer's shadow memory is resident too: scripts/asan gives what a test does not limit itself more room.
        roomy = os.environ.get("FERRITE_LOCAL_MEMORY")
        mode = os.environ.get("FERRITE_MODE")
        given = {**({"local_memory": roomy} if roomy else {}), **({"mode": mode} if mode else {}), **(settings or {})}
        for key, value in given.items():
            arguments += ["--set", f"{key}={value}"]
        super().__init__([*arguments, *options], env, folder)
        if wait:
            self.wait_until_up()

    def wait_until_up(self, timeout=10.0):
        def answers():
            with Client(self.address, timeout=1.0) as client:
                return client.ask("PING") is not None
        self.wait_ready(answers, timeout)

    def wait_until_tracking(self, timeout=5.0):
        """Until a value read twice is served from the cache: the tracked link is up and trusted."""
        key = "ferrite-test:warm"
        with self.client() as client:
            def is_cached():
                before = self.metric("ferrite_keyspace_hits_total")
                client.call("SET", key, "v")
                client.ask("GET", key)
                client.ask("GET", key)
                return self.metric("ferrite_keyspace_hits_total") > before
            wait_until(is_cached, timeout, what="a hit")
            client.call("DEL", key)
        return self

    @property
    def address(self):
        return (HOST, self.port)

    def client(self, unix=False, **options):
        return Client(self.unix_path if unix else self.address, **options)

    def page(self, path):
        """(status, text) of a page of the metrics port."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.metrics_port}{path}", timeout=3) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self):
        """{name or name{labels}: value}."""
        values = {}
        for line in self.page("/metrics")[1].splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                values[name] = float(value)
        return values

    def metric(self, name):
        """The sum of a metric over its labels."""
        return sum(value for key, value in self.metrics().items() if key.split("{")[0] == name)


def stop_gently():
    """Ends all that runs with SIGTERM, the latest first."""
    for process in reversed(list(_running)):
        process.stop()
        process.forget()


def _stop_all():
    for process in list(_running):
        try:
            process.child.kill()
            process.child.wait(2)
        except OSError:
            pass
        shutil.rmtree(process.folder, ignore_errors=True)


def _stopped(number, _frame):
    raise SystemExit(128 + number)


atexit.register(_stop_all)
signal.signal(signal.SIGTERM, _stopped)
