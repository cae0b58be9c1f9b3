"""The dialogue of a SCRAM login: order, nonces, channel binding. RFC 5802 §5, §6."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mailserver.accounts.codec import attempt_from, attempt_message, challenge_from, challenge_message
from mailserver.accounts.local_logins import LocalLogins
from mailserver.accounts.login import Attempt, Granted, Refused, offered
from mailserver.accounts.scram import Challenge, Proof
from mailserver.accounts.scram_dialogue import ScramDialogue
from mailserver.accounts.throttle import Throttle
from mailserver.accounts.verdict import Judge
from mailserver.maillog import ListLog
from mailserver.threads import Inline
from mailserver.wire.scram import ScramSyntaxError
from tests.accounts.sample import attempt, stored
from tests.accounts.scram_client import ScramClient
from tests.accounts.test_scram import Scene

BINDINGS = {"tls-exporter": b"E" * 32, "tls-server-end-point": b"P" * 32}


class House:
    """Alice, whose password was seen once."""

    def __init__(self, tmp_path: Path) -> None:
        scene = Scene(tmp_path, f"alice:{stored('right')}::::::allow_nets=192.0.2.0/24")
        assert scene.check.verify("alice", b"right")
        self.clock, self.log = Clock(), ListLog()
        judge = Judge(scene.check, Throttle(self.clock.seconds), self.log, scene.scram)
        self.logins = LocalLogins(judge, Inline(), self.clock)

    def run(
        self,
        client: ScramClient,
        mechanism: str = "SCRAM-SHA-256",
        bindings: Mapping[str, bytes] | None = None,
        address: str = "192.0.2.1",
    ) -> Granted | Refused:
        """How the login ends. The clock goes on while it waits."""
        asked = replace(attempt("", "", address), mechanism=mechanism)
        dialogue = ScramDialogue(self.logins, asked, bindings or {})

        async def talk() -> Granted | Refused:
            first = await dialogue.step(client.first)
            assert isinstance(first, bytes)
            last = await dialogue.step(client.final(first))
            if not isinstance(last, bytes):
                return last
            assert last == client.expected
            ended = await dialogue.step(b"")
            assert not isinstance(ended, bytes)
            return ended

        answers: list[Granted | Refused | Failure] = []
        Deferred.fromCoroutine(talk()).addBoth(answers.append)
        self.clock.advance(60)
        if isinstance(answers[0], Failure):
            answers[0].raiseException()
        return answers[0]


def test_a_right_password_is_granted_and_the_server_shows_that_it_knows_it(tmp_path: Path) -> None:
    """RFC 5802 §5: both sides prove."""
    granted = House(tmp_path).run(ScramClient("alice", "right"))
    assert isinstance(granted, Granted) and granted.account.name == "alice"


@pytest.mark.parametrize(("name", "password"), [("alice", "wrong"), ("nobody", "right"), ("=2C=3D", "x")])
def test_wrong_passwords_and_unknown_names_are_refused_alike(
    tmp_path: Path, name: str, password: str
) -> None:
    """B14."""
    answer = House(tmp_path).run(ScramClient(name, password))
    assert answer == Refused(reason="wrong password or unknown user")


def test_the_networks_of_an_account_count(tmp_path: Path) -> None:
    """allow_nets, as for passwords."""
    assert isinstance(House(tmp_path).run(ScramClient("alice", "right"), address="198.51.100.1"), Refused)


@pytest.mark.parametrize("binding", BINDINGS)
def test_a_bound_channel(tmp_path: Path, binding: str) -> None:
    """-PLUS: the login is good on this channel, and on no other."""
    house = House(tmp_path)
    client = ScramClient("alice", "right", f"p={binding},,", BINDINGS[binding])
    assert isinstance(house.run(client, "SCRAM-SHA-256-PLUS", BINDINGS), Granted)
    other = ScramClient("alice", "right", f"p={binding},,", b"a thief's own channel")
    assert isinstance(house.run(other, "SCRAM-SHA-256-PLUS", BINDINGS), Refused)


@pytest.mark.parametrize(
    ("header", "mechanism", "bindings"),
    [
        ("n,,", "SCRAM-SHA-256-PLUS", BINDINGS),
        ("y,,", "SCRAM-SHA-256-PLUS", BINDINGS),
        ("y,,", "SCRAM-SHA-256", BINDINGS),  # §6: somebody took -PLUS out of our list
        ("p=tls-exporter,,", "SCRAM-SHA-256", BINDINGS),
        ("p=tls-unique,,", "SCRAM-SHA-256-PLUS", BINDINGS),
        ("p=tls-exporter,,", "SCRAM-SHA-256-PLUS", {}),
        ("n,a=bob,", "SCRAM-SHA-256", {}),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, header: str, mechanism: str, bindings: Mapping[str, bytes]
) -> None:
    """A binding without -PLUS, -PLUS without a binding, a downgrade, somebody else's mail."""
    with pytest.raises(ScramSyntaxError):
        House(tmp_path).run(ScramClient("alice", "right", header), mechanism, bindings)


