"""suites: what is measured. Each suite is a function from a Bench to sections of the report.

The server under test has one core to itself; the load generator has the other, and shares it with the upstream where
one is at work. Subjects take turns within every round (A B A B), so that what drifts on the machine drifts for all.
"""

import contextlib
import csv
import json
import signal
import subprocess
import threading
import time

import checker
import kernel
import modes
import scrape
import tls
import truth
from report import Samples, Section, mib, number
from servers import Client, ErrorReply, Failure, Ferrite, Nutcracker, Redis

MIB = 1 << 20
SETTINGS = {"local_memory": "128mb", "ttl_default": "3600"}
KEYS = 100_000
NEVER_USED = 999_999_999_999  # keys of this many numbers are always new
DELAYED_ACK_US = 35_000


class Bench:
    """What every suite needs: where things are, how long and how often to measure."""

    def __init__(self, ferrite, load, directory, rounds, seconds, quick):
        self.ferrite_path = ferrite
        self.load_path = load
        self.directory = directory
        self.rounds = rounds
        self.seconds = seconds
        self.quick = quick

    def ferrite(self, upstream, network="auto", core=kernel.SERVER_CORE, **settings):
        return Ferrite(self.ferrite_path, self.directory, core, upstream, network, {**SETTINGS, **settings})

    def redis(self, core=kernel.CLIENT_CORE):
        return Redis(self.directory, core)

    def load_command(self, target, groups, seconds=None, requests=None):
        limit = ["--requests", str(requests)] if requests else ["--seconds", str(seconds or self.seconds)]
        return [self.load_path, "--to", target, *limit, *groups]

    def load_start(self, *arguments, **limits):
        """On the client's core, which it inherits from this process."""
        return subprocess.Popen(self.load_command(*arguments, **limits), stdout=subprocess.PIPE, text=True)

    def load_finish(self, process, tolerant=False):
        output, _ = process.communicate()
        if process.returncode not in (0, 1) or not output:
            raise Failure(f"the load generator failed with status {process.returncode}")
        outcome = json.loads(output)
        if process.returncode and not tolerant:
            raise Failure(f"{outcome['errors']} wrong replies, {outcome['closed']} connections closed, "
                          f"{outcome['unanswered']} requests unanswered; the first error: {outcome['first_error']}")
        return outcome

    def load(self, target, *groups, tolerant=False, **limits):
        return self.load_finish(self.load_start(target, groups, **limits), tolerant)

    def say(self, text):
        print(f"  {text}", flush=True)


def with_value(text, size=64):
    return f"{text},value={size}"


def measured(bench, server, target, *groups):
    """One round: processor time of the server for each request, and latencies."""
    before = server.cpu_ns()
    outcome = bench.load(target, *groups)
    cpu_us = (server.cpu_ns() - before) / 1000 / outcome["requests"]
    return {"cpu_us": cpu_us, "per_second": outcome["requests"] / outcome["seconds"], "outcome": outcome,
            **outcome["groups"][0]["us"]}


def interleaved(bench, subjects):
    """`subjects`: name -> a function that measures one round. Returns name -> list of rounds."""
    rounds = {name: [] for name in subjects}
    for _ in range(bench.rounds):
        for name, measure in subjects.items():
            rounds[name].append(measure())
    return rounds


def column(rounds, key):
    return Samples(one[key] for one in rounds)


def compared_row(section, where, rounds, against, limit, aim):
    """A row for each subject; ratios are of the rounds' pairs, their median counts."""
    base = column(rounds[against], "cpu_us")
    for name, samples in rounds.items():
        cpu = column(samples, "cpu_us")
        per_second = column(samples, "per_second").median
        cells = [where, name, str(cpu), number(per_second), f"{cpu.median * per_second / 1e4:.0f}%"]
        cells += [number(column(samples, key).median) for key in ("p50", "p99", "p999")]
        section.figure(f"{where}, {name}, cpu_us", cpu.median)
        if name == against:
            section.row(*cells, "1", "")
            continue
        ratio = cpu.over(base)
        section.figure(f"{where}, {name}, ratio", ratio.median)
        verdict = section.aim(f"{where}, {name}", ratio.median <= aim,
                              f"{ratio} of {against}, aim {aim}, limit {limit}")
        if verdict != "met" and ratio.median <= limit:
            verdict = "within limit"
        section.row(*cells, str(ratio), f"{verdict} (aim {aim}, limit {limit})")


