"""tls: what TLS between the sidecar and its upstream costs: a request, a new connection, an idle one."""

import contextlib
import os
import time
import types

import kernel
from certificates import Authority
from report import Samples, Section, number
from servers import Client, TLSRedis

LOADS = (("1 connection -P 1", 1, 1), ("50 connections -P 1", 50, 1), ("50 connections -P 16", 50, 16))
KEYS = 10_000
VALUES = (64, 16_384)
CONNECTIONS = 200


@contextlib.contextmanager
def subjects(bench):
    """The upstream, and sidecars in front of it by what lies between."""
    authority = Authority(os.path.join(bench.directory, "authority"))
    shown = {}
    for name in ("server", "client"):
        folder = os.path.join(bench.directory, name)
        authority.sign(folder, "IP:127.0.0.1")
        shown[name] = folder
    ours = {"tls_cert_file": f"{shown['client']}/tls.crt", "tls_key_file": f"{shown['client']}/tls.key"}
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(
            TLSRedis(bench.directory, kernel.CLIENT_CORE, shown["server"], authority.path))
        by_tls = types.SimpleNamespace(tcp=f"rediss://127.0.0.1:{upstream.tls_port}")
        trusted = {"tls_ca_cert_file": authority.path, "max_clients": CONNECTIONS + 100}
        yield upstream, {
            "plain": stack.enter_context(bench.ferrite(upstream, max_clients=CONNECTIONS + 100)),
            "TLS 1.3": stack.enter_context(bench.ferrite(by_tls, **trusted)),
            "TLS 1.3, with a certificate of ours": stack.enter_context(bench.ferrite(by_tls, **trusted, **ours)),
        }


def tls(bench):
    with subjects(bench) as (upstream, servers):
        return [requests(bench, upstream, dict(list(servers.items())[:2])), connections(bench, servers)]


def requests(bench, upstream, servers):
    section = Section("tls", "A request, by TLS and without", [
        "HGET, which always travels. AES-GCM or ChaCha20 as the two sides choose, certificates of P-256. CPU is the "
        "sidecar's; the upstream shares its core with the client, and encrypts there. The two take turns in a round.",
    ], ["value", "load", "us plain", "us TLS", "TLS / plain", "requests/s plain", "TLS", "p99 us plain", "TLS"])
    for value in VALUES:
        prefix = f"hash{value}:"
        bench.load(upstream.tcp, f"hset,pipeline=20,order=sequence,keys={KEYS // 10},prefix={prefix},value={value}",
                   requests=KEYS // 10)
        for where, clients, pipeline in LOADS:
            bench.say(f"tls: {value} bytes, {where}")
            group = f"hget,clients={clients},pipeline={pipeline},keys={KEYS // 10},prefix={prefix},value={value}"
            rounds = {name: [] for name in servers}
            for _ in range(bench.rounds):
                for name, server in servers.items():
                    before = server.cpu_ns()
                    outcome = bench.load(server.tcp, group)
                    rounds[name].append((
                        (server.cpu_ns() - before) / 1000 / outcome["requests"],
                        outcome["requests"] / outcome["seconds"], outcome["groups"][0]["us"]["p99"]))
            columns = {name: [Samples(column) for column in zip(*samples)] for name, samples in rounds.items()}
            (plain, plain_rate, plain_p99), (sealed, sealed_rate, sealed_p99) = columns.values()
            section.row(f"{value:,}", where, str(plain), str(sealed), str(sealed.over(plain)),
                        number(plain_rate.median), number(sealed_rate.median), number(plain_p99.median),
                        number(sealed_p99.median))
            section.figure(f"{value} bytes, {where}, TLS / plain", sealed.over(plain).median)
    return section


def connections(bench, servers):
    section = Section("tls", "A connection, by TLS and without", [
        f"{CONNECTIONS} clients, one after another, that subscribe, and so get a connection of their own to the "
        "upstream; the time from the command to its answer, the sidecar's CPU for it, and what its memory (RssAnon) "
        "has grown by.",
    ], ["upstream", "ms a connection", "sidecar's CPU us", "KiB"])
    rounds = {name: [] for name in servers}
    for turn in range(bench.rounds):
        bench.say(f"tls: connections, round {turn + 1} of {bench.rounds}")
        for name, server in servers.items():
            rounds[name].append(connect_all(server))
    for name, samples in rounds.items():
        # What the first round has allocated is used again by those behind it.
        (ms, cpu_us, _), kib = (Samples(column) for column in zip(*samples)), samples[0][2]
        section.row(name, str(ms), str(cpu_us), number(kib))
        section.figure(f"{name}, CPU us a connection", cpu_us.median)
    return section


def connect_all(server):
    taken = []
    before, held = server.cpu_ns(), kernel.memory(server.pid)["RssAnon"]
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS):
            client = stack.enter_context(Client(server.tcp))
            sent = time.perf_counter_ns()
            client.ask("SUBSCRIBE", "news")
            taken.append((time.perf_counter_ns() - sent) / 1e6)
        used = server.cpu_ns() - before
        held = kernel.memory(server.pid)["RssAnon"] - held
    time.sleep(0.3)
    return Samples(taken).median, used / 1000 / CONNECTIONS, held / 1024 / CONNECTIONS
