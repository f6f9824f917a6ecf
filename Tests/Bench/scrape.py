"""scrape: what a Prometheus that asks every second costs the requests beside it."""

import statistics
import threading
import time

from report import Samples, Section, number

LOADS = (("hits, as many as can be, 20 connections -P 16", "get,clients=20,pipeline=16,keys=10000,value=64"),
         ("hits, 20,000/s", "get,clients=20,rate=20000,keys=10000,value=64"))
MEASURABLE = 0.2


def scrape(bench):
    section = Section("scrape", "Requests while the metrics page is read every second, and while it is not", [
        "The page is read whole once a second, as Prometheus does; CPU is that of the whole process, the page's own "
        "included. Each round measures without it, with it, and without it again. With / without: the median of the "
        "rounds, each by the mean of its two. Noise: how far those two are apart, the median of the rounds; above "
        f"{MEASURABLE:.0%} the machine is too restless to tell.",
    ], ["load", "CPU us without", "with", "with / without", "noise",
        "p99 us without", "with", "with / without", "noise", "aim"])
    with bench.redis() as upstream, bench.ferrite(upstream) as server:
        bench.load(upstream.tcp, "set,pipeline=100,order=sequence,keys=10000,value=64", requests=10_000)
        bench.load(server.tcp, "get,pipeline=16,order=sequence,keys=10000,value=64", requests=20_000)
        for where, group in LOADS:
            bench.say(f"scrape: {where}")
            rounds = [[measure(bench, server, group, scrapes) for scrapes in (False, True, False)]
                      for _ in range(max(bench.rounds, 9))]
            cells, shares, noises = [], [], []
            for what in (0, 1):
                before, scraped, after = ([one[turn][what] for one in rounds] for turn in range(3))
                without = [(a + b) / 2 for a, b in zip(before, after)]
                shares.append(statistics.median(b / a for a, b in zip(without, scraped)))
                noises.append(statistics.median(abs(b / a - 1) for a, b in zip(before, after)))
                cells += [str(Samples(without)), str(Samples(scraped)), number(shares[-1]), f"{noises[-1]:.1%}"]
            verdict = section.aim(
                where, all(share - 1 <= noise for share, noise in zip(shares, noises)),
                f"CPU {shares[0]:.3f} times, noise {noises[0]:.3f}; p99 {shares[1]:.3f} times, noise {noises[1]:.3f}")
            restless = [name for name, noise in zip(("CPU", "p99"), noises) if noise > MEASURABLE]
            doubt = f"; not measurable here: {', '.join(restless)}" if restless else ""
            section.row(where, *cells, verdict + doubt)
            section.figure(f"{where}, CPU with / without", shares[0])
            section.figure(f"{where}, p99 with / without", shares[1])
    return [section]


def measure(bench, server, group, scrapes):
    done = threading.Event()

    def read_pages():
        while not done.wait(1):
            server.metrics()
    reader = threading.Thread(target=read_pages, daemon=True)
    if scrapes:
        reader.start()
    before, began = server.cpu_ns(), time.monotonic()
    try:
        outcome = bench.load(server.tcp, group, seconds=max(5.0, 2 * bench.seconds))
    finally:
        done.set()
    assert time.monotonic() - began > 2
    cpu = (server.cpu_ns() - before) / 1000 / outcome["requests"]
    if scrapes:
        reader.join()
    return cpu, outcome["groups"][0]["us"]["p99"]
