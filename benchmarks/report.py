"""The table: a row for each workload, ours beside the peers'."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measure import Sample, Workload


@dataclass(frozen=True)
class Row:
    """One workload's samples; None for a peer that was not there, or a server that failed."""

    workload: Workload
    mail_format: str
    ours: Sample | None
    peers: Sample | None

    @property
    def ratio(self) -> float | None:
        """How many times the peers' figure ours is; above 1 is better whatever is measured."""
        if self.ours is None or self.peers is None or not self.ours.rate or not self.peers.rate:
            return None
        ratio = self.ours.rate / self.peers.rate
        return 1 / ratio if self.workload.smaller_is_better else ratio

    @property
    def wanted(self) -> float:
        """The ratio that we owe."""
        factor = self.workload.factor
        return 1 / factor if self.workload.smaller_is_better else factor


HEADINGS = ("workload", "store", "ours", "p50 ms", "peers", "p50 ms", "ratio", "wanted")


def cells(row: Row) -> tuple[str, ...]:
    """A row as text."""
    ratio = row.ratio
    return (
        row.workload.title,
        row.mail_format,
        _figure(row.ours),
        _latency(row.ours),
        _figure(row.peers),
        _latency(row.peers),
        "-" if ratio is None else f"{ratio:.2f}",
        f"{row.wanted:.3g}",
    )


def _figure(sample: Sample | None) -> str:
    if sample is None:
        return "-"
    return f"{sample.rate:,.0f}" if sample.rate >= 100 else f"{sample.rate:.3g}"


def _latency(sample: Sample | None) -> str:
    median = sample.percentile(50) if sample is not None else None
    return "-" if median is None else f"{median:.2f}"


def markdown(rows: Sequence[Row]) -> str:
    """The table in Markdown."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *map(cells, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_json(rows: Sequence[Row]) -> str:
    """The figures for other programs."""
    return json.dumps([_plain(row) for row in rows], indent=1)


def _plain(row: Row) -> dict[str, object]:
    return {
        "workload": row.workload.name,
        "store": row.mail_format,
        "ours": _sample(row.ours),
        "peers": _sample(row.peers),
        "ratio": row.ratio,
        "wanted": row.wanted,
    }


def _sample(sample: Sample | None) -> dict[str, object] | None:
    if sample is None:
        return None
    return {
        "figure": sample.rate,
        "operations": sample.operations,
        "processor_seconds": sample.processor,
        "p50_ms": sample.percentile(50),
        "p95_ms": sample.percentile(95),
    }
