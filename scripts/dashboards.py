"""dashboards — draws the dashboards, see scripts/dashboards."""

import os
import random
import sys
import threading
import time
from datetime import datetime, timezone
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import dates, pyplot, ticker  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "Tests" / "harness"))

import prometheus  # noqa: E402
import servers  # noqa: E402
from resp import Closed, ReplyError  # noqa: E402

FOLDER = ROOT / "docs" / "dashboards"
UNITS = {"percentunit": "", "s": "s", "bytes": "B", "Bps": "B/s", "ops": "/s", "short": ""}
KEYS = 2_000


def read(chance):
    """Keys of which the first are asked for most."""
    return [("GET", f"key:{min(KEYS, int(chance.paretovariate(0.4)))}") for _ in range(45)]


def write(chance):
    """A tenth as many writes, and what is missing."""
    return [*(("SET", f"key:{chance.randrange(KEYS)}", "x" * 200) for _ in range(5)),
            ("GET", f"missing:{chance.random()}"), ("LPUSH", "list", "1")]


def load(sidecar, commands, done):
    chance = random.Random(sidecar.port)
    while not done.is_set():
        try:
            with sidecar.client() as client:
                while not done.is_set():
                    client.pipeline(commands(chance))
                    time.sleep(0.02 + 0.01 * chance.random())
        except (Closed, ReplyError, OSError):
            time.sleep(0.1)


def measure(seconds):
    """Yields the Prometheus that has seen it all, and the first sidecar's instance."""
    with servers.Redis() as redis:
        with redis.client() as client:
            client.pipeline([("SET", f"key:{number}", "x" * 200) for number in range(KEYS)])
        settings = {"mode": "write-behind", "audit": "0.01", "prefetch.enabled": "true", "prefetch.patterns": "key:1*",
                    "prefetch.jitter": "0", "ttl_default": "20s"}
        one = servers.Sidecar(redis.address, settings={**settings, "journal": os.path.join(redis.folder, "journal")})
        with one, servers.Sidecar(redis.address, settings=settings, network="epoll") as other:
            with prometheus.Prometheus([one.metrics_port, other.metrics_port]) as server:
                done = threading.Event()
                workers = [threading.Thread(target=load, args=(sidecar, commands, done))
                           for sidecar in (one, other) for commands in (read, write)]
                for worker in workers:
                    worker.start()
                print(f"measuring for {seconds} s; the upstream stands still for 3 s in the middle", flush=True)
                time.sleep(seconds / 2)
                redis.freeze()
                time.sleep(3)
                redis.thaw()
                time.sleep(seconds / 2)
                done.set()
                for worker in workers:
                    worker.join()
                yield server, f"{servers.HOST}:{one.metrics_port}"


def spelled(value, unit):
    if unit == "percentunit":
        return f"{value:.1%}"
    if unit == "s":
        return f"{value * 1e6:.0f} us" if value < 1e-3 else f"{value * 1e3:.2f} ms"
    return ticker.EngFormatter(unit=UNITS.get(unit, ""))(value)


def name_of(labels, legend):
    for key, value in labels.items():
        legend = legend.replace("{{" + key + "}}", value)
    return legend


def draw_stat(axes, panel, answers):
    axes.axis("off")
    defaults = panel["fieldConfig"]["defaults"]
    texts = []
    for target, samples in answers:
        for labels, value in samples:
            mapped = (defaults.get("mappings") or [{"options": {}}])[0]["options"].get(f"{value:.0f}")
            texts.append(mapped["text"] if mapped else name_of(labels, target["legendFormat"])
                         if target["legendFormat"] else spelled(value, defaults["unit"]))
    size = 20 if max(map(len, texts), default=0) < 12 else 9
    axes.text(0.5, 0.4, "\n".join(texts), ha="center", va="center", fontsize=size, color="tab:green")


def draw_table(axes, panel, answers):
    axes.axis("off")
    rows = [(labels.get("instance", ""), spelled(value, panel["fieldConfig"]["defaults"]["unit"]))
            for _, samples in answers for labels, value in samples]
    if rows:
        axes.table(cellText=rows, colLabels=("instance", "value"), loc="center")


def draw_series(axes, panel, answers):
    unit = panel["fieldConfig"]["defaults"]["unit"]
    series = [(name_of(labels, target["legendFormat"]), times, values)
              for target, found in answers for labels, times, values in found]
    stacked = panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal"
    whole = [times for _, times, _ in series]
    if stacked and series and all(times == whole[0] for times in whole):
        axes.stackplot(moments(whole[0]), [values for _, _, values in series], labels=[name for name, _, _ in series],
                       alpha=0.7)
    else:
        for name, times, values in series:
            axes.plot(moments(times), values, label=name, linewidth=1)
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: spelled(value, unit)))
    axes.xaxis.set_major_formatter(dates.DateFormatter("%M:%S"))
    axes.tick_params(labelsize=6)
    axes.grid(alpha=0.3)
    if series:
        axes.legend(fontsize=5, loc="upper left", ncols=2)
    if "max" in panel["fieldConfig"]["defaults"]:
        axes.set_ylim(0, panel["fieldConfig"]["defaults"]["max"] * 1.05)
    else:
        axes.set_ylim(bottom=0)


def moments(times):
    return [datetime.fromtimestamp(at, timezone.utc) for at in times]


def draw(dashboard, server, begin, end, instance):
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    figure = pyplot.figure(figsize=(16, height * 0.34))
    figure.suptitle(f"{dashboard['title']} ({dashboard['uid']})", fontsize=12, y=0.997)
    grid = figure.add_gridspec(height, 24, left=0.04, right=0.985, top=0.965, bottom=0.02)
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        if panel["type"] == "row":
            axes = figure.add_subplot(grid[place["y"], :])
            axes.axis("off")
            axes.text(0, 0.3, panel["title"], fontsize=10, weight="bold")
            continue
        axes = figure.add_subplot(grid[place["y"]:place["y"] + place["h"] - 1, place["x"]:place["x"] + place["w"] - 1])
        axes.set_title(panel["title"], fontsize=8)
        chosen = [(target, prometheus.chosen(target["expr"], instance=instance)) for target in panel["targets"]]
        if panel["type"] == "timeseries":
            draw_series(axes, panel, [(target, server.query_range(text, begin, end, 1)) for target, text in chosen])
        else:
            drawn = draw_stat if panel["type"] == "stat" else draw_table
            drawn(axes, panel, [(target, server.query(text)) for target, text in chosen])
    path = FOLDER / f"{dashboard['uid']}.png"
    figure.savefig(path, dpi=80)
    print(f"drawn: {path.relative_to(ROOT)}")


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    begin = time.time() + 6
    for server, one in measure(int(sys.argv[1])):
        for dashboard in prometheus.dashboards():
            draw(dashboard, server, begin, time.time(), one if dashboard["uid"] == "ferrite-pod" else ".*")


if __name__ == "__main__":
    main()
