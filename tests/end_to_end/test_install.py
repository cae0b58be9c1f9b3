"""`make install` and `make uninstall` on a machine with Debian's postfix: a copy of this one, on an overlay.

Nothing of the machine itself is changed: all that is written goes to a file system in memory.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs("root", "unshare", "postfix")

ROOT = Path(__file__).parent.parent.parent
MACHINE = """\
set -e
mount -t tmpfs tmpfs {here}
mkdir {here}/upper {here}/work {here}/root
mount -t overlay overlay -o lowerdir=/,upperdir={here}/upper,workdir={here}/work {here}/root
mkdir {here}/root/source
mount --bind {source} {here}/root/source
mount -t proc proc {here}/root/proc
mount --rbind /dev {here}/root/dev
exec chroot {here}/root sh
"""


class Machine:
    """A shell in the copy; `run` gives the output of one command and takes its exit status for granted."""

    def __init__(self, here: Path) -> None:
        program = MACHINE.format(here=here, source=ROOT)
        self.shell = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "sh", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", **_pip_settings()},
        )

    def run(self, command: str) -> str:
        assert self.shell.stdin is not None and self.shell.stdout is not None
        self.shell.stdin.write(f"( {command} ) 2>&1 </dev/null; echo END $?\n".encode())
        self.shell.stdin.flush()
        lines = []
        for line in iter(self.shell.stdout.readline, b""):
            if line.startswith(b"END "):
                assert line == b"END 0\n", (command, lines)
                return "".join(lines)
            lines.append(line.decode())
        raise AssertionError((command, lines))

    def stop(self) -> None:
        assert self.shell.stdin is not None
        self.shell.stdin.close()
        self.shell.wait()


def _pip_settings() -> dict[str, str]:
    """Where this machine's pip finds packages."""
    return {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    started = Machine(tmp_path_factory.mktemp("machine"))
    started.run("rm -rf /etc/mailserver /opt/mailserver")
    yield started
    started.stop()


MTA_FILES = "ls -l /usr/sbin/sendmail* /usr/lib/sendmail* /usr/bin/mailq* /usr/bin/newaliases*"


def test_install_and_uninstall(machine: Machine) -> None:
    """The names of an existing mail system are taken on demand only, and given back whole."""
    before = machine.run(MTA_FILES)
    said = machine.run("make -C /source install")
    assert "Postfix is installed and its commands keep their names" in said
    assert machine.run(MTA_FILES) == before
    assert machine.run("command -v postconf").strip() == "/usr/sbin/postconf"
    # Every user can run it, and find its manual.
    as_nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups"
    assert "mailserver" in machine.run(f"{as_nobody} mailserver --version")
    assert machine.run(f"{as_nobody} man -w mailserver-explain").startswith("/opt/mailserver/share/man")
    assert "/root" not in machine.run(
        "head -qn 1 /opt/mailserver/bin/twistd; readlink -f /opt/mailserver/bin/python"
    )
    machine.run("mailserver init /etc/mailserver --hostname mail.example.org")
    taken = machine.run("/source/etc/install mta")
    assert "sendmail, mailq and newaliases are ours now" in taken
    assert machine.run("readlink /usr/sbin/sendmail").strip() == "/opt/mailserver/bin/sendmail"
    assert "/usr/sbin/sendmail.distrib" in machine.run("dpkg-divert --list")
    assert machine.run("command -v postconf").strip() == "/usr/local/sbin/postconf"
    machine.run("make -C /source uninstall")
    assert machine.run(MTA_FILES) == before
    left = (
        "find /opt /usr/local /etc/systemd /etc/logrotate.d -name '*mailserver*' -o -lname '/opt/mailserver*'"
    )
    assert machine.run(left) == ""
    machine.run("test -e /etc/mailserver/main.cf && getent passwd mailserver")


def test_what_is_not_ours_stays(machine: Machine) -> None:
    """A file in the place of a command is kept, a directory in the place of PREFIX is refused."""
    machine.run("mkdir /opt/other && touch /opt/other/mine")
    assert "is not ours" in machine.run("! make -C /source install PREFIX=/opt/other")
    machine.run(
        "touch /usr/local/bin/mailserver && make -C /source uninstall && rm /usr/local/bin/mailserver"
    )
