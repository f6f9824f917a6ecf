"""The dashboards of deploy/grafana, read by Grafana's own SDK."""

import json
import os

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from runner import expect, test

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "deploy", "grafana")


def lost(before, after, place=""):
    """Where the second does not say what the first says; it may say more, the defaults."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from lost(value, after[key], f"{place}/{key}") if key in after else [f"{place}/{key}"]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, pair in enumerate(zip(before, after)):
            yield from lost(*pair, f"{place}/{index}")
    elif before != after:
        yield f"{place}: {before!r} became {after!r}"


@test("grafana's SDK reads each dashboard, and nothing is lost", once=True)
def _(t):
    register_default_plugins()
    for name in ("ferrite-pod.json", "ferrite-fleet.json"):
        with open(os.path.join(FOLDER, name)) as file:
            written = json.load(file)
        read = json.loads(JSONEncoder().encode(Dashboard.from_json(written)))
        expect(list(lost(written, read)), [], name)
