"""Verdicts and logins in one process."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.task import Clock

from mailserver.accounts.account import NOWHERE, Account, Origin
from mailserver.accounts.local_logins import LocalLogins
from mailserver.accounts.login import Granted, Refused
from mailserver.accounts.throttle import Throttle
from mailserver.accounts.verdict import Judge
from mailserver.maillog import ListLog
from mailserver.threads import Inline
from tests.accounts.sample import attempt, check_for, stored


class Scene:
    """Alice, and bob who may come from 10.0.0.0/8 only."""

    def __init__(self, tmp_path: Path) -> None:
        self.clock, self.log, self.path = Clock(), ListLog(), tmp_path / "users"
        lines = (f"alice:{stored('right')}", f"bob:{stored('right')}::::::allow_nets=10.0.0.0/8,::1")
        check = check_for(self.path, *lines)
        judge = Judge(check, Throttle(self.clock.seconds), self.log)
        self.logins = LocalLogins(judge, Inline(), self.clock)

    def answers(self, *arguments: str) -> list[Granted | Refused]:
        """The list that the answer appears in."""
        answers: list[Granted | Refused] = []
        self.logins.login(attempt(*arguments)).addCallback(answers.append)
        return answers


def test_a_right_password_is_answered_at_once(tmp_path: Path) -> None:
    """In one process there is no stream to hand over."""
    (granted,) = Scene(tmp_path).answers("Alice@example.org", "right")
    assert isinstance(granted, Granted) and granted.stream == -1 and granted.account.name == "alice"


def test_a_wrong_one_and_an_unknown_name_wait_alike(tmp_path: Path) -> None:
    """B14, B20."""
    scene = Scene(tmp_path)
    first, second = scene.answers("alice", "wrong", "192.0.2.1"), scene.answers("who", "wrong", "192.0.2.2")
    scene.clock.advance(1.9)
    assert first == second == []
    scene.clock.advance(0.2)
    assert first == second == [Refused(reason="wrong password or unknown user")]
    assert scene.log.lines == []


def test_allow_nets_refuses_other_addresses_as_a_wrong_password(tmp_path: Path) -> None:
    """Dovecot's extra field."""
    scene = Scene(tmp_path)
    assert scene.answers("bob", "right", "10.1.2.3") and scene.answers("bob", "right", "::1")
    outside = scene.answers("bob", "right", "192.0.2.1")
    assert outside == []
    scene.clock.advance(2)
    assert isinstance(outside[0], Refused) and not outside[0].temporary


def test_a_broken_data_base_is_temporary_and_logged_without_secrets(tmp_path: Path) -> None:
    """P5, B25."""
    scene = Scene(tmp_path)
    scene.path.unlink()
    (refused,) = scene.answers("alice\nx", "hush")
    assert isinstance(refused, Refused) and refused.temporary
    ((service, text),) = scene.log.lines
    assert service == "auth" and "No such file" in text and "\n" not in text and "hush" not in text


def test_our_own_bug_is_temporary(tmp_path: Path) -> None:
    """P5: the answer is "try again", the cause is in the log."""

    class Broken:
        def verify(self, name: str, password: bytes, origin: Origin = NOWHERE) -> Account | None:
            raise ZeroDivisionError("oops")

    log = ListLog()
    verdict = Judge(Broken(), Throttle(lambda: 0.0), log).judge(attempt("alice", "x"))
    assert isinstance(verdict.answer, Refused) and verdict.answer.temporary
    assert "ZeroDivisionError" in log.lines[0][1]


def test_a_flood_is_not_hashed(tmp_path: Path) -> None:
    """More attempts of one place than may wait are refused unseen."""
    scene = Scene(tmp_path)
    answers = [scene.answers("alice", f"guess{n}") for n in range(12)]
    assert [bool(answer) for answer in answers] == [False] * 10 + [True] * 2
    refused = answers[-1][0]
    assert isinstance(refused, Refused) and refused.temporary


@pytest.mark.parametrize("networks", ["nonsense", "", "10.0.0.0/8,nonsense"])
def test_networks_that_are_none_admit_nobody(tmp_path: Path, networks: str) -> None:
    """A typing error must not open the door."""
    check = check_for(tmp_path / "users", f"eve:{stored('x')}::::::allow_nets={networks}")
    verdict = Judge(check, Throttle(lambda: 0.0), ListLog()).judge(attempt("eve", "x", "10.0.0.1"))
    assert isinstance(verdict.answer, Refused)


def test_no_text_of_ours_shows_a_password() -> None:
    """B25: not even a traceback that shows an attempt."""
    assert "hush" not in repr(attempt("alice", "hush"))


def test_a_unix_socket_may_stand_among_the_networks(tmp_path: Path) -> None:
    """`local`, as Dovecot's documentation shows it."""
    check = check_for(tmp_path / "users", f"eve:{stored('x')}::::::allow_nets=local,10.0.0.0/8")
    judge = Judge(check, Throttle(lambda: 0.0), ListLog())
    assert isinstance(judge.judge(attempt("eve", "x", "10.0.0.1")).answer, Account)
    assert isinstance(judge.judge(attempt("eve", "x", "local")).answer, Account)
    assert isinstance(judge.judge(attempt("eve", "x", "192.0.2.1")).answer, Refused)