COMPARED_COLUMNS = ["load", "server", "CPU us/request", "requests/s", "core", "p50 us", "p99 us", "p99.9 us",
                    "CPU ratio", "aim"]


# ---- hit: reads served from the store ------------------------------------------------------------------------------

def hit(bench):
    section = Section("hit", "CPU of a GET hit", [
        f"{KEYS:,} keys of 64 bytes, 50 connections, server alone on one core, client on the other, random keys.",
        "In a closed loop a slower server sees larger batches and so is flattered; the rows at a fixed rate are not.",
    ], COMPARED_COLUMNS)
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        upstream = enter(bench.redis())
        servers = {
            "ferrite io_uring": enter(bench.ferrite(upstream, "io_uring")),
            "ferrite epoll": enter(bench.ferrite(upstream, "epoll")),
            "redis-server": enter(bench.redis(kernel.SERVER_CORE)),
        }
        sequence = f"pipeline=50,keys={KEYS},order=sequence"
        bench.load(upstream.tcp, with_value(f"set,{sequence}"), requests=KEYS)
        bench.load(servers["redis-server"].tcp, with_value(f"set,{sequence}"), requests=KEYS)
        sidecars = [server for server in servers.values() if isinstance(server, Ferrite)]
        for server in sidecars:
            bench.load(server.tcp, with_value(f"get,{sequence}"), requests=KEYS)
        misses = [server.metrics()["ferrite_keyspace_misses_total"] for server in sidecars]
        rate = 20_000
        for transport in ("tcp", "unix"):
            for pipeline, pace, aim in ((1, "", 0.75), (16, "", 0.5), (1, f",rate={rate}", 0.75)):
                where = f"{transport} -P {pipeline}" + (f" at {rate:,}/s" if pace else "")
                bench.say(f"hit: {where}")
                group = with_value(f"get,clients=50,pipeline={pipeline},keys={KEYS}{pace}")
                rounds = interleaved(bench, {
                    name: lambda server=server: measured(bench, server, server.target(transport), group)
                    for name, server in servers.items()})
                compared_row(section, where, rounds, "redis-server", 1.0, aim)
        missed = sum(server.metrics()["ferrite_keyspace_misses_total"] for server in sidecars) - sum(misses)
        section.notes.append(f"Misses of the sidecars while hits were measured: {missed:,.0f}.")
        section.aim("hits only", missed == 0, f"{missed:,.0f} of the measured requests were misses")
    return [section]


# ---- miss and pass: what goes to the upstream, against a proxy -----------------------------------------------------

# What is asked, on how many connections, how deep, and the aims for the CPU ratio of a miss and of a passed command.
PROXY_LOADS = (
    ("1 connection -P 1", 1, 1, 0.8, 0.8),
    ("50 connections -P 1", 50, 1, 0.7, 0.7),
    ("50 connections -P 16", 50, 16, 0.5, 0.35),
)


def proxied(bench, section, servers, measure):
    for where, clients, pipeline, aim_miss, aim_pass in PROXY_LOADS:
        bench.say(f"{section.suite}: {where}")
        rounds = interleaved(bench, {
            name: lambda name=name, server=server: measure(name, server, f"clients={clients},pipeline={pipeline}")
            for name, server in servers.items()})
        aim = aim_pass if section.suite == "pass" else aim_miss
        compared_row(section, where, rounds, "nutcracker", 1.0, aim)


def new_keys(bench, keys, reply):
    """Measures rounds of GETs whose keys go on where the subject's last round ended."""
    cursors = {}

    def measure(name, server, shape):
        first = cursors.get(name, 0)
        sized = "" if reply == "null" else ",value=64"
        group = f"get,{shape},order=sequence,keys={keys},first={first},prefix=new:{sized}"
        round_ = measured(bench, server, server.tcp, group + (",reply=null" if reply == "null" else ""))
        cursors[name] = round_["outcome"]["groups"][0]["next"]
        return round_

    return measure


