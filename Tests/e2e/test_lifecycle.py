"""Lifecycle: command line, configuration, start, drain, pages."""

import json
import os
import signal
import socket
import subprocess
import tempfile
import time

import servers
from resp import Client, Closed, Status, connect, encode
from runner import Failure, expect, expect_below, expect_true, test
from servers import wait_until


def run_ferrite(*arguments, env=None, timeout=20):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FERRITE_SIDECAR_")}
    environment.update(env or {})
    return subprocess.run([servers.ferrite_binary(), *map(str, arguments)], capture_output=True, text=True,
                          env=environment, stdin=subprocess.DEVNULL, timeout=timeout)


def refused(*arguments, words, env=None):
    """It ends at once with an error that holds all words."""
    try:
        result = run_ferrite(*arguments, env=env)
    except subprocess.TimeoutExpired:
        raise Failure(f"{arguments} started instead of being refused") from None
    said = result.stdout + result.stderr
    expect_true(result.returncode != 0, f"{arguments} ended with 0: {said}")
    for word in words:
        expect_true(word in said, f"{arguments}: expected {word!r} in: {said}")
    expect_true("Fatal error" not in said, f"{arguments}: a trap instead of an error: {said}")


def config_file(text):
    handle, path = tempfile.mkstemp(suffix=".toml", prefix="ferrite-test-")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    return path


@test("--version and --help say what there is", once=True)
def _(t):
    version = run_ferrite("--version")
    expect(version.returncode, 0)
    expect_true(any(character.isdigit() for character in version.stdout), f"no version in {version.stdout!r}")
    text = run_ferrite("--help").stdout
    for flag in ("--sidecar", "--config", "--upstream", "--bind", "--port", "--unix-socket", "--metrics-port",
                 "--network", "--set", "--check-config", "--version"):
        expect_true(flag in text, f"--help does not tell of {flag}")


@test("without an upstream it does not start, and says how to get one", once=True)
def _(t):
    refused("--sidecar", words=["upstream", "scripts/run"])


@test("mistakes in the configuration are named with file, line and key", once=True)
def _(t):
    head = '[sidecar]\nupstream = "127.0.0.1:7000"\n'
    for line, words in {
        'colour = "red"': [":3", "colour"],
        'local_memory = "128"': [":3", "local_memory"],
        'local_memory = "1mb"': [":3", "local_memory"],
        'mode = "sideways"': [":3", "mode", "read-through"],
        'ttl_default = "soon"': [":3", "ttl_default"],
        'port = "many"': [":3", "port"],
        'port = 70000': [":3", "port"],
        'read_timeout = "-5ms"': [":3", "read_timeout"],
        'eviction = "oldest"': [":3", "eviction", "lru"],
        'network = "rdma"': [":3", "network", "io_uring"],
        'allow_admin = "yes"': [":3", "allow_admin"],
        '[sidecar.metrics]\nport = -1': [":4", "port"],
        '[sidecar.nosuch]\nx = 1': [":3", "nosuch"],
        'local_memory = ': [":3"],
    }.items():
        path = config_file(head + line + "\n")
        refused("--sidecar", "--config", path, "--check-config", words=[os.path.basename(path) + words[0], *words[1:]])
        os.unlink(path)


@test("mistakes in flags and environment are named", once=True)
def _(t):
    refused("--sidecar", "--upstream", "127.0.0.1", words=["upstream"])
    refused("--sidecar", "--upstream", "127.0.0.1:6379", "--set", "nosuch=1", words=["nosuch"])
    refused("--sidecar", "--upstream", "127.0.0.1:6379", "--port", "x", words=["port"])
    refused("--sidecar", "--upstream", "127.0.0.1:6379", words=["FERRITE_SIDECAR_LOCAL_MEMORY"],
            env={"FERRITE_SIDECAR_LOCAL_MEMORY": "lots"})
    refused("--sidecar", "--config", "/nosuch/file.toml", words=["/nosuch/file.toml"])


