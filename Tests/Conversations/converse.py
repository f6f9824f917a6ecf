"""converse — plays conversations (Tests/Conversations/*.resp) against the real binaries; README.md there says how one
is written.

    scripts/converse                     all files, through ferrite, on both network engines
    scripts/converse --plain             against redis-server alone
    scripts/converse pubsub transaction  files whose name holds one of the words
    scripts/converse --network epoll --unix --verbose
"""

import argparse
import functools
import os
import re
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "harness"))

import servers  # noqa: E402
from certificates import Authority  # noqa: E402
from resp import Client, Closed, Malformed, Stream, connect, encode  # noqa: E402

REPLY_TIMEOUT = 3.0
END_TIMEOUT = 2.0
SHOWN_BYTES = 200
ESCAPES = {"r": "\r", "n": "\n", "t": "\t", '"': '"', "\\": "\\", "0": "\0"}


class BadFile(Exception):
    """The conversation cannot be understood."""


class Mismatch(Exception):
    def __init__(self, line, expected, got):
        super().__init__(f"expected {expected}\n     got {got}")
        self.line, self.expected, self.got = line, expected, got


# ---- notation ----------------------------------------------------------------------------------------------------


def unescape(text):
    """Bytes of a payload or raw line: escapes resolved, {x*3} repeated."""
    out = bytearray()
    position = 0
    while position < len(text):
        character = text[position]
        if character == "\\" and position + 1 < len(text):
            following = text[position + 1]
            if following == "x":
                out.append(int(text[position + 2:position + 4], 16))
                position += 4
            else:
                out += ESCAPES.get(following, following).encode()
                position += 2
            continue
        repeat = re.match(r"\{([^{}*]+)\*(\d+)\}", text[position:]) if character == "{" else None
        if repeat:
            out += repeat.group(1).encode() * int(repeat.group(2))
            position += repeat.end()
            continue
        out += character.encode()
        position += 1
    return bytes(out)


def words(text):
    """The words of a command line, as bytes."""
    found = []
    for match in re.finditer(r'"((?:[^"\\]|\\.)*)"|(\S+)', text):
        found.append(unescape(match.group(1) if match.group(1) is not None else match.group(2)))
    return found


def show(payload):
    """Bytes as notation shows them."""
    if re.fullmatch(rb"[ -\[\]-~]*", payload):
        return payload.decode("ascii")
    out = []
    for byte in payload:
        character = chr(byte)
        if character == "\\":
            out.append("\\\\")
        elif 32 <= byte < 127:
            out.append(character)
        else:
            out.append({"\r": "\\r", "\n": "\\n", "\t": "\\t"}.get(character, f"\\x{byte:02x}"))
    return "".join(out)


def item_text(header, payload):
    """An item of the wire in notation."""
    text = show(header)
    return text if payload is None else f"{text} {show(payload)}"


@functools.lru_cache(maxsize=64)
def expected_text(text):
    """The notation of a file's line, brought to the form of item_text; checks a bulk's length."""
    bulk = re.fullmatch(r"([$=!])(\d+) ?(.*)", text, re.S)
    if bulk:
        payload = unescape(bulk.group(3))
        if len(payload) != int(bulk.group(2)):
            raise BadFile(f"the payload has {len(payload)} bytes, not {bulk.group(2)}")
        return item_text((bulk.group(1) + bulk.group(2)).encode(), payload)
    return show(unescape(text))


def shorten(text):
    if len(text) <= SHOWN_BYTES:
        return text
    return f"{text[:SHOWN_BYTES // 2]} … {text[-SHOWN_BYTES // 2:]} ({len(text)} characters)"


# ---- a file ------------------------------------------------------------------------------------------------------


class Step:
    """One line with its number: kind is send, raw, expect, match, find, any, closed, nothing, close, sleep, within."""

    def __init__(self, line, kind, client="", text="", seconds=0.0):
        self.line, self.kind, self.client, self.text, self.seconds = line, kind, client, text, seconds


def seconds(text):
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s)", text.strip())
    if not match:
        raise BadFile(f"{text!r} is no duration, e.g. 50ms")
    return float(match.group(1)) * (0.001 if match.group(2) == "ms" else 1.0)