def miss(bench):
    """Every GET misses: keys in turn, from a space several times as large as what the sidecar can keep."""
    keys = 400_000 if bench.quick else 1_000_000
    section = Section("miss", "CPU of a missed GET", [
        f"Every key is new to the sidecar: {keys:,} keys of 64 bytes in turn, local_memory 32mb, so that a key has "
        "long been evicted when its turn comes again.",
        "The sidecar asks for value, PTTL and tracking; nutcracker forwards the GET. Both use the same redis-server, "
        "which shares its core with the client; its CPU is not counted. TCP.",
    ], COMPARED_COLUMNS)
    with bench.redis() as upstream, bench.ferrite(upstream, local_memory="32mb") as ferrite, \
            Nutcracker(bench.directory, kernel.SERVER_CORE, upstream) as nutcracker:
        seed = f"set,pipeline=100,order=sequence,keys={keys},prefix=new:,value=64"
        bench.load(upstream.tcp, seed, requests=keys)
        hits = ferrite.metrics()["ferrite_keyspace_hits_total"]
        proxied(bench, section, {"ferrite": ferrite, "nutcracker": nutcracker}, new_keys(bench, keys, "value"))
        hits = ferrite.metrics()["ferrite_keyspace_hits_total"] - hits
        section.notes.append(f"Hits of the sidecar while misses were measured: {hits:,.0f}.")
        section.aim("misses only", hits == 0, f"{hits:,.0f} of the measured requests were hits")
    return [section]


def absent(bench):
    """The same with keys that the upstream does not have."""
    section = Section("absent", "CPU of a missed GET whose key does not exist", [
        "Every key is new and absent upstream. Beyond a million keys the upstream's tracking table is full, and every "
        "new key makes it announce another. TCP.",
    ], COMPARED_COLUMNS)
    with bench.redis() as upstream, bench.ferrite(upstream) as ferrite, \
            Nutcracker(bench.directory, kernel.SERVER_CORE, upstream) as nutcracker:
        proxied(bench, section, {"ferrite": ferrite, "nutcracker": nutcracker}, new_keys(bench, NEVER_USED, "null"))
    return [section]


def passed(bench):
    """HGET is not cached: it travels through, as in any proxy."""
    keys = 10_000
    section = Section("pass", "CPU of a passed HGET", [
        f"{keys:,} hashes with a field of 64 bytes, random keys. Both servers use the same redis-server, which shares "
        "its core with the client; its CPU is not counted. TCP.",
    ], COMPARED_COLUMNS)
    with bench.redis() as upstream, bench.ferrite(upstream) as ferrite, \
            Nutcracker(bench.directory, kernel.SERVER_CORE, upstream) as nutcracker:
        bench.load(upstream.tcp, f"hset,pipeline=50,order=sequence,keys={keys},prefix=hash:,value=64", requests=keys)

        def measure(_, server, shape):
            return measured(bench, server, server.tcp, f"hget,{shape},keys={keys},prefix=hash:,value=64")

        proxied(bench, section, {"ferrite": ferrite, "nutcracker": nutcracker}, measure)
    return [section]


# ---- tail: hits beside misses --------------------------------------------------------------------------------------

def tail(bench):
    rate = 10_000
    section = Section("tail", "Latency of hits while half of the traffic misses", [
        f"Open loop, TCP, -P 1: hits at {rate:,}/s on 25 connections; beside them on 25 other connections nothing, "
        "the same rate of hits, or the same rate of misses (keys that are always new). Latency from the time a request "
        "was due. The upstream shares the client's core, which adds to the tail of whoever waits there.",
    ], ["traffic", "hits p50 us", "p99 us", "p99.9 us", "max us"])
    hits = with_value(f"get,clients=25,rate={rate},keys={KEYS}")
    beside = {
        "hits alone": [],
        "hits beside as many hits": [hits + ",name=more"],
        "hits beside as many misses":
            [f"get,name=misses,clients=25,rate={rate},order=sequence,keys={NEVER_USED},prefix=new:,reply=null"],
    }
    with bench.redis() as upstream, bench.ferrite(upstream) as ferrite:
        sequence = with_value(f"pipeline=50,keys={KEYS},order=sequence")
        bench.load(upstream.tcp, f"set,{sequence}", requests=KEYS)
        bench.load(ferrite.tcp, f"get,{sequence}", requests=KEYS)
        cursor = 0

        def measure(groups):
            nonlocal cursor
            groups = [f"{group},first={cursor}" if "misses" in group else group for group in groups]
            outcome = bench.load(ferrite.tcp, hits, *groups)
            if "misses" in str(groups):
                cursor = outcome["groups"][-1]["next"]
            return outcome["groups"][0]["us"]

        bench.say("tail: open loop")
        rounds = interleaved(bench, {name: lambda groups=groups: measure(groups) for name, groups in beside.items()})
    for name, samples in rounds.items():
        section.row(name, *(str(column(samples, key)) for key in ("p50", "p99", "p999", "max")))
        section.figure(f"{name}, p99.9 us", column(samples, "p999").median)
    return [section]


