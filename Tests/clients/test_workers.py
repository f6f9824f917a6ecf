"""Celery and RQ: real workers that meet their application through the sidecar."""

import gc
import os
import signal
import subprocess
import sys
import tempfile

import jobs
import redis
import rq
from celery import chord, group
from runner import Failure, expect, expect_true, test
from servers import wait_until

ENDED = ("finished", "failed")
HERE = os.path.dirname(os.path.abspath(__file__))


class Worker:
    """A worker process with its output in a file."""

    def __init__(self, url, *arguments):
        self.log = tempfile.NamedTemporaryFile(prefix="ferrite-test-worker-", mode="w+")
        environment = {**os.environ, "BROKER_URL": url, "PYTHONPATH": HERE}
        self.child = subprocess.Popen([sys.executable, "-m", *arguments], cwd=HERE, env=environment, stdout=self.log,
                                      stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)

    def words(self):
        self.log.seek(0)
        return self.log.read()[-3000:]

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(15)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        if kind:
            print(f"the worker's last words:\n{self.words()}")
        self.log.close()


def ready(t):
    return t.sidecar(t.redis()).wait_until_tracking()


def use_celery(url):
    application = jobs.application(url)
    add, fails, total = (application.tasks[f"jobs.{name}"] for name in ("add", "fails", "total"))
    expect(add.delay(2, 3).get(timeout=30), 5)
    results = [add.delay(n, n) for n in range(50)]
    expect([result.get(timeout=30) for result in results], [2 * n for n in range(50)])
    try:
        fails.delay("on purpose").get(timeout=30)
        raise Failure("the failing job did not fail")
    except ValueError as error:
        expect(str(error), "on purpose")
    expect(group(add.s(n, 1) for n in range(10))().get(timeout=30), [n + 1 for n in range(10)])
    expect(chord((add.s(n, 0) for n in range(10)), total.s())().get(timeout=30), 45)
    expect(add.apply_async((1, 1), countdown=1).get(timeout=30), 2)
    application.close()


@test("Celery: jobs, results, failures, groups and chords by a worker behind the sidecar")
def _(t):
    sidecar = ready(t)
    url = f"redis://127.0.0.1:{sidecar.port}/0"
    with Worker(url, "celery", "-A", "jobs", "worker", "--pool", "solo", "--loglevel", "info", "--without-gossip"):
        use_celery(url)
        gc.collect()  # results left over say farewell to the server, which must still be there


@test("RQ: jobs, results and failures by a worker behind the sidecar")
def _(t):
    sidecar = ready(t)
    url = f"redis://127.0.0.1:{sidecar.port}/0"
    connection = redis.Redis(port=sidecar.port)
    queue = rq.Queue(connection=connection)
    with Worker(url, "rq.cli", "worker", "--url", url, "--worker-class", "rq.SimpleWorker"):
        made = [queue.enqueue("jobs.multiply", n, n) for n in range(30)]
        broken = queue.enqueue("jobs.breaks")
        for n, job in enumerate(made):
            wait_until(lambda: job.get_status(refresh=True).value in ENDED, 30, what=f"the end of job {n}")
            expect(job.return_value(refresh=True), n * n)
        wait_until(lambda: broken.get_status(refresh=True).value == "failed", 30, what="the failure")
        expect_true("broken on purpose" in broken.latest_result().exc_string, "no reason for the failure")
