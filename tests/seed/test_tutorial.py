"""The tutorial is true: each command, in order, as root and as users of a machine of its own.

It goes the way of a mail host's set-up that Postfix's users know: main.cf, postmap, access, aliases,
.forward, the queue, mail. What such a set-up shows elsewhere is asserted beside it.
"""

from __future__ import annotations

import re

import pytest

from tests.end_to_end.machine import Machine, wait_until_quiet
from tests.seed.tutorial import Exchange, stable

pytestmark = pytest.mark.needs("root", "unshare", "mail", "s-nail", "mutt", "swaks", "netstat")


def test_every_command_shows_what_the_tutorial_says(shown: list[tuple[Exchange, str]]) -> None:
    """But for ids, dates, process numbers and sizes."""
    for exchange, text in shown:
        assert stable(text) == stable(exchange.text), "\n".join(exchange.command)


def test_the_names_of_the_mail_system_are_postfix_s(shown: list[tuple[Exchange, str]]) -> None:
    """`postfix stop` and `start` say the words that scripts look for; `postfix check` says nothing."""
    said = {" ".join(exchange.command): text for exchange, text in shown}
    assert said["postfix stop"] == "postfix/postfix-script: stopping the Postfix mail system\n"
    assert said["postfix start"] == "postfix/postfix-script: starting the Postfix mail system\n"
    assert said["postfix check"] == ""


def heard(machine: Machine, client: str, recipient: str) -> str:
    """The reply to RCPT for a client of that address."""
    text = machine.run(
        f"swaks --server 192.0.2.25 --local-interface {client} --from x@example.net --to {recipient}"
        " --quit-after RCPT",
        status=None,
    )
    replies = re.findall(r"^<[-*~ ]*(\d\d\d) ", text, re.MULTILINE)
    return str(replies[-2])  # the last one answers QUIT


@pytest.mark.usefixtures("shown")
@pytest.mark.parametrize(
    ("client", "relayed", "local"),
    [("10.1.1.7", "250", "250"), ("10.2.2.2", "250", "250"), ("192.168.1.7", "554", "554")],
)
def test_the_access_file_decides_who_relays(machine: Machine, client: str, relayed: str, local: str) -> None:
    """access(5): `10.1.1 OK`, `.hxz.ass OK` for a confirmed name, `192.168.1 REJECT`."""
    assert heard(machine, client, "someone@163.com") == relayed
    assert heard(machine, client, "user1@www.hxz.ass") == local


@pytest.mark.usefixtures("shown")
def test_a_forward_file_must_have_mode_644(machine: Machine) -> None:
    """Another mode is logged, and mail stays in the user's own box."""
    machine.run("chmod 600 .forward", "user01")
    machine.run("echo x | mail -s private user01")
    wait_until_quiet(machine)
    assert "Subject: private" in machine.run("cat /var/mail/user01")
    assert ".forward has mode 0600, must be 0644" in machine.run("cat /var/log/mail.log")
    machine.run("chmod 644 .forward", "user01")


@pytest.mark.usefixtures("shown")
def test_mail_that_is_stuck_is_seen_as_elsewhere(machine: Machine) -> None:
    """postqueue -p through awk, as scripts read it; postcat takes a bare queue id."""
    machine.run("echo testmail | mail -s stuck stuck@163.com")
    wait_until_quiet(machine)
    program = "mailq | awk 'BEGIN { RS = \"\" } /stuck@163.com/ { print $1 }' | tr -d '*!'"
    (queue_id,) = machine.run(program).split()
    text = machine.run(f"postcat {queue_id}")
    assert "*** ENVELOPE RECORDS" in text and "Subject: stuck" in text
    assert machine.run(f"postsuper -d {queue_id}").startswith(f"postsuper: {queue_id}: removed")
