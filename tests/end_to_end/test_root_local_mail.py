"""Mail from ordinary users of a machine with system accounts, and what they may see of the queue."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator

import pytest

from tests.end_to_end.root_mail import arrived, logged
from tests.end_to_end.root_server import USERS, RootServer, interpreter
from tests.end_to_end.server import DEADLINE

pytestmark = pytest.mark.needs("root")


@pytest.fixture(scope="module")
def server() -> Iterator[RootServer]:
    started = RootServer()
    started.configure("relayhost = [127.0.0.1]:1", "authorized_flush_users = root, ursula")
    started.start()
    yield started
    started.remove()


def command(
    server: RootServer, user: str, program: str, *arguments: str, text: str = ""
) -> subprocess.CompletedProcess[str]:
    """What a command does when that user calls it."""
    python, environment = interpreter()
    uid = USERS.get(user, 0)
    etc = server.directory / "etc"
    enter = f"mount --bind {etc}/passwd /etc/passwd; mount --bind {etc}/group /etc/group"
    become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    run = ["sh", "-c", f'{enter}; exec "$@"', "sh", *become, python, "-m", f"mailserver.commands.{program}"]
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", *run, *arguments],
        env={**os.environ, **environment, "MAIL_CONFIG": str(server.directory / "config")},
        input=text,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
        cwd="/",
    )


def test_the_drop_directory_is_closed_to_eyes(server: RootServer) -> None:
    """Mode 3733, the server's own group; nobody can list it or read another's file."""
    status = (server.directory / "queue" / "maildrop").stat()
    assert stat.S_IMODE(status.st_mode) == 0o3733
    listed = subprocess.run(
        ["setpriv", f"--reuid={USERS['ursula']}", f"--regid={USERS['ursula']}", "--clear-groups",
         "ls", str(server.directory / "queue" / "maildrop")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert listed.returncode != 0 and "Permission denied" in listed.stderr


@pytest.mark.parametrize("user", ["ursula", "root"])
def test_a_user_sends_as_whom_the_file_belongs_to(server: RootServer, user: str) -> None:
    """The uid in the log is the kernel's; Received: shows it too."""
    sent = command(
        server, user, "sendmail", "-f", "somebody@else", "viktor", text=f"Subject: from-{user}\n\nhi\n"
    )
    assert (sent.returncode, sent.stderr) == (0, "")
    arrived(server, "viktor", f"from-{user}")
    logged(server, f"uid={USERS.get(user, 0)} from=<somebody@else>")


def test_the_queue_for_ordinary_users(server: RootServer) -> None:
    """Listing for all, flushing for those that authorized_flush_users names, files for nobody."""
    assert (
        command(server, "ursula", "sendmail", "far@example.net", text="Subject: far\n\nx\n").returncode == 0
    )
    logged(server, "to=<far@example.net>, relay=none")
    listed = command(server, "viktor", "postqueue", "-j")
    assert listed.returncode == 0, listed.stderr
    (entry,) = [json.loads(line) for line in listed.stdout.splitlines()]
    assert entry["sender"] == "ursula@example.org"
    assert command(server, "ursula", "postqueue", "-f").returncode == 0
    refused = command(server, "viktor", "postqueue", "-f")
    assert refused.returncode == 77 and "not allowed to flush the mail queue" in refused.stderr
    peek = command(server, "viktor", "postcat", "-q", entry["queue_id"])
    assert peek.returncode == 1 and "Permission denied" in peek.stderr
    delete = command(server, "viktor", "postsuper", "-d", entry["queue_id"])
    assert delete.returncode == 1 and "reserved for the superuser" in delete.stderr
    held = command(server, "root", "postsuper", "-h", entry["queue_id"])
    assert held.stderr.splitlines()[0] == f"postsuper: {entry['queue_id']}: placed on hold"
    assert f"{entry['queue_id']}!" in command(server, "viktor", "postqueue", "-p").stdout
    requeued = command(server, "root", "postsuper", "-r", "ALL", "hold")
    assert "postsuper: Requeued: 1 message" in requeued.stderr, requeued.stderr
    deleted = command(server, "root", "postsuper", "-d", "ALL")
    assert deleted.stderr.splitlines()[-1] == "postsuper: Deleted: 1 message"


def test_the_log_after_its_rotation(server: RootServer) -> None:
    """SIGHUP: every role writes to the new file."""
    assert server.process is not None
    rotated = server.log.with_suffix(".1")
    server.log.rename(rotated)
    assert command(server, "root", "postfix", "reload").returncode == 0
    assert command(server, "ursula", "sendmail", "viktor", text="Subject: rotated\n\nx\n").returncode == 0
    arrived(server, "viktor", "rotated")
    logged(server, "from=<ursula>")
    assert "reload: " not in rotated.read_text() + server.log_text()
