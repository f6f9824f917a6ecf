"""modes: what a write costs in each mode, here and at the upstream; what a miss costs there, and from which hit ratio
on the sidecar saves it more than it costs; a cold start."""

import bisect
import contextlib
import os
import random
import threading
import time

from report import Samples, Section, number
from servers import Client

KEYS = 10_000
SHAPE = "clients=20,pipeline=16,value=64"
WRITE_SHARES = (0.0, 0.1, 0.5)
NEVER_USED = 999_999_999_999  # keys of this many numbers are always new


class Subject:
    """A way to write: directly, or through a sidecar with an upstream of its own."""

    def __init__(self, bench, stack, name, settings):
        self.name = name
        self.upstream = stack.enter_context(bench.redis())
        self.ferrite = None
        if settings is not None:
            if "journal" in settings:
                folder = os.path.join(bench.directory, "journal-" + name.split()[-1])
                settings = {**settings, "journal": folder}
            self.ferrite = stack.enter_context(bench.ferrite(self.upstream, **settings))
        self.upstream_us, self.sidecar_us, self.commands, self.rates, self.latencies = [], [], [], [], []

    def measure(self, bench, group):
        """One round of a group; waits until nothing is queued."""
        target = (self.ferrite or self.upstream).tcp
        upstream, calls = self.upstream.cpu_ns(), all_calls(self.upstream)
        sidecar = self.ferrite.cpu_ns() if self.ferrite else 0
        outcome = bench.load(target, group)
        while self.ferrite and self.ferrite.metrics()["ferrite_sidecar_write_behind_queued"]:
            time.sleep(0.001)
        count = outcome["requests"]
        self.commands.append((all_calls(self.upstream) - calls) / count)
        self.upstream_us.append((self.upstream.cpu_ns() - upstream) / count / 1000)
        if self.ferrite:
            self.sidecar_us.append((self.ferrite.cpu_ns() - sidecar) / count / 1000)
        self.rates.append(count / outcome["seconds"])
        self.latencies.append(outcome["groups"][0]["us"]["p50"])

    def cells(self):
        sidecar = str(Samples(self.sidecar_us)) if self.sidecar_us else "-"
        return [self.name, str(Samples(self.commands)), str(Samples(self.upstream_us)), sidecar,
                number(Samples(self.rates).median), number(Samples(self.latencies).median)]


def all_calls(upstream):
    """Commands of others than this process, which asks INFO."""
    with Client(upstream.tcp) as client:
        text = client.ask("INFO", "commandstats").decode()
    total = 0
    for line in text.splitlines():
        name, _, rest = line.partition(":calls=")
        if rest and name not in ("cmdstat_info", "cmdstat_ping"):
            total += int(rest.split(",")[0])
    return total


WRITERS = [("directly", None), ("read-through", {}), ("write-through", {"mode": "write-through"}),
           ("write-behind", {"mode": "write-behind"}),
           ("write-behind, journal no", {"mode": "write-behind", "journal": "", "journal_fsync": "no"}),
           ("write-behind, journal everysec", {"mode": "write-behind", "journal": "", "journal_fsync": "everysec"}),
           ("write-behind, journal always", {"mode": "write-behind", "journal": "", "journal_fsync": "always"})]


def modes(bench):
    sections = [writes(bench, "keys=10000", "random keys of 10,000", WRITERS),
                writes(bench, "keys=100", "random keys of 100", WRITERS)]
    return sections + [misses(bench)]


def writes(bench, keys, what, subjects):
    section = Section("modes", f"SET, {what}", [
        f"{SHAPE.replace(',', ', ')}, TCP, closed loop. Commands: that the upstream carries out for each write, its "
        f"own count. CPU of "
        "the upstream and of the sidecar for each write. Each way has an upstream of its own; they take turns. A write "
        "counts as done when it is acknowledged; a round ends when all of it is upstream. The upstream shares its core "
        "with "
        "the load.",
    ], ["way", "commands a write", "upstream us a write", "sidecar us a write", "writes/s", "p50 us"])
    with contextlib.ExitStack() as stack:
        ways = [Subject(bench, stack, name, settings) for name, settings in subjects]
        for turn in range(bench.rounds):
            bench.say(f"modes: SET, {what}, round {turn + 1} of {bench.rounds}")
            for way in ways:
                way.measure(bench, f"set,{SHAPE},{keys}")
        for way in ways:
            section.row(*way.cells())
            section.figure(f"SET, {what}, {way.name}, upstream us", Samples(way.upstream_us).median)
            section.figure(f"SET, {what}, {way.name}, commands", Samples(way.commands).median)
            section.figure(f"SET, {what}, {way.name}, writes/s", Samples(way.rates).median)
    return section


