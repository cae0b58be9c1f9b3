"""What a server's process tree has cost: processor time and memory, from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def tree(roots: Iterable[int]) -> Iterator[int]:
    """The processes and all that descend from them and still live."""
    for pid in roots:
        try:
            tasks = list(Path(f"/proc/{pid}/task").iterdir())
            children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        yield pid
        yield from tree(children)


def processor_seconds(roots: Iterable[int]) -> float:
    """User and system time of the trees, ended children included. Grows in steps of 10 ms."""
    total = 0
    for pid in tree(roots):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # its parent has its time
        total += sum(map(int, fields[11:15]))
    return total / _TICK


def memory(roots: Iterable[int]) -> int:
    """Octets of memory of the trees; shared pages count in proportion (PSS)."""
    total = 0
    for pid in tree(roots):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024
