"""A changed configuration in a running server of one process: whole or not at all. RELIABILITY F45."""

from __future__ import annotations

import imaplib
import os
import signal
import smtplib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.commands.reload import ask
from mailserver.config.read import read_unchecked
from mailserver.roles import command_door
from mailserver.roles.instance import running_pid
from mailserver.roles.one_owner import MOST_RETIRED
from mailserver.roles.reload import Outcome
from tests.end_to_end.reload_load import Load, mail_replies, penalties
from tests.end_to_end.server import Server, free_ports, running, wait_for


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("reload") / "home") as server:
        assert banner(server.ports["smtp"])  # it listens before it serves
        yield server


@pytest.fixture
def server(started: Server) -> Iterator[Server]:
    """The one server, with the configuration it began with."""
    stock = {name: (started.directory / name).read_text() for name in ("main.cf", "master.cf")}
    yield started
    for name, text in stock.items():
        (started.directory / name).write_text(text)
    reload(started)


def reload(server: Server) -> Outcome:
    """What `mailserver reload` prints as lines, without a new Python for each."""
    config = read_unchecked(str(server.directory), {})
    return ask(config, running_pid(config))


def banner(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        return client.recv(200).decode()


def imap(server: Server) -> imaplib.IMAP4:
    client = imaplib.IMAP4("127.0.0.1", server.ports["imap"])
    client.login("alice", server.passwords["alice"])
    client.select("INBOX")
    return client


def test_under_load_nothing_is_dropped(server: Server) -> None:
    """F45: reloads among dialogues, deliveries, an IDLE: none is cut off, no mail lost or doubled."""
    session = imap(server)
    session.send(b"i IDLE\r\n")
    assert session.readline().startswith(b"+ ")
    load = Load(server.ports["smtp"], "alice@example.org")
    for number in range(MOST_RETIRED):
        load.at_least(20, 50)
        server.configure(f"smtpd_banner = number {number}")
        outcome = reload(server)
        assert outcome.error == "" and [each.name for each in outcome.changes] == ["smtpd_banner"]
        assert banner(server.ports["smtp"]) == f"220 number {number}\r\n"
    load.at_least(20, 50)
    load.stop()
    load.arrived_once(lambda: server.inbox("alice").read_text())
    while b"EXISTS" not in session.readline():
        pass
    session.send(b"DONE\r\n")
    while not session.readline().startswith(b"i OK"):
        pass
    session.logout()
    log = server.log_text()
    assert "reload: smtpd_banner: number 0 -> number 1" in log and "Traceback" not in log


def test_sessions_go_on_with_what_they_began_with(server: Server) -> None:
    """An SMTP dialogue and an IMAP session of before a reload; what is new has the new."""
    old, session = smtplib.SMTP("127.0.0.1", server.ports["smtp"]), imap(server)
    assert old.ehlo()[0] == 250 and old.esmtp_features["size"] == "10240000"
    assert old.mail("carol@example.net")[0] == 250
    server.configure("message_size_limit = 5000000")
    printed = server.command("reload")
    assert printed == f"message_size_limit: 10240000 -> 5000000 ({server.directory}/main.cf:44)\n"
    assert old.rcpt("alice@example.org")[0] == 250
    assert old.data("Subject: across\r\n\r\nx\r\n")[0] == 250
    assert old.ehlo()[0] == 250 and old.esmtp_features["size"] == "10240000"
    wait_for(lambda: session.search(None, 'SUBJECT "across"')[1] != [b""], "the message in the old session")
    new = smtplib.SMTP("127.0.0.1", server.ports["smtp"])
    new.ehlo()
    assert new.esmtp_features["size"] == "5000000"
    for client in (old, new):
        client.quit()
    session.logout()


def test_listeners_come_and_go(server: Server) -> None:
    """A new row is served, a removed one refused, and one address may take the place of all."""
    port = free_ports(1)[0]
    rows = server.directory / "master.cf"
    stock = rows.read_text()
    rows.write_text(f"{stock}127.0.0.1:{port} inet n - n - - smtpd\n    -o smtpd_banner=more\n")
    assert reload(server).opened == [f"127.0.0.1:{port}"]
    assert banner(port) == "220 more\r\n"
    rows.write_text(f"{stock}0.0.0.0:{port} inet n - n - - smtpd\n    -o smtpd_banner=all\n")
    outcome = reload(server)
    assert outcome.opened == [f"0.0.0.0:{port}"] and outcome.closed == [f"127.0.0.1:{port}"]
    assert banner(port) == "220 all\r\n"
    rows.write_text(stock)
    assert reload(server).closed == [f"0.0.0.0:{port}"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 30)
    assert banner(server.ports["smtp"]).startswith("220 mail.example.org")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("message_size_limit = lots", 'main.cf:44: message_size_limit: bad numerical value "lots"'),
        ("smtpd_relay_restrictions = permit", "main.cf:44: smtpd_relay_restrictions"),
        ("mynetworks = /nonexistent/networks", "/nonexistent/networks"),
        ("smtpd_tls_cert_file = /nonexistent.pem", "main.cf:44: smtpd_tls_cert_file"),
    ],
)
def test_a_broken_configuration_is_refused(server: Server, line: str, problem: str) -> None:
    """With file and line, by the command and in the log; the old one runs on, and a mended one is taken."""
    main = server.directory / "main.cf"
    sound = main.read_text()
    session = imap(server)
    server.configure(line, "smtpd_banner = never seen")
    outcome = reload(server)
    assert problem in outcome.error and not outcome.changes
    server.logged("reload: fatal: the new configuration is refused, the old one runs on: ")
    assert problem in server.log_text()
    assert banner(server.ports["smtp"]).startswith("220 mail.example.org")
    assert session.noop()[0] == "OK"
    main.write_text(f"{sound}smtpd_banner = mended\n")
    assert not reload(server).error
    assert banner(server.ports["smtp"]) == "220 mended\r\n"
    session.logout()