@test("a listener that cannot be had is refused with its key and what can be done", once=True)
def _(t):
    with socket.create_server((servers.HOST, 0)) as taken, tempfile.NamedTemporaryFile() as file:
        upstream = ["--sidecar", "--upstream", "127.0.0.1:7000", "--set", "metrics.enabled=false"]
        refused(*upstream, "--port", str(taken.getsockname()[1]), words=["already in use", "--port"])
        port = ["--port", str(servers.free_port())]
        refused(*upstream, *port, "--unix-socket", file.name, words=["already in use", "no socket", "--unix-socket"])
        refused(*upstream, *port, "--unix-socket", "/nosuch/socket", words=["No such file", "--unix-socket"])


@test("a listener's address that is about to be free is waited for: a killed process's ring goes after it", once=True)
def _(t):
    upstream = t.redis()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "socket")
        with socket.create_server((servers.HOST, 0)) as taken, socket.socket(socket.AF_UNIX) as taken_too:
            taken_too.bind(path)
            taken_too.listen()
            sidecar = t.sidecar(upstream, "--unix-socket", path, port=taken.getsockname()[1], wait=False)
            time.sleep(0.3)
            expect_true(sidecar.is_alive(), "it gave up at once")
        sidecar.wait_until_up()
        with Client(path) as client:
            expect(client.call("PING"), "PONG")


@test("started with standard descriptors closed, it writes its log nowhere else", once=True)
def _(t):
    port = servers.free_port()
    words = [servers.ferrite_binary(), "--sidecar", "--upstream", "127.0.0.1:7000", "--port", str(port),
             "--set", "metrics.enabled=false"]
    child = subprocess.Popen(["bash", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "bash", *words])
    try:
        wait_until(lambda: not connect((servers.HOST, port)).close(), what="the listener")
        for number in range(3):
            expect(os.readlink(f"/proc/{child.pid}/fd/{number}"), "/dev/null")
    finally:
        child.kill()
        child.wait()


@test("the documented configuration is accepted, with a warning for what does nothing yet", once=True)
def _(t):
    path = config_file("""[sidecar]
enabled = true
mode = "read-through"        # read-through | write-through | write-behind
upstream = "ferrite-cluster.default.svc:6379"
local_memory = "128mb"
eviction = "lru"             # lru | lfu | random
ttl_default = 300            # seconds
connect_timeout = "100ms"
read_timeout = "50ms"
[sidecar.prefetch]
enabled = true
patterns = ["session:*", "config:*"]
[sidecar.metrics]
enabled = true
port = 9091
""")
    result = run_ferrite("--sidecar", "--config", path, "--check-config")
    expect(result.returncode, 0, result.stdout + result.stderr)
    expect_true("prefetch" in result.stdout + result.stderr, "no warning names prefetch")
    os.unlink(path)


@test("flags win over the environment, and that over the file")
def _(t):
    redis = t.redis()
    ports = [servers.free_port() for _ in range(3)]
    path = config_file(f'[sidecar]\nupstream = "127.0.0.1:{redis.port}"\nport = {ports[0]}\nmax_clients = 1\n')
    common = [servers.ferrite_binary(), "--sidecar", "--config", path, "--network", t.network, "--metrics-port",
              str(servers.free_port())]

    def listens_on(port, *flags, env=None):
        process = servers.Process([*common, *flags], env)
        try:
            process.wait_ready(lambda: Client((servers.HOST, port), timeout=1).ask("PING") == "PONG", 10)
        finally:
            expect(process.stop(), 0, f"exit code with {flags}, {env}: {process.log()}")
            process.forget()
    listens_on(ports[0])
    listens_on(ports[1], env={"FERRITE_SIDECAR_PORT": str(ports[1])})
    listens_on(ports[2], "--port", ports[2], env={"FERRITE_SIDECAR_PORT": str(ports[1])})
    # Kubernetes sets such a name for a Service called ferrite-sidecar; it must not be taken for ours.
    listens_on(ports[0], env={"FERRITE_SIDECAR_PORT": f"tcp://10.0.0.1:{ports[1]}"})
    os.unlink(path)


