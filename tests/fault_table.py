"""Writes the table of docs/FAULTS.md: each fault of the specification, and the tests that cite it.

A test cites a fault in its docstring, or in its module's first line, as `F05`. `make faults` runs this. Every
test runs in CI; those marked *sample* try more with `make faults`.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parent
PAGE: Final = TESTS.parent / "docs" / "FAULTS.md"
_MARKS: Final = ("<!-- table -->\n", "<!-- end of table -->\n")
_CITED: Final = re.compile(r"\bF(\d\d)(?:(?: ?to ?|-)F(\d\d))?\b")

FAULTS: Final = {
    1: "SIGKILL of everything at random, under load", 2: "SIGKILL at each call of an SMTP transaction",
    3: "the same, delivery to mbox", 4: "the same, delivery to maildir", 5: "the same, IMAP and POP3 changes",
    6: "power cut at each 250", 7: "power cut at status=sent", 8: "power cut at OK of a change",
    9: "SIGTERM during DATA", 10: "killed when the next hop has said 250", 11: "restart with clients in IDLE",
    12: "stopped for minutes, and gone on", 13: "queue's disk full", 14: "mailbox's disk full",
    15: "fsync fails: ENOSPC, EIO, EDQUOT", 16: "fsync fails once", 17: "short writes, EINTR, EAGAIN",
    18: "rename, link, unlink, mkdir fail", 19: "size limits to the octet", 20: "disk gone read-only",
    21: "no inodes", 22: "no descriptors", 23: "no processes", 24: "many large messages at once",
    25: "slow fsync", 26: "queue files damaged", 27: "data bases damaged",
    28: "appends during a POP3 session", 29: "EXPUNGE during a POP3 session", 30: "everybody at an mbox",
    31: "dotlocks of the dead and the living", 32: "partners that lock in either order",
    33: "mailbox renamed or truncated by a partner", 34: "partner at a maildir during FETCH",
    35: "many clients at once", 36: "second instance", 37: "next hop hangs", 38: "4xx and 5xx at every stage",
    39: "next hop says garbage", 40: "client vanishes in DATA", 41: "everything pipelined, half-closed",
    42: "slow clients beside a good one", 43: "DNS in every bad state", 44: "best MX dead", 45: "reload",
    46: "alias loop", 47: ".forward loop", 48: "Delivered-To loop", 49: "too many Received", 50: "huge alias",
    51: ":include: of itself", 52: "undeliverable bounce", 53: "dead host beside a live one",
    54: "clock jumps", 55: "log gone, rotated, full", 56: "tables rebuilt under load",
    57: "tables unreadable", 58: "restored on another machine", 59: "state of the last release",
    60: "soak",
}  # fmt: skip
NOT_HERE: Final = {60: "`make soak` repeats `make faults` with new seeds until one fails"}


def cited(text: str | None) -> set[int]:
    """The faults that a text names."""
    found: set[int] = set()
    for first, last in _CITED.findall(text or ""):
        found.update(range(int(first), int(last or first) + 1))
    return found & set(FAULTS)


def citing() -> Iterator[tuple[int, str, bool]]:
    """Fault, test, and whether `make faults` tries more. What only a module's head names is the module's."""
    for path in sorted(TESTS.rglob("test_*.py")):
        tree, name = ast.parse(path.read_text("utf-8")), str(path.relative_to(TESTS))
        named: set[int] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
                is_sample = "thorough" in [argument.arg for argument in node.args.args]
                faults = cited(ast.get_docstring(node))
                named |= faults
                yield from ((fault, f"{name}::{node.name}", is_sample) for fault in sorted(faults))
        yield from ((fault, name, False) for fault in sorted(cited(ast.get_docstring(tree)) - named))


def rows() -> Iterator[str]:
    """The table in Markdown."""
    found: dict[int, list[str]] = {}
    for fault, name, is_sample in citing():
        found.setdefault(fault, []).append(f"`{name}`" + (" *sample*" if is_sample else ""))
    yield "| fault | what happens | tests |\n|---|---|---|\n"
    for fault, title in FAULTS.items():
        tests = "<br>".join(found.get(fault, [])) or NOT_HERE.get(fault, "**none**")
        yield f"| F{fault:02} | {title} | {tests} |\n"


def main() -> int:
    """The table stands in docs/FAULTS.md."""
    before, _, rest = PAGE.read_text("utf-8").partition(_MARKS[0])
    after = rest.partition(_MARKS[1])[2]
    PAGE.write_text(before + _MARKS[0] + "".join(rows()) + _MARKS[1] + after, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
