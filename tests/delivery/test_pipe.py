"""pipe(8): rows of master.cf, their macros and flags, and what a command's end means."""

from __future__ import annotations

import os
import pwd
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from twisted.internet.defer import Deferred

from mailserver.config.master import parse_master
from mailserver.config.read import read_config
from mailserver.config.syntax import ConfigError
from mailserver.delivery.local import LocalAgents
from mailserver.delivery.pipe import PipeRules, PipeTransport
from mailserver.delivery.pipe_attributes import (
    BadAttribute,
    Pipe,
    PipeAttributes,
    UnsafeArgument,
    arguments_for,
    parse_attributes,
)
from mailserver.delivery.pipe_content import formatted
from mailserver.delivery.transport import Outgoing
from mailserver.envelope import Address, Client, Envelope, Outcome, Recipient, Status
from mailserver.roles.transports import pipes
from mailserver.threads import Inline
from tests.config.hosts import KnownHost, written

DATA = Path(__file__).parent.parent / "config" / "data"
ME = pwd.getpwuid(os.geteuid()).pw_name
CONTENT = b"Subject: x\n\n.dot\nFrom here\n"


def split(local: str) -> tuple[str, str]:
    return local.partition("+")[0], local.partition("+")[2]


def outgoing(
    *recipients: str, sender: str = "Sender@Far.test", descriptor: int = -1, **more: Any
) -> Outgoing:
    addresses = [Address(*each.rpartition("@")[::2]) for each in recipients or ("Bob+Ext@Here.test",)]
    client = Client("c.test", "192.0.2.7", "helo.test", "ESMTPS", "login", "PLAIN")
    envelope = Envelope(
        Address(*sender.rpartition("@")[::2]) if sender else None,
        tuple(Recipient(each, f"orig-{each}") for each in addresses),
        client,
    )
    return Outgoing("4QUEUE", "thing", "Hop.test", envelope, descriptor, 0, len(CONTENT), **more)


def expand(row: str, mail: Outgoing) -> list[str]:
    return list(arguments_for(parse_attributes(row.split()), mail, split)[1:])


@pytest.mark.parametrize("name", ["debian12", "debian13", "rhel9", "seed"])
def test_stock_rows_are_understood(name: str) -> None:
    """maildrop, uucp, ifmail, bsmtp, scalemail-backend, mailman: as distributions install them."""
    found = pipes(read_config(str(DATA / name), {}, KnownHost()))
    if "uucp" in found:
        assert found["uucp"].attributes.argv[-2:] == ("$nexthop!rmail", "($recipient)")
        assert found["maildrop"].attributes.is_for_one_recipient
        assert found["uucp"].attributes.user == "uucp" and found["uucp"].processes == 0


def test_macros_of_every_form() -> None:
    """$name, ${name}, $(name), $$; an argument with a recipient's macro is there for each recipient."""
    two = outgoing("Bob+Ext@Here.test", "eve@there.test")
    base = "user=u argv=cmd "
    assert expand(base + "-f$sender -- ${recipient}", two) == [
        "-fSender@Far.test", "--", "Bob+Ext@Here.test", "eve@there.test",
    ]  # fmt: skip
    assert expand(base + "$nexthop!rmail ($recipient)", two)[:2] == ["Hop.test!rmail", "(Bob+Ext@Here.test)"]
    assert expand(base + "${user}:$(extension):${mailbox}:$domain", two) == [
        "Bob:Ext:Bob+Ext:Here.test", "eve::eve:there.test",
    ]  # fmt: skip
    assert expand(base + "$$x ${original_recipient}", outgoing()) == ["$x", "orig-Bob+Ext@Here.test"]
    facts = "${client_address} $client_helo $client_hostname $client_protocol $sasl_method $sasl_username"
    assert expand(base + facts + " $queue_id $size", outgoing()) == [
        "192.0.2.7", "helo.test", "c.test", "ESMTPS", "PLAIN", "login", "4QUEUE", str(len(CONTENT)),
    ]  # fmt: skip


def test_flags_of_addresses() -> None:
    """h folds domains and the next hop, u local-parts, q quotes whole addresses alone."""
    odd = outgoing("Two Words+X@Here.test", sender="")
    assert expand("flags=hu user=u argv=c $recipient $nexthop $user", odd) == [
        "two words+x@here.test", "hop.test", "two words",
    ]  # fmt: skip
    assert expand("flags=q user=u argv=c $recipient $user", odd) == ['"Two Words+X"@Here.test', "Two Words"]
    assert expand("user=u argv=c $sender", odd) == ["MAILER-DAEMON"]
    assert expand("null_sender= user=u argv=c -f $sender", odd) == ["-f", ""]