@test("a taken port is an error that names it")
def _(t):
    redis = t.redis()
    refused("--sidecar", "--upstream", f"127.0.0.1:{redis.port}", "--port", redis.port, "--metrics-port",
            servers.free_port(), "--network", t.network, words=[str(redis.port)])


@test("the start line tells what runs")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis)
    for word in (str(sidecar.port), t.network, f"127.0.0.1:{redis.port}", "read-through"):
        wait_until(lambda: word in sidecar.log(50), 3, what=f"a start line that tells of {word}")


@test("logs in JSON are one object a line")
def _(t):
    sidecar = t.sidecar(t.redis(), settings={"log_format": "json"})
    wait_until(lambda: sidecar.log(50), 3, what="a line of the log")
    sidecar.stop()
    for line in sidecar.log(50).splitlines():
        json.loads(line)


@test("on SIGTERM without clients it ends at once, with 0")
def _(t):
    sidecar = t.sidecar(t.redis())
    began = time.monotonic()
    expect(sidecar.stop(), 0, "exit code")
    expect_below(time.monotonic() - began, 2.0, "seconds until it ended")


@test("on SIGTERM it serves its clients until they leave, then ends with 0")
def _(t):
    sidecar = t.sidecar(t.redis(), settings={"drain_timeout": "20s"}).wait_until_tracking()
    client = t.client(sidecar)
    client.call("SET", "k", "v")
    sidecar.signal(signal.SIGTERM)
    for _ in range(20):
        expect(client.call("GET", "k"), b"v")
        expect(client.call("INCR", "n") > 0, True)
        time.sleep(0.02)
    expect_true(sidecar.is_alive(), "it did not wait for its client")
    client.close()
    expect(sidecar.child.wait(5), 0, "exit code")


@test("on SIGTERM it waits no longer than drain_timeout")
def _(t):
    sidecar = t.sidecar(t.redis(), settings={"drain_timeout": "500ms"}).wait_until_tracking()
    client = t.client(sidecar)
    client.call("PING")
    began = time.monotonic()
    sidecar.signal(signal.SIGTERM)
    expect(sidecar.child.wait(5), 0, "exit code")
    expect_true(time.monotonic() - began > 0.4, "it did not wait for its client")
    expect_true(client.is_closed(), "the client was left open")


@test("SIGINT ends it like SIGTERM")
def _(t):
    sidecar = t.sidecar(t.redis())
    sidecar.signal(signal.SIGINT)
    expect(sidecar.child.wait(5), 0, "exit code")


@test("the Unix socket is served, a stale file replaced, and removed at the end")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, unix=True)
    path = sidecar.unix_path
    with sidecar.client(unix=True) as client:
        client.call("SET", "k", "v")
        expect(client.call("GET", "k"), b"v")
        expect(client.pipeline([("GET", "k")] * 100), [b"v"] * 100)
    sidecar.kill()
    sidecar.child.returncode = 0  # killed on purpose
    expect_true(os.path.exists(path), "the socket's file has gone with a killed process")
    again = servers.Sidecar(redis.address, "--unix-socket", path, network=t.network)
    t.sidecars.append(again)
    with Client(path) as client:
        expect(client.call("GET", "k"), b"v")
    expect(again.stop(), 0)
    expect_true(not os.path.exists(path), "the socket's file is left behind")


@test("IPv6 is served")
def _(t):
    try:
        connect(("::1", 1)).close()
    except ConnectionRefusedError:
        pass
    except OSError:
        return t.note("this machine has no IPv6")
    sidecar = t.sidecar(t.redis(), "--bind", "::1", wait=False)
    wait_until(lambda: Client(("::1", sidecar.port)).call("PING") == Status("PONG"))


