"""A changed configuration in a server whose roles have processes of their own. RELIABILITY F45."""

from __future__ import annotations

import argparse
import contextlib
import imaplib
import io
import json
import os
import signal
import smtplib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mailserver.commands import who
from mailserver.commands.reload import ask
from mailserver.config.read import read_unchecked
from mailserver.rights.supervisor import MOST_RETIRED
from mailserver.roles.instance import running_pid, runtime_directory
from mailserver.roles.reload import Outcome
from mailserver.roles.separated import AGENTS
from tests.end_to_end.reload_load import Load, mail_replies, penalties
from tests.end_to_end.root_mail import arrived, forwarding, imap, logged, send, user_file
from tests.end_to_end.root_server import RootServer, children
from tests.end_to_end.server import free_ports, wait_for

ROLES = AGENTS + 4

pytestmark = pytest.mark.needs("root")


@pytest.fixture(scope="module")
def started() -> Iterator[RootServer]:
    server = RootServer("mbox")
    server.start()
    wait_for(lambda: len(processes(server)) == ROLES, "every role")
    yield server
    server.remove()


@pytest.fixture
def server(started: RootServer) -> Iterator[RootServer]:
    """The one server, with the configuration it began with, and no process of the past."""
    config = started.directory / "config"
    stock = {name: (config / name).read_text() for name in ("main.cf", "master.cf")}
    yield started
    for name, text in stock.items():
        (config / name).write_text(text)
    reload(started)
    wait_for(lambda: len(generations(started)) == 1, "the past to end")


def reload(server: RootServer) -> Outcome:
    """What `mailserver reload` prints as lines."""
    config = read_unchecked(str(server.directory / "config"), {})
    return ask(config, running_pid(config))


def generations(server: RootServer) -> list[Path]:
    """The directories of channels, one for each generation that is left."""
    config = read_unchecked(str(server.directory / "config"), {})
    return [path for path in Path(runtime_directory(config)).iterdir() if path.is_dir()]


def processes(server: RootServer) -> list[str]:
    assert server.process is not None
    return sorted(name for _, name in children(server.process.pid))


def banner(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), 60) as client:
        return client.recv(200).decode()


def test_under_load_nothing_is_dropped(server: RootServer) -> None:
    """F45: reloads among dialogues, deliveries and a session: none is cut off, no mail lost or doubled."""
    session = imap(server, "viktor")
    session.select("INBOX")
    load = Load(server.ports["smtp"], "ursula@example.org")
    for number in range(MOST_RETIRED):
        load.at_least(20, 50)
        server.configure(f"smtpd_banner = number {number}")
        outcome = reload(server)
        assert outcome.error == "" and [each.name for each in outcome.changes] == ["smtpd_banner"]
        assert banner(server.ports["smtp"]) == f"220 number {number}\r\n"
    load.at_least(20, 50)
    load.stop()
    load.arrived_once(lambda: (server.spool / "ursula").read_text())
    assert session.noop()[0] == "OK" and session.select("INBOX")[0] == "OK"
    session.logout()
    wait_for(lambda: len(processes(server)) == ROLES, "the processes of one generation")
    log = server.log_text()
    assert "reload: smtpd_banner: number 0 -> number 1" in log and "warning: process" not in log


def test_sessions_go_on_with_what_they_began_with(server: RootServer) -> None:
    """A dialogue of before a reload, whose mail the new queue delivers, and logins at an old connection."""
    old = smtplib.SMTP("127.0.0.1", server.ports["smtp"])
    assert old.ehlo()[0] == 250 and old.mail("carol@example.net")[0] == 250
    waiting = socket.create_connection(("127.0.0.1", server.ports["imap"]), 60)
    assert waiting.recv(500).startswith(b"* OK")
    session = imap(server, "ursula")
    server.configure("message_size_limit = 5000000")
    assert [each.name for each in reload(server).changes] == ["message_size_limit"]
    assert old.rcpt("ursula@example.org")[0] == 250
    assert old.data("Subject: across\r\n\r\nx\r\n")[0] == 250
    assert old.ehlo()[0] == 250 and old.esmtp_features["size"] == "10240000"
    arrived(server, "ursula", "across")
    session.select("INBOX")
    assert session.search(None, "SUBJECT", "across")[1] != [b""]
    waiting.sendall(b'a LOGIN ursula "correct horse"\r\n')
    assert b"a OK" in waiting.recv(2000)
    new = smtplib.SMTP("127.0.0.1", server.ports["smtp"])
    new.ehlo()
    assert new.esmtp_features["size"] == "5000000"
    assert len(generations(server)) == 2
    listed = logged_in(server)
    assert [each["username"] for each in listed] == ["ursula"] and listed[0]["connections"] == 2
    for client in (old, new):
        client.quit()
    session.logout()
    waiting.close()


def logged_in(server: RootServer) -> list[dict[str, Any]]:
    """What `mailserver who --json` prints: the sessions of before a reload, too."""
    arguments = argparse.Namespace(
        config_directory=str(server.directory / "config"), masks=[], one_each=False, json=True
    )
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert who.run(arguments) == 0
    found: list[dict[str, Any]] = json.loads(printed.getvalue())
    return found


