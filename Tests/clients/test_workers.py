"""Celery and RQ: real workers that meet their application through the sidecar."""

import os
import signal
import subprocess
import sys
import tempfile

import redis
import rq
from runner import Failure, expect, expect_true, test
from servers import wait_until

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


@test("Celery: jobs, results, failures, groups and chords by a worker behind the sidecar")
def _(t):
    sidecar = ready(t)
    url = f"redis://127.0.0.1:{sidecar.port}/0"
    os.environ["BROKER_URL"] = url
    import jobs
    from celery import chord, group
    jobs.app.conf.broker_url = jobs.app.conf.result_backend = url
    jobs.app.pool.force_close_all()
    jobs.app._pool = None
    jobs.app._local.__dict__.pop("backend", None)
    jobs.app.amqp._producer_pool = None
    with Worker(url, "celery", "-A", "jobs", "worker", "--pool", "solo", "--loglevel", "info", "--without-gossip"):
        expect(jobs.add.delay(2, 3).get(timeout=30), 5)
        results = [jobs.add.delay(n, n) for n in range(50)]
        expect([result.get(timeout=30) for result in results], [2 * n for n in range(50)])
        try:
            jobs.fails.delay("on purpose").get(timeout=30)
            raise Failure("the failing job did not fail")
        except ValueError as error:
            expect(str(error), "on purpose")
        expect(group(jobs.add.s(n, 1) for n in range(10))().get(timeout=30), [n + 1 for n in range(10)])
        expect(chord((jobs.add.s(n, 0) for n in range(10)), jobs.total.s())().get(timeout=30), 45)
        expect(jobs.add.apply_async((1, 1), countdown=1).get(timeout=30), 2)


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
            wait_until(lambda: job.get_status(refresh=True).value in ("finished", "failed"), 30, what=f"the end of job {n}")
            expect(job.return_value(refresh=True), n * n)
        wait_until(lambda: broken.get_status(refresh=True).value == "failed", 30, what="the failure")
        expect_true("broken on purpose" in broken.latest_result().exc_string, "no reason for the failure")
