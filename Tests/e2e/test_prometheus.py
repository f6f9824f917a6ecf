"""Prometheus: what it is told, and the rules and alerts of deploy/prometheus."""

import json
import math
import os
import re
import subprocess
import threading
import time

import prometheus
from certificates import Authority
from kubernetes import Webhook
from resp import Closed, ReplyError
from runner import expect, expect_true, test
from servers import HOST, wait_until

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


def rules_hold(files, tests, page):
    """The rules, the tests of each alert, and that there is a metric for each that is asked for."""
    for done in (promtool("check", "rules", *files), promtool("test", "rules", tests)):
        expect(done.returncode, 0, done.stdout + done.stderr)
    alerts = []
    for name in files:
        with open(os.path.join(RULES, name)) as file:
            text = "".join(line for line in file if not line.lstrip().startswith("#"))
        # What is recorded has a colon in front.
        for metric in sorted(set(re.findall(r"(?<![:\w])ferrite_\w+", text))):
            expect_true(re.search(rf"^{metric}[ {{]", page, re.M), f"{name} asks for {metric}, and there is none")
        for label in sorted(set(re.findall(r'\w+="\w[\w-]*"', text))):
            expect_true(label in page, f"{name} asks for {label}, and there is none")
        alerts += re.findall(r"alert: (\w+)", text)
    with open(os.path.join(RULES, tests)) as file:
        tested = re.findall(r"^  - name: (Ferrite\w+)", file.read(), re.M)
    expect(sorted(tested), sorted(alerts), "alerts that are seen to fire")


@test("prometheus: the rules and alerts do what their tests say, of metrics that there are", once=True)
def _(t):
    sidecar = t.sidecar(t.redis()).wait_until_tracking()
    rules_hold(("ferrite.rules.yaml", "ferrite.alerts.yaml"), "ferrite.test.yaml", sidecar.page("/metrics")[1])


@test("prometheus: the webhook's alerts do what their tests say, of metrics that there are", once=True)
def _(t):
    folder = t.folder()
    authority = Authority(os.path.join(folder, "authority"))
    authority.sign(os.path.join(folder, "tls"), f"DNS:localhost,IP:{HOST}")
    with Webhook("--cert-dir", os.path.join(folder, "tls"), "--shutdown-delay", "0", authority=authority.path) as hook:
        rules_hold(("ferrite-webhook.alerts.yaml",), "ferrite-webhook.test.yaml", hook.health("/metrics")[1])


def load(sidecar, done):
    """Reads, most of them hits, some of them missing, writes, and lists."""
    with sidecar.client() as client:
        turn = 0
        while not done.is_set():
            turn += 1
            try:
                client.pipeline([("SET", f"k{turn % 20}", turn), ("GET", f"k{turn % 20}"), ("GET", f"k{turn % 7}"),
                                 ("GET", f"missing{turn}"), ("RPUSH", "list", turn), ("LLEN", "list")])
            except (Closed, ReplyError, OSError):
                pass
            time.sleep(0.01)


@test("prometheus: a real one finds data for every panel of the dashboards, and for every alert", once=True)
def _(t):
    redis = t.redis()
    settings = {"mode": "write-behind", "audit": "0.5", "journal": os.path.join(redis.folder, "journal"),
                "prefetch.enabled": "true", "prefetch.patterns": "k*", "prefetch.jitter": "0"}
    sidecar = t.sidecar(redis, settings=settings).wait_until_tracking()
    done = threading.Event()
    worker = threading.Thread(target=load, args=(sidecar, done))
    worker.start()
    try:
        with prometheus.Prometheus([sidecar.metrics_port]) as server:
            wanting = [(dashboard["title"], panel["title"], prometheus.chosen(target["expr"]))
                       for dashboard in prometheus.dashboards() for panel in prometheus.panels(dashboard)
                       for target in panel["targets"]]
            t.note(f"{expect_data(server, [*wanting, *asked_by_alerts('ferrite.alerts.yaml')])} expressions")
    finally:
        done.set()
        worker.join()


def review(inject):
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
        "uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE", "namespace": "shop",
        "object": {"metadata": {"annotations": {"ferrite.io/sidecar-inject": inject}},
                   "spec": {"containers": [{"name": "app"}]}}}}


@test("prometheus: a real one finds data of a real webhook for each of its alerts, and tells when there is none",
      once=True)
