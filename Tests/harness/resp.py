"""resp — a small RESP client for tests: what it sends and what it gets back is visible to the byte.

    client = Client(("127.0.0.1", 6379))
    client.call("SET", "k", "v")        -> Status("OK")
    client.send("GET", "k"); client.read()

Replies become: +x Status (a str), -x ReplyError (raised by call, returned by read), :x int, $x bytes, nil None,
*x list, %x dict (its keys as they come), ~x list, >x Push (a list), #x bool, ,x float, (x int, =x bytes.
"""

import re
import socket
import time


class Status(str):
    """A simple string."""


class ReplyError(Exception):
    """An error reply; str() is its whole line without the minus."""


class Push(list):
    """A RESP3 push."""


class Closed(Exception):
    """The peer has closed the connection."""


class Malformed(Exception):
    """What came is not RESP."""


def to_bytes(argument):
    if isinstance(argument, bytes):
        return argument
    return str(argument).encode()


def encode(*arguments):
    """A command as clients send it: an array of bulk strings."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        raw = to_bytes(argument)
        parts.append(b"$%d\r\n%s\r\n" % (len(raw), raw))
    return b"".join(parts)


AGGREGATES = b"*%~>|"
BULKS = b"$=!"


class Stream:
    """Bytes received so far, and a way to wait for more before a deadline."""

    def __init__(self, sock):
        self.socket = sock
        self.buffer = bytearray()

    def more(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no reply in time")
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(262144)
        except (socket.timeout, TimeoutError):
            raise TimeoutError("no reply in time") from None
        except OSError as error:
            raise Closed(str(error)) from None
        if not data:
            raise Closed("closed by peer")
        self.buffer += data

    def line(self, deadline):
        """The next line without CRLF."""
        searched = 0
        while True:
            end = self.buffer.find(b"\r\n", searched)
            if end >= 0:
                line = bytes(self.buffer[:end])
                del self.buffer[: end + 2]
                return line
            searched = max(0, len(self.buffer) - 1)
            self.more(deadline)

    def exactly(self, count, deadline):
        while len(self.buffer) < count:
            self.more(deadline)
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken

    def item(self, deadline):
        """One item as it stands on the wire: (header line, payload or None). Elements of an array are items too."""
        header = self.line(deadline)
        if header[:1] in (b"$", b"=", b"!") and re.fullmatch(rb"\d+", header[1:]):
            payload = self.exactly(int(header[1:]) + 2, deadline)
            if payload[-2:] != b"\r\n":
                raise Malformed("bulk of %s bytes not ended by CRLF" % header[1:].decode())
            return header, payload[:-2]
        return header, None

    def reply(self, deadline):
        """One complete reply as a Python value."""
        header, payload = self.item(deadline)
        kind, rest = header[:1], header[1:]
        if kind == b"+":
            return Status(rest.decode("utf-8", "replace"))
        if kind == b"-":
            return ReplyError(rest.decode("utf-8", "replace"))
        if kind in (b":", b"("):
            return int(rest)
        if kind == b",":
            return float(rest)
        if kind == b"#":
            return rest == b"t"
        if kind == b"_":
            return None
        if kind == b"$":
            return payload
        if kind == b"=":
            return payload[4:]
        if kind == b"!":
            return ReplyError(payload.decode("utf-8", "replace"))
        if kind in (b"*", b"~", b">"):
            if rest == b"-1":
                return None
            values = [self.reply(deadline) for _ in range(int(rest))]
            return Push(values) if kind == b">" else values
        if kind == b"%":
            pairs = [(self.reply(deadline), self.reply(deadline)) for _ in range(int(rest))]
            return {_hashable(key): value for key, value in pairs}
        if kind == b"|":
            for _ in range(2 * int(rest)):
                self.reply(deadline)
            return self.reply(deadline)
        raise Malformed("a reply cannot begin with %r" % header[:40])


def _hashable(value):
    return tuple(value) if isinstance(value, list) else value


def connect(address, timeout=5.0):
    """address is (host, port) or the path of a Unix socket."""
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(timeout)
        sock.connect(address)
    else:
        sock = socket.create_connection(address, timeout=timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Client:
    """One connection."""

    def __init__(self, address, timeout=5.0, protocol=None):
        self.timeout = timeout
        self.socket = connect(address, timeout)
        self.stream = Stream(self.socket)
        if protocol:
            self.call("HELLO", protocol)

    def send_raw(self, data):
        self.socket.settimeout(self.timeout)
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed(str(error)) from None

    def send(self, *arguments):
        self.send_raw(encode(*arguments))

    def read(self, timeout=None):
        """The next reply; an error reply is returned, not raised."""
        return self.stream.reply(time.monotonic() + (self.timeout if timeout is None else timeout))

    def call(self, *arguments, timeout=None):
        """Sends and waits; an error reply is raised."""
        self.send(*arguments)
        reply = self.read(timeout)
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def ask(self, *arguments, timeout=None):
        """Sends and waits; an error reply is returned."""
        self.send(*arguments)
        return self.read(timeout)

    def pipeline(self, commands, timeout=None):
        """Sends many in one write and returns their replies, errors among them."""
        self.send_raw(b"".join(encode(*command) for command in commands))
        return [self.read(timeout) for _ in commands]

    def is_closed(self, timeout=1.0):
        """True if the peer closes within the timeout; data that comes before it is an ordinary False."""
        try:
            self.stream.more(time.monotonic() + timeout)
        except Closed:
            return True
        except TimeoutError:
            return False
        return False

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
