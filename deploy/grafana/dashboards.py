#!/usr/bin/env python3
"""dashboards — writes the Grafana dashboards ferrite-pod.json and ferrite-fleet.json beside this file from the panels
below.

    deploy/grafana/dashboards.py           write them
    deploy/grafana/dashboards.py --check   status 1 when they are not what would be written
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}
SCHEMA = 39
WIDTH = 24


class Panel:
    """A panel of queries: pairs of expression and legend."""

    def __init__(self, title, *queries, kind="timeseries", unit="short", width=8, height=8, note="", stack=False,
                 most=None, least=None, mappings=None):
        self.title, self.queries, self.kind, self.unit = title, queries, kind, unit
        self.width, self.height = width, height
        self.note, self.stack, self.most, self.least, self.mappings = note, stack, most, least, mappings

    def render(self, number, x, y):
        defaults = {"unit": self.unit}
        if self.least is not None:
            defaults["min"] = self.least
        if self.most is not None:
            defaults["max"] = self.most
        if self.mappings:
            defaults["mappings"] = [{"type": "value", "options": {
                str(value): {"text": text, "color": color, "index": index}
                for index, (value, (text, color)) in enumerate(self.mappings.items())}}]
        panel = {
            "id": number, "type": self.kind, "title": self.title, "description": self.note, "datasource": SOURCE,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "targets": [{"refId": chr(ord("A") + index), "expr": expression, "legendFormat": legend,
                         "datasource": SOURCE} for index, (expression, legend) in enumerate(self.queries)],
        }
        if self.kind == "timeseries":
            defaults["custom"] = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 20 if self.stack else 5,
                                  "showPoints": "never", "stacking": {"mode": "normal" if self.stack else "none"}}
            panel["options"] = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
                                "tooltip": {"mode": "multi", "sort": "desc"}}
        elif self.kind == "stat":
            # A series that says what it is by its labels shows its name.
            panel["options"] = {"colorMode": "value", "graphMode": "none",
                                "textMode": "name" if self.queries[0][1] else "auto",
                                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
        elif self.kind == "table":
            for target in panel["targets"]:
                target["format"], target["instant"] = "table", True
        return panel


def variable(name, label, query, many):
    return {"name": name, "label": label, "type": "query", "datasource": SOURCE,
            "query": {"query": query, "refId": name}, "refresh": 2, "sort": 1, "includeAll": many, "multi": many,
            **({"allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]}} if many else {})}


def source():
    """Which Prometheus: a variable, since who lays dashboards into a folder is asked nothing, as an import would."""
    return {"name": "DS_PROMETHEUS", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1,
            "current": {"text": "default", "value": "default"}}


def kubernetes():
    return [
        variable("namespace", "Namespace", "label_values(ferrite_sidecar_info, namespace)", True),
        variable("pod", "Pod", 'label_values(ferrite_sidecar_info{namespace=~"$namespace"}, pod)', True),
    ]


def dashboard(uid, title, note, variables, rows):
    """rows: (heading, panels); panels flow from left to right."""
    panels, y, number = [], 0, 1
    for heading, members in rows:
        panels.append({"id": number, "type": "row", "title": heading, "collapsed": False, "panels": [],
                       "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": y}})
        number, x, y, height = number + 1, 0, y + 1, 0
        for panel in members:
            if x + panel.width > WIDTH:
                x, y, height = 0, y + height, 0
            panels.append(panel.render(number, x, y))
            number, x, height = number + 1, x + panel.width, max(height, panel.height)
        y += height
    return {
        "uid": uid, "title": title, "description": note, "tags": ["ferrite"], "schemaVersion": SCHEMA, "version": 1,
        "editable": True, "graphTooltip": 1, "refresh": "10s", "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser", "templating": {"list": [source(), *variables]}, "panels": panels,
    }


def rate(metric, more="", by=""):
    chosen = "{" + SELECT + ("," + more if more else "") + "}"
    summed = f"sum by ({by}) " if by else "sum"
    return f"{summed}(rate({metric}{chosen}[$__rate_interval]))"


def quantile(share, metric, more="", by="le"):
    return f"histogram_quantile({share}, {rate(metric + '_bucket', more, by)})"


def total(metric, more="", by="", function="sum"):
    chosen = "{" + SELECT + ("," + more if more else "") + "}"
    return f"{function} by ({by}) ({metric}{chosen})" if by else f"{function}({metric}{chosen})"


SELECT = 'namespace=~"$namespace",pod=~"$pod",job=~"$job",instance=~"$instance"'
# Of who is not scraped by Kubernetes' discovery there is neither: All.
PODS = 'namespace=~"$namespace",pod=~"$pod"'
HITS, MISSES = "ferrite_keyspace_hits_total", "ferrite_keyspace_misses_total"
JOINED = "ferrite_sidecar_flights_joined_total"
COMMANDS, DURATION = "ferrite_sidecar_commands_total", "ferrite_command_duration_seconds"
YES_NO = {0: ("no", "red"), 1: ("yes", "green")}


# Where pods are scraped by their annotations, other processes have the same job.
OURS_CPU = (f"sum by (instance) (rate(process_cpu_seconds_total{{{SELECT}}}[$__rate_interval])"
            f" and on (job, instance) ferrite_sidecar_info)")


def hit_ratio(by=""):
    return f"{rate(HITS, by=by)} / ({rate(HITS, by=by)} + {rate(MISSES, by=by)} > 0)"


def traffic():
    width = 8
    return [
        Panel("Commands by outcome", (rate(COMMANDS, by="outcome"), "{{outcome}}"), unit="ops", stack=True,
              least=0, width=width,
              note="hit, negative (there is no such key) and stale: from memory; miss: fetched; passed, written and "
                   "pinned: the upstream's own answer; behind: acknowledged here; local: the sidecar's own."),
        Panel("Commands by family", (rate(COMMANDS, by="family"), "{{family}}"), unit="ops", stack=True, least=0,
              width=width, note="The group in COMMAND DOCS."),
        Panel("Answered with an error", (rate(COMMANDS, 'outcome="error"', by="family"), "{{family}}"), unit="ops",
              least=0, width=width, note="Whoever gave it: the upstream, or the sidecar."),
        Panel("Hit ratio", (hit_ratio(), "all reads"), unit="percentunit", least=0, most=1, width=width,
              note="Keys read with GET and MGET that were answered from memory, of all, whichever way they went. "
                   "What a slow upstream's stale copy answered is none."),
        Panel("Latency of hits", *((quantile(share, DURATION, 'outcome="hit"'), name) for share, name in
                                   ((0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"))), unit="s", least=0, width=width),
        # Where nothing has come lately there is no quantile but NaN, which is not to be drawn.
        Panel("Latency by outcome, p99", (quantile(0.99, DURATION, by="outcome,le") + " >= 0", "{{outcome}}"),
              unit="s", least=0, width=width),
    ]


def failures(width):
    return [
        Panel("Error replies", (rate("ferrite_sidecar_upstream_error_replies_total", by="code"), "{{code}}"),
              unit="ops", least=0, width=width, note="Of the upstream, by their first word."),
        Panel("Failed connections, losses", (rate("ferrite_sidecar_upstream_failures_total", by="kind"), "{{kind}}"),
              unit="ops", least=0, width=width),
    ]


def freshness():
    return [
        Panel("Served though not vouched for",
              (rate("ferrite_sidecar_suspect_served_total"), "the upstream is unreachable"),
              (rate("ferrite_sidecar_stale_served_total"), "past its ttl"), unit="ops", least=0,
              note="Nothing while the upstream answers in time."),
        Panel("Audited hits", (rate("ferrite_sidecar_audit_total", by="result"), "{{result}}"), unit="ops", least=0,
              note="With audit set: hits that were read again at the upstream. stale stays 0 while changes are "
                   "announced."),
        Panel("Changes heard of, fetches kept", (rate("ferrite_sidecar_invalidations_total"), "invalidations"),
              (rate("ferrite_sidecar_fills_total"), "kept"), (rate("ferrite_sidecar_flights_spoiled_total"),
              "not kept"),
              unit="ops", least=0),
    ]


def writes():
    return [
        Panel("Acknowledged writes that wait", (total("ferrite_sidecar_write_behind_queued"), "writes"), least=0,
              note="Write-behind: in memory, and in the journal if there is one, until the upstream has them."),
        Panel("Their bytes", (total("ferrite_sidecar_write_behind_bytes"), "bytes"), unit="bytes", least=0),
        Panel("The oldest of them", (total("ferrite_sidecar_write_behind_oldest_seconds", function="max"), "waits"),
              unit="s", least=0),
        Panel("What became of them", (rate("ferrite_sidecar_write_behind_total", by="outcome"), "{{outcome}}"),
              (rate("ferrite_sidecar_write_behind_retries_total"), "tried again"), unit="ops", least=0,
              note="refused: given up, a dead letter each."),
        Panel("Journal", (rate("ferrite_sidecar_journal_batches_total"), "batches"),
              (rate("ferrite_sidecar_journal_syncs_total"), "syncs"),
              (rate("ferrite_sidecar_journal_failures_total"), "failures"), unit="ops", least=0),
    ]


def pod():
    return dashboard(
        "ferrite-pod", "Ferrite: one sidecar", "What one sidecar answers, from where, how fast, and what it holds.",
        [*kubernetes(),
         variable("job", "Job", f"label_values(ferrite_sidecar_info{{{PODS}}}, job)", False),
         variable("instance", "Instance", f'label_values(ferrite_sidecar_info{{{PODS},job=~"$job"}}, instance)',
                  False)],
        [
            ("Now", [
                Panel("Hit ratio", (hit_ratio(), ""), kind="stat", unit="percentunit", width=4, height=4),
                Panel("Commands", (rate(COMMANDS), ""), kind="stat", unit="ops", width=4,
                      height=4),
                Panel("p99 of hits", (quantile(0.99, DURATION, 'outcome="hit"'), ""), kind="stat", unit="s", width=4,
                      height=4),
                Panel("Upstream", (total("ferrite_sidecar_upstream_up"), ""), kind="stat", width=4, height=4,
                      mappings={0: ("away", "red"), 1: ("up", "green")}),
                Panel("Changes are announced", (total("ferrite_sidecar_tracking"), ""), kind="stat", width=4, height=4,
                      mappings=YES_NO),
                Panel("Version and engine", (total("ferrite_sidecar_info", by="version,network,mode"),
                                             "{{version}} {{network}} {{mode}}"), kind="stat", width=4, height=4),
            ]),
            ("Traffic", traffic()),
            ("Upstream", [
                Panel("State", (total("ferrite_sidecar_upstream_state", by="state"), "{{state}}"), stack=True, least=0,
                      most=1),
                Panel("Latency", *((quantile(share, "ferrite_sidecar_upstream_duration_seconds"), name)
                                   for share, name in ((0.5, "p50"), (0.99, "p99"))),
                      (total("ferrite_sidecar_upstream_round_trip_seconds"), "PING"), unit="s", least=0),
                Panel("Trouble", (rate("ferrite_sidecar_read_timeouts_total"), "read timeouts"),
                      (rate("ferrite_sidecar_upstream_reconnects_total"), "reconnects"),
                      (rate("ferrite_sidecar_heartbeats_late_total"), "late heartbeats"),
                      (total("ferrite_sidecar_breaker_open"), "breaker open"), least=0),
                *failures(width=12),
            ]),
            ("Freshness", freshness()),
            ("Memory", [
                Panel("Memory by owner", (total("ferrite_sidecar_memory_bytes", by="owner"), "{{owner}}"), unit="bytes",
                      stack=True, least=0, width=12),
                Panel("Against the budget", (total("ferrite_memory_used_bytes"), "used"),
                      (total("ferrite_memory_max_bytes"), "budget"), (total("process_resident_memory_bytes"),
                      "resident"),
                      unit="bytes", least=0, width=12),
                Panel("Keys", (total("ferrite_keys"), "keys"),
                      (total("ferrite_sidecar_absent_keys"), "known to be missing"), least=0, width=12),
                Panel("Keys that went", (rate("ferrite_evicted_keys_total"), "evicted"),
                      (rate("ferrite_expired_keys_total"), "expired"), unit="ops", least=0, width=12),
            ]),
            ("Write-behind", writes()),
            ("Process", [
                Panel("CPU", (rate("process_cpu_seconds_total"), "cores"), least=0),
                Panel("Loop turns", *((quantile(share, "ferrite_sidecar_loop_turn_seconds"), name) for share, name in
                                      ((0.5, "p50"), (0.99, "p99"))), unit="s", least=0),
                Panel("Clients", (total("ferrite_connections_active"), "connected"),
                      (total("ferrite_sidecar_connections_pinned"), "with a link of their own"),
                      (rate("ferrite_sidecar_connections_refused_total"), "refused a second"), least=0),
                Panel("Bytes", (rate("ferrite_bytes_sent_total"), "to clients"),
                      (rate("ferrite_bytes_received_total"), "from clients"),
                      (rate("ferrite_sidecar_upstream_bytes_received_total"), "from the upstream"),
                      (rate("ferrite_sidecar_upstream_bytes_sent_total"), "to the upstream"), unit="Bps", least=0),
                Panel("Prefetch", (total("ferrite_sidecar_prefetch_fetched"), "fetched"),
                      (total("ferrite_sidecar_prefetch_names"), "names"), least=0),
                Panel("Bypass", (total("ferrite_sidecar_bypass"), "bypass"), least=0, most=1),
            ]),
        ])


def fleet():
    return dashboard(
        "ferrite-fleet", "Ferrite: the fleet",
        "What all sidecars of a job take off the upstream, and which of them need a look.",
        [*kubernetes(),
         variable("job", "Job", f"label_values(ferrite_sidecar_info{{{PODS}}}, job)", True),
         variable("instance", "Instance", f'label_values(ferrite_sidecar_info{{{PODS},job=~"$job"}}, instance)', True)],
        [
            ("Now", [
                Panel("Sidecars", (total("ferrite_sidecar_info", function="count"), ""), kind="stat", width=4,
                      height=4),
                Panel("Hit ratio", (hit_ratio(), ""), kind="stat", unit="percentunit", width=4, height=4),
                Panel("Reads taken off the upstream", (f"{rate(HITS)} + {rate(JOINED)}", ""), kind="stat", unit="ops",
                      width=4, height=4),
                Panel("Without upstream", (f"{total('ferrite_sidecar_upstream_up', function='count')} - "
                                           f"{total('ferrite_sidecar_upstream_up')}", ""), kind="stat", width=4,
                                           height=4),
                Panel("Not told of changes", (f"{total('ferrite_sidecar_tracking', function='count')} - "
                                              f"{total('ferrite_sidecar_tracking')}", ""), kind="stat", width=4,
                                              height=4),
                Panel("Memory", (total("ferrite_memory_used_bytes"), ""), kind="stat", unit="bytes", width=4,
                      height=4),
            ]),
            ("Traffic", traffic()),
            ("Upstream", [
                Panel("Reads: from memory, and upstream", (rate(HITS), "from memory"),
                      (rate(JOINED), "shared a fetch"), (f"{rate(MISSES)} - {rate(JOINED)}", "asked upstream"),
                      unit="ops", stack=True, least=0, width=6),
                Panel("Bytes from the upstream", (rate("ferrite_sidecar_upstream_bytes_received_total", by="job"),
                                                  "{{job}}"), unit="Bps", least=0, width=6),
                Panel("States", (total("ferrite_sidecar_upstream_state", by="state"), "{{state}}"), stack=True,
                      least=0, width=6),
                Panel("Read timeouts", (rate("ferrite_sidecar_read_timeouts_total", by="job"), "{{job}}"), unit="ops",
                      least=0, width=6),
                Panel("p99 of the upstream", (quantile(0.99, "ferrite_sidecar_upstream_duration_seconds"), "p99"),
                      unit="s", least=0),
                *failures(width=8),
            ]),
            ("Freshness", freshness()),
            ("Write-behind", writes()),
            ("Pods", [
                Panel("Lowest hit ratios", (f"bottomk(10, {hit_ratio('instance')})", "{{instance}}"), kind="table",
                      unit="percentunit", width=12),
                Panel("Highest p99 of hits",
                      ("topk(10, " + quantile(0.99, DURATION, 'outcome="hit"', "instance,le") + ")", "{{instance}}"),
                      kind="table", unit="s", width=12),
                Panel("Memory used", (f"topk(10, {total('ferrite_memory_used_bytes', by='instance')})", "{{instance}}"),
                      unit="bytes", least=0),
                Panel("CPU", (f"topk(10, {OURS_CPU})", "{{instance}}"), least=0),
                Panel("Engines, versions", (total("ferrite_sidecar_info", by="version,network", function="count"),
                                            "{{version}} {{network}}"), least=0),
            ]),
        ])


def main():
    stale = False
    for name, value in (("ferrite-pod.json", pod()), ("ferrite-fleet.json", fleet())):
        path, text = HERE / name, json.dumps(value, indent=2) + "\n"
        if sys.argv[1:] == ["--check"]:
            if not path.exists() or path.read_text() != text:
                print(f"{path.name} is not what dashboards.py writes: run deploy/grafana/dashboards.py")
                stale = True
        else:
            path.write_text(text)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
