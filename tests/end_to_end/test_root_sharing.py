"""A public namespace shared by users of the system: by their group, then by its ACLs."""

from __future__ import annotations

import os
import re
import smtplib
import ssl
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from imapclient import IMAPClient
from imapclient.exceptions import IMAPClientError

from mailserver.accounts.hashing import hash_password
from tests.end_to_end.plain_client import PlainClient
from tests.end_to_end.root_server import PASSWORD, RootServer, interpreter
from tests.end_to_end.server import DEADLINE

pytestmark = pytest.mark.needs("root")

GROUP = 64200


@pytest.fixture(scope="module")
def server() -> Iterator[RootServer]:
    started = RootServer("maildir")
    sha512 = hash_password(PASSWORD.encode()).partition("}")[2]
    started._account("wally", 64103, f"{sha512}:20000:0:99999:7:::")
    with (started.etc / "group").open("a") as group:
        group.write(f"team:x:{GROUP}:ursula,viktor\n")
    for name, mode in (("public", 0o2770), ("seen", 0o2770), ("closed", 0o700)):
        root = started.directory / name
        root.mkdir()
        os.chown(root, 0, GROUP)
        root.chmod(mode)
    started.configure(
        f"public_namespaces = Public/=maildir:{started.directory}/public,"
        f" Seen/=maildir:{started.directory}/seen:INDEXPVT=~/seen,"
        f" Closed/=maildir:{started.directory}/closed",
        "imap_urlauth_host = mail.example",
        "smtpd_burl_enable = yes",
    )
    program, environment = interpreter()
    for namespace in ("Public", "Seen"):
        subprocess.run(
            [program, "-m", "mailserver.commands.main", "-c", str(started.directory / "config"),
             "acl", "set", namespace, "group=team", "lrswitekxa"],
            env={**os.environ, **environment}, check=True, timeout=DEADLINE,
        )  # fmt: skip
    started.start()
    yield started
    started.remove()


def log_in(server: RootServer, name: str) -> IMAPClient:
    client = IMAPClient("127.0.0.1", server.ports["imap"], ssl=False)
    client.login(name, PASSWORD)
    return client


def message(subject: str) -> bytes:
    return f"Subject: {subject}\r\n\r\n{subject}\r\n".encode()


def test_members_of_the_group_share_mailboxes(server: RootServer) -> None:
    """Their session hosts run as different users and agree on UIDs, flags, expunges and each other's news."""
    with log_in(server, "viktor") as viktor, log_in(server, "ursula") as ursula:
        assert viktor.namespace().shared == (
            ("Public/", "/"),
            ("Seen/", "/"),
        )
        viktor.create_folder("Public/News")
        viktor.append("Public/News", message("one"), [b"\\Flagged", b"Blue"])
        mine, theirs = viktor.select_folder("Public/News"), ursula.select_folder("Public/News")
        assert mine[b"UIDVALIDITY"] == theirs[b"UIDVALIDITY"] and ursula.search() == [1]
        assert {b"\\Flagged", b"Blue"} <= set(ursula.get_flags([1])[1])
        viktor.idle()
        ursula.append("Public/News", message("two"))
        assert (2, b"EXISTS") in viktor.idle_check(timeout=30)
        viktor.idle_done()
        viktor.add_flags([2], [b"\\Answered"])
        ursula.noop()
        assert b"\\Answered" in ursula.get_flags([2])[2]
        ursula.add_flags([1], [b"\\Deleted"])
        ursula.expunge()
        viktor.noop()
        assert viktor.search() == ursula.search() == [2]
        assert viktor.fetch([2], ["BODY[TEXT]"])[2][b"BODY[TEXT]"] == b"two\r\n"


def test_copies_out_and_in(server: RootServer) -> None:
    """What goes into the namespace is the group's to read, what comes out is its new owner's alone."""
    with log_in(server, "viktor") as viktor, log_in(server, "ursula") as ursula:
        viktor.create_folder("Public/Box")
        viktor.append("INBOX", message("private"))
        viktor.select_folder("INBOX")
        viktor.copy([1], "Public/Box")
        ursula.select_folder("Public/Box")
        assert ursula.fetch([1], ["BODY[TEXT]"])[1][b"BODY[TEXT]"] == b"private\r\n"
        ursula.move([1], "INBOX")
    public, own = server.directory / "public", server.spool / "ursula"
    (moved,) = (path for path in (own / "cur").iterdir())
    assert moved.stat().st_uid == own.stat().st_uid and stat.S_IMODE(moved.stat().st_mode) == 0o600
    assert not list((public / ".Box" / "cur").iterdir())
    for path in all_below(public):
        found = path.stat()
        assert found.st_gid == GROUP and found.st_mode & 0o007 == 0, path
        assert found.st_mode & 0o060 == 0o060, path
    for path in all_below(server.directory / "state/accounts/public%2FPublic"):
        assert path.stat().st_gid == GROUP and path.stat().st_mode & 0o066 == 0o060, path