class Conversation:
    def __init__(self, path):
        self.path = path
        self.name = path.name
        self.steps = []
        self.only = None
        self.flags = []
        self.split = False
        self.title = None
        for number, line in enumerate(path.read_text().splitlines(), 1):
            try:
                self.read_line(number, line)
            except BadFile as error:
                raise BadFile(f"{path.name}:{number}: {error}") from None

    def read_line(self, number, line):
        if line.startswith("#"):
            self.title = self.title or line.lstrip("# ")
            return
        if not line.strip():
            return
        spoken = re.match(r"([a-z][a-z0-9_]*)?(>>|>|<~|<\?|<\*|<)(?: |$)(.*)", line, re.S)
        if spoken:
            client, sign, text = spoken.group(1) or "", spoken.group(2), spoken.group(3)
            return self.steps.append(self.spoken(number, client, sign, text))
        word, _, rest = line.partition(" ")
        if word == "sleep" or word == "within":
            self.steps.append(Step(number, word, seconds=seconds(rest)))
        elif word == "only" and rest in ("sidecar", "plain"):
            self.only = rest
        elif word == "sidecar":
            self.flags += rest.split()
            self.only = "sidecar"
        elif line == "split every":
            self.split = True
        elif line == "close" or rest == "close":
            self.steps.append(Step(number, "close", "" if line == "close" else word))
        else:
            raise BadFile(f"not understood: {line!r}")

    def spoken(self, number, client, sign, text):
        if sign == "<" and text == "closed":
            return Step(number, "closed", client)
        if sign == "<" and text.startswith("nothing"):
            return Step(number, "nothing", client, seconds=seconds(text[len("nothing"):]))
        if sign == "<" and "${" not in text:
            expected_text(text)
        kind = {">": "send", ">>": "raw", "<": "expect", "<~": "match", "<?": "find", "<*": "any"}[sign]
        return Step(number, kind, client, text)

    def writes(self):
        """Lengths of the writes of sidecar clients, as a replay will make them: for the positions of a cut."""
        lengths, last = [], None
        for step in self.steps:
            if step.kind in ("send", "raw") and step.client != "upstream":
                size = len(encode(*words(step.text))) if step.kind == "send" else len(unescape(step.text))
                if last == step.client:
                    lengths[-1] += size
                else:
                    lengths.append(size)
                last = step.client
            else:
                last = None
        return lengths


class Cut:
    """Where a replay cuts: at `offset` of write `index`; every byte on its own if index is None."""

    def __init__(self, index=None, offset=0):
        self.index, self.offset = index, offset

    def pieces(self, index, data):
        if self.index is None:
            return [data[i:i + 1] for i in range(len(data))]
        if self.index == index:
            return [data[:self.offset], data[self.offset:]]
        return [data]

    def __str__(self):
        return "byte by byte" if self.index is None else f"write {self.index + 1} cut after byte {self.offset}"


