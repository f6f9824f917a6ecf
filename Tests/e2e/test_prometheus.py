"""Prometheus: what it is told, and the rules and alerts of deploy/prometheus."""

import os
import re
import subprocess

from runner import expect, expect_true, test

RULES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "deploy", "prometheus")


def promtool(*words, text=None):
    return subprocess.run(["promtool", *words], input=text, capture_output=True, text=True, cwd=RULES)


@test("prometheus: promtool finds nothing to say about the metrics", once=True)
def _(t):
    redis = t.redis()
    sidecar = t.sidecar(redis, settings={"mode": "write-behind", "audit": "1"}).wait_until_tracking()
    client = t.client(sidecar)
    for words in (("SET", "k", "v"), ("GET", "k"), ("GET", "other"), ("LPUSH", "l", "1"), ("NOSUCH",)):
        client.ask(*words)
    checked = promtool("check", "metrics", text=sidecar.page("/metrics")[1])
    expect((checked.returncode, checked.stdout, checked.stderr), (0, "", ""))


@test("prometheus: the rules and alerts do what their tests say, of metrics that there are", once=True)
def _(t):
    files = ("ferrite.rules.yaml", "ferrite.alerts.yaml")
    for done in (promtool("check", "rules", *files), promtool("test", "rules", "ferrite.test.yaml")):
        expect(done.returncode, 0, done.stdout + done.stderr)
    sidecar = t.sidecar(t.redis()).wait_until_tracking()
    page = sidecar.page("/metrics")[1]
    for name in files:
        with open(os.path.join(RULES, name)) as file:
            text = "".join(line for line in file if not line.lstrip().startswith("#"))
        # What is recorded has a colon in front.
        for metric in sorted(set(re.findall(r"(?<![:\w])ferrite_\w+", text))):
            expect_true(f"\n{metric}" in page, f"{name} asks for {metric}, which the page does not have")
    with open(os.path.join(RULES, "ferrite.alerts.yaml")) as file:
        alerts = re.findall(r"alert: (\w+)", file.read())
    with open(os.path.join(RULES, "ferrite.test.yaml")) as file:
        tested = re.findall(r"^  - name: (Ferrite\w+)", file.read(), re.M)
    expect(sorted(tested), sorted(alerts), "alerts that are seen to fire")
