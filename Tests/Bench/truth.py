"""truth: what coherence costs, and what it is worth. The price of the fence; how old answers are under load."""

import bisect
import contextlib
import multiprocessing
import random
import time

from report import Samples, Section, number
from servers import Client, Failure

FENCED = {
    "EXEC (MULTI, SET, EXEC)": (("MULTI",), ("SET", "k", "v"), ("EXEC",)),
    "EVAL": (("EVAL", "return redis.call('SET', 'k', ARGV[1])", "0", "v"),),
    "BRPOP": (("BRPOP", "jobs:{number}", "0"),),
    "EXEC, read only (MULTI, GET, EXEC)": (("MULTI",), ("GET", "k"), ("EXEC",)),
    "GET, a hit: nothing waits": (("GET", "k"),),
}


# ---- fence: its price ------------------------------------------------------------------------------------------------

def fence(bench):
    """Closed loop of this process: CPU is the sidecar's own, so a slow client does not matter to it."""
    section = Section("fence", "What the fence costs", [
        "CPU of the sidecar per command (for EXEC: per transaction of three), without and with the fence, and how long "
        "the client waits. A BRPOP finds its job: the time contains the push by another connection that it blocks on. "
        "The two take turns within each round. The client is Python: its rate is not the sidecar's.",
    ], ["command", "connections", "us without", "us with", "with / without", "latency us without", "with"])
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(bench.redis())
        subjects = {setting: stack.enter_context(bench.ferrite(upstream, fence=setting))
                    for setting in ("false", "true")}
        for command, words in FENCED.items():
            for connections in (1, 16):
                bench.say(f"fence: {command}, {connections} connections")
                fence_row(bench, section, command, words, connections, upstream, subjects)
    return [section]


