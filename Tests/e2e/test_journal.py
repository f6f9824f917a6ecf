"""The journal: acknowledged writes that survive the process."""

import os
import random
import resource
import shutil
import subprocess
import sys
import threading
import time

from resp import Closed, Status
from runner import expect, expect_below, expect_error, expect_true, test
from servers import wait_until


def journaled(t, upstream, folder, fsync="everysec", **settings):
    return t.sidecar(upstream, settings={
        "mode": "write-behind", "journal": folder, "journal_fsync": fsync, "drain_timeout": "1s", **settings})


def folder_of(redis):
    return os.path.join(redis.folder, "journal")


def waiting(sidecar):
    return sidecar.metric("ferrite_sidecar_write_behind_queued")


def is_empty(sidecar):
    return lambda: waiting(sidecar) == 0


def wait_for_line(sidecar, words):
    """The log is written a moment later than what it tells."""
    wait_until(lambda: words in sidecar.log(), what=f"\"{words}\" in the log")


def again(sidecar):
    """The next process, on the same ports."""
    sidecar.spawn()
    sidecar.wait_until_up()
    return sidecar


@test("journal: what was acknowledged when the process died is read back from the next one, and sent by it")
def _(t):
    redis = t.redis()
    sidecar = journaled(t, redis, folder_of(redis)).wait_until_tracking()
    redis.freeze()
    with t.client(sidecar) as client:
        client.pipeline([("SET", f"k{n}", n) for n in range(5_000)])
        client.call("SETEX", "brief", "100", "v")
        client.call("PSETEX", "over", "1", "v")
        client.pipeline([("SET", f"k{n}", f"again {n}") for n in range(0, 5_000, 2)])
    sidecar.kill()
    again(sidecar)
    with t.client(sidecar) as client:
        expect(client.call("MGET", "k1", "k2", "brief"), [b"1", b"again 2", b"v"])
        wait_for_line(sidecar, "writes that were acknowledged before the start are in the journal")
    redis.thaw()
    wait_until(is_empty(sidecar), 10, what="an empty queue")
    direct = t.client(redis)
    got = direct.call("MGET", *[f"k{n}" for n in range(5_000)])
    expect(got, [b"%d" % n if n % 2 else b"again %d" % n for n in range(5_000)])
    expect_true(95 < direct.call("TTL", "brief") <= 100, "the time to live is another")
    expect(direct.call("EXISTS", "over"), 0)
    # Some were written again when they were on their way, which may have come or not.
    expect_true(5_002 <= sidecar.metric("ferrite_sidecar_journal_restored_total") < 7_502, "another number restored")


@test("journal: what the upstream has confirmed is not sent again, whenever the process dies")
def _(t):
    redis = t.redis()
    sidecar = journaled(t, redis, folder_of(redis)).wait_until_tracking()
    direct = t.client(redis)
    for n in range(15):
        with t.client(sidecar) as client:
            client.pipeline([("SET", f"a{n}-{i}", i) for i in range(100)])
            # What waits for a write waits until the journal knows of its confirmation: neither comes back.
            expect(client.call("DEL", f"a{n}-7"), 1)
            expect(client.call("INCR", f"a{n}-8"), 9)
            expect(client.call("EVAL", "return redis.call('APPEND', KEYS[1], 'x')", "1", f"a{n}-9"), 2)
        sidecar.kill()
        again(sidecar)
        wait_until(is_empty(sidecar), 10, what="an empty queue")
        expect(direct.call("MGET", f"a{n}-6", f"a{n}-7", f"a{n}-8", f"a{n}-9"), [b"6", None, b"9", b"9x"])
    # What others write behind it stays.
    with t.client(sidecar) as client:
        client.call("SET", "k", "ours")
        wait_until(is_empty(sidecar), what="an empty queue")
        client.call("RPUSH", "list", "x")
    direct.call("SET", "k", "theirs")
    sidecar.kill()
    again(sidecar)
    wait_until(is_empty(sidecar), what="an empty queue")
    expect(direct.call("GET", "k"), b"theirs")


@test("journal: a torn end is cut and told of, whatever is left of it")
def _(t):
    redis = t.redis()
    folder = folder_of(redis)
    sidecar = journaled(t, redis, folder).wait_until_tracking()
    redis.freeze()
    with t.client(sidecar) as client:
        client.call("SET", "k", "v")
    sidecar.kill()
    last = os.path.join(folder, sorted(os.listdir(folder))[-1])
    with open(last, "ab") as file:
        file.write(os.urandom(100))
    again(sidecar)
    wait_for_line(sidecar, "the journal's last 100 bytes were not written whole")
    redis.thaw()
    wait_until(is_empty(sidecar), what="an empty queue")
    expect(t.client(redis).call("GET", "k"), b"v")