# ---- size: replies that wait for a delayed ACK ---------------------------------------------------------------------

def size(bench):
    sizes = [1024 << i for i in range(11)]
    per_size, repeats = 8, 50 if bench.quick else 400
    section = Section("size", "Latency by the size of the reply", [
        f"One connection over TCP on loopback, one request at a time: {per_size} keys of each size missed once, then "
        f"{repeats} hits. A median or p99 above {DELAYED_ACK_US // 1000} ms is taken for a delayed ACK.",
    ], ["size", "server", "hit p50 us", "hit p99 us", "hit max us", "miss max us", "delayed ACK"])
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(bench.redis())
        servers = {
            "ferrite io_uring": stack.enter_context(bench.ferrite(upstream, "io_uring", read_timeout="1s")),
            "ferrite epoll": stack.enter_context(bench.ferrite(upstream, "epoll", read_timeout="1s")),
            "redis-server": stack.enter_context(bench.redis(kernel.SERVER_CORE)),
        }
        for length in sizes:
            label = f"{length >> 10} KB" if length < MIB else f"{length >> 20} MB"
            bench.say(f"size: {label}")
            group = f"keys={per_size},order=sequence,prefix=size{length}:,value={length}"
            for server in (upstream, servers["redis-server"]):
                bench.load(server.tcp, f"set,{group}", requests=per_size)
            for name, server in servers.items():
                cold = bench.load(server.tcp, f"get,{group}", requests=per_size)["groups"][0]["us"]
                warm = bench.load(server.tcp, f"get,{group}", requests=repeats)["groups"][0]["us"]
                prompt = max(warm["p50"], warm["p99"], cold["max"]) < DELAYED_ACK_US
                verdict = "no" if prompt else "SUSPECTED"
                if isinstance(server, Ferrite):
                    section.aim(f"{label}, {name}", prompt,
                                f"hit p99 {number(warm['p99'])} us, miss {number(cold['max'])} us")
                hits = (number(warm[key]) for key in ("p50", "p99", "max"))
                section.row(label, name, *hits, number(cold["max"]), verdict)
                section.figure(f"{label}, {name}, hit p99 us", warm["p99"])
    return [section]


# ---- memory: the budget is the process -----------------------------------------------------------------------------

class Watch:
    """Samples a server's memory from beside while a load runs; keeps the moment of the greatest sum. A sample whose own
    question brought code back into memory, after the base was measured and before it was again, is left out."""

    def __init__(self, server):
        self.server = server
        self.peak = {"rss": 0, "anon": 0, "sockets": 0, "owners": {}}
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch)

    def __enter__(self):
        self.thread.start()
        return self.peak

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()

    def _watch(self):
        while True:
            last = self.done.wait(0.2)
            try:
                owners = self.server.owners()
                memory = kernel.memory(self.server.pid)
                sockets = kernel.socket_memory(self.server.pid)
                time.sleep(0.03)  # the base is measured every 10 ms
                settled = abs(self.server.owners()["base"] - owners["base"]) < MIB
            except OSError:
                settled = False
            if settled and memory["VmRSS"] + sockets >= self.peak["rss"] + self.peak["sockets"]:
                self.peak.update(rss=memory["VmRSS"], anon=memory["RssAnon"], sockets=sockets, owners=owners)
            if last:
                return


