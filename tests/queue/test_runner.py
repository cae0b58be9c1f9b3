"""The runner: what becomes of an accepted message."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from mailserver.delivery.srs import Srs
from mailserver.delivery.transport import Outgoing
from mailserver.envelope import Address, Outcome
from mailserver.message.bounce_template import parse_templates
from mailserver.message.report import Kind
from mailserver.queue.bounce import Bounces, Reporter
from mailserver.queue.directory import State
from mailserver.queue.runner import Runner
from mailserver.queue.schedule import RetryTimes
from tests.queue.world import ORIGIN, DictTable, World, envelope, finish


def test_a_message_is_delivered_at_once_and_leaves_the_queue(tmp_path: Path) -> None:
    """ECOSYSTEM §6, §9: mailbox bytes, and the life of a message in the log."""
    world = World(tmp_path)
    queue_id = world.send("alice+ext@example.org")
    assert world.mailbox("alice") == [
        b"Return-Path: <s@example.com>\nX-Original-To: alice+ext@example.org\n"
        b"Delivered-To: alice+ext@example.org\nSubject: hi\n\nhello\n"
    ]
    assert world.queued() == []
    assert world.nudged == [str(tmp_path / "mail" / "alice")]
    assert world.log.lines == [
        ("qmgr", f"{queue_id}: from=<s@example.com>, size=19, nrcpt=1 (queue active)"),
        (
            "local",
            f"{queue_id}: to=<alice+ext@example.org>, relay=local, delay=0, delays=0/0/0/0, "
            "dsn=2.0.0, status=sent (delivered to mailbox)",
        ),
        ("qmgr", f"{queue_id}: removed"),
    ]


def test_an_alias_is_expanded_in_the_queue_file_before_any_leaf(tmp_path: Path) -> None:
    """DESIGN §4.3: the journal knows the leaves when the first is delivered."""
    world = World(tmp_path, {"team": "alice, bob, alice"})
    world.agents.faults[str(tmp_path / "mail" / "bob")] = Outcome.deferred("locked", "4.2.0")
    queue_id = world.send("team@example.org")
    assert len(world.mailbox("alice")) == 1
    assert b"Delivered-To: team@example.org\n" in world.mailbox("alice")[0]
    assert world.queued() == [f"deferred/{queue_id}"]
    world.aliases.values = {"team": "carol"}
    world.agents.faults.clear()
    world.clock.advance(301)
    assert [len(world.mailbox(name)) for name in ("alice", "bob", "carol")] == [1, 1, 0]
    assert world.queued() == []
    assert any(
        "to=<bob@example.org>, orig_to=<team@example.org>, relay=local" in line for _, line in world.log.lines
    )


def test_a_single_leaf_is_looked_up_again(tmp_path: Path) -> None:
    """A corrected alias counts for mail that waits for it."""
    world = World(tmp_path, {"list": "bob"})
    world.agents.faults[str(tmp_path / "mail" / "bob")] = Outcome.deferred("locked", "4.2.0")
    world.send("list@example.org")
    world.aliases.values = {"list": "carol"}
    world.clock.advance(301)
    assert [len(world.mailbox(name)) for name in ("bob", "carol")] == [0, 1]


def test_waits_double_and_the_file_says_when(tmp_path: Path) -> None:
    """RFC 5321 §4.5.4.1; the next attempt is the file's mtime, for the scan."""
    world = World(tmp_path)
    target = str(tmp_path / "mail" / "alice")
    world.agents.faults[target] = Outcome.deferred("no space", "4.3.0")
    queue_id = world.send("alice@example.org")
    tries = []
    for _ in range(6):
        path = tmp_path / "queue" / "deferred" / queue_id
        wait = path.stat().st_mtime - world.clock.seconds()
        tries.append(wait)
        while len(world.agents.jobs) == len(tries):
            world.clock.advance(50)
    assert tries == [300, 600, 1200, 2400, 4000, 4000]


def test_a_locked_mailbox_is_tried_again_within_seconds(tmp_path: Path) -> None:
    """P9: a lock that another program held for long delays the message by seconds."""
    world = World(tmp_path)
    world.agents.faults[str(tmp_path / "mail" / "alice")] = Outcome.deferred("locked", "4.2.0")
    queue_id = world.send("alice@example.org")
    path = tmp_path / "queue" / "deferred" / queue_id
    assert path.stat().st_mtime - world.clock.seconds() == 5


