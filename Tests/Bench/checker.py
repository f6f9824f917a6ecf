"""checker: how old answers are in each mode, with writers on every side; and while the tracked link suffers.

Every key has one writer, so that its versions have an order: a third of the keys are written at the upstream itself,
a third through the sidecar whose readers are asked, a third through another. Each writer notes when it sent a version
and when that was acknowledged; each reader what it saw and when it asked.
"""

import contextlib
import itertools
import multiprocessing
import os
import random
import sys
import time

from report import Section, number
from servers import Client, ErrorReply, Failure

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "harness"))
from meddler import Meddler  # noqa: E402

KEYS = 1_200
WRITES_PER_SECOND = 6_000
WRITES_PER_SECOND_MIN = 5_000
BURST = 10
# A writer waits for the answers of a burst, which come late.
BURST_SLOW = 100
MODES = ("read-through", "write-through", "write-behind")
SILENT_MAX_MS = 1_500


class Proxied:
    """The upstream behind a meddler, as a sidecar sees it."""

    def __init__(self, meddler):
        self.tcp = "%s:%d" % meddler.address


def checker(bench):
    seconds = 3 if bench.quick else 10
    cuts, silences = (3, 1) if bench.quick else (20, 5)
    section = Section("checker", "How old an answer is in each mode, and when the tracked link suffers", [
        f"{KEYS:,} keys, a third of them written at the upstream, through the sidecar that is read, and through "
        f"another, "
        f"together {WRITES_PER_SECOND:,} writes a second; two readers. Staleness: how long before the read was sent "
        f"the next "
        "version had been sent by its writer (its whole way counts; through the same sidecar: acknowledged). Own "
        "writes missed: keys written through the same "
        "sidecar "
        "whose next version had been acknowledged before the read was sent. Backwards: an older version than one that "
        "the "
        f"reader had. Slow: what comes to the tracked link is 20 ms late, a change 40. Cut: {cuts} times, every 400 "
        f"ms. "
        f"Silent: {silences} times it carries nothing any more and nobody is told (link_timeout 2 s). The network's "
        f"faults are made "
        "by a proxy in Python, which costs time in every row but the first of a mode.",
    ], ["mode", "the tracked link", "writes/s", "reads", "staleness p50 us", "p99 us", "max ms", "backwards",
        "own writes missed", "aim"])
    for mode in MODES:
        check(bench, section, mode, "well", seconds, lambda meddler: None, proxied=False, aim_p99_us=5_000)
        check(bench, section, mode, "slow by 20 ms", seconds, lambda meddler: None, lag=0.02)
        check(bench, section, mode, f"cut {cuts} times", cuts * 0.4 + 1, cut(cuts))
        check(bench, section, mode, f"silent {silences} times", silences * 4 + 2, silence(silences),
              max_ms=SILENT_MAX_MS)
    return [section]


def cut(times):
    def run(meddler):
        for _ in range(times):
            time.sleep(0.4)
            meddler.drop_tracked()
    return run


def silence(times):
    def run(meddler):
        for _ in range(times):
            time.sleep(0.5)
            meddler.silence()
            time.sleep(3.5)
    return run


def check(bench, section, mode, name, seconds, strike, proxied=True, lag=0.0, aim_p99_us=None, max_ms=None):
    bench.say(f"checker: {mode}, {name}")
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(bench.redis())
        meddler = stack.enter_context(Meddler(("127.0.0.1", int(upstream.tcp.split(":")[1]))))
        meddler.lag = lag
        settings = {"mode": mode, "link_timeout": "2s", "read_timeout": "200ms"}
        near = stack.enter_context(bench.ferrite(Proxied(meddler) if proxied else upstream, **settings))
        far = stack.enter_context(bench.ferrite(upstream, **settings))
        time.sleep(0.2)
        done = multiprocessing.Event()
        results = multiprocessing.Queue()
        sides = (upstream.tcp, near.tcp, far.tcp)
        burst = BURST_SLOW if lag else BURST
        writers = [multiprocessing.Process(target=write_all, args=(target, place, done, results, burst), daemon=True)
                   for place, target in enumerate(sides)]
        for writer in writers:
            writer.start()
        time.sleep(0.3)
        readers = [multiprocessing.Process(target=read_all, args=(near.tcp, place, done, results), daemon=True)
                   for place in range(2)]
        for reader in readers:
            reader.start()
        began = time.monotonic()
        strike(meddler)
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        done.set()
        parts = [results.get(timeout=60) for _ in writers + readers]
        for process in writers + readers:
            process.join()
    report(section, mode, name, parts, seconds + 0.3, aim_p99_us, max_ms)