def memory_phases(bench, budget, keys):
    """name, transport, group, requests or None for a time."""
    mixed = f"keys={keys},value=16-65536,prefix=mixed:"
    flood = 200_000 if bench.quick else 10_000_000 if budget == 32 else 1_000_000
    yield "idle", None, None, None
    yield f"fill, {keys:,} values of 16 B to 64 KB", "tcp", f"get,clients=10,order=sequence,{mixed}", keys
    yield f"{flood:,} distinct misses", "tcp", \
        f"get,clients=50,pipeline=64,order=sequence,keys={NEVER_USED},prefix=new:,reply=null", flood
    for transport in ("tcp", "unix"):
        yield f"1,000 clients, -P 100, {transport}", transport, f"get,clients=1000,pipeline=100,{mixed}", None
        yield f"1,000 clients that never read, {transport}", transport, \
            f"get,clients=1000,pipeline=100,read=no,{mixed}", None


def memory(bench):
    section = Section("memory", "Memory against the budget", [
        "VmHWM, VmRSS and RssAnon of /proc/PID/status; sockets: SO_MEMINFO of all its sockets by sock_diag; owners: "
        "the budget's owners on the metrics page, but for arrivals and reserve, which are room that nothing fills yet "
        "(in the column room). Sockets: with 4 KiB for the kernel's records of each. The row shows the moment of the "
        "greatest sum of resident and socket memory "
        "(VmHWM: the end). Covered: resident and socket memory, divided by the owners' sum. MiB. Refused: "
        "connections closed by the sidecar. One process lives through all phases of its budget and engine.",
    ], ["budget", "engine", "phase", "VmHWM", "VmRSS", "RssAnon", "sockets", "owners", "room", "covered", "refused",
        "errors", "bound"])
    for budget in (32, 128):
        for network in ("io_uring", "epoll"):
            memory_of(bench, section, budget, network)
    return [section]


def memory_of(bench, section, budget, network):
    keys = 2 * budget * 128  # about twice the budget: such values have 7.9 KB in the mean
    with bench.redis() as upstream, bench.ferrite(upstream, network, local_memory=f"{budget}mb", max_clients="1100",
                                                  read_timeout="5s") as ferrite:
        seed = f"set,pipeline=20,order=sequence,keys={keys},value=16-65536,prefix=mixed:"
        bench.load(upstream.tcp, seed, requests=keys)
        for phase, transport, group, requests in memory_phases(bench, budget, keys):
            bench.say(f"memory: {budget}mb {network}: {phase}")
            outcome = {"closed": 0, "errors": 0}
            with Watch(ferrite) as peak:
                if group:
                    seconds = None if requests else max(bench.seconds, 1 if bench.quick else 5)
                    outcome = bench.load(ferrite.target(transport), group, seconds=seconds, requests=requests,
                                         tolerant=True)
                else:
                    time.sleep(1)
            while ferrite.process.poll() is None and ferrite.metrics()["ferrite_connections_active"] > 0:
                time.sleep(0.05)  # else those who leave count against max_clients in the next phase
            if ferrite.process.poll() is not None:
                raise Failure(f"{budget}mb {network}: ferrite died in the phase '{phase}'\n{ferrite.log_tail()}")
            high = kernel.memory(ferrite.pid)["VmHWM"]
            room = peak["owners"]["reserve"] + peak["owners"]["arrivals"]
            owners = sum(peak["owners"].values()) - room
            covered = (peak["rss"] + peak["sockets"]) / owners if owners else float("inf")
            where = f"{budget}mb, {network}, {phase}"
            verdict = section.aim(where, high <= budget * MIB and 0.95 <= covered <= 1.05,
                                  f"VmHWM {mib(high)} MiB, resident and sockets {covered:.3f} of the owners' sum")
            held = (mib(peak[key]) for key in ("rss", "anon", "sockets"))
            section.row(f"{budget}mb", network, phase, mib(high), *held, mib(owners), mib(room), f"{covered:.3f}",
                        number(outcome["closed"]), number(outcome["errors"]), verdict)
            section.figure(f"{where}, VmHWM MiB", high / MIB)
            section.figure(f"{where}, covered", covered)


# ---- start: time to the first PONG, and idle memory ----------------------------------------------------------------