@pytest.mark.parametrize("what", ["table", "account", "include"])
def test_a_local_fault_defers(tmp_path: Path, what: str) -> None:
    """P5, F57: a table, account or file that cannot be read is never "unknown user"."""
    world = World(tmp_path, {"list": ":include:/nonexistent/list"})
    if what == "table":
        world.aliases.values = None
    elif what == "account":
        world.accounts.unreadable.add("alice")
    queue_id = world.send("list@example.org" if what == "include" else "alice@example.org")
    assert world.queued() == [f"deferred/{queue_id}"]
    assert len(world.lines("dsn=4.3.0, status=deferred (temporary lookup failure)")) == 1
    world.aliases.values = {"list": "alice"}
    world.accounts.unreadable.clear()
    world.runner.flush()
    assert world.queued() == []
    assert len(world.mailbox("alice")) == 1


def test_an_unreadable_member_does_not_hold_up_the_others(tmp_path: Path) -> None:
    """P9: within one alias, each member is on its own."""
    world = World(tmp_path, {"team": "alice, bob, carol"})
    world.accounts.unreadable.add("bob")
    world.send("team@example.org")
    assert [len(world.mailbox(name)) for name in ("alice", "bob", "carol")] == [1, 0, 1]
    world.accounts.unreadable.clear()
    world.runner.flush()
    assert [len(world.mailbox(name)) for name in ("alice", "bob", "carol")] == [1, 1, 1]
    assert world.queued() == []


def test_an_unknown_user_bounces_from_the_null_sender(tmp_path: Path) -> None:
    """RFC 3464: the sender has one report, from <>."""
    world = World(tmp_path)
    queue_id = world.send("nosuch@example.org", sender="bob@example.org")
    (report,) = world.mailbox("bob")
    assert report.startswith(b"Return-Path: <>\n")
    assert b"Final-Recipient: rfc822; nosuch@example.org\n" in report
    assert b"Status: 5.1.1\n" in report
    assert world.queued() == []
    assert world.lines('status=bounced (unknown user: "nosuch")')
    (line,) = world.lines("sender non-delivery notification")
    assert line.startswith(f"bounce: {queue_id}: sender non-delivery notification: ")


def test_a_bounce_is_never_bounced(tmp_path: Path) -> None:
    """F52: an undeliverable report goes to postmaster once; a failing copy is dropped. Sender always <>."""
    world = World(tmp_path, {"postmaster": "carol"})
    world.send("nosuch@example.org", sender="gone@example.org")
    (copy,) = world.mailbox("carol")
    assert b"Subject: Postmaster Copy: Undelivered Mail\n" in copy
    assert copy.startswith(b"Return-Path: <>\n")
    assert world.queued() == []
    world.aliases.values = {"postmaster": "nobody-there"}
    world.send("nosuch@example.org", sender="gone@example.org")
    assert world.queued() == []
    assert len(world.lines("postmaster non-delivery notification")) == 2


@pytest.mark.parametrize(
    ("notify", "fails", "reports"),
    [
        ({"NEVER"}, True, 0),
        ({"DELAY"}, True, 0),
        ({"FAILURE"}, True, 1),
        ({"SUCCESS"}, True, 0),
        ({"SUCCESS"}, False, 1),
        (set(), False, 0),
    ],
)
def test_notify_decides_who_is_told(tmp_path: Path, notify: set[str], fails: bool, reports: int) -> None:
    """RFC 3461 §4.1."""
    world = World(tmp_path)
    to = "nosuch@example.org" if fails else "alice@example.org"
    world.send(to, sender="bob@example.org", notify=frozenset(notify), envid="env-1", ret="HDRS")
    assert len(world.mailbox("bob")) == reports
    assert world.queued() == []
    for report in world.mailbox("bob"):
        assert b"Original-Envelope-Id: env-1\n" in report
        assert b"text/rfc822-headers" in report
        assert (b"Action: failed" if fails else b"Action: delivered") in report


def test_a_forward_is_a_new_message(tmp_path: Path) -> None:
    """ECOSYSTEM §5: committed before the parent is done; own name keeps a copy."""
    world = World(tmp_path)
    world.forward("alice", "alice, bob\n")
    world.send("alice@example.org")
    assert len(world.mailbox("alice")) == 1
    (copy,) = world.mailbox("bob")
    assert b"Delivered-To: alice@example.org\n" in copy
    assert b"Return-Path: <s@example.com>\n" in copy
    (line,) = world.lines("status=sent (forwarded as ")
    new_id = line.partition("forwarded as ")[2].removesuffix(")")
    assert len(world.lines(f"{new_id}: removed")) == 1
    assert world.queued() == []


