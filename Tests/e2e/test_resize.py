"""A container whose memory limit changes while it runs, as Kubernetes' in-place resize does it."""

import os
import time

from cgroup import Cgroup
from resp import Status
from runner import Failure, Skipped, expect, expect_true, test
from servers import wait_until

MIB = 1 << 20
VALUE = "v" * 1000


def limited(t, limit):
    try:
        return t.stack.enter_context(Cgroup(limit))
    except OSError as error:
        raise Skipped(f"no control group can be made here: {error}") from error


def fill(t, sidecar, redis, count):
    """Reads so many keys through the sidecar; returns how many of them it keeps."""
    with redis.client() as direct:
        for start in range(0, count, 1000):
            direct.pipeline([("SET", f"key:{n}", VALUE) for n in range(start, start + 1000)])
    with sidecar.client(timeout=30) as client:
        for start in range(0, count, 500):
            client.pipeline([("GET", f"key:{n}") for n in range(start, start + 500)])
    return sidecar.metric("ferrite_keys")


def budget(sidecar):
    return sidecar.metric("ferrite_memory_max_bytes")


@test("a memory limit that is raised and lowered: local_memory follows, in what is kept and in what is resident")
def _(t):
    group = limited(t, 64 * MIB)
    redis = t.redis()
    sidecar = t.sidecar(redis, under=group.under).wait_until_tracking()
    expect(budget(sidecar), 48 * MIB)
    few = fill(t, sidecar, redis, 60_000)
    group.limit(256 * MIB)
    wait_until(lambda: budget(sidecar) == 256 * MIB - 256 * MIB * 12 // 100 & ~4095, 15, what="a larger budget")
    expect_true("local_memory is 225mb now: container limit of 256mb" in sidecar.log(50), sidecar.log(50))
    many = fill(t, sidecar, redis, 60_000)
    expect_true(many > 1.5 * few, f"{few:.0f} keys, and {many:.0f} with four times the memory")
    # Below what is used now: the kernel would refuse it, or take what it finds, so it goes there in steps.
    sidecar.metrics()
    group_limit = 96 * MIB
    used = sidecar.metric("process_resident_memory_bytes")
    if used > group_limit:
        raise Failure(f"{used} bytes are resident: lower the count of keys in this test")
    group.limit(group_limit)
    wait_until(lambda: budget(sidecar) == 80 * MIB, 15, what="a smaller budget")
    wait_until(lambda: sidecar.metric("ferrite_memory_used_bytes") <= 80 * MIB, what="less in use")
    client = t.client(sidecar)
    expect(client.call("GET", "key:59999"), VALUE.encode())
    hits = sidecar.metric("ferrite_keyspace_hits_total")
    expect(client.call("GET", "key:59999"), VALUE.encode())
    expect(sidecar.metric("ferrite_keyspace_hits_total"), hits + 1)


@test("local_memory that was given is never passed, however high the limit is raised; what was clamped grows up to it")
def _(t):
    group = limited(t, 64 * MIB)
    sidecar = t.sidecar(t.redis(), under=group.under, settings={"local_memory": "100mb"})
    expect(budget(sidecar), 48 * MIB)
    group.limit(512 * MIB)
    wait_until(lambda: budget(sidecar) == 100 * MIB, 15, what="all that was asked for")


@test("a limit raised beyond what addresses were reserved for: as much as there are, and the log says so")
def _(t):
    group = limited(t, 64 * MIB)
    sidecar = t.sidecar(t.redis(), under=group.under)
    group.limit(4096 * MIB)
    wait_until(lambda: budget(sidecar) == 1024 * MIB, 15, what="the most that can be had")
    wait_until(lambda: "can be had after a restart only" in sidecar.log(50), what="a line that says so")


@test("a limit that is lowered under acknowledged writes: they are all carried out, and then there is less memory")
def _(t):
    group = limited(t, 256 * MIB)
    redis = t.redis()
    journal = os.path.join(redis.folder, "journal")
    settings = {"mode": "write-behind", "write_behind.memory": "40mb", "journal": journal}
    sidecar = t.sidecar(redis, under=group.under, settings=settings).wait_until_tracking()
    redis.freeze()
    with sidecar.client(timeout=30) as client:
        for number in range(90):
            expect(client.call("SET", f"key:{number}", "x" * 400_000), Status("OK"))
    try:
        group.limit(64 * MIB)
    except OSError as error:
        raise Skipped(f"this kernel does not lower a limit below what is used: {error}") from error
    wait_until(lambda: "does not fit into 48mb" in sidecar.log(50), 15, what="a line that says so")
    expect_true(budget(sidecar) > sidecar.metric("ferrite_sidecar_write_behind_bytes"), "nothing could be let go of")
    redis.thaw()
    wait_until(lambda: sidecar.metric("ferrite_sidecar_write_behind_queued") == 0, 20, what="an empty queue")
    wait_until(lambda: budget(sidecar) == 48 * MIB, 15, what="the smaller budget")
    expect(t.client(redis).call("STRLEN", "key:89"), 400_000)
    # What fitted before does not keep the next process from starting.
    sidecar.stop()
    after = t.sidecar(redis, under=group.under, settings=settings)
    expect_true("more than a quarter of local_memory; using 12mb" in after.log(50), after.log(50))


@test("a limit that is taken away: local_memory is what it is without one")
def _(t):
    group = limited(t, 64 * MIB)
    sidecar = t.sidecar(t.redis(), under=group.under)
    expect(budget(sidecar), 48 * MIB)
    group.limit(-1 if group.file == "memory.limit_in_bytes" else "max")
    wait_until(lambda: budget(sidecar) == 128 * MIB, 15, what="the budget of a process without a limit")
    expect_true("local_memory" in sidecar.page("/stats")[1], "no local_memory in /stats")
    # One below what it needs is followed as far as can be, and told.
    group.limit(40 * MIB)
    wait_until(lambda: "less than the 48Mi" in sidecar.log(50), 15, what="a complaint")
    time.sleep(0.1)
    expect(budget(sidecar), 32 * MIB)