def report(section, mode, name, parts, seconds, aim_p99_us, max_ms):
    sent, heard = {}, {}
    for kind, *rest in parts:
        if kind == "writer":
            sent.update(rest[0])
            heard.update(rest[1])
    ages, own, backwards, reads = [], 0, 0, 0
    for kind, *rest in parts:
        if kind != "reader":
            continue
        seen, back = rest
        backwards += back
        for key, version, at in seen:
            reads += 1
            # A write through the same sidecar waits with its link: it counts once it has been acknowledged.
            times = (heard if key % 3 == 1 else sent)[key]
            # A write that failed has no time: the first newer one that has counts.
            newer = next(filter(None, itertools.islice(times, version + 1, None)), 0)
            age = max(0, at - newer) if newer else 0
            ages.append(age)
            # What this pod has acknowledged before the read was sent must be seen.
            own += key % 3 == 1 and age > 0
    ages.sort()
    p50, p99, most = (ages[min(len(ages) - 1, int(share * len(ages)))] / 1000 for share in (0.5, 0.99, 1))
    count = sum(len(times) for times in sent.values())
    met = backwards == 0 and own == 0 and count / seconds >= WRITES_PER_SECOND_MIN
    met = met and (not aim_p99_us or p99 <= aim_p99_us) and (not max_ms or most <= max_ms * 1000)
    verdict = section.aim(f"{mode}, {name}", met, f"{count / seconds:.0f} writes/s, p99 {p99:.0f} us, "
                          f"max {most / 1000:.0f} ms, {backwards} backwards, {own} own writes missed")
    section.row(mode, name, number(count / seconds), number(reads), number(p50), number(p99), f"{most / 1000:.1f}",
                number(backwards), f"{own}", verdict)
    section.figure(f"{mode}, {name}, staleness p99 us", p99)
    section.figure(f"{mode}, {name}, staleness max ms", most / 1000)
    section.figure(f"{mode}, {name}, backwards", backwards)
    section.figure(f"{mode}, {name}, own writes missed", own)


def write_all(target, place, done, results, size):
    """Its keys again and again, in bursts; what fails is not counted as a version."""
    keys = range(place, KEYS, 3)
    chance = random.Random(place)
    sent = {key: [] for key in keys}
    heard = {key: [] for key in keys}
    client = Client(target)
    began, turn = time.monotonic(), 0
    order = list(keys)
    while not done.is_set():
        # Each key once before any again, so that readers find them all.
        burst = order[turn * size:(turn + 1) * size] or chance.sample(list(keys), size)
        client = write_burst(client, target, burst, sent, heard)
        turn += 1
        time.sleep(max(0.0, began + turn * size / (WRITES_PER_SECOND / 3) - time.monotonic()))
    results.put(("writer", sent, heard))


def write_burst(client, target, burst, sent, heard):
    now = time.monotonic_ns()
    for key in burst:
        sent[key].append(now)
        heard[key].append(0)
    try:
        for key in burst:
            client.send("SET", f"checked:{key}", str(len(sent[key]) - 1))
        for key in burst:
            try:
                client.reply()
                heard[key][-1] = time.monotonic_ns()
            except ErrorReply:
                pass  # it may have been carried out or not: the next version tells
        return client
    except OSError:
        time.sleep(0.01)
        return reconnect(target)


def reconnect(target):
    for _ in range(500):
        try:
            return Client(target)
        except OSError:
            time.sleep(0.01)
    raise Failure(f"{target} takes no connection")


def read_all(target, place, done, results):
    chance = random.Random(100 + place)
    newest, seen, backwards = [0] * KEYS, [], 0
    client = Client(target)
    while not done.is_set():
        key = chance.randrange(KEYS)
        at = time.monotonic_ns()
        try:
            value = client.ask("GET", f"checked:{key}")
        except ErrorReply:
            time.sleep(0.002)
            continue
        except OSError:
            client = reconnect(target)
            continue
        if value is None:
            continue
        version = int(value)
        backwards += version < newest[key]
        newest[key] = max(newest[key], version)
        seen.append((key, version, at))
    results.put(("reader", seen, backwards))