def test_a_forwarding_loop_is_one_bounce_after_two_passes(tmp_path: Path) -> None:
    """F47."""
    world = World(tmp_path)
    world.forward("alice", "bob")
    world.forward("bob", "alice")
    world.send("alice@example.org", sender="carol@example.org")
    assert len(world.lines("status=sent (forwarded as ")) == 2
    (line,) = world.lines("status=bounced")
    assert "dsn=5.4.6, status=bounced (mail forwarding loop for alice@example.org)" in line
    assert len(world.mailbox("carol")) == 1
    assert world.queued() == []


def test_an_alias_loop_is_one_bounce(tmp_path: Path) -> None:
    """F46."""
    world = World(tmp_path, {"a": "b", "b": "a"})
    world.send("a@example.org", sender="carol@example.org")
    assert len(world.lines("dsn=5.4.6, status=bounced (alias database loop for b)")) == 1
    assert len(world.mailbox("carol")) == 1


def test_mail_that_was_here_already_bounces(tmp_path: Path) -> None:
    """F48."""
    world = World(tmp_path)
    world.send(
        "carol@example.org", sender="bob@example.org", content=b"Delivered-To: carol@example.org\n\nx\n"
    )
    assert world.mailbox("carol") == []
    assert len(world.lines("dsn=5.4.6, status=bounced (mail forwarding loop for carol@example.org)")) == 1


def test_an_owner_alias_gets_the_failures(tmp_path: Path) -> None:
    """aliases(5): owner-NAME becomes the envelope sender of the list's mail."""
    world = World(tmp_path, {"list": "alice, nosuch", "owner-list": "carol"})
    world.send("list@example.org", sender="bob@example.org")
    assert world.mailbox("alice")[0].startswith(b"Return-Path: <owner-list@example.org>\n")
    assert len(world.mailbox("carol")) == 1
    assert world.mailbox("bob") == []


def test_senders_are_rewritten(tmp_path: Path) -> None:
    """canonical(5): Return-Path, reports and the next hop see the rewritten sender."""
    table = DictTable({"old@example.org": "bob"})
    world = World(tmp_path, sender_canonical_maps=(table,))
    world.send("alice@example.org", "nosuch@example.org", sender="old@example.org")
    assert world.mailbox("alice")[0].startswith(b"Return-Path: <bob@example.org>\n")
    assert len(world.mailbox("bob")) == 1
    table.values = None
    queue_id = world.send("alice@example.org", sender="old@example.org")
    assert world.queued() == [f"deferred/{queue_id}"]


def test_remote_mail_waits_with_the_reason(tmp_path: Path) -> None:
    """Until a transport is configured: deferred, named, one report at most."""
    world = World(tmp_path)
    queue_id = world.send("x@other.test", "alice@example.org")
    assert world.queued() == [f"deferred/{queue_id}"]
    assert len(world.mailbox("alice")) == 1
    (line,) = world.lines("status=deferred")
    assert line.startswith("smtp: ")
    assert "relay=none" in line
    assert "dsn=4.4.1, status=deferred (relaying to other.test is not configured yet)" in line


def test_a_retry_transport_says_why(tmp_path: Path) -> None:
    """retry(8): its next hop is the status, and stands in the log and in the queue's listing."""
    world = World(tmp_path, default_transport="retry:4.4.4 wait a moment")
    world.send("x@far.test")
    assert len(world.lines("dsn=4.4.4, status=deferred (wait a moment)")) == 1
    assert not world.lines("warning")


def test_the_same_delay_is_written_once(tmp_path: Path) -> None:
    """A journal does not grow by its recipients at each attempt."""
    world = World(tmp_path, {"team": "bob, nosuch@dead.test"})
    world.agents.faults[str(tmp_path / "mail" / "bob")] = Outcome.deferred("locked", "4.2.0")
    world.accounts.unreadable.add("carol")
    queue_id = world.send("team@example.org", "carol@example.org")
    path = tmp_path / "queue" / "deferred" / queue_id
    sizes = []
    for _ in range(4):
        sizes.append(path.stat().st_size)
        world.runner.flush()
    assert sizes[3] - sizes[2] == sizes[2] - sizes[1] < 80


