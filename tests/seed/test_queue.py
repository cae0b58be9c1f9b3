"""docs/QUEUE.md: a Postfix with mail in its queue hands it over, and nothing is lost or bounced."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.end_to_end.machine import ROOT, Machine, wait_until_quiet
from tests.end_to_end.server import wait_for

pytestmark = [
    pytest.mark.needs("root", "unshare", "postfix", "mail", "s-nail", "mutt", "swaks", "netstat"),
    pytest.mark.usefixtures("shown"),
]
OLD = "export PATH=/usr/sbin:/usr/bin; "  # Postfix's own commands, with /etc/postfix
PREPARE = (
    "postconf -e 'myhostname = www.hxz.ass' 'mydomain = hxz.ass' 'mydestination = www.hxz.ass' "
    "'defer_transports = local, smtp' 'alias_maps =' 'inet_protocols = ipv4' "
    "'master_service_disable = inet' 'maillog_file = /var/log/old.log'; postfix start"
)


@pytest.fixture
def old_postfix(machine: Machine) -> Iterator[None]:
    """Debian's Postfix has its configuration again; this server has /etc/mailserver meanwhile."""
    machine.run("postconf -Me '127.0.0.1:10025/inet = 127.0.0.1:10025 inet n - n - - smtpd'")
    machine.run("postfix stop; mv /etc/postfix /etc/mailserver; mv /etc/postfix.debian /etc/postfix")
    machine.run("postfix -c /etc/mailserver start")
    machine.run(OLD + PREPARE)
    yield
    machine.run(f"{OLD} postfix stop")
    machine.run("postfix -c /etc/mailserver stop; rm -r /etc/postfix; mv /etc/mailserver /etc/postfix")
    machine.run("postfix start")


def documented_steps() -> str:
    """The commands of the document."""
    (block,) = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "QUEUE.md").read_text("utf-8"), re.DOTALL)
    return str(block)


def old_queue(machine: Machine) -> str:
    """What waits in the old Postfix's queue."""
    return machine.run(f"{OLD} postqueue -j")


@pytest.mark.usefixtures("old_postfix")
def test_a_postfix_hands_its_queue_over(machine: Machine) -> None:
    """Local, remote and null-sender mail arrives here; what is refused here stays there."""
    send = f"{OLD} printf 'Subject: %s\\n\\ntext\\n' %s | sendmail.distrib -f '%s' %s"
    for subject, sender, recipient in (
        ("old-local", "a@example.net", "user1"),
        ("old-remote", "user1@www.hxz.ass", "far@163.com"),
        ("old-null", "", "user1"),
        ("old-again", "a@example.net", "user1"),
        ("old-ghost", "a@example.net", "ghost"),
    ):
        machine.run(send % ("%s", subject, sender, recipient))
    wait_for(
        lambda: old_queue(machine).count("deferred transport") == 5, "the old queue to have five messages"
    )
    machine.run(OLD + documented_steps())
    wait_for(
        lambda: re.fullmatch(r".*ghost@www\.hxz\.ass.*User unknown.*\n", old_queue(machine)), "the hand-over"
    )
    wait_until_quiet(machine)
    box = machine.run("cat /var/mail/user1")
    assert all(box.count(f"Subject: {subject}") == 1 for subject in ("old-local", "old-null", "old-again"))
    assert "From MAILER-DAEMON " in box
    assert "far@163.com" in machine.run("postqueue -p")
    assert "non-delivery" not in machine.run("cat /var/log/old.log")
