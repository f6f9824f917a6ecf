"""servers: the processes under test, and a small RESP client to talk to them.

Ports are the kernel's choice. A server is pinned to one core and stopped by its own process id.
"""

import os
import re
import signal
import socket
import subprocess
import time
import urllib.request

import kernel

START_SECONDS_MAX = 10


class Failure(Exception):
    """A measurement that could not be made; the text is for people."""


class ErrorReply(Exception):
    """A reply beginning with '-'."""


class Client:
    """A blocking connection, RESP2. `target` as the load generator takes it: HOST:PORT or unix:PATH."""

    def __init__(self, target, timeout=10.0):
        if target.startswith("unix:"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(timeout)
            self.socket.connect(target[5:])
        else:
            host, port = target.rsplit(":", 1)
            self.socket = socket.create_connection((host, int(port)), timeout)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, *words):
        parts = [b"*%d\r\n" % len(words)]
        for word in words:
            word = word if isinstance(word, bytes) else str(word).encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(word), word))
        self.socket.sendall(b"".join(parts))

    def ask(self, *words):
        self.send(*words)
        return self.reply()

    def reply(self):
        line = self._take_line()
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise ErrorReply(rest.decode(errors="replace"))
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if int(rest) < 0 else self._take(int(rest) + 2)[:-2]
        if kind == b"*":
            return None if int(rest) < 0 else [self.reply() for _ in range(int(rest))]
        raise Failure(f"not a RESP2 reply: {line!r}")

    def _receive(self):
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionError("closed by the server")
        self.buffer += data

    def _take_line(self):
        while b"\r\n" not in self.buffer:
            self._receive()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def _take(self, length):
        while len(self.buffer) < length:
            self._receive()
        taken, self.buffer = self.buffer[:length], self.buffer[length:]
        return taken


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A running process that answers PING with PONG at `tcp`. Stopped at the end of its `with` block."""

    name = "server"

    def __init__(self, command, directory, core, port, unix=None):
        self.command = [str(word) for word in command]
        self.core = core
        self.tcp = f"127.0.0.1:{port}"
        self.unix = f"unix:{unix}" if unix else None
        self.log = os.path.join(directory, f"{self.name.replace(' ', '-')}-{port}.log")
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    @property
    def pid(self):
        return self.process.pid

    def start(self):
        """Returns the seconds until the first PONG."""
        with open(self.log, "ab") as log:
            begin = time.monotonic()
            try:
                self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                preexec_fn=lambda: os.sched_setaffinity(0, {self.core}))
            except FileNotFoundError as error:
                raise Failure(f"{self.command[0]} is not there ({error.strerror})") from error
        try:
            self._wait_for_pong(begin)
        except BaseException:  # the end of the script too: there is no `with` block yet that would stop the server
            self.stop()
            raise
        return time.monotonic() - begin

    def _wait_for_pong(self, begin):
        while True:
            try:
                with Client(self.tcp) as client:
                    if client.ask("PING") == b"PONG":
                        return
            except (ErrorReply, OSError):
                pass
            if self.process.poll() is not None or time.monotonic() - begin > START_SECONDS_MAX:
                raise Failure(f"{self.name} did not start: {' '.join(self.command)}\n{self.log_tail()}")
            time.sleep(0.0005)

    def stop(self):
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(8)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self.process = None

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def log_tail(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-10:])

    def cpu_ns(self):
        return kernel.cpu_ns(self.pid)

    def target(self, transport):
        return self.unix if transport == "unix" else self.tcp


class Redis(Server):
    name = "redis-server"

    def __init__(self, directory, core, *options):
        port = free_port()
        unix = os.path.join(directory, f"redis-{port}.sock")
        super().__init__(["redis-server", "--port", port, "--bind", "127.0.0.1", "--unixsocket", unix, "--save", "",
                          "--appendonly", "no", "--dir", directory, *options], directory, core, port, unix)

    def calls(self, *commands):
        """How often commands were called since the server's start."""
        with Client(self.tcp) as client:
            text = client.ask("INFO", "commandstats").decode()
        return sum(int(count) for name, count in re.findall(r"cmdstat_(\S+?):calls=(\d+)", text) if name in commands)


class TLSRedis(Redis):
    """Speaks TLS on `tls_port` too. `folder` holds its tls.crt and tls.key; who shows a certificate shows one by
    `authority`."""

    def __init__(self, directory, core, folder, authority):
        self.tls_port = free_port()
        super().__init__(directory, core, "--tls-port", self.tls_port, "--tls-cert-file", f"{folder}/tls.crt",
                         "--tls-key-file", f"{folder}/tls.key", "--tls-ca-cert-file", authority,
                         "--tls-auth-clients", "optional")


class Nutcracker(Server):
    name = "nutcracker"

    def __init__(self, directory, core, upstream):
        port, stats_port = free_port(), free_port()
        unix = None
        config = os.path.join(directory, f"nutcracker-{port}.yml")
        with open(config, "w", encoding="ascii") as file:
            file.write(f"bench:\n  listen: 127.0.0.1:{port}\n  redis: true\n  preconnect: true\n"
                       f"  auto_eject_hosts: false\n  servers:\n   - {upstream.tcp}:1\n")
        super().__init__(["nutcracker", "-c", config, "-s", stats_port], directory, core, port, unix)


class Ferrite(Server):
    name = "ferrite"

    def __init__(self, binary, directory, core, upstream, network="auto", settings=None):
        port, self.metrics_port = free_port(), free_port()
        unix = os.path.join(directory, f"ferrite-{port}.sock")
        command = [binary, "--sidecar", "--upstream", upstream.tcp, "--port", port, "--unix-socket", unix,
                   "--metrics-port", self.metrics_port, "--network", network]
        for key, value in {"prefetch.enabled": "false", **(settings or {})}.items():
            command += ["--set", f"{key}={value}"]
        super().__init__(command, directory, core, port, unix)

    def metrics(self):
        """The Prometheus page as a dictionary of name and labels to value."""
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            text = answer.read().decode()
        values = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                values[name] = float(value)
        return values

    def owners(self):
        """Bytes of the budget by owner, as the metrics page tells."""
        found = {}
        for name, value in self.metrics().items():
            match = re.fullmatch(r'ferrite_sidecar_memory_bytes\{owner="(\w+)"\}', name)
            if match:
                found[match.group(1)] = int(value)
        return found