def test_expiry_needs_two_attempts_after_the_lifetime(tmp_path: Path) -> None:
    """F54: a clock that jumps ahead expires nothing; age does."""
    world = World(tmp_path, retry=RetryTimes(lifetime=1000))
    world.agents.faults[str(tmp_path / "mail" / "alice")] = Outcome.deferred("locked", "4.2.0")
    world.send("alice@example.org", sender="bob@example.org")
    world.clock.advance(10 * 365 * 86400)
    assert world.lines("status=expired") == []
    world.clock.advance(700)
    (line,) = world.lines("status=expired")
    assert line.endswith("from=<bob@example.org>, status=expired, returned to sender")
    (report,) = world.mailbox("bob")
    assert b"Status: 4.2.0\n" in report
    assert b"Action: failed\n" in report
    assert world.queued() == []


def test_a_delay_is_told_once(tmp_path: Path) -> None:
    """delay_warning_time."""
    world = World(tmp_path, retry=RetryTimes(warning=500))
    world.agents.faults[str(tmp_path / "mail" / "alice")] = Outcome.deferred("locked", "4.2.0")
    world.send("alice@example.org", sender="bob@example.org")
    world.clock.pump([300] * 12)
    (report,) = world.mailbox("bob")
    assert b"Action: delayed\n" in report
    world.restart()
    world.runner.flush()
    assert len(world.mailbox("bob")) == 1


class SlowTransport:
    """Answers when told to; remembers how many deliveries ran at once for each next hop."""

    def __init__(self) -> None:
        self.running: dict[str, list[Deferred[Sequence[Outcome]]]] = {}
        self.most = 0

    def deliver(self, mail: Outgoing) -> Deferred[Sequence[Outcome]]:
        answer: Deferred[Sequence[Outcome]] = Deferred()
        self.running.setdefault(mail.nexthop, []).append(answer)
        self.most = max(self.most, len(self.running[mail.nexthop]))
        return answer

    def service(self, transport: str) -> str:
        return "smtp"


def test_a_slow_destination_holds_up_nobody_else(tmp_path: Path) -> None:
    """P9, F53: twenty deliveries at once for each next hop, others go ahead."""
    world = World(tmp_path)
    transport = SlowTransport()
    world.restart(transport=transport)
    for number in range(50):
        world.send(f"u{number}@slow.test")
    world.send("u@quick.test")
    world.send("alice@example.org")
    assert transport.most == 20
    assert len(world.mailbox("alice")) == 1
    transport.running["quick.test"].pop().callback([Outcome.delivered("250 ok", relay="q[192.0.2.1]:25")])
    assert len(world.lines("relay=q[192.0.2.1]:25, delay=0")) == 1
    answered = 0
    while transport.running["slow.test"]:
        transport.running["slow.test"].pop(0).callback(
            [Outcome.failed("550 no", "5.1.1", "s[192.0.2.2]:25", "550 no")]
        )
        answered += 1
    assert answered == 50


def test_an_unreachable_destination_is_left_alone_for_a_while(tmp_path: Path) -> None:
    """P9, F53: after one failure to connect the others are deferred at once; a flush tries again."""
    world = World(tmp_path)
    transport = SlowTransport()
    world.restart(transport=transport)
    for number in range(30):
        world.send(f"u{number}@dead.test")
    reason = Outcome.deferred(
        "connect to dead.test[192.0.2.9]:25: Connection timed out", "4.4.1", relay="none"
    )
    while transport.running["dead.test"]:
        transport.running["dead.test"].pop(0).callback([reason])
    assert transport.most == 20
    assert len(world.lines("status=deferred (connect to dead.test[")) == 20
    suspended = "dsn=4.4.1, status=deferred (delivery temporarily suspended: connect to dead.test["
    assert len(world.lines(suspended)) == 10
    world.runner.flush()
    assert len(transport.running["dead.test"]) == 20


def test_stop_lets_what_runs_finish_and_begins_nothing(tmp_path: Path) -> None:
    """F09: what is not begun stays in the queue."""
    world = World(tmp_path)
    transport = SlowTransport()
    world.restart(transport=transport)
    for number in range(25):
        world.send(f"u{number}@slow.test")
    done: list[None] = []
    world.runner.stop().addCallback(done.append)
    late = world.send("alice@example.org")
    assert done == []
    for answer in transport.running["slow.test"][:20]:
        answer.callback([Outcome.delivered("250 ok")])
    assert done == [None]
    assert len(transport.running["slow.test"]) == 20
    left = world.queued()
    assert len(left) == 6
    assert f"incoming/{late}" in left
    world.restart()
    assert len(world.mailbox("alice")) == 1