@test("journal: damage in its last file takes what is damaged and no more, and is told as what it is", once=True)
def _(t):
    redis = t.redis()
    for offset in 18, 2_000:
        folder = folder_of(redis) + str(offset)
        sidecar = journaled(t, redis, folder)
        wait_until(lambda: sidecar.metric("ferrite_sidecar_upstream_up") == 1, what="the upstream is there")
        redis.freeze()
        with t.client(sidecar) as client:
            for n in range(100):
                client.call("SET", f"k{n}", "v")
        sidecar.kill()
        path = os.path.join(folder, "0000000001.journal")
        with open(path, "r+b") as file:
            file.seek(offset)
            byte = file.read(1)
            file.seek(offset)
            file.write(bytes([byte[0] ^ 0x10]))
        again(sidecar)
        wait_for_line(sidecar, f"{path} is damaged: acknowledged writes may be missing")
        expect(sidecar.metric("ferrite_sidecar_journal_restored_total"), 99.0)
        expect_true("were not written whole" not in sidecar.log(), "it tells of a torn end")
        redis.thaw()
        wait_until(is_empty(sidecar), what="an empty queue")
        expect(sidecar.stop(), 0)
        expect(os.listdir(folder), ["0000000001.damaged"])


@test("journal: when the disk is full writes are acknowledged once carried out, and noted again when there is room")
def _(t):
    redis = t.redis()
    sidecar = journaled(t, redis, folder_of(redis)).wait_until_tracking()
    client, direct = t.client(sidecar), t.client(redis)
    limit(sidecar, 4_096)
    redis.freeze()
    thawing = threading.Timer(0.3, redis.thaw)
    thawing.start()
    begun = time.monotonic()
    replies = client.pipeline([("SET", f"k{n}", "x" * 100) for n in range(200)])
    expect(replies, [Status("OK")] * 200)
    expect_true(time.monotonic() - begun > 0.25, "acknowledged though neither written nor carried out")
    expect(direct.call("GET", "k199"), b"x" * 100)
    wait_until(lambda: sidecar.metric("ferrite_sidecar_journal_on") == 0, what="the journal is off")
    wait_for_line(sidecar, "writes are acknowledged when the upstream has carried them out")
    # As in write-through: each is upstream when it is acknowledged.
    for n in range(20):
        client.call("SET", "k", n)
        expect(direct.call("GET", "k"), b"%d" % n)
    limit(sidecar, resource.RLIM_INFINITY)
    wait_until(lambda: sidecar.metric("ferrite_sidecar_journal_on") == 1, what="the journal is on")
    wait_for_line(sidecar, "the journal is written again")
    redis.freeze()
    expect(client.call("SET", "k", "noted"), Status("OK"))
    sidecar.kill()
    again(sidecar)
    redis.thaw()
    wait_until(is_empty(sidecar), what="an empty queue")
    expect(direct.call("GET", "k"), b"noted")


def limit(sidecar, file_bytes):
    """What the disk would do: files grow no larger."""
    resource.prlimit(sidecar.pid, resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))


def block(folder, keep):
    """A disk that lets no file go: a directory has the name of the journal's. `keep`: it may not be emptied either."""
    name = os.path.join(folder, sorted(os.listdir(folder))[-1])
    os.rename(name, folder + ".moved")
    if keep:
        os.link(folder + ".moved", folder + ".kept")
    os.mkdir(name)
    return name


@test("journal: files that can be neither written nor removed hold nobody up for ever, and the log says so")
def _(t):
    redis = t.redis()
    folder = folder_of(redis)
    sidecar = journaled(t, redis, folder).wait_until_tracking()
    client, direct = t.client(sidecar), t.client(redis)
    for keep in (False, True):
        client.call("SET", "k", "v" * 20_000)
        wait_until(is_empty(sidecar), what="an empty queue")
        name = block(folder, keep)
        # Below what the journal has, above what the log has.
        limit(sidecar, 16_384)
        expect(client.call("SET", "k", "value", timeout=15), Status("OK"))
        for command, reply in (("STRLEN", "k"), 5), (("EVAL", "return 1", "0"), 1), (("DBSIZE",), 1):
            expect(t.client(sidecar).call(*command), reply)
        expect(direct.call("GET", "k"), b"value")
        words = "which may overwrite newer values"
        if keep:
            wait_for_line(sidecar, words)
        expect(words in sidecar.log(), keep)
        os.rmdir(name)
        limit(sidecar, resource.RLIM_INFINITY)
        wait_until(lambda: sidecar.metric("ferrite_sidecar_journal_on") == 1, what="the journal is on")
    expect(sidecar.log().count(f"removing {name}: Is a directory; clients that wait"), 1)
    expect(sidecar.stop(), 0)