def test_arguments_with_spaces_and_escapes() -> None:
    """{ } hold an argument with white space together; eol has C's escapes."""
    (row,), _ = parse_master(
        "x unix - n n - 3 pipe flags=B user=u:g eol=\\r\\n size=77\n  argv=cmd { one two } -o x=y\n",
        "master.cf",
    )
    assert parse_attributes(row.arguments) == PipeAttributes(
        user="u", group="g", flags=frozenset("B"), eol="\r\n", size=77, argv=("cmd", "one two", "-o", "x=y")
    )


@pytest.mark.parametrize("address", ["-oQ/tmp@x.test", "-x+y@x.test"])
def test_no_address_becomes_an_option(address: str) -> None:
    """RELIABILITY B5: what a stranger chose begins no argument with a dash, unless the row does."""
    for macro in ("$recipient", "${mailbox}", "$user"):
        with pytest.raises(UnsafeArgument):
            expand(f"user=u argv=c {macro}", outgoing(address))
    with pytest.raises(UnsafeArgument):
        expand("user=u argv=c $sender", outgoing(sender=address))
    assert expand("user=u argv=c -f$sender <$recipient>", outgoing(address, sender=address))


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("user=u flags=R", "missing argv="),
        ("argv=x", "missing user="),
        ("flags=Rz user=u argv=x", "unknown flag z"),
        ("chroot=/ user=u argv=x", "chroot= is not supported"),
        ("user=u argv=x ${nonsense}", "unknown macro"),
        ("user=u size=big argv=x", "bad size"),
        ("user argv=x", "bad attribute user"),
        ("user=u argv=", "names no command"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path: Path, row: str, problem: str) -> None:
    """The start is refused with the row's line; what an option would do is never passed over."""
    with pytest.raises(BadAttribute, match=problem):
        parse_attributes(row.split())
    config = written(tmp_path, "", f"thing unix - n n - - pipe {row}\n")
    with pytest.raises(ConfigError, match=r"master.cf:1: thing: "):
        pipes(config)


@given(some.lists(some.sampled_from([b"From x", b".", b"..", b"", b"a\nFrom ", b"\n", b"F", b"rom y"])))
def test_how_content_is_cut_makes_no_difference(pieces: list[bytes]) -> None:
    """The flags > and . and eol work on lines, wherever a piece ends."""
    whole = b"".join(pieces)
    made = b"".join(formatted(pieces, ".>B", b"\r\n"))
    lines = whole.split(b"\n")
    lines = lines if lines[-1] else lines[:-1]
    marks = [b">" * line.startswith(b"From ") + b"." * line.startswith(b".") + line for line in lines]
    assert made == b"".join(line + b"\r\n" for line in marks) + b"\r\n"


# ---------------------------------------------------------------- deliveries


@pytest.fixture
def queue_file() -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(CONTENT)
        file.flush()
        yield file.fileno()


def deliver(row: str, mail: Outgoing, time_limit: int = 60, **rules: Any) -> Outcome:
    """The outcome, by this process's own hands."""
    own = {"own_uid": os.geteuid(), "environment": {"MAIL_CONFIG": "/etc/x"}, "split": split}
    (parsed,), _ = parse_master(f"thing unix - n n - - pipe {row}", "master.cf")
    pipe = Pipe(parse_attributes(parsed.arguments), time_limit, "master.cf:1")
    transport = PipeTransport({"thing": pipe}, LocalAgents("test"), Inline(), PipeRules(**{**own, **rules}))
    outcomes: list[Any] = []
    Deferred.fromCoroutine(transport.deliver(mail)).addBoth(outcomes.append)
    assert len(set(outcomes[0])) == 1
    return outcomes[0][0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("script", "status", "dsn", "text"),
    [
        ("cat >/dev/null", Status.DELIVERED, "2.0.0", "delivered via thing service"),
        ("echo fine; cat >/dev/null", Status.DELIVERED, "2.0.0", "delivered via thing service (fine)"),
        ("exit 75", Status.DEFERRED, "4.3.0", "temporary failure"),
        ("echo who; exit 67", Status.FAILED, "5.1.1", "user unknown. Command output: who"),
        ("echo 4.2.2 full; exit 1", Status.DEFERRED, "4.2.2", "full"),
        ("exit 3", Status.FAILED, "5.3.0", 'Command died with status 3: "/bin/sh"'),
        ("kill -9 $$$$", Status.DEFERRED, "4.3.0", 'Command died with signal 9: "/bin/sh"'),
    ],
)
def test_what_the_end_means(queue_file: int, script: str, status: Status, dsn: str, text: str) -> None:
    """sysexits(3) and the first words of the output, for all recipients alike."""
    mail = outgoing("a@x.test", "b@x.test", descriptor=queue_file)
    outcome = deliver(f"user={ME} argv=/bin/sh -c {{ {script} }}", mail)
    assert (outcome.status, outcome.dsn, outcome.text, outcome.relay) == (status, dsn, text, "thing")
    assert not outcome.is_final