def test_one_poison_message_stops_no_other(tmp_path: Path) -> None:
    """P9: an agent that breaks defers its own message, with a traceback in the log."""
    world = World(tmp_path)
    perform = world.agents.perform

    def broken(job: object, content: int) -> Outcome:
        if getattr(job, "recipient", "") == "bob@example.org":
            raise ZeroDivisionError
        return perform(job, content)  # type: ignore[arg-type]

    world.agents.perform = broken  # type: ignore[method-assign,assignment]
    poison = world.send("bob@example.org")
    world.send("alice@example.org")
    assert len(world.mailbox("alice")) == 1
    assert world.queued() == [f"deferred/{poison}"]
    assert world.lines("ZeroDivisionError")


def test_the_active_limit_puts_the_rest_off(tmp_path: Path) -> None:
    """qmgr_message_active_limit: what is over it waits closed, and comes in order."""
    world = World(tmp_path)
    transport = SlowTransport()
    world.restart(transport=transport)
    world.runner._active_limit = 3
    before = len(os.listdir("/proc/self/fd"))
    for number in range(10):
        world.send(f"u{number}@d{number}.test")
    assert len(os.listdir("/proc/self/fd")) == before + 3
    for number in range(10):
        transport.running[f"d{number}.test"].pop().callback([Outcome.delivered("250 ok")])
    assert world.queued() == []


def test_a_long_queue_is_begun_in_batches(tmp_path: Path) -> None:
    """P9: the reactor serves others between the batches; nothing recurses."""
    world = World(tmp_path)
    for number in range(1200):
        path = world.queue.path_of(f"{number:011X}", State.INCOMING)
        Path(path).write_bytes(b"")
        os.chmod(path, 0o700)
    world.commit("alice@example.org").close()
    world.restart()
    assert len(world.lines("is damaged")) <= 100
    world.clock.pump([0] * 30)
    assert len(world.lines("is damaged")) == 1200
    assert len(world.mailbox("alice")) == 1
    finish(world.runner.when_idle())


def test_held_mail_stays(tmp_path: Path) -> None:
    """A message on hold is not delivered, not even after a restart."""
    world = World(tmp_path)
    message = world.queue.create(envelope("alice@example.org"))
    message.is_held = True
    message.write(b"x\n")
    world.runner.accept(message.commit())
    world.restart()
    assert world.queued() == [f"hold/{message.queue_id}"]
    assert world.mailbox("alice") == []


def test_a_large_alias_is_linear(tmp_path: Path) -> None:
    """F50: 10,000 addresses, each exactly once."""
    names = ", ".join(f"u{number}@other.test" for number in range(10_000))
    world = World(tmp_path, {"all": names})
    transport = SlowTransport()
    world.restart(transport=transport)
    world.send(f"all@{ORIGIN}")
    waiting = transport.running["other.test"]
    assert len(waiting) == 20  # default_destination_concurrency_limit
    while waiting:  # each with default_destination_recipient_limit recipients
        waiting.pop().callback([Outcome.delivered("250 ok", relay="o[192.0.2.1]:25")] * 50)
    assert len(world.lines("status=sent")) == 10_000
    assert world.queued() == []


def test_a_large_local_list_is_linear(tmp_path: Path) -> None:
    """F50: 3,000 files of one alias, each once, each with its record before the next is begun."""
    world = World(tmp_path, {"all": ", ".join(f"{tmp_path}/mail/f{number}" for number in range(3000))})
    began = time.process_time()
    world.send("all@example.org")
    assert len(os.listdir(tmp_path / "mail")) == 3000
    assert world.queued() == []
    assert time.process_time() - began < 5


def test_warnings_of_an_expansion_are_logged_as_such(tmp_path: Path) -> None:
    """The word `warning:` once, whoever warns: .forward files, bad destinations."""
    world = World(tmp_path, {"team": "alice, b a d"})
    world.send("team@example.org")
    assert world.lines("bad destination") == [
        "local: warning: aliases:1: bad destination 'b a d' ignored: " + line.rpartition(": ")[2]
        for line in world.lines("bad destination")
    ]
    assert len(world.lines("bad destination")) == 1


