"""reject_unverified_sender and reject_unverified_recipient: probes, their memory, and what clients hear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailserver.envelope import Address, Outcome, Status
from mailserver.smtpd.verification import AddressVerifier, Verification, VerifyRules
from tests.smtpd.harness import House

ALICE = Address("alice", "example.org")
GOOD, BAD, LATER = Outcome.delivered("250 Ok"), Outcome.failed("550 who", "5.1.1"), Outcome.deferred("421")
DAY = 86_400


class Probes:
    """Probes that are answered when the test says so."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.asked: list[str] = []
        self.answers: list[Deferred[Outcome]] = []
        self.verifier = AddressVerifier(VerifyRules(), self.probe, self.clock)

    def probe(self, address: Address) -> Deferred[Outcome]:
        self.asked.append(str(address))
        self.answers.append(Deferred())
        return self.answers[-1]

    def finish(self) -> None:
        """Nobody waits any more."""
        for each in self.answers:
            if not each.called:
                each.callback(LATER)

    def verify(self, address: Address = ALICE) -> list[Outcome]:
        """What is known, once it is."""
        found: list[Outcome] = []
        Deferred.fromCoroutine(self.verifier.verify(address)).addCallback(found.append)
        return found


def test_each_address_is_probed_once_at_a_time() -> None:
    """Whoever asks meanwhile waits for the same answer; spelling makes no difference."""
    probes = Probes()
    first, second = probes.verify(), probes.verify(Address("ALICE", "Example.org"))
    assert (first, second, len(probes.asked)) == ([], [], 1)
    probes.answers[0].callback(GOOD)
    assert first == second == [GOOD]
    assert probes.verify() == [GOOD] and len(probes.asked) == 1


def test_what_is_known_grows_old() -> None:
    """Good ones: refreshed after 7 days in the background, forgotten after 31; bad ones: 3 hours, 3 days."""
    probes = Probes()
    probes.verify()
    probes.answers[0].callback(GOOD)
    probes.clock.advance(8 * DAY)
    assert probes.verify() == [GOOD] and len(probes.asked) == 2
    probes.answers[1].callback(LATER)  # does not undo what was known
    assert probes.verify() == [GOOD]
    probes.answers[2].callback(BAD)
    assert probes.verify() == [BAD] and len(probes.asked) == 3
    probes.clock.advance(4 * 3600)
    assert probes.verify() == [BAD] and len(probes.asked) == 4
    probes.answers[3].callback(GOOD)
    probes.clock.advance(32 * DAY)
    assert probes.verify() == [] and len(probes.asked) == 5
    probes.finish()


def test_a_client_waits_for_so_long() -> None:
    """poll_count times poll_delay; the answer that comes later counts for the next one."""
    probes = Probes()
    found = probes.verify()
    probes.clock.advance(8)
    assert found == []
    probes.clock.advance(2)
    assert found[0].status is Status.DEFERRED and "in progress" in found[0].text
    probes.answers[0].callback(BAD)
    assert probes.verify() == [BAD]


def test_probes_are_bounded() -> None:
    """address_verify_pending_request_limit: beyond it nothing is asked, and nothing is known."""
    probes = Probes()
    probes.verifier = AddressVerifier(VerifyRules(pending_request_limit=2), probes.probe, probes.clock)
    found = [probes.verify(Address(name, "far.test")) for name in "abc"]
    assert len(probes.asked) == 2
    assert found[2][0].status is Status.DEFERRED
    probes.finish()


def answers(tmp_path: Path, outcome: Outcome, **reasons: Any) -> list[str]:
    """What clients hear of an unverified recipient, and sender."""

    async def probe(address: Address) -> Outcome:
        return outcome

    verification = Verification(AddressVerifier(VerifyRules(), probe, Clock()), **reasons)
    heard = []
    for name, side in (("r", "recipient"), ("s", "sender")):
        house = House(
            tmp_path / name,
            texts={"recipient": f"reject_unverified_{side}"},
            tools={"verification": lambda: verification},
        )
        client = house.connect()
        client.say("EHLO c.example", "MAIL FROM:<s@far.example>")
        heard.append(client.say("RCPT TO:<alice@example.org>").strip())
    return heard


def test_what_clients_hear(tmp_path: Path) -> None:
    """unverified_*_reject_code is 450 unless changed; a temporary failure never refuses for good."""
    assert answers(tmp_path / "1", GOOD) == ["250 2.1.5 Ok"] * 2
    assert answers(tmp_path / "2", BAD) == [
        "450 4.1.1 <alice@example.org>: Recipient address rejected: unverified address: 550 who",
        "450 4.1.7 <s@far.example>: Sender address rejected: unverified address: 550 who",
    ]
    assert answers(tmp_path / "3", LATER, recipient_reason="sorry")[0] == (
        "450 4.1.1 <alice@example.org>: Recipient address rejected: sorry"
    )