def start(bench):
    times = 5 if bench.quick else 20
    section = Section("start", "Start and idle memory", [
        f"{times} starts with an upstream at hand: from the creation of the process to its first PONG over TCP, asked "
        "every half millisecond. Memory a second after the last start, local_memory 128mb.",
    ], ["engine", "first PONG ms", "VmRSS MiB", "RssAnon MiB", "aim"])
    with bench.redis() as upstream:
        for network in ("io_uring", "epoll"):
            bench.say(f"start: {network}")
            ferrite = bench.ferrite(upstream, network)
            taken = []
            for turn in range(times):
                taken.append(ferrite.start() * 1000)
                if turn + 1 == times:
                    time.sleep(1)
                    status = kernel.memory(ferrite.pid)
                ferrite.stop()
            samples = Samples(taken)
            verdict = section.aim(network, samples.median < 50 and status["RssAnon"] < 5 * MIB,
                                  f"first PONG {samples} ms (below 50), RssAnon {mib(status['RssAnon'])} MiB (below 5)")
            section.row(network, str(samples), mib(status["VmRSS"]), mib(status["RssAnon"]), verdict)
            section.figure(f"{network}, first PONG ms", samples.median)
            section.figure(f"{network}, idle RssAnon MiB", status["RssAnon"] / MIB)
    return [section]


# ---- freshness: when a write is seen -------------------------------------------------------------------------------

def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def freshness(bench):
    trials = 200 if bench.quick else 2000
    section = Section("freshness", "When a write is seen through the sidecar", [
        f"{trials:,} writes each. The reader holds the key as a hit, then asks again and again until the new value "
        "comes; time counts from the sending of the write. Stale reads: answers with the old value after the writer "
        "had its reply. For own writes each of 10 connections asks once, right after the reply.",
    ], ["write", "p50 us", "p99 us", "max us", "stale reads", "aim"])
    with bench.redis() as upstream, bench.ferrite(upstream) as near, bench.ferrite(upstream) as far:
        for name, writer in (("directly on the upstream", upstream), ("through a second sidecar", far)):
            bench.say(f"freshness: {name}")
            seen, stale = foreign_writes(writer, near, trials)
            p99 = percentile(seen, 0.99)
            verdict = section.aim(name, p99 <= 5000, f"p99 {number(p99)} us, aim 5 ms")
            section.row(name, number(percentile(seen, 0.5)), number(p99), number(max(seen)), number(stale), verdict)
            section.figure(f"{name}, p99 us", p99)
        bench.say("freshness: own writes")
        seen, stale = own_writes(near, trials)
        verdict = section.aim("own writes", stale == 0, f"{stale} stale reads, aim 0")
        section.row("own, on another connection", number(percentile(seen, 0.5)), number(percentile(seen, 0.99)),
                    number(max(seen)), number(stale), verdict)
        section.figure("own writes, stale reads", stale)
    return [section]


def foreign_writes(writer_server, reader_server, trials):
    seen, stale = [], 0
    with Client(writer_server.tcp) as writer, Client(reader_server.tcp) as reader:
        for trial in range(trials):
            key, value = f"fresh:{trial % 100}", b"%d" % trial
            reader.ask("GET", key)
            reader.ask("GET", key)
            sent = time.perf_counter_ns()
            writer.ask("SET", key, value)
            while reader.ask("GET", key) != value:
                stale += 1
                if time.perf_counter_ns() - sent > 2_000_000_000:
                    raise Failure(f"write {trial} of {key} was not seen within 2 s")
            seen.append((time.perf_counter_ns() - sent) / 1000)
    return seen, stale


def own_writes(server, trials):
    seen, stale = [], 0
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(Client(server.tcp))
        readers = [stack.enter_context(Client(server.target(way))) for way in ("tcp", "unix") for _ in range(5)]
        for trial in range(trials):
            key, value = f"own:{trial % 100}", b"%d" % trial
            for reader in readers[:2]:
                reader.ask("GET", key)
            sent = time.perf_counter_ns()
            writer.ask("SET", key, value)
            for reader in readers:
                stale += reader.ask("GET", key) != value
            seen.append((time.perf_counter_ns() - sent) / 1000)
    return seen, stale


# ---- flight: one fetch for many ------------------------------------------------------------------------------------