def test_soft_bounce_returns_nothing(tmp_path: Path) -> None:
    """soft_bounce: what would be returned waits, with 4.x.y, even past its time."""
    world = World(tmp_path)
    world.restart(soft_bounce=True)
    queue_id = world.send("nosuch@example.org", sender="bob@example.org")
    assert world.queued() == [f"deferred/{queue_id}"]
    assert world.lines('dsn=4.1.1, status=deferred (unknown user: "nosuch")')
    world.clock.pump([4000] * 120)
    assert world.queued() == [f"deferred/{queue_id}"]
    assert world.mailbox("bob") == []
    world.restart()
    world.clock.advance(4000)
    assert world.queued() == []
    assert len(world.mailbox("bob")) == 1


def test_the_postmaster_is_told_where_notify_classes_says_so(tmp_path: Path) -> None:
    """notify_classes = bounce, delay: a copy without the body, of mail that has a sender."""
    world = World(tmp_path, retry=RetryTimes(warning=500))
    copies = {Kind.FAILED: "carol", Kind.DELAYED: "carol@example.org"}
    reporter = Reporter("mx.example.org", my_origin="example.org", copies=copies)
    services = world.make_services(bounces=Bounces(world.queue, reporter, world.clock.seconds))
    world.runner = Runner(services, world.clock)
    world.send("nosuch@example.org", sender="bob@example.org", content=b"Subject: s\n\nsecret body\n")
    (copy,) = world.mailbox("carol")
    assert b"Subject: Postmaster Copy: Undelivered Mail\n" in copy and b"secret body" not in copy
    assert b"secret body" in world.mailbox("bob")[0]
    world.send("nosuch@example.org", sender=None)
    assert len(world.mailbox("carol")) == 1
    world.agents.faults[str(tmp_path / "mail" / "alice")] = Outcome.deferred("locked", "4.2.0")
    world.send("alice@example.org", sender="bob@example.org")
    world.clock.pump([300] * 6)
    assert b"Subject: Postmaster Warning: Delayed Mail\n" in world.mailbox("carol")[1]


@pytest.mark.parametrize(("reports_itself", "reports"), [(True, 0), (False, 1)])
def test_success_is_reported_by_whoever_knows_last(
    tmp_path: Path, reports_itself: bool, reports: int
) -> None:
    """RFC 3461 §5.2.1: a next hop with DSN reports itself; of one without we say `relayed`."""
    world = World(tmp_path)
    transport = SlowTransport()
    world.restart(transport=transport)
    world.send("u@far.test", sender="bob@example.org", notify=frozenset({"SUCCESS"}))
    outcome = Outcome.delivered("250 ok", relay="f[192.0.2.1]:25", remote="250 ok")
    transport.running["far.test"].pop().callback([replace(outcome, reports_itself=reports_itself)])
    assert len(world.mailbox("bob")) == reports
    assert all(b"Action: relayed\n" in report for report in world.mailbox("bob"))
    assert world.queued() == []


def test_what_only_verifies_goes_nowhere(tmp_path: Path) -> None:
    """sendmail -bv: each way up to the delivery, and a report in Postfix's words; no bounce."""
    world = World(tmp_path, {"cmd": "|prog x", "team": "alice, nosuch, /dev/null", "empty": ""})
    world.forward("carol", "z@far.test")
    asked: list[Outgoing] = []

    class Prober:
        async def deliver(self, mail: Outgoing) -> Sequence[Outcome]:
            asked.append(mail)
            return [Outcome.delivered("250 2.1.5 Ok", relay="f[192.0.2.1]:25", remote="250 2.1.5 Ok")]

        def service(self, transport: str) -> str:
            return "smtp"

    world.restart(transport=Prober())
    recipients = (
        *(f"{name}@example.org" for name in ("cmd", "team", "carol", "nosuch", "empty")),
        "u@far.test",
    )
    queue_id = world.send(*recipients, sender="bob@example.org", trace="verify")
    assert len(world.agents.jobs) == 1  # the report's
    assert (world.mailbox("alice"), world.queued()) == ([], [])
    assert asked[0].is_probe and len(asked) == 1
    (report,) = world.mailbox("bob")
    text = report.decode()
    assert "Subject: Mail Delivery Status Report\n" in text
    assert "Enclosed is the mail delivery report that you requested.\n" in text
    for line in (
        "<cmd@example.org>: delivery via local: delivers to command: prog x",
        "<alice@example.org> (expanded from <team@example.org>): delivery via local:\n"
        "    delivers to mailbox",
        "<team@example.org>: delivery via local: delivers to file: /dev/null",
        "<carol@example.org>: delivery via local: forwards to z@far.test",
        '<nosuch@example.org>: delivery via local: unknown user: "nosuch"',
        "<empty@example.org>: delivery via local: temporary lookup failure",
        "<u@far.test>: delivery via f[192.0.2.1]:25: 250 2.1.5 Ok",
    ):
        assert line + "\n" in text
    far = "\nFinal-Recipient: rfc822; u@far.test\nAction: deliverable\nStatus: 2.0.0\nRemote-MTA: dns; f\n"
    assert f"{far}Diagnostic-Code: smtp; 250 2.1.5 Ok\n" in text
    assert text.count("Action: deliverable\n") == 5 and text.count("Action: undeliverable\n") == 3
    assert len(world.lines(f"{queue_id}: to=")) == 8 and len(world.lines("status=undeliverable")) == 3
    assert world.lines(f"{queue_id}: sender delivery status notification: ")


