"""Virtual mailboxes: delivered to, read by the full address, from the same place."""

from __future__ import annotations

import imaplib
import poplib
import smtplib
from collections.abc import Iterator

import pytest

from tests.end_to_end.server import Server, wait_for
from tests.end_to_end.test_exchange import send

PASSWORD = "a secret of virtual users"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """info and sales have accounts, info a place in a table too, drop only that; own says where it is."""
    server = Server(tmp_path_factory.mktemp("virtual") / "home", "maildir")
    server.configure(
        "virtual_mailbox_domains = virt.test",
        "virtual_mailbox_base = $config_directory/vhosts",
        "virtual_mailbox_maps = inline:{ { info@virt.test = virt.test/info/ } { drop@virt.test = drop/ } }",
        "virtual_alias_domains = alias.test",
        "virtual_alias_maps = inline:{ @alias.test=info@virt.test, sales@alias.test=sales@virt.test }",
        "mail_location = maildir:$config_directory/mail/%d/%n",
        "mail_home = $config_directory/homes/%d/%n",
        "mailbox_command = /bin/false",
    )
    (server.directory / "vhosts").mkdir()
    for name in ("info", "sales", "own"):
        server.command("user", "add", f"{name}@virt.test", "--password-stdin", text=f"{PASSWORD}\n")
    users = server.directory / "users"
    place = f"userdb_mail=maildir:{server.directory}/own"
    lines = [line + place if line.startswith("own@") else line for line in users.read_text().splitlines()]
    users.write_text("\n".join(lines) + "\n")
    server.start()
    yield server
    server.stop()


def subjects(server: Server, name: str) -> list[bytes]:
    """What INBOX holds, over IMAP."""
    client = imaplib.IMAP4("127.0.0.1", server.ports["imap"])
    client.login(name, PASSWORD)
    count = int((client.select("INBOX", readonly=True)[1][0] or b"0").decode())
    rows = client.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1] if count else []
    client.logout()
    return [row[1].strip().removeprefix(b"Subject: ") for row in rows if isinstance(row, tuple)]


def arrives(server: Server, subject: str, to: str, name: str) -> None:
    """Mail for `to` is read by `name`."""
    send(server, f"Subject: {subject}\n\nx\n".encode(), to)
    wait_for(lambda: subject.encode() in subjects(server, name), f"{subject}\n{server.log_text()[-2000:]}")


def test_a_place_in_the_table_is_where_mail_is_read(server: Server) -> None:
    """virtual_mailbox_maps below virtual_mailbox_base, by full address, extension and spelling aside."""
    arrives(server, "to info", "Info+x@VIRT.test", "info@virt.test")
    assert list((server.directory / "vhosts/virt.test/info").glob("*/*"))
    client = poplib.POP3("127.0.0.1", server.ports["pop3"])
    client.user("info@virt.test")
    client.pass_(PASSWORD)
    assert client.stat()[0] >= 1
    client.quit()


def test_an_account_is_enough(server: Server) -> None:
    """Without a table mail_location says where, %d and %n expanded; mailbox_command is not for them."""
    arrives(server, "to sales", "sales@virt.test", "sales@virt.test")
    assert list((server.directory / "mail/virt.test/sales").glob("*/*"))


def test_userdb_mail_counts_on_both_sides(server: Server) -> None:
    """The passwd-file's own place for an account."""
    arrives(server, "to own", "own@virt.test", "own@virt.test")
    assert list((server.directory / "own").glob("new/*")) or list((server.directory / "own").glob("cur/*"))


def test_a_mailbox_without_an_account_takes_mail(server: Server) -> None:
    """virtual(8): the table alone makes the address valid."""
    send(server, b"Subject: dropped\n\nx\n", "drop@virt.test")
    wait_for(lambda: list((server.directory / "vhosts/drop/new").glob("*")), "mail in drop/")


def test_catch_all_aliases(server: Server) -> None:
    """virtual(5): the address itself before @domain."""
    arrives(server, "to anybody", "anybody@alias.test", "info@virt.test")
    arrives(server, "to the other", "sales@alias.test", "sales@virt.test")


def test_others_do_not_exist(server: Server) -> None:
    """virtual_mailbox_domains: everything else is refused at RCPT."""
    with smtplib.SMTP("127.0.0.1", server.ports["smtp"]) as client:
        client.ehlo()
        client.mail("a@example.net")
        code, text = client.rcpt("nosuch@virt.test")
        assert (code, text[:5]) == (550, b"5.1.1")
        assert b"User unknown in virtual mailbox table" in text
