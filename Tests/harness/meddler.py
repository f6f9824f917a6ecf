"""meddler — an upstream that misbehaves on command: a proxy in front of a real redis-server.

    meddler = Meddler(redis.address)
    meddler.greet = lambda connection: connection.sendall(b"garbage")   what happens at accept; True ends the connection
    meddler.alter = lambda data: data.replace(b"$1", b"$9")             changes what the upstream sends
    meddler.lag = 0.02                                                  tracked links hear the upstream this much later
    meddler.silence()                                                   tracked links carry nothing from now on
    meddler.drop_tracked()                                              the upstream ends them
    meddler.forget()                                                    the upstream loses them, nobody is told
    meddler.upstream = other.address                                    where new connections lead
    meddler.gate = Gate()                                               what others send waits until it is opened
    meddler.behave()                                                    an honest proxy again

`greet` and `alter` are looked at anew for each connection and each piece of data, `lag` for each piece.
"""

import queue
import socket
import struct
import threading
import time

from resp import connect

HOST = "127.0.0.1"


class Meddler:
    def __init__(self, upstream):
        self.upstream = upstream
        self.greet = None
        self.alter = None
        self.muted = False
        self.lag = 0
        self.gate = None
        self.accepted = 0
        self.pairs = set()
        self.tracked = set()
        self.lock = threading.Lock()
        self.listener = socket.create_server((HOST, 0), backlog=128)
        self.address = self.listener.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def behave(self):
        self.greet = self.alter = None
        self.lag = 0
        self.muted = False
        self.gate = None

    def drop_all(self, reset=False):
        """Closes every connection now; reset: by RST."""
        with self.lock:
            sockets = list(self.pairs)
            self.pairs.clear()
        for one in sockets:
            close(one, reset)

    def drop_tracked(self):
        """The upstream ends the tracked links."""
        for late in list(self.tracked):
            close(late.upstream)

    def silence(self):
        """The tracked links that there are carry nothing any more, in neither direction, and nobody is told."""
        for late in list(self.tracked):
            late.is_silent = True

    def forget(self):
        """Half-open: the upstream ends its side of the tracked links, and the other side hears of nothing."""
        for late in list(self.tracked):
            late.is_silent = late.is_half_open = True
            close(late.upstream)

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            with self.lock:
                self.pairs.add(connection)
            if self.greet and self.greet(connection):
                close(connection)
                return
            upstream = connect(self.upstream)
            upstream.settimeout(None)
        except OSError:
            close(connection)
            return
        with self.lock:
            self.pairs.add(upstream)
        late = Late(connection, upstream)
        threading.Thread(target=self._pump, args=(connection, upstream, late, False), daemon=True).start()
        self._pump(upstream, connection, late, True)

    def _pump(self, source, target, late, from_upstream):
        """Moves bytes until one side is gone; alter may return None to end the connection."""
        try:
            while True:
                data = source.recv(65536)
                if not data:
                    break
                if not from_upstream and b"TRACKING" in data:
                    self.tracked.add(late)
                    if self.lag:
                        late.begin()
                if late.is_silent:
                    continue
                gate = self.gate
                if gate and not from_upstream and late not in self.tracked:
                    gate.wait()
                if from_upstream and self.alter:
                    data = self.alter(data)
                    if data is None:
                        break
                if from_upstream and self.muted:
                    continue
                if from_upstream and late.is_used:
                    late.send(data, self.lag)
                    continue
                target.sendall(data)
        except OSError:
            pass
        if late.is_half_open and from_upstream:
            return
        with self.lock:
            self.pairs.discard(source)
            self.pairs.discard(target)
        close(source)
        close(target)
        self.tracked.discard(late)
        late.end()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        close(self.listener)
        self.drop_all()


class Gate:
    """Where requests wait, and where a test sees that one has come."""

    def __init__(self):
        self.reached = threading.Event()
        self.opened = threading.Event()

    def wait(self):
        self.reached.set()
        self.opened.wait(5)


class Late:
    """Sends pieces of data in order, each at its time."""

    def __init__(self, target, upstream):
        self.target = target
        self.upstream = upstream
        self.pieces = queue.SimpleQueue()
        self.is_used = False
        self.is_silent = False
        self.is_half_open = False

    def begin(self):
        self.is_used = True
        threading.Thread(target=self._run, daemon=True).start()

    def send(self, data, seconds):
        """An invalidation, and what is behind it, is late twice: a stream may be cut anywhere."""
        now = time.monotonic()
        push = data.find(b">2\r\n$10\r\ninvalidate")
        if push > 0:
            self.pieces.put((now + seconds, data[:push]))
            self.pieces.put((now + 2 * seconds, data[push:]))
        else:
            self.pieces.put((now + seconds, data))

    def end(self):
        self.pieces.put((0, None))

    def _run(self):
        while True:
            due, data = self.pieces.get()
            if data is None:
                return
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                self.target.sendall(data)
            except OSError:
                return


def close(sock, reset=False):
    try:
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    sock.close()