@test("the metrics page is Prometheus text, and holds no key")
def _(t):
    hidden = {"control_key": "hidden:control", "trace_key": "hidden:trace"}
    sidecar = t.sidecar(t.redis(), settings={
        **hidden, "rules": '[{pattern = "shown:*", ttl = "1m"}]'}).wait_until_tracking()
    with sidecar.client() as client:
        client.call("SET", "secretkey", "v")
        client.call("GET", "secretkey")
        client.call("GET", "secretkey")
    status, text = sidecar.page("/metrics")
    expect(status, 200)
    described, seen = set(), set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name = line.split()[2]
            expect_true(name not in described, f"{name} is described twice")
            described.add(name)
        elif line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            expect_true(name not in seen, f"{name} stands twice")
            seen.add(name)
            float(value)
            base = name.split("{")[0]
            stems = {base, base.removesuffix("_bucket"), base.removesuffix("_sum"), base.removesuffix("_count")}
            expect_true(stems & described, f"{base} has no TYPE")
    expect_true("secretkey" not in text, "a key's name stands in the metrics")
    expect_true(t.network in text, f"the metrics do not name {t.network}")
    expect_true(sidecar.metric("ferrite_keyspace_hits_total") >= 1, "no hit was counted")
    expect_true('ferrite_commands_total{command="get",status="ok"}' in text, "GETs are not counted by name")
    stats_status, stats = sidecar.page("/stats")
    expect(stats_status, 200)
    json.loads(stats)
    expect_true("secretkey" not in stats and "hidden:" not in stats, "a key's name stands in /stats")
    expect_true("shown:*" in stats, "the configuration does not stand in /stats")
    expect(sidecar.page("/healthz")[0], 200)
    expect(sidecar.page("/readyz")[0], 200)
    expect(sidecar.page("/nosuch")[0], 404)


@test("histograms rise to their count")
def _(t):
    sidecar = t.sidecar(t.redis()).wait_until_tracking()
    with sidecar.client() as client:
        client.call("SET", "k", "v")
        for _ in range(100):
            client.call("GET", "k")
    metrics = sidecar.metrics()
    hits = [(name, value) for name, value in metrics.items()
            if name.startswith('ferrite_command_duration_seconds_bucket{') and 'outcome="hit"' in name]
    expect_true(hits, "no buckets for hits")
    values = [value for _, value in hits]
    expect(values, sorted(values), "buckets in order")
    count = sum(value for name, value in metrics.items()
                if name.startswith('ferrite_command_duration_seconds_count{') and 'outcome="hit"' in name)
    expect(values[-1], count)
    expect_true(count >= 99, f"{count} hits were timed")


@test("ferritectl stats shows the numbers, for people and as JSON")
def _(t):
    sidecar = t.sidecar(t.redis()).wait_until_tracking()
    def ctl(*words):
        url = f"http://{servers.HOST}:{sidecar.metrics_port}"
        return subprocess.run([servers.ferritectl_binary(), "stats", "--url", url, *words], capture_output=True,
                              text=True, timeout=10)

    people = ctl()
    expect(people.returncode, 0, people.stderr)
    for word in ("hit", t.network):
        expect_true(word in people.stdout, f"no {word!r} in:\n{people.stdout}")
    json.loads(ctl("--json").stdout)


@test("INFO and the metrics name the network engine")
def _(t):
    sidecar = t.sidecar(t.redis()).wait_until_tracking()
    with sidecar.client() as client:
        info = client.call("INFO", "sidecar").decode()
    expect_true(t.network in info, f"{t.network} is not in {info!r}")


@test("all threads but the loop's stand back (SCHED_IDLE)")
def _(t):
    sidecar = t.sidecar(t.redis()).wait_until_tracking()
    sidecar.page("/metrics")
    normal = []
    for thread in os.listdir(f"/proc/{sidecar.pid}/task"):
        try:
            if os.sched_getscheduler(int(thread)) != os.SCHED_IDLE:
                with open(f"/proc/{sidecar.pid}/task/{thread}/comm") as comm:
                    normal.append(comm.read().strip())
        except OSError:
            continue
    t.note(f"at normal priority: {', '.join(normal)}")
    expect_true(1 <= len(normal) <= 3, f"threads at normal priority: {normal}")


