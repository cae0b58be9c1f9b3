"""pipe(8) rows of master.cf on a host with system accounts: whose rights commands have, and what they get."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.root_mail import logged, send, user_file
from tests.end_to_end.root_server import MAIL_OWNER, USERS, RootServer
from tests.end_to_end.server import wait_for

pytestmark = pytest.mark.needs("root")


@pytest.fixture(scope="module")
def server() -> Iterator[RootServer]:
    started = RootServer()
    recorder = started.directory / "uux"
    recorder.write_text('#!/bin/sh\n(id -u; id -G; printf "[%s]" "$@"; echo; cat) > "$HOME/$1"\n')
    recorder.chmod(0o755)
    uux = "uucp-$queue_id -a$sender - $nexthop!rmail ($recipient)"
    rows = {
        "uucp": f"flags=Fqhu user=ursula argv={recorder} {uux}",
        "maildrop": "flags=DRXhu user=viktor argv=/usr/bin/maildrop -d ${user}",
        "asroot": f"user=root argv={recorder} root",
        "asowner": f"user={MAIL_OWNER[0]} argv={recorder} owner",
        "stock": "user=no-such-user argv=/usr/bin/true",
    }
    with (started.directory / "config" / "master.cf").open("a") as master:
        master.writelines(f"{name} unix - n n - - pipe {row}\n" for name, row in rows.items())
    maps = "{ uucp.test = uucp:Hub.test } { root.test = asroot: } { owner.test = asowner: } "
    started.configure(
        f"transport_maps = inline:{{ {maps} {{ stock.test = stock: }} }}",
        "relay_domains = uucp.test root.test owner.test stock.test",
        "mailbox_transport_maps = inline:{ { viktor = maildrop: } }",
    )
    started.start()
    yield started
    started.remove()


def test_a_command_runs_as_its_user(server: RootServer) -> None:
    """No other user's rights, no groups of root's, no shell between macro and argument; flags=Fqhu."""
    send(server, "by-uucp", '"One Two;$(id)"@UUCP.test', "b@uucp.test")
    logged(server, "status=sent (delivered via uucp service)")
    (got,) = [path.read_text().split("\n", 3) for path in server.home("ursula").glob("uucp-*")]
    assert got[0] == str(USERS["ursula"])
    assert set(got[1].split()) == {str(USERS["ursula"])}
    assert '[-acarol@example.net][-][hub.test!rmail][("one two;$(id)"@uucp.test)][(b@uucp.test)]' in got[2]
    assert got[3].startswith("From carol@example.net  ")
    assert "pipe" in server.log_text() and "relay=uucp," in server.log_text()


def test_never_as_root_nor_as_the_queues_owner(server: RootServer) -> None:
    """The mail waits, with the row's line; nothing was run."""
    for domain in ("root", "owner", "stock"):
        send(server, f"refused-{domain}", f"x@{domain}.test")
    for user in ("root", MAIL_OWNER[0], "no-such-user"):
        logged(server, f"user={user}: ")
    assert not Path("/root/root").exists()


@pytest.mark.needs("maildrop")
def test_maildrop_as_debian_has_it(server: RootServer) -> None:
    """mailbox_transport_maps to the stock row: Delivered-To and Return-Path are there."""
    user_file(server, "viktor", ".mailfilter", 'to "$HOME/filtered"\n', 0o600)
    send(server, "dropped", "viktor@example.org")
    box = server.home("viktor") / "filtered"
    wait_for(lambda: box.exists() and "Subject: dropped" in box.read_text(), server.log_text()[-2000:])
    text = box.read_text()
    assert "Return-Path: <carol@example.net>\nDelivered-To: viktor@example.org\n" in text
    logged(server, "relay=maildrop, ")