def misses(bench):
    section = Section("modes", "A miss, and from which hit ratio on a sidecar pays", [
        "GET of keys that are always new, one at a time and 16 at a time, directly and as misses; a write of a key "
        "that the "
        "sidecar has a copy of (the upstream announces it), and one that nobody has. CPU of the upstream. From these "
        "the hit "
        "ratio at which reads and writes through the sidecar cost the upstream as much as they would directly, for "
        "three "
        "shares of writes (read-through), if each write is of a key that this sidecar has a copy of: above it the "
        "sidecar "
        "saves it work.",
    ], ["load", "GET directly us", "a miss us", "commands a miss", "SET us", "SET of a copied key us",
        *(f"pays from, {share:.0%} writes" for share in WRITE_SHARES)])
    for name, shape in (("1 connection -P 1", "clients=1,pipeline=1"),
                        ("20 connections -P 16", "clients=20,pipeline=16")):
        with contextlib.ExitStack() as stack:
            bench.say(f"modes: misses, {name}")
            direct = Subject(bench, stack, "directly", None)
            through = Subject(bench, stack, "read-through", {})
            for turn in range(bench.rounds):
                new = f"get,{shape},order=sequence,reply=null,prefix=new:,keys={NEVER_USED},first={turn * 10**9}"
                direct.measure(bench, new)
                through.measure(bench, new)
            get, miss = Samples(direct.upstream_us), Samples(through.upstream_us)
            commands = Samples(through.commands)
            plain, copied = written(bench, direct, through, shape)
            ratios = [pays_from(share, get.median, miss.median, plain.median, copied.median) for share in WRITE_SHARES]
            section.row(name, str(get), str(miss), str(commands), str(plain), str(copied),
                        *(f"{ratio:.2f}" if ratio < 1 else "never" for ratio in ratios))
            section.figure(f"{name}, a miss, upstream us", miss.median)
            section.figure(f"{name}, GET directly, upstream us", get.median)
            for share, ratio in zip(WRITE_SHARES, ratios):
                section.figure(f"{name}, pays from, {share:.0%} writes", ratio)
    return section


def written(bench, direct, through, shape):
    """Upstream microseconds of a SET of keys that nobody has a copy of, and of keys that the sidecar has."""
    plain, copied = [], []
    for _ in range(bench.rounds):
        direct.upstream_us.clear()
        direct.measure(bench, f"set,{shape},keys={KEYS},order=sequence,value=64")
        plain.append(direct.upstream_us[-1])
        each = f"clients=1,pipeline=50,keys={KEYS},order=sequence,value=64"
        bench.load(through.upstream.tcp, f"set,{each}", requests=KEYS)
        bench.load(through.ferrite.tcp, f"get,{each}", requests=KEYS)
        before = through.upstream.cpu_ns()
        bench.load(through.upstream.tcp, f"set,{shape},keys={KEYS},order=sequence,value=64", requests=KEYS)
        copied.append((through.upstream.cpu_ns() - before) / KEYS / 1000)
    return Samples(plain), Samples(copied)


def pays_from(share, get, miss, plain, copied):
    """(1 - share) (1 - hits) miss + share copied = (1 - share) get + share plain, for hits."""
    return max(0.0, 1 - get / miss + share * (copied - plain) / ((1 - share) * miss))


# ---- cold: the first minute -----------------------------------------------------------------------------------------

COLD_KEYS = 1_000_000
COLD_RATE = 1_000


