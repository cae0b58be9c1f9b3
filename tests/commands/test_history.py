"""`mailserver explain QUEUE-ID`: the message's story, from Postfix's log lines and from a real queue."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mailserver.commands import main
from mailserver.commands.log_lines import Line, parse, parse_result
from mailserver.envelope import Address, Client, Envelope, Recipient
from mailserver.queue.directory import QueueDirectory

LOG = """\
Nov 24 02:22:04 mx postfix/smtpd[31303]: connect from localhost[127.0.0.1]
Nov 24 02:22:04 mx postfix/smtpd[31303]: A909922E0CD: client=localhost[127.0.0.1]
Nov 24 02:22:04 mx postfix/cleanup[30523]: A909922E0CD: message-id=<one@example.net>
Nov 24 02:22:04 mx postfix/qmgr[29977]: A909922E0CD: from=<s@example.net>, size=319, nrcpt=1 (queue active)
Nov 24 02:22:05 mx postfix/local[30530]: A909922E0CD: to=<bob@example.org>, orig_to=<staff@example.org>, \
relay=local, delay=0.04, delays=0.02/0.02/0/0, dsn=2.0.0, status=sent (forwarded as B466F22E0CC)
Nov 24 02:22:05 mx postfix/qmgr[29977]: A909922E0CD: removed
Nov 24 02:22:05 mx postfix/smtp[30531]: B466F22E0CC: to=<bob@example.net>, orig_to=<staff@example.org>, \
relay=none, delay=0.03, delays=0/0/0/0, dsn=4.4.1, status=deferred (connect to mx[192.0.2.1]:25: refused)
2026-11-24T02:22:09.123456+00:00 mx postfix/smtpd[1]: NOQUEUE: reject: RCPT from x[192.0.2.7]: 554 5.7.1 no
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "main.cf").write_text(
        "compatibility_level = 3.6\nmyhostname = mail.example.org\nmydestination = example.org\n"
        "mydomain = example.org\n"
        f"queue_directory = {tmp_path}/queue\nmaillog_file = {tmp_path}/mail.log\n"
        f"account_sources = passwd-file\npasswd_file = {tmp_path}/users\nmail_owner = nobody\nalias_maps =\n"
    )
    (tmp_path / "master.cf").write_text("")
    (tmp_path / "users").write_text("")
    (tmp_path / "mail.log").write_text(LOG)
    QueueDirectory(str(tmp_path / "queue")).prepare()
    return tmp_path


def told(home: Path, capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    """What the command prints."""
    assert main.main(["-c", str(home), "explain", *words]) == status
    printed = capsys.readouterr()
    return printed.out + printed.err


def test_lines_of_both_time_formats() -> None:
    """Postfix's classic lines and RFC 3339 ones; what is no line of a log is none."""
    lines = [parse(text) for text in LOG.splitlines()]
    assert lines[1] == Line("Nov 24 02:22:04", "smtpd", "A909922E0CD", "client=localhost[127.0.0.1]")
    last = lines[-1]
    assert last is not None and last.queue_id == "" and last.text.startswith("NOQUEUE: reject")
    assert parse("-- no log --") is None
    result = parse_result(lines[4]) if lines[4] else None
    assert result is not None
    assert (result.original, result.status, result.dsn) == ("staff@example.org", "sent", "2.0.0")


def test_a_message_and_what_came_of_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The forwarded copy follows, indented; lines of no message are left out."""
    text = told(home, capsys, "A909922E0CD")
    assert text.splitlines()[0] == "A909922E0CD"
    assert "smtpd    client=localhost[127.0.0.1]" in text
    assert "\n    B466F22E0CC\n" in text and "refused" in text
    assert "connect from" not in text and "NOQUEUE" not in text


def test_by_message_id_and_from_rotated_logs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An address without brackets is an address still."""
    (home / "mail.log.1.gz").write_bytes(gzip.compress((home / "mail.log").read_bytes()))
    (home / "mail.log").write_text("")
    assert told(home, capsys, "<one@example.net>").startswith("A909922E0CD\n")
    (values,) = json.loads(told(home, capsys, "--json", "<one@example.net>"))
    assert [follower["queue_id"] for follower in values["followers"]] == ["B466F22E0CC"]
    assert "relay one@example.net" in told(home, capsys, "one@example.net")


def test_what_still_waits(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The queue itself is asked, with or without a line in the log."""
    queue = QueueDirectory(str(home / "queue"))
    recipients = (Recipient(Address("bob", "example.net"), "bob@example.net"),)
    incoming = queue.create(Envelope(Address("a", "example.org"), recipients, Client(name="")))
    incoming.write(b"Subject: x\n\ny\n")
    message = incoming.commit()
    message.close()
    text = told(home, capsys, message.queue_id)
    assert "now in incoming" in text and "bob@example.net waits" in text
    (home / "mail.log").unlink()
    assert told(home, capsys, message.queue_id) == text


def test_nobody_knows_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The remedy is named."""
    assert "--log FILE" in told(home, capsys, "0000000000A", status=1)


# A journal of its own: nothing that this machine logs is in it, and nothing of ours in this machine's.
_WITH_JOURNAL = """\
set -e
mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/log
mkdir -p /run/systemd/journal /run/log/journal
/lib/systemd/systemd-journald &
trap "kill $!" EXIT
until [ -S /run/systemd/journal/dev-log ]; do sleep 0.05; done
while read -r ident text; do
    logger -u /run/systemd/journal/dev-log -p mail.info -t "$ident" --id=7 "$text"
done
until journalctl -q SYSLOG_FACILITY=2 --grep removed | grep -q .; do sleep 0.05; done
"$@"
"""


@pytest.mark.needs("root", "unshare", "logger", "journalctl")
def test_from_the_journal(home: Path) -> None:
    """Where no syslog daemon writes a file, systemd's journal has the lines."""
    settings = (home / "main.cf").read_text().splitlines(keepends=True)
    (home / "main.cf").write_text("".join(line for line in settings if not line.startswith("maillog_file")))
    lines = [
        line.split("]: ")[0].split()[-1].split("[")[0] + " " + line.split("]: ", 1)[1]
        for line in LOG.splitlines()
    ]
    words = [
        sys.executable,
        "-m",
        "mailserver.commands.main",
        "-c",
        str(home),
        "explain",
        "<one@example.net>",
    ]
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", _WITH_JOURNAL, "sh", *words],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout.startswith("A909922E0CD\n"), done.stderr
    assert "status=sent (forwarded as B466F22E0CC)" in done.stdout and "\n    B466F22E0CC\n" in done.stdout
