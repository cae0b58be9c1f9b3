"""FETCH of every kind on every message: Dovecot's answer is ours, or the difference is explained."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.differential.answers import fetched
from tests.differential.differences import FETCH
from tests.differential.hostile import HOSTILE
from tests.differential.servers import Dovecot, DovecotEnded, Ours, Session, open_directory
from tests.differential.valid_messages import valid_messages

pytestmark = [pytest.mark.needs("dovecot")]

MESSAGES = Path(__file__).parent.parent / "data" / "messages"
ALL = (
    {path.stem: path.read_bytes() for path in sorted(MESSAGES.glob("*.eml"))}
    | HOSTILE
    | valid_messages(20260, 30)
)
WHOLE = ("RFC822.SIZE", "INTERNALDATE", "ENVELOPE", "BODY", "BODYSTRUCTURE", "RFC822.HEADER", "BODY.PEEK[]")
PARTS = ("", "1.", "2.", "1.1.", "1.2.", "2.1.", "3.")
SECTIONS = [
    f"BODY.PEEK[{part}{text}]"
    for part in PARTS
    for text in ("HEADER", "TEXT", "MIME", "HEADER.FIELDS (Subject From)", "HEADER.FIELDS.NOT (Subject)")
    if part or text != "MIME"
] + [f"BODY.PEEK[{part[:-1]}]" for part in PARTS if part]
PARTIAL = ("BODY.PEEK[]<0.20>", "BODY.PEEK[TEXT]<3.4>", "BODY.PEEK[1]<100000.5>")
BINARY = ("BINARY.PEEK[1]", "BINARY.SIZE[1]", "BINARY.PEEK[2]", "BINARY.SIZE[2]", "BINARY.PEEK[]")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Dovecot, Ours]]:
    with open_directory() as home:
        dovecot = Dovecot(home, ALL)
        ours = Ours(tmp_path_factory.mktemp("ours"), ALL)
        yield dovecot, ours
        dovecot.close()
        ours.close()


@cache
def _names() -> list[str]:
    return list(ALL)


def _examining(server: Dovecot | Ours) -> Session:
    session = server.session("examining")
    session.ask(b"e EXAMINE INBOX")
    return session


def _answers(server: Dovecot | Ours, item: str) -> dict[str, object]:
    """By the message's name, the items of its FETCH response, or how the command ended."""
    session = _examining(server)
    answers: dict[str, object] = {}
    for number, name in enumerate(_names(), 1):
        try:
            responses = session.ask(b"f FETCH %d %b" % (number, item.encode()))
        except DovecotEnded:
            session = _examining(server)
            continue
        items = [found for response in responses if (found := fetched(response)) is not None]
        answers[name] = items or responses[-1].split()[1]
    return answers


@pytest.mark.parametrize("item", [*WHOLE, *SECTIONS, *PARTIAL, *BINARY])
def test_fetch(both: tuple[Dovecot, Ours], item: str) -> None:
    """RFC 3501 §6.4.5, RFC 3516 §4.2: the same octets from both servers."""
    theirs, ours = (_answers(server, item) for server in both)
    wrong = {
        name: (theirs[name], ours[name])
        for name in ALL
        if name in theirs
        and theirs[name] != ours[name]
        and not any(known.covers(name, item) for known in FETCH)
    }
    report = "\n".join(
        f"{name}\n  dovecot {dovecot}\n  ours    {own}" for name, (dovecot, own) in wrong.items()
    )
    assert not wrong, f"{item}:\n{report}"