@test("journal: with the disk full and no upstream a client is not told that its write is safe: it is closed")
def _(t):
    redis = t.redis()
    sidecar = journaled(t, redis, folder_of(redis)).wait_until_tracking()
    client = t.client(sidecar)
    redis.kill()
    wait_until(lambda: sidecar.metric("ferrite_sidecar_upstream_up") == 0, what="the upstream is gone")
    limit(sidecar, 4_096)
    heard = 0
    try:
        for n in range(200):
            client.send("SET", f"k{n}", "x" * 100)
        while client.read() == Status("OK"):
            heard += 1
    except Closed:
        pass
    expect_true(heard < 200, "all were acknowledged")
    expect_error(t.client(sidecar).ask("SET", "k", "v"), "upstream")
    redis.restart()
    direct = t.client(redis)
    wait_until(is_empty(sidecar), 10, what="an empty queue")
    for n in range(heard):
        expect(direct.call("GET", f"k{n}"), b"x" * 100)


@test("journal: what drain_timeout leaves is in the journal, the log says so, and the next start sends it")
def _(t):
    redis = t.redis()
    folder = folder_of(redis)
    sidecar = journaled(t, redis, folder).wait_until_tracking()
    redis.freeze()
    with t.client(sidecar) as client:
        client.pipeline([("SET", f"k{n}", n) for n in range(1_000)])
    expect(sidecar.stop(), 0)
    wait_for_line(sidecar, "1000 acknowledged writes have not been carried out within drain_timeout; the journal has")
    again(sidecar)
    redis.thaw()
    wait_until(is_empty(sidecar), 10, what="an empty queue")
    expect(t.client(redis).call("GET", "k999"), b"999")
    expect(sidecar.stop(), 0)
    expect(os.listdir(folder), [], "files of a journal that tells of nothing")


@test("journal: SIGTERM with 100,000 dirty keys: they are upstream, or in the journal, and the log says which")
def _(t):
    redis = t.redis()
    direct = t.client(redis)
    sidecar = journaled(t, redis, folder_of(redis), **{"write_behind.memory": "32mb"}).wait_until_tracking()

    def fill(value):
        with t.client(sidecar) as client:
            for start in range(0, 100_000, 5_000):
                client.pipeline([("SET", f"k{n}", value) for n in range(start, start + 5_000)], timeout=20)

    redis.freeze()
    fill("first")
    expect(waiting(sidecar), 100_000.0)
    expect(sidecar.stop(), 0)
    wait_for_line(sidecar, "100000 acknowledged writes have not been carried out within drain_timeout; the journal has")
    redis.thaw()
    again(sidecar)
    wait_until(is_empty(sidecar), 20, what="an empty queue")
    expect(set(direct.call("MGET", *[f"k{n}" for n in range(100_000)], timeout=20)), {b"first"})
    redis.freeze()
    fill("second")
    begun = time.monotonic()
    thawing = threading.Timer(0.1, redis.thaw)
    thawing.start()
    expect(sidecar.stop(), 0)
    wait_for_line(sidecar, "every acknowledged write has been carried out upstream")
    t.note(f"100,000 carried out {time.monotonic() - begun - 0.1:.2f} s after the upstream was there again")
    expect(set(direct.call("MGET", *[f"k{n}" for n in range(100_000)], timeout=20)), {b"second"})