def test_a_report_of_the_first_attempt(tmp_path: Path) -> None:
    """sendmail -v: the mail goes its way, and its sender hears of it once. A .forward does not tell on."""
    world = World(tmp_path, {"team": "alice, carol"})
    world.forward("carol", "\\carol, bob")
    target = str(tmp_path / "mail" / "alice")
    world.agents.faults[target] = Outcome.deferred("locked", "4.2.0")
    world.send("team@example.org", "nosuch@example.org", sender="bob@example.org", trace="record")
    forwarded, bounce, report = sorted(
        world.mailbox("bob"), key=lambda each: (b"Status Report" in each, b"Undelivered" in each)
    )
    assert b"\nDelivered-To: team@example.org\n" in forwarded
    assert b"Subject: Undelivered Mail Returned to Sender\n" in bounce
    text = report.decode()
    for name, action in (("alice", "delayed"), ("carol", "delivered"), ("nosuch", "failed")):
        about = text.partition(f"Final-Recipient: rfc822; {name}@example.org\n")[2].partition("\n\n")[0]
        assert f"Action: {action}\n" in about
    assert "Subject: hi\n" in text and "hello" not in text
    world.agents.faults.clear()
    world.clock.pump([301, 301, 301])
    assert (len(world.mailbox("alice")), len(world.mailbox("bob")), world.queued()) == (1, 3, [])


def test_reports_have_the_administrators_texts(tmp_path: Path) -> None:
    """bounce_template_file: in the report and in the subject of the postmaster's copy."""
    world = World(tmp_path)
    text = "failure_template = <<EOF\nSubject: No\nPostmaster-Subject: Copy\n\nNot here.\nEOF\n"
    templates = parse_templates(text)[0]
    reporter = Reporter(
        "mx.example.org", my_origin=ORIGIN, copies={Kind.FAILED: "carol"}, templates=templates
    )
    services = world.make_services(bounces=Bounces(world.queue, reporter, world.clock.seconds))
    world.runner = Runner(services, world.clock)
    world.send("nosuch@example.org", sender="bob@example.org")
    assert b"Subject: No\n" in world.mailbox("bob")[0] and b"\nNot here.\n" in world.mailbox("bob")[0]
    assert b"Subject: Copy\n" in world.mailbox("carol")[0]


def test_nobody_hears_of_a_trace_from_the_null_sender(tmp_path: Path) -> None:
    """There is nobody to tell, and nothing stays."""
    world = World(tmp_path)
    world.send("alice@example.org", sender=None, trace="verify")
    assert (world.mailbox("alice"), world.queued()) == ([], [])


