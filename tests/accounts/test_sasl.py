"""A SASL mechanism's dialogue, as all three protocols have it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed

from mailserver.accounts.sasl import ActsForAnother, Credentials, SaslProblem, credentials


def result(work: Coroutine[Any, Any, Credentials]) -> Credentials:
    """What the coroutine, which waits for nothing, comes to."""
    results: list[Any] = []
    Deferred.fromCoroutine(work).addBoth(results.append)
    if not isinstance(results[0], Credentials):
        results[0].raiseException()
    return results[0]  # type: ignore[no-any-return]


class Client:
    """Says these responses, and remembers the challenges."""

    def __init__(self, *responses: bytes) -> None:
        self.responses = list(responses)
        self.challenges: list[bytes] = []

    def __call__(self, challenge: bytes) -> Deferred[bytes]:
        self.challenges.append(challenge)
        return succeed(self.responses.pop(0))


@pytest.mark.parametrize(
    ("mechanism", "initial", "responses", "challenges", "found"),
    [
        ("PLAIN", b"\0alice\0s\xc3\xa9cret", [], [], ("alice", b"s\xc3\xa9cret")),
        ("PLAIN", None, [b"alice\0alice\0x"], [b""], ("alice", b"x")),
        ("PLAIN", b"\0\0", [], [], ("", b"")),
        ("LOGIN", None, [b"alice", b"x"], [b"Username:", b"Password:"], ("alice", b"x")),
        ("LOGIN", b"alice", [b"x"], [b"Password:"], ("alice", b"x")),
        ("EXTERNAL", b"", [], [], ("", b"")),
        ("EXTERNAL", None, [b"alice"], [b""], ("alice", b"")),
        ("PLAIN", b"\0" + b"a" * 1000 + b"\0x", [], [], ("a" * 256, b"x")),
        ("PLAIN", b"\0\xff\0x", [], [], ("\ufffd", b"x")),
    ],
)
def test_dialogues(
    mechanism: str,
    initial: bytes | None,
    responses: list[bytes],
    challenges: list[bytes],
    found: tuple[str, bytes],
) -> None:
    """RFC 4616 §2, RFC 4422 Appendix A. A name that nobody can have stays one, and is bounded."""
    client = Client(*responses)
    said = result(credentials(mechanism, initial, client))
    assert (said.name, said.password, said.mechanism) == (*found, mechanism)
    assert client.challenges == challenges


@pytest.mark.parametrize(
    ("response", "problem"),
    [
        (b"", SaslProblem),
        (b"alice", SaslProblem),
        (b"\0a\0b\0c", SaslProblem),
        (b"bob\0alice\0x", ActsForAnother),
    ],
)
def test_bad_plain(response: bytes, problem: type[Exception]) -> None:
    """RFC 4616 §2: three fields; nobody acts for another here, whatever his password."""
    with pytest.raises(problem):
        result(credentials("PLAIN", response, Client()))


def test_a_password_is_never_shown() -> None:
    """Neither in a traceback nor in a log."""
    assert "secret" not in repr(Credentials("alice", b"secret"))