def syncs(folder):
    """The environment of a process whose calls of fdatasync are counted, and the file that counts them."""
    library, counted = os.path.join(folder, "syncs.so"), os.path.join(folder, "syncs")
    source = os.path.join(os.path.dirname(__file__), "syncs.c")
    subprocess.run([shutil.which("cc") or "clang", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    return {"LD_PRELOAD": library, "FERRITE_SYNCS": counted}, counted


@test("journal: a disk that does not answer holds the end up for seconds, not for ever, and the log says what stays")
def _(t):
    redis = t.redis()
    environment, counted = syncs(redis.folder)
    settings = {"mode": "write-behind", "journal": folder_of(redis), "journal_fsync": "always", "drain_timeout": "1s"}
    sidecar = t.sidecar(redis, env=environment, settings=settings).wait_until_tracking()
    client = t.client(sidecar)
    client.call("SET", "k", "kept")
    wait_until(is_empty(sidecar), what="it is carried out")
    open(counted + ".hangs", "w").close()
    client.send("SET", "k", "asked")
    began = time.monotonic()
    expect(sidecar.stop(20.0), 0)
    expect_below(time.monotonic() - began, 8.0, "seconds to the end")
    expect_true("the journal's disk has not answered" in sidecar.log(), sidecar.log())


@test("journal: always brings each batch to the disk before it is acknowledged")
def _(t):
    redis = t.redis()
    environment, counted = syncs(redis.folder)
    sidecar = t.sidecar(
        redis, env=environment,
        settings={"mode": "write-behind", "journal": folder_of(redis), "journal_fsync": "always"}).wait_until_tracking()

    def calls():
        with open(counted, "rb") as file:
            return int.from_bytes(file.read(), sys.byteorder)

    client = t.client(sidecar)
    name = "ferrite_sidecar_journal_batches_total"
    before, called = sidecar.metrics(), calls()
    for n in range(200):
        client.call("SET", "k", n)
        # One acknowledged at a time: the kernel has been asked once more at least before each.
        expect_true(calls() >= called + n + 1, f"{calls() - called} calls of fdatasync before acknowledgement {n + 1}")
    wait_until(is_empty(sidecar), what="all is carried out")
    after = sidecar.metrics()
    # What has been confirmed is noted with it or by itself.
    wait_until(lambda: calls() - called == sidecar.metrics()[name] - before[name], what="a call for each batch")
    client.pipeline([("SET", f"k{n}", n) for n in range(10_000)])
    many = sidecar.metric(name) - after[name]
    expect_true(many < 2_000, f"{many} batches for 10,000 acknowledgements in one pipeline")


@test("journal: a directory belongs to one process, and what cannot be opened is named", once=True)
def _(t):
    redis = t.redis()
    folder = folder_of(redis)
    first = journaled(t, redis, folder)
    for path, word in ((folder, "another process uses"), ("/proc/nowhere", "making the directory")):
        other = t.sidecar(redis, settings={"mode": "write-behind", "journal": path}, wait=False)
        wait_until(lambda: not other.is_alive(), what="it has ended")
        expect(other.gone(), 69)
        expect_true("ferrite: journal: " in other.log() and word in other.log(), f"it says: {other.log()}")
    first.must_live()


@test("journal: writes by several clients while the upstream and the sidecar are killed again and again: none is lost")
def _(t):
    redis = t.redis("--appendonly", "yes")
    sidecar = journaled(t, redis, folder_of(redis))
    writes = int(os.environ.get("FERRITE_JOURNAL_WRITES", "30000"))
    upstream_deaths, deaths = (10, 5) if writes > 100_000 else (3, 3)
    writers = [Writer(sidecar, n, writes // 4) for n in range(4)]
    chance = random.Random(7)

    # Spread over the writers' progress, whatever the machine's speed. Here: children die with their thread.
    moments = sorted([(chance.random() * 0.9 + 0.05, "redis") for _ in range(upstream_deaths)] +
                     [(chance.random() * 0.9 + 0.05, "sidecar") for _ in range(deaths)])
    threads = [threading.Thread(target=writer.run, daemon=True) for writer in writers]
    for thread in threads:
        thread.start()
    for share, victim in moments:
        wait_until(lambda: sum(w.acknowledged for w in writers) >= share * writes, 600, what="further writes")
        if victim == "redis":
            redis.kill()
            time.sleep(chance.random() * 0.3)
            redis.restart()
        else:
            sidecar.kill()
            again(sidecar)
    for thread in threads:
        thread.join(600)
        expect_true(not thread.is_alive(), "a writer does not come to its end")
    wait_until(is_empty(sidecar), 30, what="an empty queue")
    direct = t.client(redis)
    lost = []
    for writer in writers:
        for key, (sent, acknowledged) in writer.keys.items():
            has = int(direct.call("GET", key) or -1)
            if not acknowledged <= has <= sent:
                lost.append(f"{key}: {has}, acknowledged {acknowledged}, sent {sent}")
    expect(lost, [])
    t.note(f"{sum(w.acknowledged for w in writers)} acknowledged, {sum(w.failures for w in writers)} times cut, "
           f"{int(sidecar.metric('ferrite_sidecar_journal_restored_total'))} restored by the last process")


class Writer:
    """Writes numbers that count up to keys of its own, and remembers what was acknowledged."""

    def __init__(self, sidecar, number, writes, keys=2_500):
        self.sidecar, self.left = sidecar, writes
        self.keys = {f"w{number}:{n}": (-1, -1) for n in range(keys)}
        self.names = list(self.keys)
        self.chance = random.Random(number)
        self.acknowledged = self.failures = self.number = 0

    def run(self):
        while self.left > 0:
            try:
                with self.sidecar.client() as client:
                    while self.left > 0:
                        self.batch(client)
            except (OSError, Closed, TimeoutError):
                self.failures += 1
                time.sleep(0.02)

    def batch(self, client):
        batch = []
        for _ in range(min(50, self.left)):
            self.number += 1
            key = self.chance.choice(self.names)
            batch.append((key, self.number))
            self.keys[key] = (self.number, self.keys[key][1])
            client.send("SET", key, self.number)
        for key, number in batch:
            if client.read() == Status("OK"):
                self.keys[key] = (self.keys[key][0], number)
                self.acknowledged += 1
                self.left -= 1
            else:
                # Refused: the upstream is away, and the queue is full.
                time.sleep(0.01)
