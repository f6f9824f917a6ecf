"""scrape: what a Prometheus that asks every second costs the requests beside it."""

import threading
import time

from report import Samples, Section, number

LOADS = (("hits, as many as can be, 20 connections -P 16", "get,clients=20,pipeline=16,keys=10000,value=64"),
         ("hits, 20,000/s", "get,clients=20,rate=20000,keys=10000,value=64"))


def scrape(bench):
    section = Section("scrape", "Requests while the metrics page is read every second, and while it is not", [
        "The page is read whole once a second, as Prometheus does; CPU is that of the whole process, the page's own "
        "included. The two take turns within each round. Noise: how far the rounds without it are from each other.",
    ], ["load", "CPU us without", "with", "with / without", "noise", "p99 us without", "with", "noise", "aim"])
    with bench.redis() as upstream, bench.ferrite(upstream) as server:
        bench.load(upstream.tcp, "set,pipeline=100,order=sequence,keys=10000,value=64", requests=10_000)
        bench.load(server.tcp, "get,pipeline=16,order=sequence,keys=10000,value=64", requests=20_000)
        for where, group in LOADS:
            bench.say(f"scrape: {where}")
            without, scraped = [], []
            for _ in range(bench.rounds):
                without.append(measure(bench, server, group, scrapes=False))
                scraped.append(measure(bench, server, group, scrapes=True))
            (cpu, p99), (cpu_with, p99_with) = ([Samples(column) for column in zip(*rounds)]
                                                for rounds in (without, scraped))
            noises = [max(one.values) / min(one.values) - 1 for one in (cpu, p99)]
            shares = [with_.over(one).median for one, with_ in ((cpu, cpu_with), (p99, p99_with))]
            verdict = section.aim(
                where, all(share - 1 <= noise for share, noise in zip(shares, noises)),
                f"CPU {shares[0]:.3f} times, noise {noises[0]:.3f}; p99 {shares[1]:.3f} times, noise {noises[1]:.3f}")
            section.row(where, str(cpu), str(cpu_with), number(shares[0]), f"{noises[0]:.0%}", str(p99), str(p99_with),
                        f"{noises[1]:.0%}", verdict)
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