class Play:
    """One playing of a conversation."""

    def __init__(self, conversation, address, upstream, cut=None):
        self.conversation, self.address, self.upstream, self.cut = conversation, address, upstream, cut
        self.streams = {}
        self.variables = {}
        self.write_index = 0

    def stream(self, name):
        if name not in self.streams:
            address = self.upstream if name == "upstream" else self.address
            self.streams[name] = Stream(connect(address))
        return self.streams[name]

    def fill_in(self, text):
        return re.sub(r"\$\{(\w+)\}", lambda match: self.variables[match.group(1)], text)

    def run(self):
        steps = self.conversation.steps
        position = 0
        try:
            while position < len(steps):
                if steps[position].kind == "within":
                    position = self.within(position)
                elif steps[position].kind in ("send", "raw"):
                    position = self.write(position)
                else:
                    self.step(steps[position])
                    position += 1
        finally:
            for stream in self.streams.values():
                stream.socket.close()

    def within(self, position):
        """Repeats a question and its expectations until they fit."""
        steps = self.conversation.steps
        deadline = time.monotonic() + steps[position].seconds
        end = position + 2
        while end < len(steps) and steps[end].kind in ("expect", "match", "find", "any"):
            end += 1
        while True:
            self.write(position + 1)
            try:
                for index in range(position + 2, end):
                    self.step(steps[index])
                return end
            except Mismatch:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.005)
            client = steps[position + 1].client
            self.streams.pop(client).socket.close()

    def write(self, position):
        """Sends this and the following commands of the same client in one write; returns the next position."""
        steps = self.conversation.steps
        client = steps[position].client
        data = bytearray()
        while position < len(steps) and steps[position].kind in ("send", "raw") and steps[position].client == client:
            text = self.fill_in(steps[position].text)
            data += encode(*words(text)) if steps[position].kind == "send" else unescape(text)
            position += 1
        sock = self.stream(client).socket
        sock.settimeout(REPLY_TIMEOUT)
        pieces = [bytes(data)]
        if self.cut and client != "upstream":
            pieces = self.cut.pieces(self.write_index, bytes(data))
            self.write_index += 1
        for number, piece in enumerate(pieces):
            if number:
                time.sleep(0.0003)
            try:
                sock.sendall(piece)
            except OSError:
                break  # closed already; what was answered before that can still be read, and is what is expected
        return position

    def step(self, step):
        if step.kind == "sleep":
            return time.sleep(step.seconds)
        stream = self.stream(step.client)
        if step.kind == "close":
            stream.socket.close()
            del self.streams[step.client]
        elif step.kind == "closed":
            self.expect_closed(stream, step)
        elif step.kind == "nothing":
            self.expect_nothing(stream, step)
        elif step.kind == "any":
            self.expect_any(stream, step)
        else:
            self.expect_item(stream, step)

    def expect_item(self, stream, step):
        wanted = self.fill_in(step.text)
        got = self.hear(stream, step, wanted)
        if step.kind == "expect":
            expected = expected_text(wanted)
            if got != expected:
                raise Mismatch(step.line, shorten(expected), shorten(got))
            return
        match = re.fullmatch(wanted, got, re.S)
        while not match and step.kind == "find":
            got = self.hear(stream, step, wanted)
            match = re.fullmatch(wanted, got, re.S)
        if not match:
            raise Mismatch(step.line, f"to match {wanted}", shorten(got))
        self.variables.update(match.groupdict())

    def hear(self, stream, step, expected):
        try:
            return item_text(*stream.item(time.monotonic() + REPLY_TIMEOUT))
        except TimeoutError:
            rest = f", only {shorten(show(bytes(stream.buffer)))}" if stream.buffer else ""
            raise Mismatch(step.line, shorten(expected), f"nothing within {REPLY_TIMEOUT} s{rest}") from None
        except Closed:
            raise Mismatch(step.line, shorten(expected), "closed by peer") from None
        except Malformed as error:
            raise Mismatch(step.line, shorten(expected), str(error)) from None

    def expect_any(self, stream, step):
        try:
            stream.reply(time.monotonic() + REPLY_TIMEOUT)
        except (TimeoutError, Closed, Malformed) as error:
            raise Mismatch(step.line, "a whole reply", str(error)) from None

    def expect_closed(self, stream, step):
        try:
            if not stream.buffer:
                stream.more(time.monotonic() + REPLY_TIMEOUT)
        except Closed:
            return
        except TimeoutError:
            raise Mismatch(step.line, "closed", "still open") from None
        raise Mismatch(step.line, "closed", shorten(show(bytes(stream.buffer))))

    def expect_nothing(self, stream, step):
        try:
            if not stream.buffer:
                stream.more(time.monotonic() + step.seconds)
        except TimeoutError:
            return
        except Closed:
            raise Mismatch(step.line, "nothing", "closed by peer") from None
        raise Mismatch(step.line, "nothing", shorten(show(bytes(stream.buffer))))


# ---- the runner --------------------------------------------------------------------------------------------------