def test_forwarded_mail_has_a_sender_of_ours(tmp_path: Path) -> None:
    """SRS: only where neither sender nor recipient is ours, and only what we forward; bounces find back."""
    srs = Srs(ORIGIN, lambda: b"secret", lambda: 1_795_000_000.0)
    world = World(tmp_path, {"away": "x@far.test", "away-too": "y@other.test"}, srs=srs)
    world.forward("bob", "z@far.test")
    taken: list[Outgoing] = []

    class Taker:
        async def deliver(self, mail: Outgoing) -> Sequence[Outcome]:
            taken.append(mail)
            return [Outcome.delivered("250 ok", relay="f[192.0.2.1]:25")] * len(mail.recipients)

        def service(self, transport: str) -> str:
            return "smtp"

    world.restart(transport=Taker())
    for recipient, sender in (
        (f"away@{ORIGIN}", "s@example.com"),
        (f"bob@{ORIGIN}", "s@example.com"),
        (f"away@{ORIGIN}", f"alice@{ORIGIN}"),
        ("direct@far.test", "s@example.com"),
        (f"away@{ORIGIN}", None),
    ):
        world.send(recipient, sender=sender)
    rewritten = str(srs.forward(Address("s", "example.com")))
    senders = [str(mail.envelope.sender or "") for mail in taken]
    assert senders == [rewritten, rewritten, f"alice@{ORIGIN}", "s@example.com", ""]
    world.send(rewritten, sender=None)
    assert [str(each.address) for each in taken[-1].recipients] == ["s@example.com"]
    assert world.routing.is_known(Address(rewritten.rpartition("@")[0], ORIGIN))
    assert not world.routing.is_known(Address("SRS0=aaaaaa=aa=far.test=x", ORIGIN))


def test_filtered_mail_is_expanded_when_it_comes_back(tmp_path: Path) -> None:
    """content_filter: all recipients to the filter as they came, now and after a restart; no alias."""
    world = World(tmp_path, {"staff": "alice, bob"})
    taken: list[Outgoing] = []
    answers = [Outcome.deferred("not now", "4.3.0", "f[192.0.2.1]:25"), Outcome.delivered("250 ok")]

    class Filter:
        async def deliver(self, mail: Outgoing) -> Sequence[Outcome]:
            taken.append(mail)
            return [answers[len(taken) - 1]] * len(mail.recipients)

        def service(self, transport: str) -> str:
            return "smtp"

    world.restart(transport=Filter())
    world.send(f"staff@{ORIGIN}", "x@far.test", content_filter="scan:[127.0.0.1]:10025")
    world.restart(transport=Filter())
    world.runner.flush()
    assert [(mail.transport, mail.nexthop) for mail in taken] == [("scan", "[127.0.0.1]:10025")] * 2
    assert [str(each.address) for each in taken[1].recipients] == [f"staff@{ORIGIN}", "x@far.test"]
    assert world.queued() == [] and world.mailbox("alice") == []


def test_the_original_recipient_need_not_be_shown(tmp_path: Path) -> None:
    """enable_original_recipient = no: no X-Original-To."""
    world = World(tmp_path)
    world.restart(enable_original_recipient=False)
    world.send("alice+x@example.org")
    (message,) = world.mailbox("alice")
    assert message.startswith(b"Return-Path: <s@example.com>\nDelivered-To: alice+x@example.org\n")


def test_deferred_transports_wait_for_a_flush(tmp_path: Path) -> None:
    """defer_transports: what goes that way waits, whenever it comes due, until somebody flushes the queue."""
    world = World(
        tmp_path, {"away": "x@far.test, alice"}, transport_maps=(DictTable({"other.test": "slow:"}),)
    )
    world.services = world.make_services(defer_transports=frozenset({"local", "smtp"}))
    world.runner = Runner(world.services, world.clock)
    ids = [world.send(each) for each in ("alice@example.org", "away@example.org", "x@far.test")]
    world.send("x@other.test")
    waiting = "relay=none, delay=0, delays=0/0/0/0, dsn=4.3.2, status=deferred (deferred transport)"
    assert [line.partition("to=<")[2] for line in world.lines(waiting)] == [
        f"{address}>, {waiting}" for address in ("alice@example.org", "away@example.org", "x@far.test")
    ]
    assert world.lines("to=<x@other.test>") and not world.lines("to=<x@other.test>, " + waiting)
    world.clock.pump([300.0] * 20)
    assert world.mailbox("alice") == []
    world.runner.hurry(ids[:1])
    assert len(world.mailbox("alice")) == 1
    world.runner.flush()
    assert len(world.mailbox("alice")) == 2
    assert world.lines("to=<x@far.test>, orig_to=<away@example.org>, relay=none")


def test_an_expanded_leaf_waits_for_a_flush_too(tmp_path: Path) -> None:
    """An alias is expanded, since local mail flows; its member elsewhere waits."""
    world = World(tmp_path, {"team": "alice, x@far.test"})
    world.services = world.make_services(defer_transports=frozenset({"smtp"}))
    world.runner = Runner(world.services, world.clock)
    world.send("team@example.org")
    assert len(world.mailbox("alice")) == 1
    assert world.log.lines[-1][0] == "error" and "(deferred transport)" in world.log.lines[-1][1]
