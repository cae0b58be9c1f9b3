"""The capabilities that the systemd unit leaves to root are enough, and there is none to spare for a role."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.end_to_end.root_mail import arrived, forwarding, imap, logged, send
from tests.end_to_end.root_server import USERS, RootServer, status
from tests.end_to_end.server import wait_for
from tests.end_to_end.test_etc import UNIT

pytestmark = pytest.mark.needs("root", "setpriv")


@pytest.fixture(scope="module")
def server() -> Iterator[RootServer]:
    names = re.search(r"^CapabilityBoundingSet=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert names is not None
    kept = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in names[1].split())
    started = RootServer("mbox")
    started.wrapper = f"setpriv --inh-caps=-all --bounding-set=-all,{kept}"
    started.start()
    yield started
    started.remove()


def test_the_whole_server_works_with_the_units_capabilities(server: RootServer) -> None:
    """Mail in, as each user, for root too; commands as the user; logins; hosts."""
    assert server.process is not None
    named = re.search(r"^CapabilityBoundingSet=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert named is not None
    assert int(status(server.process.pid)["CapBnd"], 16).bit_count() == len(named[1].split())
    output = server.home("ursula") / "said"
    for name in USERS:
        send(server, f"caps-{name}", f"{name}@example.org")
        arrived(server, name, f"caps-{name}")
    with forwarding(server, "ursula", f'"|id -un > {output}"\n'):
        send(server, "caps-command", "ursula@example.org")
        wait_for(lambda: output.exists() and output.read_text(), "the command's output")
    assert output.read_text() == "ursula\n"
    send(server, "caps-root", "root@example.org")
    logged(server, "to=<root@example.org>, relay=local")
    wait_for((server.spool / "root").exists, "root's mailbox")


def test_no_role_keeps_one(server: RootServer) -> None:
    """B28, also where dropping the bounding set needed CAP_SETPCAP."""
    session = imap(server, "ursula")
    pids = [server.roles()["front"], server.roles()["queue"], server.hosts()[USERS["ursula"]]]
    for pid in pids:
        assert {status(pid)[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {"0" * 16}
        assert status(pid)["NoNewPrivs"] == "1"
    session.logout()


def test_killing_and_stopping_need_no_more(server: RootServer) -> None:
    """The supervisor may signal its roles, who are other users."""
    server.stop()
    assert not server.processes()
    server.start()
    send(server, "caps-again", "viktor@example.org")
    arrived(server, "viktor", "caps-again")