def test_the_command_gets_what_its_flags_ask_for(queue_file: int, tmp_path: Path) -> None:
    """F From_ line, R Return-Path, O X-Original-To, D Delivered-To, B blank line, X final; no shell."""
    got = tmp_path / "got"
    script = f"pwd > {got}; echo $MAIL_CONFIG:$1 >> {got}; cat >> {got}"
    script = script.replace("$", "$$")
    row = f"flags=BDFORX user={ME} directory=/usr argv=/bin/sh -c {{ {script} }} sh {{ $(recipient); $user }}"
    outcome = deliver(row, outgoing(descriptor=queue_file))
    assert outcome.status is Status.DELIVERED and outcome.is_final
    lines = got.read_bytes().split(b"\n", 3)
    assert lines[:2] == [b"/usr", b"/etc/x:Bob+Ext@Here.test; Bob"]
    assert lines[2].startswith(b"From Sender@Far.test  ")
    assert lines[3] == (
        b"Return-Path: <Sender@Far.test>\nX-Original-To: orig-Bob+Ext@Here.test\n"
        b"Delivered-To: Bob+Ext@Here.test\n" + CONTENT + b"\n"
    )


def test_a_command_out_of_time_is_killed_with_its_group(queue_file: int, tmp_path: Path) -> None:
    """transport_time_limit."""
    mark = tmp_path / "mark"
    script = f"(sleep 600; touch {mark}) & sleep 600"
    outcome = deliver(f"user={ME} argv=/bin/sh -c {{ {script} }}", outgoing(descriptor=queue_file), 1)
    assert (outcome.status, outcome.dsn) == (Status.DEFERRED, "4.3.0")
    assert outcome.text.startswith("Command time limit exceeded")


def test_what_cannot_be_run_waits(queue_file: int) -> None:
    """A program that is not there, a user that is not, root, the owner of the queue: a fault of ours."""
    mail = outgoing(descriptor=queue_file)
    missing = deliver(f"user={ME} argv=/no/such/program", mail)
    assert (missing.status, missing.text) == (Status.DEFERRED, "Command failed: No such file or directory")
    for row, rules in (
        ("user=nobody-of-that-name argv=/bin/true", {"own_uid": None}),
        (f"user={ME}:no-such-group argv=/bin/true", {}),
        ("user=root argv=/bin/true", {"own_uid": None}),
        (f"user={ME} argv=/bin/true", {"own_uid": None, "refused_uids": frozenset({os.geteuid()})}),
        (f"user={ME} argv=/bin/true", {"own_uid": os.geteuid() + 1}),
    ):
        outcome = deliver(row, mail, **rules)
        assert (outcome.status, outcome.dsn, outcome.relay) == (Status.DEFERRED, "4.3.5", "none"), row
        assert "mail transport unavailable: master.cf:1: user=" in outcome.text


def test_mail_that_the_row_does_not_take(queue_file: int) -> None:
    """size=, a Delivered-To: loop with D, an address that would be an option."""
    mail = outgoing(descriptor=queue_file)
    too_large = deliver(f"size=3 user={ME} argv=/bin/true", mail)
    assert (too_large.status, too_large.dsn) == (Status.FAILED, "5.2.3")
    with tempfile.TemporaryFile() as file:
        file.write(b"delivered-to: BOB+ext@here.TEST\n" + CONTENT)
        file.flush()
        looping = replace(mail, descriptor=file.fileno(), content_length=file.tell())
        assert deliver(f"flags=D user={ME} argv=/bin/true", looping).dsn == "5.4.6"
        assert deliver(f"flags=R user={ME} argv=/bin/true", looping).status is Status.DELIVERED
    unsafe = deliver(f"user={ME} argv=/bin/true $recipient", outgoing("-x@y.test", descriptor=queue_file))
    assert (unsafe.status, unsafe.dsn) == (Status.FAILED, "5.1.3")