def test_a_taken_port_changes_nothing(server: Server) -> None:
    """Bad luck with the second of two new listeners: the first one is closed again."""
    first, second = free_ports(2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", second))
        taken.listen()
        with (server.directory / "master.cf").open("a") as rows:
            rows.writelines(f"127.0.0.1:{port} inet n - n - - smtpd\n" for port in (first, second))
        assert f"cannot listen on 127.0.0.1:{second}" in reload(server).error
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", first), 30)
    assert len(reload(server).opened) == 2


def test_what_needs_a_start_stays(server: Server) -> None:
    """It is said, as Postfix says it; the rest takes effect. Where nothing differs nothing happens."""
    server.configure("queue_directory = /nonexistent", "smtpd_banner = rest")
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGHUP)  # a command would look for the server in the new place
    server.logged(
        "warning: ignoring queue_directory parameter value change: old value: '.*queue', new value: '/non"
    )
    server.logged("reload: smtpd_banner: ")
    assert banner(server.ports["smtp"]) == "220 rest\r\n"
    main = server.directory / "main.cf"
    main.write_text(main.read_text().replace("queue_directory = /nonexistent\n", ""))
    assert reload(server).is_empty
    server.configure("state_directory = /nonexistent", "message_size_limit = lots")
    printed = server.command("reload", status=1)
    assert "warning: ignoring state_directory parameter value change" in printed
    assert f'{main}:46: message_size_limit: bad numerical value "lots"' in printed


def test_a_file_of_a_list_is_read_again(server: Server, tmp_path: Path) -> None:
    """`mynetworks = /file`: changed content counts at a reload, although no parameter differs."""
    networks = tmp_path / "networks"
    networks.write_text("127.0.0.1\n")
    server.configure(f"mynetworks = {networks}", "smtpd_relay_restrictions = permit_mynetworks, reject")
    reload(server)
    networks.write_text("192.0.2.1\n")
    assert reload(server).files == [str(networks)]
    client = smtplib.SMTP("127.0.0.1", server.ports["smtp"])
    client.ehlo()
    client.mail("a@b.example")
    assert client.rcpt("alice@example.org")[0] == 554
    client.quit()


def test_a_queue_run_goes_on_across(server: Server) -> None:
    """A delivery under way ends as it began, and once; the queue is the new one's, and always listed."""
    slow = server.directory / "slow"
    slow.write_text(
        "#!/bin/sh\ncat > /dev/null; echo begun >> $0.log; while [ -e $0.wait ]; do sleep 0.1; done\n"
    )
    slow.chmod(0o755)
    wait = Path(f"{slow}.wait")
    wait.touch()
    with (server.directory / "aliases").open("a") as aliases:
        aliases.write(f"slow: |{slow}\n")
    with smtplib.SMTP("127.0.0.1", server.ports["smtp"]) as client:
        client.sendmail("carol@example.net", ["slow@example.org"], "Subject: slow\r\n\r\nx\r\n")
    wait_for(Path(f"{slow}.log").exists, "the delivery to begin")
    for number in range(2):
        server.configure(f"smtpd_banner = {number}")
        reload(server)
        assert "slow@example.org" in listing(server)
    with smtplib.SMTP("127.0.0.1", server.ports["smtp"]) as client:
        client.sendmail("carol@example.net", ["alice@example.org"], "Subject: quick\r\n\r\nx\r\n")
    wait_for(
        lambda: "Subject: quick" in server.inbox("alice").read_text(), "mail that overtakes the slow one"
    )
    wait.unlink()
    server.logged(r"to=<.*slow.*status=sent")
    assert Path(f"{slow}.log").read_text() == "begun\n"
    wait_for(lambda: "slow@example.org" not in listing(server), "an empty queue")


def listing(server: Server) -> str:
    """What the running server answers postqueue."""
    _, descriptors = command_door.PLACE.ask(str(server.directory / "queue"), "list")
    with open(descriptors[0], encoding="ascii") as file:
        file.seek(0)
        return file.read()


def test_counts_and_penalties_outlive_a_reload(server: Server) -> None:
    """Whoever sends too fast, or guesses, gains nothing by it."""
    server.configure("smtpd_client_message_rate_limit = 2", "smtpd_client_event_limit_exceptions =")
    server.configure("anvil_rate_time_unit = 1d")
    assert not reload(server).error
    assert mail_replies(server.ports["smtp"], 2) == [250, 250]
    with pytest.raises(imaplib.IMAP4.error):
        imaplib.IMAP4("127.0.0.1", server.ports["imap"]).login("alice", "wrong")
    server.configure("smtpd_banner = anew")
    assert not reload(server).error
    assert banner(server.ports["smtp"]) == "220 anew\r\n"
    assert mail_replies(server.ports["smtp"], 1) == [450]
    assert [each["penalty"] for each in penalties(server.directory)] == [1]