def test_each_has_his_own_seen(server: RootServer) -> None:
    """INDEXPVT: one host's user does not see what another's has seen, but all else that he did."""
    with log_in(server, "viktor") as viktor, log_in(server, "ursula") as ursula:
        viktor.create_folder("Seen/News")
        viktor.append("Seen/News", message("one"), [b"\\Seen"])
        viktor.append("Seen/News", message("two"))
        viktor.select_folder("Seen/News")
        ursula.select_folder("Seen/News")
        assert viktor.search("SEEN") == [1] and ursula.search("SEEN") == []
        ursula.add_flags([2], [b"\\Seen", b"\\Flagged"])
        viktor.noop()
        assert viktor.search("SEEN") == [1] and viktor.search("FLAGGED") == [2]
        viktor.remove_flags([1], [b"\\Seen"])
        ursula.noop()
        assert ursula.search("SEEN") == [2] and viktor.search("SEEN") == []
        assert ursula.folder_status("Seen/News", ["UNSEEN"]) == {b"UNSEEN": 1}
        viktor.delete_messages([2])
        viktor.expunge([2])
        assert ursula.folder_status("Seen/News", ["MESSAGES", "UNSEEN"]) == {b"MESSAGES": 1, b"UNSEEN": 1}


@pytest.mark.parametrize("level", [".Trap/cur", ".Trap"])
def test_nobody_is_made_to_show_his_own_mail(server: RootServer, level: str) -> None:
    """A link to a member's own maildir, put where the shared one was, gives the others nothing of it."""
    with log_in(server, "viktor") as viktor, log_in(server, "ursula") as ursula:
        if not viktor.folder_exists("Public/Trap"):
            viktor.create_folder("Public/Trap")
        viktor.append("INBOX", message("very private"))
        place = server.directory / "public" / level
        os.rename(place, f"{place}-aside")
        place.symlink_to(server.spool / "viktor" / ("cur" if level.endswith("cur") else ""))
        try:
            with pytest.raises(IMAPClientError):
                viktor.select_folder("Public/Trap")
            with pytest.raises(IMAPClientError):
                ursula.select_folder("Public/Trap")
        finally:
            place.unlink()
            os.rename(f"{place}-aside", place)
        assert viktor.select_folder("Public/Trap")[b"EXISTS"] == 0


def all_below(directory: Path) -> list[Path]:
    return [Path(where, name) for where, _, names in os.walk(directory) for name in (".", *names)]


def test_others_have_no_such_namespace(server: RootServer) -> None:
    """Who is not in the group does not see it; what is left out is told."""
    with log_in(server, "wally") as wally:
        assert wally.namespace().shared is None
        assert not [name for _, _, name in wally.list_folders() if name.startswith("Public")]
        with pytest.raises(IMAPClientError):
            wally.select_folder("Public/News")
    assert "no group shares it: chgrp GROUP it, chmod 2770 it" in server.log_text()


def test_urls_of_the_account_itself(server: RootServer) -> None:
    """URLAUTH works within an account, whose host reaches nobody else's mail; SMTP reaches none: no BURL."""
    ursula, viktor = (
        PlainClient(server.ports["imap"], name, f'"{PASSWORD}"') for name in ("ursula", "viktor")
    )
    assert b" URLAUTH URLAUTH=BINARY" in ursula.ask("a CAPABILITY")
    uid = re.search(rb"APPENDUID \d+ (\d+)", ursula.ask("b APPEND INBOX {6+}\r\na: b\r\n"))
    assert uid is not None
    rump = f"imap://ursula@mail.example/INBOX/;UID={uid[1].decode()};URLAUTH=anonymous"
    full = re.search(rb'\* GENURLAUTH ("[^"]+")', ursula.ask(f'c GENURLAUTH "{rump}" INTERNAL'))
    assert full is not None
    fetch = b"d URLFETCH " + full[1]
    assert b" {6}\r\na: b\r\n\r\nd OK" in ursula.ask(fetch.decode())
    assert b" NIL\r\nd OK" in viktor.ask(fetch.decode())
    with smtplib.SMTP("127.0.0.1", server.ports["submission"], timeout=DEADLINE) as client:
        client.starttls(context=ssl._create_unverified_context())
        client.login("ursula", PASSWORD)
        client.ehlo()
        assert "chunking" in client.esmtp_features and "burl" not in client.esmtp_features
