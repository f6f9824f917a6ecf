"""Losses: what is served, and what becomes of writes, when links fall silent or are cut under load."""

import threading
import time

from meddler import Gate
from resp import Closed, ReplyError, Status
from runner import expect, expect_below, expect_true, test
from servers import wait_until

KEYS = 20
# A PING each second, half a second for its answer (docs/coherence.md, rule 6).
SILENCE_SECONDS = 1.5


@test("while the tracked link carries nothing, nothing older than 1.5 s is served")
def _(t):
    redis = t.redis()
    meddler = t.meddler(redis)
    sidecar = t.sidecar(meddler).wait_until_tracking()
    done = threading.Event()
    written = [[time.monotonic()] for _ in range(KEYS)]
    seen = []
    writer = t.client(redis)
    for key in range(KEYS):
        writer.call("SET", f"k{key}", 0)

    def write():
        turn = 0
        while not done.is_set():
            key = turn % KEYS
            writer.call("SET", f"k{key}", len(written[key]))
            written[key].append(time.monotonic())
            turn += 1
            time.sleep(0.002)

    def read():
        client = t.client(sidecar)
        turn = 0
        while not done.is_set():
            key, sent = turn % KEYS, time.monotonic()
            reply = client.ask("GET", f"k{key}")
            if not isinstance(reply, ReplyError):
                seen.append((key, int(reply), sent))
            turn += 1

    def silence():
        time.sleep(1)
        meddler.silence()
        time.sleep(7)  # link_timeout is 5 s: it is given up, and another made
        done.set()

    t.threads([write, silence, read, read, read])
    ages = [sent - written[key][version + 1] for key, version, sent in seen if version + 1 < len(written[key])]
    last = max(sent for _, _, sent in seen)
    t.note(f"{len(seen)} reads, the oldest {max(ages, default=0):.2f} s")
    expect_below(max(ages, default=0), SILENCE_SECONDS + 0.25, "seconds that a value was old")
    expect_true(max(ages, default=0) > 0.3, "the silence had no effect")
    expect_true(done.is_set() and last > time.monotonic() - 2, "reads work again")
    expect_true(sidecar.metric("ferrite_sidecar_upstream_reconnects_total") >= 1, "the silent link was given up")


@test("INCR through a hundred cuts: never more than was sent, never less than was acknowledged")
def _(t):
    redis = t.redis()
    meddler = t.meddler(redis)
    sidecar = t.sidecar(meddler).wait_until_tracking()
    done = threading.Event()
    lock = threading.Lock()
    count = {"sent": 0, "acknowledged": 0, "refused": 0, "unknown": 0}

    def add(what):
        with lock:
            count[what] += 1

    def increment(pinned):
        client = None
        while not done.is_set():
            try:
                if client is None:
                    client = sidecar.client()
                    if pinned:
                        client.call("WATCH", "other")
                add("sent")
                reply = client.ask("INCR", "n")
                add("refused" if isinstance(reply, ReplyError) else "acknowledged")
            except (Closed, OSError, ReplyError):
                if client is not None:
                    client.close()
                client = None
                time.sleep(0.005)

    def cut():
        for turn in range(100):
            time.sleep(0.06)
            meddler.drop_all(reset=turn % 2 == 0)
        done.set()

    t.threads([cut] + [lambda pinned=pinned: increment(pinned) for pinned in (False, False, False, True)])
    reached = int(t.client(redis).call("GET", "n"))
    # What was refused has not been carried out: only what closed its client is unknown.
    most = count["sent"] - count["refused"]
    t.note(f"sent {count['sent']}, acknowledged {count['acknowledged']}, refused {count['refused']}, reached {reached}")
    expect_true(count["acknowledged"] <= reached <= most, f"{count}, the upstream has {reached}")
    expect_true(count["acknowledged"] > 100, f"too little was tried: {count}")