def flight(bench):
    clients = 100
    section = Section("flight", "One missing key, many clients", [
        f"The upstream is stopped (SIGSTOP), {clients} clients ask for one missing key, the upstream goes on. Its own "
        "INFO commandstats tells how many GETs it received.",
    ], ["clients", "GETs upstream", "right answers", "aim"])
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(bench.redis())
        ferrite = stack.enter_context(bench.ferrite(upstream, read_timeout="5s"))
        with Client(upstream.tcp) as writer:
            writer.ask("SET", "flight", "value")
        connections = [stack.enter_context(Client(ferrite.tcp)) for _ in range(clients)]
        for connection in connections:
            connection.ask("PING")
        before = upstream.calls("get", "mget")
        upstream.signal(signal.SIGSTOP)
        for connection in connections:
            connection.send("GET", "flight")
        time.sleep(0.1)
        upstream.signal(signal.SIGCONT)
        right = sum(connection.reply() == b"value" for connection in connections)
        asked = upstream.calls("get", "mget") - before
    verdict = section.aim("flight", asked == 1 and right == clients, f"{asked} GETs upstream, {right} right answers")
    section.row(str(clients), str(asked), str(right), verdict)
    section.figure("GETs upstream", asked)
    return [section]


# ---- down: an upstream that freezes, and one that dies -------------------------------------------------------------

READ_TIMEOUT_MS = 50


def timed(target, *words):
    """Milliseconds until the answer, and the answer; an error reply or a closed connection counts as one."""
    with Client(target) as client:
        begin = time.perf_counter()
        try:
            answer = client.ask(*words)
        except (ErrorReply, OSError) as error:
            answer = error
        return (time.perf_counter() - begin) * 1000, answer


def down(bench):
    # That nobody is there is known 1.5 s after it froze at the latest.
    rate, seconds = 10_000, max(bench.seconds, 6.0)
    section = Section("down", "While the upstream does not answer", [
        f"Hits at {rate:,}/s, open loop, TCP, 50 connections, for {seconds} s; read_timeout {READ_TIMEOUT_MS}ms. "
        "Frozen: the upstream is stopped (SIGSTOP) a third into the run. Killed: it gets SIGKILL a third into the run. "
        "Errors: replies that were errors, among the hits.",
    ], ["upstream", "hits p50 us", "p99 us", "p99.9 us", "max us", "hits", "errors", "aim"])
    failures = Section("down", "What fails, and how soon; and recovery", [
        "Misses: the time until the error, on one fresh connection after the other. Recovery: from the upstream's own "
        "first PONG (killed) or SIGCONT (frozen) until a missed GET and a SET through the sidecar work again.",
    ], ["upstream", "what", "p50 ms", "max ms", "answers", "aim"])
    group = with_value(f"get,clients=50,rate={rate},keys=1000")
    with bench.redis() as upstream, bench.ferrite(upstream, read_timeout=f"{READ_TIMEOUT_MS}ms") as ferrite:
        def fill():
            sequence = with_value("pipeline=50,keys=1000,order=sequence")
            bench.load(upstream.tcp, f"set,{sequence}", requests=1000)
            bench.load(ferrite.tcp, f"get,{sequence}", requests=1000)

        def hits_during(name, strike):
            bench.say(f"down: {name}")
            load = bench.load_start(ferrite.tcp, [group], seconds=seconds)
            time.sleep(seconds / 3)
            strike()
            tries = 20 if strike is not idle else 0
            misses = [timed(ferrite.tcp, "GET", f"absent:{name}:{turn}") for turn in range(tries)]
            outcome = bench.load_finish(load, tolerant=True)["groups"][0]
            errors = outcome["error_us"]["count"]
            verdict = section.aim(f"{name}, hits", errors == 0, f"{errors} errors among hits (none)")
            section.row(name, *(number(outcome["us"][key]) for key in ("p50", "p99", "p999", "max")),
                        number(outcome["us"]["count"]), number(errors), verdict)
            section.figure(f"{name}, hits p99.9 us", outcome["us"]["p999"])
            section.figure(f"{name}, errors among hits", errors)
            if misses:
                failing_row(failures, name, "missed GET", misses, READ_TIMEOUT_MS + 20)

        def idle():
            pass

        fill()
        hits_during("well", idle)
        hits_during("frozen", lambda: upstream.signal(signal.SIGSTOP))
        upstream.signal(signal.SIGCONT)
        recovery_row(failures, "frozen", ferrite)
        fill()
        hits_during("killed", upstream.kill)
        writes = [timed(ferrite.tcp, "SET", "absent", "x") for _ in range(20)]
        failing_row(failures, "killed", "SET", writes, READ_TIMEOUT_MS + 20)
        upstream.start()
        recovery_row(failures, "killed", ferrite)
    return [section, failures]


