"""What ps, top, ss and netstat show."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
from mailserver.rights.process_name import name_process
name_process("master", "-c", {directory!r})
print(open("/proc/self/comm").read(), open("/proc/self/cmdline", "rb").read().rstrip(b"\\0"), sep="")
"""


@pytest.mark.parametrize(
    ("directory", "shown"), [("/etc/x", b"master\0-c\0/etc/x"), ("/" + "y" * 500, b"master\0-c\0/yyy")]
)
def test_the_name_and_the_command_line(directory: str, shown: bytes) -> None:
    """Both are the process's own, cut to the room that there is; nothing of the old line is left."""
    command = [sys.executable, "-c", PROGRAM.format(directory=directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    comm, line = done.stdout.splitlines()
    assert comm == "master"
    assert line.startswith(str(shown)[:-1]) and "PROGRAM" not in line and "import" not in line