def cold(bench):
    seconds = 15 if bench.quick else 60
    section = Section("cold", "The first minute in front of an upstream with 1,000,000 keys", [
        f"Reads of keys by Zipf's law (exponent 1) over all of them, {COLD_RATE:,}/s from the start on, for {seconds} "
        f"s. "
        "Prefetch of key:*, without jitter: as it is by default, and as fast as said. At the upstream: the most SCAN "
        "calls "
        "and fetches of prefetch in any second (its own count of SCAN; of PTTL less the misses of the reads).",
    ], ["prefetch", "hit ratio of the first 10 s", f"of {seconds} s", "fetched ahead", "SCAN/s at most", "fetches/s at "
    "most",
        "aim"])
    weights = zipf()
    with bench.redis() as upstream:
        fill = f"set,clients=10,pipeline=50,order=sequence,keys={COLD_KEYS},value=64"
        bench.load(upstream.tcp, fill, requests=COLD_KEYS)
        for name, settings in (
            ("none", {}),
            ("100 SCAN/s, 2,000 fetches/s", {"prefetch.enabled": "true", "prefetch.patterns": "key:*",
                                             "prefetch.jitter": "0", "prefetch.timeout": f"{seconds}s"}),
            ("1,000 SCAN/s, 20,000 fetches/s", {"prefetch.enabled": "true", "prefetch.patterns": "key:*",
                                                "prefetch.jitter": "0", "prefetch.scan_rate": "1000",
                                                "prefetch.fill_rate": "20000", "prefetch.timeout": f"{seconds}s"}),
        ):
            bench.say(f"cold: {name}")
            with bench.ferrite(upstream, local_memory="512mb", read_timeout="1s", **settings) as ferrite:
                cold_row(section, name, settings, upstream, ferrite, weights, seconds)
    return [section]


def zipf():
    total, sums = 0.0, []
    for rank in range(1, COLD_KEYS + 1):
        total += 1 / rank
        sums.append(total)
    return sums


def cold_row(section, name, settings, upstream, ferrite, weights, seconds):
    samples, over = [], threading.Event()
    watch = threading.Thread(target=watch_upstream, args=(upstream, ferrite, samples, over))
    watch.start()
    early, all_ = read_zipf(ferrite, weights, seconds)
    over.set()
    watch.join()
    scans = max(later[0] - before[0] for before, later in zip(samples, samples[1:]))
    fetches = max(later[1] - before[1] for before, later in zip(samples, samples[1:]))
    scan_rate = int(settings.get("prefetch.scan_rate", 100)) if settings else 0
    fill_rate = int(settings.get("prefetch.fill_rate", 2_000)) if settings else 0
    # A sample is a second, more or less.
    met = scans <= scan_rate * 1.1 and fetches <= fill_rate * 1.1
    verdict = "" if not settings else section.aim(name, met, f"{scans} SCAN/s, {fetches} fetches/s")
    fetched = ferrite.metrics()["ferrite_sidecar_prefetch_fetched"]
    section.row(name, f"{early:.3f}", f"{all_:.3f}", number(fetched), number(scans), number(max(0, fetches)), verdict)
    section.figure(f"{name}, hit ratio", all_)
    section.figure(f"{name}, hit ratio of 10 s", early)


def watch_upstream(upstream, ferrite, samples, over):
    due = time.monotonic()
    while not over.is_set():
        metrics = ferrite.metrics()
        misses = sum(value for key, value in metrics.items() if key == "ferrite_keyspace_misses_total")
        samples.append((upstream.calls("scan"), upstream.calls("pttl") - misses))
        due += 1
        over.wait(max(0.0, due - time.monotonic()))


def read_zipf(ferrite, weights, seconds):
    """Hit ratios, of the first ten seconds and of all."""
    chance = random.Random(1)
    began, sent = time.monotonic(), 0
    early = None
    with Client(ferrite.tcp) as client:
        while (now := time.monotonic() - began) < seconds:
            if early is None and now >= 10:
                early = ratio(ferrite)
            count = int(now * COLD_RATE) - sent
            for _ in range(count):
                client.send("GET", f"key:{bisect.bisect_left(weights, chance.random() * weights[-1]):012d}")
            for _ in range(count):
                client.reply()
            sent += count
            time.sleep(0.001)
    return early if early is not None else ratio(ferrite), ratio(ferrite)


def ratio(ferrite):
    metrics = ferrite.metrics()
    hits, misses = metrics["ferrite_keyspace_hits_total"], metrics["ferrite_keyspace_misses_total"]
    return hits / max(1, hits + misses)