class Runner:
    def __init__(self, options):
        self.options = options
        self.passed = self.failed = 0
        self.folder = tempfile.TemporaryDirectory(prefix="ferrite-test-")
        # Bytes are compared here, not times: a busy machine may take longer than the default for the largest values.
        self.settings = {"read_timeout": "2s"}
        if options.tls:
            authority = Authority(f"{self.folder.name}/authority")
            authority.sign(f"{self.folder.name}/server", f"IP:{servers.HOST}")
            self.settings["tls_ca_cert_file"] = authority.path
            self.redis = servers.TLSRedis(f"{self.folder.name}/server")
            self.upstream = self.redis.url()
        else:
            self.redis = servers.Redis()
            self.upstream = self.redis.address

    def clean_upstream(self):
        with self.redis.client() as client:
            for command in (["FLUSHALL"], ["SCRIPT", "FLUSH"], ["FUNCTION", "FLUSH"], ["CONFIG", "RESETSTAT"]):
                client.call(*command)

    def play(self, conversation, address, cut=None):
        Play(conversation, address, self.redis.address, cut).run()

    def play_all(self, conversation, address):
        """Once, and once for each cut."""
        self.play(conversation, address)
        if not conversation.split:
            return
        cuts = [Cut()]
        for index, length in enumerate(conversation.writes()):
            cuts += [Cut(index, offset) for offset in range(1, length)]
        with Client(address) as client:
            for cut in cuts:
                client.call("FLUSHALL")
                try:
                    self.play(conversation, address, cut)
                except Mismatch as error:
                    raise Mismatch(error.line, error.expected, f"{error.got}\n     with {cut}") from None

    def one(self, conversation, network):
        """Plays a file against its servers; returns None or what went wrong."""
        self.clean_upstream()
        if network is None:
            return self.attempt(conversation, self.redis.address)
        flags, unix = conversation.flags, self.options.unix
        with servers.Sidecar(self.upstream, *flags, network=network, unix=unix, settings=self.settings) as sidecar:
            trouble = self.attempt(conversation, sidecar.unix_path or sidecar.address)
            began = time.monotonic()
            code = sidecar.stop(20.0)
            took = time.monotonic() - began
            if took > END_TIMEOUT:
                trouble = f"{trouble or ''}\n  ferrite took {took:.1f} s to end, though no client was connected"
            if code != 0:
                trouble = f"{trouble or ''}\n  ferrite ended with {code}; its last words:\n{sidecar.log()}"
            elif trouble and self.options.verbose:
                trouble += f"\n  ferrite's last words:\n{sidecar.log()}"
        return trouble

    def attempt(self, conversation, address):
        try:
            self.play_all(conversation, address)
        except Mismatch as error:
            return f"{conversation.path}:{error.line}: {error}"
        except (OSError, Closed, TimeoutError) as error:
            return f"{conversation.path}: {type(error).__name__}: {error}"
        return None

    def run(self, conversations, network):
        where = network or "plain redis-server"
        for conversation in conversations:
            if conversation.only == ("plain" if network else "sidecar"):
                continue
            begun = time.monotonic()
            try:
                trouble = self.one(conversation, network)
            except RuntimeError as error:
                trouble = str(error)
            label = f"{conversation.name:<28} {where:<9} {time.monotonic() - begun:6.2f} s"
            if trouble:
                self.failed += 1
                print(f"FAILED {label}\n{trouble}", flush=True)
            else:
                self.passed += 1
                print(f"ok     {label}", flush=True)


def main():
    parser = argparse.ArgumentParser(prog="scripts/converse", description="Plays Tests/Conversations/*.resp.")
    parser.add_argument("words", nargs="*", help="play only files whose name holds one of these")
    parser.add_argument("--plain", action="store_true", help="against redis-server alone")
    parser.add_argument("--network", help="io_uring, epoll, or both with a comma (default: what the kernel allows)")
    parser.add_argument("--unix", action="store_true", help="talk to the sidecar over its Unix socket")
    parser.add_argument("--tls", action="store_true", help="the sidecar talks to its upstream by TLS")
    parser.add_argument("--binary", help="the ferrite to play against (default: .build/release/ferrite)")
    parser.add_argument("--verbose", action="store_true", help="show the sidecar's log when a file fails")
    options = parser.parse_args()
    if options.binary:
        os.environ["FERRITE_BINARY"] = os.path.abspath(options.binary)
    if options.network:
        os.environ["FERRITE_NETWORK"] = options.network
    try:
        conversations = [Conversation(path) for path in sorted(HERE.glob("*.resp"))
                         if not options.words or any(word in path.name for word in options.words)]
    except BadFile as error:
        sys.exit(str(error))
    if not conversations:
        sys.exit("no conversation has such a name")
    if not options.plain and not os.access(servers.ferrite_binary(), os.X_OK):
        sys.exit(f"{servers.ferrite_binary()} is not there: build it with scripts/build")
    runner = Runner(options)
    for network in [None] if options.plain else servers.network_engines():
        runner.run(conversations, network)
    runner.redis.stop()
    print(f"{runner.passed} passed, {runner.failed} failed")
    return 1 if runner.failed else 0


if __name__ == "__main__":
    sys.exit(main())
