"""jobs — the work that Celery and RQ are given by the tests. A worker finds its Redis in BROKER_URL."""

import os

from celery import Celery


def add(first, second):
    return first + second


def fails(text):
    raise ValueError(text)


def total(numbers):
    return sum(numbers)


def multiply(first, second):
    """For RQ."""
    return first * second


def breaks():
    """For RQ."""
    raise RuntimeError("broken on purpose")


def application(url):
    """A Celery application whose broker and results are at url; .tasks["jobs.add"] and so on are its tasks."""
    made = Celery("jobs", broker=url, backend=url, set_as_current=False)
    made.conf.update(broker_connection_retry_on_startup=True, task_serializer="json", result_serializer="json",
                     accept_content=["json"], worker_hijack_root_logger=False)
    for function in (add, fails, total):
        made.task(function, name=f"jobs.{function.__name__}")
    return made


app = application(os.environ.get("BROKER_URL"))