@pytest.mark.parametrize("header", ["y,,", "n,,", "n,a=alice,"])
def test_without_tls_a_client_may_know_bindings(tmp_path: Path, header: str) -> None:
    """`y` is a lie of nobody's then; one's own name may be said twice."""
    assert isinstance(House(tmp_path).run(ScramClient("alice", "right", header)), Granted)


def test_messages_out_of_order(tmp_path: Path) -> None:
    """A nonce that is not the one we gave, a message that is too long, a last one at first."""
    house = House(tmp_path)
    dialogue = ScramDialogue(house.logins, attempt("", ""), {})
    for bad in (b"c=biws,r=x,p=AAAA", b"n,,n=" + b"x" * 3000 + b",r=1", b""):
        with pytest.raises(ScramSyntaxError):
            asyncio.run(_step(dialogue, bad))
    client = ScramClient("alice", "right")
    first = asyncio.run(_step(dialogue, client.first))
    assert isinstance(first, bytes) and first.startswith(b"r=fyko+d2lbbFgONRv9qkxdawL")
    with pytest.raises(ScramSyntaxError):
        asyncio.run(_step(dialogue, client.final(first.replace(b"r=f", b"r=g"))))


async def _step(dialogue: ScramDialogue, response: bytes) -> bytes | Granted | Refused:
    return await dialogue.step(response)


def test_a_stream_for_somebody_who_left_is_closed(tmp_path: Path) -> None:
    """The client went away between our signature and its answer."""
    dialogue = ScramDialogue(House(tmp_path).logins, attempt("", ""), {})
    read, write = os.pipe()
    os.close(write)
    dialogue._granted = Granted(account=None, stream=read)  # type: ignore[arg-type]
    dialogue.close()
    with pytest.raises(OSError):
        os.fstat(read)


def test_announcement() -> None:
    """-PLUS stands before its mechanism, and only where there is a channel to bind."""
    names = ("PLAIN", "SCRAM-SHA-256")
    assert offered(names, False) == names
    assert offered(names, True) == ("PLAIN", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256")


def test_proofs_and_challenges_travel_to_the_helper() -> None:
    """And an attempt with a half proof is none."""
    proven: Attempt = replace(attempt("a", ""), proof=Proof(b"n=\xc3\xa4", bytes(range(256))))
    assert attempt_from(attempt_message(proven)) == proven
    assert attempt_from(attempt_message(attempt("a", "b"))).proof is None
    with pytest.raises(ValueError):
        attempt_from({**attempt_message(proven), "proof": {"message": "x"}})
    challenge = Challenge(b"\xff\0", 4096)
    assert challenge_from(challenge_message(challenge)) == challenge
    for bad in ({}, {"salt": 1, "iterations": 2}, {"salt": "x"}):
        with pytest.raises(ValueError):
            challenge_from(bad)