def fence_row(bench, section, command, words, connections, upstream, subjects):
    cpu, latency = {name: [] for name in subjects}, {name: [] for name in subjects}
    with contextlib.ExitStack() as stack:
        pusher = stack.enter_context(Client(upstream.tcp))
        clients = {name: [stack.enter_context(Client(server.tcp)) for _ in range(connections)]
                   for name, server in subjects.items()}
        for turn in range(bench.rounds + 1):
            for name, server in subjects.items():
                count, began, used = 0, time.monotonic(), server.cpu_ns()
                taken = []
                while time.monotonic() - began < (bench.seconds if turn else 0.2):
                    sent = time.perf_counter_ns()
                    ask_all(clients[name], words, pusher)
                    taken.append((time.perf_counter_ns() - sent) / 1000)
                    count += connections
                if turn:
                    cpu[name].append((server.cpu_ns() - used) / count / 1000)
                    latency[name].append(sorted(taken)[len(taken) // 2])
    off, on = (Samples(cpu[name]) for name in ("false", "true"))
    section.row(command, str(connections), str(off), str(on), str(on.over(off)),
                *(str(Samples(latency[name])) for name in ("false", "true")))
    section.figure(f"{command}, {connections} connections, us with", on.median)
    section.figure(f"{command}, {connections} connections, us without", off.median)


def ask_all(clients, words, pusher):
    """Every client sends all, then all are read."""
    for number_, client in enumerate(clients):
        for each in words:
            client.send(*(word.format(number=number_) if "{number}" in word else word for word in each))
    if words[0][0] == "BRPOP":
        for number_ in range(len(clients)):
            pusher.send("LPUSH", f"jobs:{number_}", "job")
        for _ in clients:
            pusher.reply()
    for client in clients:
        for _ in words:
            client.reply()


# ---- staleness: how old answers are --------------------------------------------------------------------------------

KEYS = 1000
WRITES_PER_SECOND = 5000
BURST = 10


def staleness(bench):
    seconds = 3 if bench.quick else 20
    section = Section("staleness", "How old an answer is while everything changes", [
        f"{KEYS:,} keys, written by a client of the upstream itself at {WRITES_PER_SECOND:,} a second for {seconds} s, "
        f"in bursts of {BURST}. Two sidecars, two readers of each, which read random keys as fast as they can and now "
        "and then write a key of their own, read at once by another connection of the same pod. Staleness: how long "
        "before the read was sent the writer had sent the next value (so its way to the upstream and the upstream's "
        "own time count too); 0 when it had not. Backwards: an older value than one that the same reader had before. "
        "The sidecars share a core, the upstream, writer and readers the other.",
    ], ["reads", "staleness p50 us", "p99 us", "max us", "stale", "of the stale p50 us", "p99 us", "backwards",
        "own writes missed", "aim"])
    with bench.redis() as upstream, bench.ferrite(upstream) as near, bench.ferrite(upstream) as far:
        bench.say("staleness")
        done, results = multiprocessing.Event(), multiprocessing.Queue()
        readers = [multiprocessing.Process(target=read_all, args=(server.tcp, place, done, results), daemon=True)
                   for place, server in enumerate((near, near, far, far))]
        with Client(upstream.tcp) as writer:
            written = [[] for _ in range(KEYS)]
            write_round(writer, written, range(KEYS))
            for reader in readers:
                reader.start()
            write_for(writer, written, seconds)
            done.set()
        ages, backwards, own, missed = [], 0, 0, 0
        for _ in readers:
            seen, back, wrote, lost = results.get(timeout=60)
            backwards, own, missed = backwards + back, own + wrote, missed + lost
            for key, version, sent in seen:
                ages.append(max(0, sent - written[key][version + 1]) if version + 1 < len(written[key]) else 0)
        for reader in readers:
            reader.join()
    ages.sort()
    stale = ages[bisect.bisect_right(ages, 0):]
    at = {share: percentile_us(ages, share) for share in (0.5, 0.99, 1)}
    verdict = section.aim("staleness", backwards == 0 and missed == 0,
                          f"{backwards} backwards, {missed} of {own:,} own writes missed, aim 0 and 0")
    section.row(number(len(ages)), number(at[0.5]), number(at[0.99]), number(at[1]), number(len(stale)),
                number(percentile_us(stale, 0.5)), number(percentile_us(stale, 0.99)), number(backwards),
                f"{missed} of {own:,}", verdict)
    for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1)):
        section.figure(f"staleness {name}, us", at[share])
    section.figure("reads backwards", backwards)
    section.figure("own writes missed", missed)
    return [section]


def percentile_us(ordered_ns, share):
    return ordered_ns[min(len(ordered_ns) - 1, int(share * len(ordered_ns)))] / 1000 if ordered_ns else 0


def write_round(writer, written, keys):
    now = time.monotonic_ns()
    for key in keys:
        writer.send("SET", f"stale:{key}", str(len(written[key])))
    for _ in keys:
        if writer.reply() != b"OK":
            raise Failure("the upstream refuses a write")
    for key in keys:
        written[key].append(now)


def write_for(writer, written, seconds):
    began, turn = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        write_round(writer, written, random.sample(range(KEYS), BURST))
        turn += 1
        time.sleep(max(0, began + turn * BURST / WRITES_PER_SECOND - time.monotonic()))


def read_all(target, place, done, results):
    chance = random.Random(place)
    newest, seen, backwards, own, missed = [0] * KEYS, [], 0, 0, 0
    with Client(target) as client, Client(target) as other:
        while not done.is_set():
            for _ in range(100):
                key = chance.randrange(KEYS)
                sent = time.monotonic_ns()
                version = int(client.ask("GET", f"stale:{key}"))
                backwards += version < newest[key]
                newest[key] = max(newest[key], version)
                seen.append((key, version, sent))
            own += 1
            name = f"own:{place}:{own % 10}"
            other.ask("GET", name)
            client.ask("SET", name, str(own))
            missed += other.ask("GET", name) != str(own).encode()
    results.put((seen, backwards, own, missed))
