"""Real faults at real system calls, SQLite's too: strace(1) is attached to a forked child at work.

`inject` kills the child before its N-th call of a kind, or makes that call fail. Only calls
after the attachment count, so N=1 is the first one of the act itself.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

KILLED = -9
CHANGING_CALLS = (
    *("openat", "write", "pwrite64", "writev", "fsync", "fdatasync", "rename", "link", "unlink"),
    *("ftruncate", "mkdir", "rmdir", "sendfile", "utimensat"),
)


def inject(directory: Path, call: str, fault: str, act: Callable[[], object]) -> tuple[int, bool]:
    """The child's exit status (0: the act came back, 1: it raised), and whether the fault struck.

    `fault` is strace's: `signal=KILL:when=3`, `error=ENOSPC:when=1`.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        _child(reader, act)
    os.close(reader)
    log = directory / "strace.log"
    tracer = subprocess.Popen(
        [
            *("strace", "-f", "-q", "-p", str(child), "-o", str(log)),
            *("-e", f"trace={call}", "-e", f"inject={call}:{fault}"),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for_tracer(child)
        os.write(writer, b"go")
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        os.close(writer)
        tracer.wait()
    text = log.read_text("utf-8", "replace")
    return status, "INJECTED" in text or status == KILLED


def _child(reader: int, act: Callable[[], object]) -> None:
    status = 1
    try:
        os.read(reader, 2)
        act()
        status = 0
    except BaseException:
        traceback.print_exc(file=sys.stderr)  # shown where the test fails
    finally:
        os._exit(status)


def _wait_for_tracer(child: int) -> None:
    """Returns once strace holds the child."""
    while True:
        status = Path(f"/proc/{child}/status").read_text()
        found = re.search(r"^TracerPid:\t(\d+)", status, re.MULTILINE)
        # attached, and let go on: waiting in read(2) again
        if found and found[1] != "0" and re.search(r"^State:\t[SR]", status, re.MULTILINE):
            return
