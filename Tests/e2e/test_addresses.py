"""Where the daemon listens: in pods with both families, with IPv6 alone, and without any IPv6."""

import ctypes
import os
import re
import shutil
import socket
import subprocess
import threading

import servers
from resp import Client
from runner import Skipped, expect, expect_true, test
from servers import HOST, Process, wait_until

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def needs_v6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        raise Skipped(f"this machine has no IPv6: {error}") from None


def needs_namespaces():
    words = ("unshare", "--net", "ip", "link", "set", "lo", "up")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skipped(f"no network namespace can be made here: {done.stderr.strip()}")


def within(process, function):
    """What the function gives in the process's network; the sockets that it makes stay there."""
    result = {}

    def run():
        with open(f"/proc/{process.pid}/ns/net", encoding="ascii") as namespace:
            if _libc.setns(namespace.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        try:
            result["value"] = function()
        except OSError as error:
            result["error"] = error
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if "error" in result:
        raise result["error"]
    return result["value"]


def page(host, port):
    """The status of /readyz."""
    with socket.create_connection((host, port), timeout=5) as client:
        client.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
        return int(client.recv(4096).split()[1])


def asks(host, port, *words):
    with Client((host, port), timeout=5.0) as client:
        return client.ask(*words)


class Pod(Process):
    """A network of its own, made by these commands, with a redis-server at [fd00::2]:6379 where there is IPv6."""

    name = "pod"

    def __init__(self, redis_bind, *commands):
        redis = f"exec redis-server --port 6379 --bind {redis_bind} --save '' --protected-mode no"
        super().__init__(["unshare", "--net", "/bin/sh", "-ec", "\n".join([*commands, redis])])
        self.wait_ready(lambda: "Ready to accept connections" in self.log(), 10.0)

    def sidecar(self, upstream, **named):
        return servers.Sidecar(upstream, under=("nsenter", f"--net=/proc/{self.pid}/ns/net"), bind=None, port=6380,
                               metrics_port=9091, wait=False, **named)


@test("addresses: a pod that has IPv6 alone: the page is there for the kubelet, clients come by either loopback")
def _(t):
    needs_namespaces()
    needs_v6()
    pod = t.stack.enter_context(Pod("fd00::2", "ip link set lo up", "ip address add fd00::2/128 dev lo nodad"))
    sidecar = t.stack.enter_context(pod.sidecar("[fd00::2]:6379", network=t.network))
    wait_until(lambda: within(pod, lambda: page("fd00::2", 9091)) == 200, 10.0, what="readiness")
    expect(within(pod, lambda: page("127.0.0.1", 9091)), 200)
    expect(str(within(pod, lambda: asks("127.0.0.1", 6380, "SET", "k", "v"))), "OK")
    expect(within(pod, lambda: asks("::1", 6380, "GET", "k")), b"v")
    expect(sidecar.stop(), 0)


@test("addresses: a pod whose IPv6 is turned off: ::1 is left out, and the page is there")
def _(t):
    needs_namespaces()
    pod = t.stack.enter_context(Pod(HOST, "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6", "ip link set lo up"))
    sidecar = t.stack.enter_context(pod.sidecar(f"{HOST}:6379", network=t.network))
    wait_until(lambda: within(pod, lambda: page(HOST, 9091)) == 200, 10.0, what="readiness")
    expect(str(within(pod, lambda: asks(HOST, 6380, "SET", "k", "v"))), "OK")
    expect_true("::1" not in sidecar.log(), sidecar.log())
    expect(sidecar.stop(), 0)


@test("addresses: a kernel without IPv6: ::1 is left out, and the page is on all of IPv4")
def _(t):
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "no_v6.c")
    library = os.path.join(t.folder(), "no_v6.so")
    subprocess.run([shutil.which("cc") or "clang", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    redis = t.redis()
    sidecar = t.sidecar(redis, env={"LD_PRELOAD": library}, bind=None)
    expect(sidecar.page("/readyz")[0], 200)
    expect_true(f"0.0.0.0:{sidecar.metrics_port}" in sidecar.log(), sidecar.log())
    expect_true(f"listening on {HOST}:{sidecar.port}" in sidecar.log() and "::1" not in sidecar.log(), sidecar.log())


@test("addresses: one that the machine does not have ends the start, unless it is optional and another is there")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, bind=f"{HOST},-203.0.113.9")
    expect_true("203.0.113.9" not in sidecar.log(), sidecar.log())
    for bind in (f"{HOST},203.0.113.9", "-203.0.113.9 -203.0.113.8"):
        refused = servers.Sidecar(redis.address, f"--bind={bind}", network=t.network, bind=None, wait=False)
        expect_true(refused.child.wait(10) != 0, f"{bind} was taken")
        expect_true("cannot listen on 203.0.113." in refused.log() and "bind (--bind)" in refused.log(), refused.log())
        refused.gone()
        refused.forget()


@test("addresses: port 0 is one port on all of them", once=True)
def _(t):
    needs_v6()
    words = (servers.ferrite_binary(), "--sidecar", "--upstream", servers.spelled(t.redis().address), "--port", 0,
             "--metrics-port", 0, "--network", t.network)
    with Process(words) as process:
        line = wait_until(lambda: re.search(r"listening on .*", process.log()), 10.0, what="the start line")[0]
        port = int(re.search(rf"{re.escape(HOST)}:(\d+)", line)[1])
        expect_true(f"[::1]:{port} " in line + " ", line)
        expect(str(asks("::1", port, "PING")), "PONG")
