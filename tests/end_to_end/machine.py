"""A copy of this machine that may be changed at will: an overlay in memory, processes of its own.

Packages, users, /etc, the spool: everything is there, and everything that is written is gone with
the copy. With `network=False` it has a network of its own too, where every port is free.
"""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.end_to_end.server import DEADLINE, wait_for

ROOT = Path(__file__).parent.parent.parent
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_START = """\
set -e
mount -t tmpfs tmpfs {here}
mkdir {here}/upper {here}/work {here}/root
mount -t overlay overlay -o lowerdir=/,upperdir={here}/upper,workdir={here}/work {here}/root
mkdir {here}/root/source
mount --bind {source} {here}/root/source
mount -t proc proc {here}/root/proc
mount --rbind /dev {here}/root/dev
chroot {here}/root sh -ec "$PREPARE"
umount {here}/root/proc
exec unshare --uts --pid --fork {network} sh -ec '
mount -t proc proc {here}/root/proc
ip link set lo up
exec chroot {here}/root sh -c "echo; exec cat"'
"""


class Machine:
    """The running copy; `prepare` is done in it as root, with the network of this machine."""

    def __init__(self, here: Path, prepare: str = "true", network: bool = True) -> None:
        self._environment = {
            "PATH": SEARCH,
            "HOME": "/root",
            "TERM": "vt100",
            "LANG": "C.UTF-8",
            **_pip_settings(),
        }
        start = _START.format(here=here, source=ROOT, network="" if network else "--net")
        # It ends when its standard input does, whatever becomes of this process.
        self._process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**self._environment, "PREPARE": prepare},
        )
        assert self._process.stdout is not None
        said = b""
        while not said.endswith(b"\n\n") and said != b"\n":
            line = self._process.stdout.readline()
            assert line, said.decode()
            said += line
        pid = self._process.pid
        (self._pid,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self.root = Path(f"/proc/{self._pid}/root")

    def stop(self) -> None:
        """Every process in it is gone, and all that was written."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(DEADLINE)

    def command(self, program: str, user: str = "root") -> Sequence[str]:
        """The command line that runs a shell command there, in the user's home."""
        shell = ["sh", "-c", f"cd; {program}"]
        if user != "root":
            shell = ["su", "-s", "/bin/sh", "-l", user, "-c", program]
        return [
            "nsenter",
            f"--target={self._pid}",
            "-m",
            "-u",
            "-n",
            "-p",
            "--root",
            "env",
            "-C",
            "/",
            *shell,
        ]

    def run(self, program: str, user: str = "root", status: int | None = 0) -> str:
        """What the command prints, on either stream; its exit status must be the one given, if one is."""
        done = subprocess.run(
            self.command(program, user),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment,
            timeout=DEADLINE,
            check=False,
        )
        text = done.stdout.decode("utf-8", "replace")
        assert status is None or done.returncode == status, (program, done.returncode, text)
        return text

    def start(self, program: str) -> subprocess.Popen[bytes]:
        """The command runs in the background until the machine stops."""
        return subprocess.Popen(self.command(program), stdin=subprocess.DEVNULL, env=self._environment)

    def terminal(self, program: str, user: str = "root") -> Terminal:
        """The command on a terminal of its own."""
        return Terminal(self.command(program, user), self._environment)


class Terminal:
    """A program on a terminal of 24 lines and 80 columns; `text` is what it has shown."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self.text = ""
        self._pid, self._descriptor = pty.fork()
        if self._pid == 0:
            os.environ.clear()
            os.environ.update(environment)
            os.execvp(command[0], list(command))

    def _read(self, seconds: float) -> bool:
        """Whether there was more before the program ended."""
        if not select.select([self._descriptor], [], [], seconds)[0]:
            return True
        try:
            octets = os.read(self._descriptor, 4096)
        except OSError:  # Linux says EIO where the other end is closed
            return False
        self.text += octets.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(octets)

    def expect(self, pattern: str, start: int = 0) -> int:
        """Where the pattern ends, once what was shown behind `start` has it."""
        end = time.monotonic() + DEADLINE
        while not (found := re.compile(pattern).search(self.text, start)):
            assert time.monotonic() < end and self._read(0.5), f"{pattern!r} is not in\n{self.text}"
        return found.end()

    def type(self, text: str) -> None:
        """The keys are pressed."""
        os.write(self._descriptor, text.encode())

    def end(self) -> int:
        """The program's exit status, once it has ended."""
        end = time.monotonic() + DEADLINE
        while self._read(0.5):
            assert time.monotonic() < end, f"the program does not end:\n{self.text}"
        os.close(self._descriptor)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


def wait_until_quiet(machine: Machine) -> None:
    """Returns once no message waits for its first attempt."""
    queue = machine.root / "var/spool/mailserver"
    names = [queue / "maildrop", queue / "incoming"]
    wait_for(lambda: not any(any(name.iterdir()) for name in names if name.exists()), "the queue to be quiet")


def _pip_settings() -> dict[str, str]:
    """Where this machine's pip finds packages."""
    return {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