@test("a sidecar that stood still while its tracked link fell silent serves nothing older than 1.5 s when it goes on")
def _(t):
    redis = t.redis()
    meddler = t.meddler(redis)
    sidecar = t.sidecar(meddler, settings={"link_timeout": "1s"}).wait_until_tracking()
    client, direct = t.client(sidecar), t.client(redis)
    t.cache(client, direct, "old")
    sidecar.freeze()
    meddler.silence()
    direct.call("SET", "k", "new")
    time.sleep(SILENCE_SECONDS + 0.5)
    # This one lies in the socket when it goes on: it too was sent when the value was too old.
    client.send("GET", "k")
    sidecar.thaw()
    seen = [client.read()]
    until = time.monotonic() + 1
    while time.monotonic() < until:
        seen.append(client.ask("GET", "k"))
        time.sleep(0.002)
    t.note(f"{seen.count(b'old')} old reads of {len(seen)}")
    expect(seen.count(b"old"), 0, "reads of what was too old")
    wait_until(lambda: client.ask("GET", "k") == b"new", what="the new value, on another link")


def pinned_on_the_way(t, *command):
    """A pinned client's command that has not arrived yet, when a copy of k1 has been filled."""
    redis = t.redis()
    meddler = t.meddler(redis)
    sidecar = t.sidecar(meddler, settings={"read_timeout": "1s"}).wait_until_tracking()
    client, direct, pinned = t.client(sidecar), t.client(redis), t.client(sidecar)
    direct.call("MSET", "k1", "old1", "k2", "old2")
    direct.pipeline([("SELECT", 1), ("MSET", "k1", "new1", "k2", "new2"), ("SELECT", 0)])
    pinned.call("WATCH", "other")
    meddler.gate = Gate()
    pinned.send(*command)
    expect_true(meddler.gate.reached.wait(5), "the command did not come")
    for _ in range(2):
        expect(client.call("GET", "k1"), b"old1")
    return meddler, client, direct, pinned


@test("a pinned client's write that was carried out, and then silence: the copy from before it is not served")
def _(t):
    meddler, client, direct, _ = pinned_on_the_way(t, "SET", "k1", "new")
    meddler.muted = True
    meddler.silence()
    meddler.gate.opened.set()
    wait_until(lambda: direct.call("GET", "k1") == b"new", what="the write")
    time.sleep(SILENCE_SECONDS + 0.1)
    until = time.monotonic() + 3
    while time.monotonic() < until:
        expect_true(isinstance(client.ask("GET", "k1"), ReplyError), "the older value was served")


@test("the same of a write that is not answered by CLIENT REPLY OFF")
def _(t):
    meddler, client, direct, pinned = pinned_on_the_way(t, "CLIENT", "REPLY", "OFF")
    pinned.send("SET", "k1", "new")
    expect(client.call("MGET", "k1", "k2"), [b"old1", b"old2"])
    meddler.muted = True
    meddler.silence()
    time.sleep(SILENCE_SECONDS + 0.1)
    wait_until(lambda: client.ask("GET", "k2") == b"old2", 3, what="another key's copy")
    until = time.monotonic() + 1
    while time.monotonic() < until:
        expect_true(isinstance(client.ask("GET", "k1"), ReplyError), "the older value was served")


@test("SWAPDB on a pinned link: what was read while it was on its way is not served behind it")
def _(t):
    meddler, client, direct, pinned = pinned_on_the_way(t, "SWAPDB", 0, 1)
    answered = threading.Event()
    meddler.alter = lambda data: (data != b"+OK\r\n" or answered.wait(5)) and data
    meddler.gate.opened.set()
    wait_until(lambda: direct.call("GET", "k1") == b"new1", what="SWAPDB")
    expect(client.call("GET", "k2"), b"new2")
    expect(client.call("GET", "k1"), b"new1")
    expect(client.call("MGET", "k1", "k2"), [b"new1", b"new2"])
    answered.set()
    expect(pinned.read(), Status("OK"))
    expect(client.call("MGET", "k1", "k2"), [b"new1", b"new2"])