def test_listeners_come_and_go(server: RootServer) -> None:
    """The supervisor binds and closes them; one address may take the place of all."""
    port = free_ports(1)[0]
    rows = server.directory / "config" / "master.cf"
    stock = rows.read_text()
    rows.write_text(f"{stock}0.0.0.0:{port} inet n - n - - smtpd\n    -o smtpd_banner=all\n")
    assert reload(server).opened == [f"0.0.0.0:{port}"]
    assert banner(port) == "220 all\r\n"
    rows.write_text(f"{stock}127.0.0.1:{port} inet n - n - - smtpd\n    -o smtpd_banner=one\n")
    outcome = reload(server)
    assert outcome.opened == [f"127.0.0.1:{port}"] and outcome.closed == [f"0.0.0.0:{port}"]
    assert banner(port) == "220 one\r\n"
    rows.write_text(stock)
    assert reload(server).closed == [f"127.0.0.1:{port}"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 30)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("message_size_limit = lots", 'main.cf:48: message_size_limit: bad numerical value "lots"'),
        ("smtpd_relay_restrictions = permit", "main.cf:48: smtpd_relay_restrictions"),
        ("smtp_tls_policy_maps = hash:/nonexistent/policy,bogus:x", "main.cf:48: smtp_tls_policy_maps"),
    ],
)
def test_a_broken_configuration_is_refused(server: RootServer, line: str, problem: str) -> None:
    """With file and line; no process of the old generation has ended, and a mended one is taken."""
    main = server.directory / "config" / "main.cf"
    sound, before = main.read_text(), server.roles()
    server.configure(line, "smtpd_banner = never seen")
    outcome = reload(server)
    assert problem in outcome.error and not outcome.changes
    logged(server, "reload: fatal: the new configuration is refused, the old one runs on: ")
    assert server.roles() == before and banner(server.ports["smtp"]).startswith("220 mail.example.org")
    main.write_text(f"{sound}smtpd_banner = mended\n")
    assert not reload(server).error
    assert banner(server.ports["smtp"]) == "220 mended\r\n"


def test_what_needs_a_start_stays(server: RootServer) -> None:
    """mail_owner, and whether there are system accounts; an unchanged configuration ends no process."""
    server.configure("mail_owner = nobody", "account_sources = passwd-file")
    outcome = reload(server)
    assert [each.name for each in outcome.ignored] == ["mail_owner", "account_sources"]
    assert outcome.is_empty and not outcome.error
    before = server.roles()
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGHUP)
    reload(server)
    assert server.roles() == before


def slow_command(server: RootServer, name: str) -> tuple[Path, Path]:
    """A command of the user's that notes its beginning in the second file, and ends without the first."""
    home = server.home(name)
    hold, noted = user_file(server, name, "wait", "", 0o600), home / "noted"
    text = f"#!/bin/sh\ncat >/dev/null; echo begun >>{noted}; while [ -e {hold} ]; do sleep 0.1; done\n"
    user_file(server, name, "slow", text, 0o755)
    return hold, noted


def test_a_slow_delivery_goes_on_across(server: RootServer) -> None:
    """It ends as it began, once, in the old generation; the others' mail does not wait for it."""
    hold, noted = slow_command(server, "ursula")
    with forwarding(server, "ursula", f"|{server.home('ursula')}/slow\n"):
        send(server, "slow", "ursula@example.org")
        wait_for(noted.exists, "the delivery to begin")
        server.configure("smtpd_banner = other")
        assert not reload(server).error
        send(server, "quick", "viktor@example.org")
        arrived(server, "viktor", "quick")
        assert len(generations(server)) == 2
        hold.unlink()
        logged(server, "status=sent (delivered to command")
        wait_for(lambda: len(generations(server)) == 1, "the old generation to end")
        assert noted.read_text() == "begun\n"


def test_a_killed_queue_of_the_past_loses_nothing(server: RootServer) -> None:
    """P1: what it had in hand is the new one's as soon as it is gone, not at the next scan."""
    hold, noted = slow_command(server, "viktor")
    with forwarding(server, "viktor", f"|{server.home('viktor')}/slow\n"):
        old = server.roles()["queue"]
        send(server, "patient", "viktor@example.org")
        wait_for(noted.exists, "the delivery to begin")
        server.configure("smtpd_banner = other")
        assert not reload(server).error
        os.kill(old, signal.SIGKILL)
        wait_for(lambda: noted.read_text() == "begun\nbegun\n", "the new queue to take it up")
        hold.unlink()
        logged(server, "to=<viktor@example.org>, relay=local")


def test_counts_and_penalties_outlive_a_reload(server: RootServer) -> None:
    """Whoever sends too fast, or guesses, gains nothing by it."""
    server.configure("smtpd_client_message_rate_limit = 2", "smtpd_client_event_limit_exceptions =")
    server.configure("anvil_rate_time_unit = 1d")
    assert not reload(server).error
    assert mail_replies(server.ports["smtp"], 2) == [250, 250]
    with pytest.raises(imaplib.IMAP4.error):
        imaplib.IMAP4("127.0.0.1", server.ports["imap"]).login("viktor", "wrong")
    server.configure("smtpd_banner = anew")
    assert not reload(server).error
    assert banner(server.ports["smtp"]) == "220 anew\r\n"
    assert mail_replies(server.ports["smtp"], 1) == [450]
    assert [each["penalty"] for each in penalties(server.directory / "config")] == [1]