def _(t):
    folder = t.folder()
    authority = Authority(os.path.join(folder, "authority"))
    authority.sign(os.path.join(folder, "tls"), f"DNS:localhost,IP:{HOST}")
    with Webhook("--cert-dir", os.path.join(folder, "tls"), "--shutdown-delay", "0", authority=authority.path) as hook:
        with prometheus.Prometheus([hook.health_port], rules=["ferrite-webhook.alerts.yaml"]) as server:
            wait_until(lambda: server.query("ferrite_webhook_build_info"), 20, 0.2, "a scrape")
            hook.decide(review("true"))
            t.note(f"{expect_data(server, asked_by_alerts('ferrite-webhook.alerts.yaml'))} expressions")
            hook.decide(review("perhaps"))
            wait_until(lambda: server.rules()["FerriteInjectionDenied"]["state"] == "firing", 20, 0.2, "an alert")
            found = server.rules()
            expect({rule["health"] for rule in found.values()}, {"ok"})
            expect([alert["labels"]["decision"] for alert in found["FerriteInjectionDenied"]["alerts"]],
                   ["bad-annotation"])
            for name in ("FerriteWebhookAbsent", "FerriteWebhookSlow", "FerriteWebhookCertificateFails"):
                expect(found[name]["state"], "inactive", name)
            hook.stop()
            # It fires after five minutes.
            wait_until(lambda: server.rules()["FerriteWebhookAbsent"]["state"] == "pending", 20, 0.2, "an absence")


def asked_by_alerts(name):
    """The alerts' expressions, whose comparisons give 0 or 1 where they would keep or drop, so that there is data
    anyway, and each series in them: beside an `or` or within absent() it would not be missed."""
    with open(os.path.join(RULES, name)) as file:
        text = file.read()
    for alert, expression in re.findall(r"alert: (\w+)\n +expr: (?:\|\n)?((?:.*\n)+?) +(?:for|labels):", text):
        expression = " ".join(expression.split())
        if not expression.startswith("absent("):
            yield "alerts", alert, re.sub(r" (==|>|<) ", r" \1 bool ", expression)
        for series in re.findall(r"[\w:]*ferrite_[\w:]+(?:{[^}]*})?", expression):
            yield "alerts", alert, series


def expect_data(server, wanting):
    """Each of (where, what, expression) has samples before long; how many there are."""
    wanting = list(wanting)
    count = len(wanting)
    deadline = time.monotonic() + 30
    while wanting and time.monotonic() < deadline:
        time.sleep(1)
        wanting = [wanted for wanted in wanting if not is_plausible(server.query(wanted[2]))]
    expect(wanting, [], f"expressions without data, of {count}")
    return count


def is_plausible(samples):
    return samples and all(math.isfinite(value) and value >= 0 for _, value in samples)


@test("grafana: the dashboards are what dashboards.py writes", once=True)
def _(t):
    script = os.path.join(RULES, "..", "grafana", "dashboards.py")
    done = subprocess.run([script, "--check"], capture_output=True, text=True)
    expect((done.returncode, done.stdout), (0, ""), done.stderr)
    for dashboard in prometheus.dashboards():
        expect_true(dashboard["schemaVersion"] >= 38 and dashboard["uid"].startswith("ferrite-"), dashboard["uid"])
        expect(dashboard["tags"], ["ferrite"])


def sources(part):
    """What each panel, query and variable of a dashboard asks."""
    if isinstance(part, dict):
        if "datasource" in part:
            yield part["datasource"]
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from sources(inner)


@test("grafana: the dashboards ask whichever Prometheus is chosen, imported or laid into a folder", once=True)
def _(t):
    for dashboard in prometheus.dashboards():
        # An import's dialog asks for inputs, and nobody does where a folder is read.
        expect([key for key in dashboard if key.startswith("__")], [], dashboard["uid"])
        variables = dashboard["templating"]["list"]
        expect((variables[0]["name"], variables[0]["type"], variables[0]["query"]),
               ("DS_PROMETHEUS", "datasource", "prometheus"))
        asked = list(sources(dashboard))
        expect_true(len(asked) > 2 * len(prometheus.panels(dashboard)), "all panels and their queries")
        for source in asked:
            expect(source, {"type": "prometheus", "uid": "${DS_PROMETHEUS}"})
        # Of variables that there are; Grafana's own begin with two underscores.
        names = {variable["name"] for variable in variables}
        for name in re.findall(r"\$\{?(\w+)", json.dumps({**dashboard, "title": ""})):
            expect_true(name in names or name.startswith("__"), f"{dashboard['uid']} asks for {name}")