def failing_row(section, name, what, answers, limit_ms):
    taken = [milliseconds for milliseconds, _ in answers]
    failed = [answer for _, answer in answers if isinstance(answer, Exception)]
    met = max(taken) <= limit_ms and len(failed) == len(answers)
    verdict = section.aim(f"{name}, {what}", met, f"max {max(taken):.1f} ms (at most {limit_ms}), "
                          f"{len(failed)} of {len(answers)} failed")
    text = f"{len(failed)} of {len(answers)} failed" + (f": {failed[0]}" if failed else "")
    section.row(name, what, f"{percentile(taken, 0.5):.1f}", f"{max(taken):.1f}", text, verdict)
    section.figure(f"{name}, {what}, max ms", max(taken))


def recovery_row(section, name, ferrite):
    begin = time.monotonic()
    for words in (("GET", f"recovered:{name}"), ("SET", f"recovered:{name}", "x")):
        while isinstance(timed(ferrite.tcp, *words)[1], Exception):
            if time.monotonic() - begin > 30:
                raise Failure(f"{name}: {words[0]} does not work 30 s after the upstream is back")
            time.sleep(0.002)
    taken = (time.monotonic() - begin) * 1000
    section.row(name, "recovery", f"{taken:.1f}", f"{taken:.1f}", "a missed GET and a SET work", "")
    section.figure(f"{name}, recovery ms", taken)


# ---- standard: redis-benchmark runs clean ------------------------------------------------------------------------

def standard(bench):
    count = 10_000 if bench.quick else 1_000_000
    section = Section("standard", "redis-benchmark", [
        f"GET and SET: `redis-benchmark -n {count} -r 100000 -d 64 -c 50 -t get,set`. The default list: "
        f"`redis-benchmark -n {count // 10} -c 50`. Through the sidecar, requests/s; redis-benchmark "
        "is often the limit. Clean: status 0. read_timeout is 5 s, for the upstream shares its core with the load.",
    ], ["what", "io_uring", "epoll"])
    runs = {}
    with bench.redis() as upstream:
        for network in ("io_uring", "epoll"):
            with bench.ferrite(upstream, network, read_timeout="5s") as ferrite:
                for transport in ("tcp", "unix"):
                    for pipeline in (1, 16):
                        bench.say(f"standard: {network}, {transport} -P {pipeline}")
                        where = ["-h", "127.0.0.1", "-p", ferrite.tcp.split(":")[1]]
                        if transport == "unix":
                            where = ["-s", ferrite.unix.removeprefix("unix:")]
                        shape = [*where, "-c", "50", "-P", str(pipeline)]
                        name = f"{transport} -P {pipeline}"
                        values = ["-n", str(count), "-r", "100000", "-d", "64", "-t", "get,set"]
                        for test, rate in redis_benchmark([*shape, *values]):
                            runs.setdefault(f"{name}, 64 bytes: {test}", {})[network] = rate
                        for test, rate in redis_benchmark([*shape, "-n", str(count // 10)]):
                            runs.setdefault(f"{name}, default: {test}", {})[network] = rate
    for what, rates in runs.items():
        section.row(what, *(number(rates[network]) for network in ("io_uring", "epoll")))
        for network, rate in rates.items():
            section.figure(f"{what}, {network}, requests/s", rate)
    return [section]


def redis_benchmark(options):
    """Yields each test and its requests per second; a failure when the run was not clean."""
    ran = subprocess.run(["redis-benchmark", "--csv", *options], capture_output=True, text=True, check=False)
    if ran.returncode or "rror" in ran.stderr:
        raise Failure(f"redis-benchmark {' '.join(options)}: {ran.stderr.strip() or ran.stdout.strip()}")
    for row in csv.reader(ran.stdout.splitlines()[1:]):
        yield row[0], float(row[1])


SUITES = {"hit": hit, "miss": miss, "absent": absent, "pass": passed, "tail": tail, "size": size, "memory": memory,
          "start": start, "freshness": freshness, "staleness": truth.staleness, "fence": truth.fence,
          "flight": flight, "down": down, "modes": modes.modes, "cold": modes.cold, "checker": checker.checker,
          "tls": tls.tls, "scrape": scrape.scrape,
          "standard": standard}
