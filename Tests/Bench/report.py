"""report: figures become tables for people, Markdown for docs/benchmarks, and one JSON line for the history."""

import json
import statistics


class Samples:
    """What one thing measured in each round. Shown as median [min..max]."""

    def __init__(self, values):
        self.values = list(values)

    @property
    def median(self):
        return statistics.median(self.values)

    def __str__(self):
        return f"{number(self.median)} [{number(min(self.values))}..{number(max(self.values))}]"

    def over(self, other):
        """Round by round: what was measured side by side is compared side by side."""
        return Samples(a / b for a, b in zip(self.values, other.values) if b > 0)


def number(value):
    if isinstance(value, int) or value >= 1000:
        return f"{value:,.0f}"
    if value == 0 or value >= 100:
        return f"{value:.0f}"
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def mib(count):
    return f"{count / (1 << 20):.1f}"


class Section:
    """A table, the notes above it, and the figures that the history keeps."""

    def __init__(self, suite, title, notes, columns):
        self.suite = suite
        self.title = title
        self.notes = notes
        self.columns = columns
        self.rows = []
        self.figures = {}
        self.missed = []

    def row(self, *cells):
        self.rows.append([cell if isinstance(cell, str) else str(cell) for cell in cells])

    def figure(self, name, value):
        self.figures[name] = round(float(value), 4)

    def aim(self, name, met, what):
        """Returns the cell for the table; an aim that is missed is listed below it."""
        if met:
            return "met"
        self.missed.append(f"{name}: {what}")
        return "MISSED"

    def text(self):
        widths = [max(len(line[i]) for line in [self.columns, *self.rows]) for i in range(len(self.columns))]
        lines = [f"\n{self.title}", *self.notes, ""]
        for line in [self.columns, ["-" * width for width in widths], *self.rows]:
            lines.append("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
        lines += [f"missed: {missed}" for missed in self.missed]
        return "\n".join(lines)

    def markdown(self):
        lines = [f"## {self.title}", "", *self.notes, ""]
        lines.append("| " + " | ".join(self.columns) + " |")
        lines.append("|" + " --- |" * len(self.columns))
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in self.rows]
        if self.missed:
            lines += ["", "Missed:", ""] + [f"- {missed}" for missed in self.missed]
        return "\n".join(lines) + "\n"

    def plain(self):
        return {"suite": self.suite, "title": self.title, "notes": self.notes, "columns": self.columns,
                "rows": self.rows, "figures": self.figures, "missed": self.missed}


def markdown_page(suite, machine, sections):
    head = [f"# {suite}", "",
            f"Written by `scripts/bench {suite} --write` on {machine['date']}, commit {machine['commit']}, "
            f"Linux {machine['kernel']}, {machine['cpu']}; {machine['rounds']} rounds of {machine['seconds']} s. "
            "The method is in [README.md](README.md).", ""]
    return "\n".join(head) + "\n" + "\n".join(section.markdown() for section in sections)


def history_line(machine, suite, sections):
    figures = {}
    for section in sections:
        figures.update(section.figures)
    return json.dumps({**machine, "suite": suite, "figures": figures}, sort_keys=True) + "\n"
