"""`mailserver replay`: what a log says of yesterday against what the configuration says of today."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mailserver.commands import main

HEAD = "Nov 24 02:22:05 mx postfix/"
LOCAL = f"{HEAD}local[1]: A909922E0CD: "
TAIL = "delay=0.1, delays=0/0/0/0.1, dsn=2.0.0, status=sent"
LOG = (
    f"{LOCAL}to=<alice+list@example.org>, relay=local, {TAIL} (delivered to mailbox)\n"
    f"{LOCAL}to=<alice@example.org>, orig_to=<staff@example.org>, relay=local, {TAIL}"
    " (delivered to mailbox)\n"
    f"{LOCAL}to=<staff@example.org>, relay=local, {TAIL} (forwarded as B466F22E0CC)\n"
    f"{HEAD}smtp[2]: B466F22E0CC: to=<x@example.net>, orig_to=<staff@example.org>, relay=none, delay=9,"
    " delays=0/0/9/0, dsn=4.4.1, status=deferred (connect to mx[192.0.2.1]:25: refused)\n"
    f"{LOCAL}to=<archive@example.org>, relay=local, {TAIL} (delivered to file: /var/archive)\n"
    f"{HEAD}smtp[2]: C466F22E0CC: to=<y@example.net>, relay=mx[192.0.2.1]:25, {TAIL} (250 Ok: queued as 1)\n"
    f"{HEAD}smtpd[3]: NOQUEUE: reject: RCPT from x[192.0.2.7]: 550 5.1.1 <ghost@example.org>: Recipient"
    " address rejected: User unknown in local recipient table; from=<> to=<ghost@example.org> proto=SMTP\n"
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "main.cf").write_text(
        "compatibility_level = 3.6\nmyhostname = mail.example.org\nmydomain = example.org\n"
        "mydestination = $myhostname, $mydomain\nmail_owner = nobody\nrecipient_delimiter = +\n"
        f"queue_directory = {tmp_path}/queue\nmail_spool_directory = {tmp_path}/mail\n"
        f"mail_location = mbox:~/mail:INBOX={tmp_path}/mail/%u\nalias_maps = texthash:{tmp_path}/aliases\n"
        f"account_sources = passwd-file\npasswd_file = {tmp_path}/users\nmail_home = {tmp_path}/home/%u\n"
        "allow_mail_to_files = alias\n"
    )
    (tmp_path / "master.cf").write_text("")
    (tmp_path / "users").write_text("alice:{PLAIN}x::::::\n")
    (tmp_path / "aliases").write_text("staff: alice, x@example.net\narchive: /var/archive\n")
    (tmp_path / "old.log").write_text(LOG)
    return tmp_path


def replay(home: Path, capsys: pytest.CaptureFixture[str], status: int) -> str:
    """What the command prints."""
    words = ["-c", str(home), "replay", str(home / "old.log")]
    assert main.main(words) == status, capsys.readouterr()
    return capsys.readouterr().out


def test_nothing_differs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Extensions, groups, deferred mail, files and unknown users are the same as they were."""
    assert replay(home, capsys, 0) == "7 deliveries and refusals for 5 recipients: 0 would differ.\n"


def test_what_differs_is_shown_with_its_reason(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A changed alias, one that is gone, and one where nobody was; each with the line that says so."""
    (home / "aliases").write_text("staff: alice, z@example.net\nghost: alice\n")
    text = replay(home, capsys, 1)
    assert "3 would differ" in text
    assert "  was:      elsewhere: x@example.net; mailbox of alice\n" in text
    assert "  would be: elsewhere: z@example.net; mailbox of alice\n" in text
    assert f"{home}/aliases:1" in text
    assert (
        "archive@example.org  (1 times)\n  was:      file /var/archive\n  would be: refused or bounced"
        in text
    )
    assert (
        "ghost@example.org  (1 times)\n  was:      refused or bounced\n  would be: mailbox of alice" in text
    )


def test_as_json_with_another_configuration(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--config names the new one; the log is the old one's."""
    (home / "users").write_text("")
    status = main.main(["-c", "/nowhere", "replay", "--json", "--config", str(home), str(home / "old.log")])
    values = json.loads(capsys.readouterr().out)
    assert status == 1
    assert values["recipients"] == 5
    assert {each["address"] for each in values["differing"]} == {
        "alice+list@example.org",
        "staff@example.org",
    }


def test_another_relay(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A relayhost that the log does not know, and one that is the host all mail went to."""
    with (home / "main.cf").open("a") as main_cf:
        main_cf.write("relayhost = [smart.example.net]:587\n")
    shown = replay(home, capsys, 1)
    assert "1 would differ." in shown
    assert "  was:      elsewhere, to mx\n  would be: elsewhere, to smart.example.net\n" in shown
    (home / "old.log").write_text(LOG.replace("relay=mx[", "relay=smart.example.net["))
    assert "0 would differ." in replay(home, capsys, 0)


def test_a_smart_host_that_was_forgotten(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All mail for several domains went to one host: the MX of each is another way."""
    out = f"{HEAD}smtp[2]: C466F22E0CC: to=<%s>, relay=smart.example.net[192.0.2.1]:25, {TAIL} (250 Ok)\n"
    (home / "old.log").write_text(out % "y@example.net" + out % "y@example.com")
    shown = replay(home, capsys, 1)
    assert "2 would differ." in shown and "would be: elsewhere, to the MX of the domain" in shown
    (home / "old.log").write_text(out % "y@example.net" + out % "z@example.net")
    assert "0 would differ." in replay(home, capsys, 0)