@test("it starts fast")
def _(t):
    redis = t.redis()
    best = None
    for _ in range(5):
        began = time.monotonic()
        sidecar = t.sidecar(redis)
        seconds = time.monotonic() - began
        best = seconds if best is None else min(best, seconds)
        sidecar.stop()
    t.note(f"first PONG after {best * 1000:.0f} ms")
    expect_below(best, 0.5, "seconds until the first PONG")


@test("a client that is closed by the server can come again")
def _(t):
    sidecar = t.sidecar(t.redis(), settings={"idle_timeout": "200ms"})
    for _ in range(3):
        with sidecar.client() as client:
            expect(client.call("PING"), Status("PONG"))
            try:
                expect_true(client.is_closed(3.0), "an idle client was not closed")
            except Closed:
                pass


@test("a client that ends its side is answered what it asked, and takes no job with it")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis).wait_until_tracking()
    direct, client = t.client(redis), t.client(sidecar)
    client.send_raw(b"".join(encode(*command) for command in (
        ("GET", "x"), ("MULTI",), ("SET", "x", "5"), ("INCR", "x"), ("EXEC",), ("GET", "x"))))
    client.socket.shutdown(socket.SHUT_WR)
    expect([client.read() for _ in range(6)], [None, Status("OK"), Status("QUEUED"), Status("QUEUED"),
                                               [Status("OK"), 6], b"6"])
    try:
        expect(client.read(), "the end")
    except Closed:
        pass
    opened = sidecar.metric("ferrite_connections_opened_total")
    waiting = t.client(sidecar)
    waiting.send_raw(encode("GET", "missing") + encode("BLPOP", "jobs", "0"))
    waiting.close()
    wait_until(lambda: sidecar.metric("ferrite_connections_opened_total") > opened
               and sidecar.metric("ferrite_connections_active") == 0, 5, what="its connection's end")
    # Who is gone before his link is closed upstream may still be given a job, as by Redis itself.
    wait_until(lambda: b" cmd=blpop " not in direct.call("CLIENT", "LIST"), 5, what="its link's end")
    direct.call("RPUSH", "jobs", "one")
    expect(direct.call("LLEN", "jobs"), 1)


@test("a client that ends its side behind a command that blocks, and more than can be in the air, does not stay")
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"link_timeout": "1s"}).wait_until_tracking()
    waiting = t.client(sidecar)
    waiting.send_raw(encode("BLPOP", "jobs", "0") + encode("SET", "k", "v") * 1000)
    waiting.close()
    wait_until(lambda: sidecar.metric("ferrite_connections_active") == 0, 5, what="its connection's end")
    wait_until(lambda: b" cmd=blpop " not in t.client(redis).call("CLIENT", "LIST"), 5, what="its link's end")


@test("a silent client is closed when idle_timeout has passed, and not much later")
def _(t):
    sidecar = t.sidecar(t.redis(), settings={"idle_timeout": "300ms"})
    client = t.client(sidecar)
    client.call("PING")
    began = time.monotonic()
    try:
        client.read(5)
    except Closed:
        pass
    seconds = time.monotonic() - began
    expect_true(seconds > 0.25, f"closed after {seconds:.2f} s")
    expect_below(seconds, 0.75, "seconds until it was closed")


@test("HELLO says what the upstream is")
def _(t):
    master = t.redis()
    replica = t.redis("--replicaof", *map(str, master.address))
    sidecar = t.sidecar(replica)
    client, direct = t.client(sidecar), t.client(replica)
    wait_until(lambda: client.ask("HELLO")[-3] == b"replica", 5, what="the upstream's role")
    ours, theirs = client.call("HELLO"), direct.call("HELLO")
    expect([ours[n] for n in (1, 3, 5, 9, 11)], [theirs[n] for n in (1, 3, 5, 9, 11)])
