"""prometheus — a real Prometheus that scrapes sidecars, and the expressions of deploy/."""

import json
import os
import re
import tempfile
import urllib.parse
import urllib.request

from servers import HOST, ROOT, Process, free_port

DEPLOY = ROOT / "deploy"
DASHBOARDS = ("ferrite-pod.json", "ferrite-fleet.json")


class Prometheus(Process):
    """Scrapes the metrics pages at these ports every second, with rules and alerts of deploy/prometheus."""

    name = "prometheus"

    def __init__(self, ports, rules=("ferrite.rules.yaml", "ferrite.alerts.yaml")):
        self.port = free_port()
        folder = tempfile.mkdtemp(prefix="ferrite-test-")
        rules = [str(DEPLOY / "prometheus" / name) for name in rules]
        # JSON is YAML too.
        with open(os.path.join(folder, "prometheus.yml"), "w") as file:
            json.dump({
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": rules,
                "scrape_configs": [{"job_name": "ferrite", "static_configs": [
                    {"targets": [f"{HOST}:{port}" for port in ports]}]}]}, file)
        super().__init__([
            "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address={HOST}:{self.port}", "--log.level=warn"], folder=folder)
        self.wait_ready(lambda: self.ask("/-/ready") is not None, 20.0)

    def ask(self, path, **parameters):
        query = "?" + urllib.parse.urlencode(parameters) if parameters else ""
        with urllib.request.urlopen(f"http://{HOST}:{self.port}{path}{query}", timeout=10) as answer:
            return answer.read()

    def query(self, expression):
        """The samples of now: pairs of labels and value."""
        answer = json.loads(self.ask("/api/v1/query", query=expression))
        return [(sample["metric"], float(sample["value"][1])) for sample in answer["data"]["result"]]

    def rules(self):
        """By their names, what became of the rules: their health, and of alerts the state, as Prometheus calls them."""
        answer = json.loads(self.ask("/api/v1/rules"))
        return {rule["name"]: rule for group in answer["data"]["groups"] for rule in group["rules"]}

    def query_range(self, expression, start, end, step):
        """Triples of labels, times and values."""
        answer = json.loads(self.ask("/api/v1/query_range", query=expression, start=start, end=end, step=step))
        return [(series["metric"], [float(at) for at, _ in series["values"]],
                 [float(value) for _, value in series["values"]]) for series in answer["data"]["result"]]


def dashboards():
    for name in DASHBOARDS:
        with open(DEPLOY / "grafana" / name) as file:
            yield json.load(file)


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def chosen(expression, job="ferrite", instance=".*", interval="5s", every=".*"):
    """With what Grafana would put in place of its variables."""
    for name, value in (("namespace", every), ("pod", every), ("job", job), ("instance", instance),
                        ("__rate_interval", interval)):
        expression = re.sub(rf"\$({name}\b|{{{name}}})", value, expression)
    return expression
