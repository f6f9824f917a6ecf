"""jobs — the work that Celery and RQ are given by the tests. BROKER_URL names the Redis they meet at."""

import os

from celery import Celery

app = Celery("jobs", broker=os.environ.get("BROKER_URL"), backend=os.environ.get("BROKER_URL"))
app.conf.update(broker_connection_retry_on_startup=True, task_serializer="json", result_serializer="json",
                accept_content=["json"], worker_hijack_root_logger=False)


@app.task
def add(first, second):
    return first + second


@app.task
def fails(text):
    raise ValueError(text)


@app.task
def total(numbers):
    return sum(numbers)


def multiply(first, second):
    """For RQ."""
    return first * second


def breaks():
    """For RQ."""
    raise RuntimeError("broken on purpose")
