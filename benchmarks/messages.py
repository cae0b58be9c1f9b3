"""Mail to measure with: the same octets for every server and every run."""

from __future__ import annotations

import os
import random
from base64 import encodebytes
from collections.abc import Iterable, Iterator
from email.utils import formatdate
from functools import cache
from pathlib import Path
from typing import Final

_VOCABULARY: Final = """
the of mail server and queue to delivered in spool message a is that from folder it for client was
on with system notice as his reply be at by we had meeting not report but were minutes have attached
which invoice they all one quarter her please their would there draft been if more budget when will
say no new
"""
_WORDS: Final = tuple(_VOCABULARY.split())
_VARIANTS: Final = 64
_DAY: Final = 1_700_000_000


def _text(chance: random.Random, octets: int) -> str:
    lines = []
    while octets > 0:
        line = " ".join(chance.choices(_WORDS, k=11))
        lines.append(line)
        octets -= len(line) + 1
    return "\n".join(lines) + "\n"


@cache
def _body(variant: int, is_mixed: bool) -> str:
    """Header fields from MIME-Version on, and the body."""
    chance = random.Random(variant)
    text = _text(chance, chance.randrange(1000, 4000))
    if not is_mixed or variant % 4:
        return f"MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n{text}"
    parts = [
        f"Content-Type: text/plain; charset=utf-8\n\n{text}",
        f"Content-Type: text/html; charset=utf-8\n\n<html><body><p>{_text(chance, 6000)}</p></body></html>\n",
    ]
    if variant % 16 == 0:
        picture = encodebytes(chance.randbytes(60_000)).decode()
        parts.append(f'Content-Type: image/png; name="p.png"\nContent-Transfer-Encoding: base64\n\n{picture}')
    bodies = "".join(f"--=_b{variant}\n{part}" for part in parts)
    return (
        f'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="=_b{variant}"\n\n'
        f"{bodies}--=_b{variant}--\n"
    )


def message(number: int, is_mixed: bool = True) -> bytes:
    """A message of one to four kilobytes, a quarter of the mixed ones larger; LF line ends."""
    chance = random.Random(number)
    sender = f"{chance.choice(_WORDS)}.{chance.choice(_WORDS)}{number % 97}"
    subject = " ".join(chance.choices(_WORDS, k=5))
    parent = f"<{number - number % 5}@lists.example.net>"
    head = (
        f"Received: from relay.example.net (relay.example.net [192.0.2.{number % 250}])\n"
        f"\tby mail.example.org (Postfix) with ESMTP id {number:08X}\n"
        f"\tfor <user@example.org>; {formatdate(_DAY + number * 60)}\n"
        f'From: "{sender.title()}" <{sender}@example.net>\n'
        f"To: user@example.org, Someone Else <other{number % 11}@example.org>\n"
        f"Subject: {subject} {number}\n"
        f"Date: {formatdate(_DAY + number * 60)}\n"
        f"Message-ID: <{number}@lists.example.net>\n"
    )
    if number % 5:
        head += f"In-Reply-To: {parent}\nReferences: {parent}\n"
    return (head + _body(number % _VARIANTS, is_mixed)).encode()


def of_size(octets: int, number: int = 0) -> bytes:
    """A message of about that size with CRLF line ends, none of its lines with a dot."""
    head = message(number, False).partition(b"\n\n")[0] + b"\n\n"
    text = _text(random.Random(number % _VARIANTS), min(octets, 65_536)).encode()
    body = (text * (octets // len(text) + 1))[: max(octets - len(head), 0)]
    return (head + body.rpartition(b"\n")[0] + b"\n").replace(b"\n", b"\r\n")


def fill_mbox(path: Path, contents: Iterable[bytes]) -> None:
    """The file is an mbox with those messages."""
    with path.open("wb") as file:
        for content in contents:
            file.write(b"From sender@example.net Tue Nov 14 22:13:20 2023\n" + content + b"\n")


def fill_maildir(path: Path, contents: Iterable[bytes]) -> None:
    """The directory is a maildir with those messages in cur."""
    for name in ("", "cur", "new", "tmp"):
        (path / name).mkdir(mode=0o700)
    for number, content in enumerate(contents):
        lines = content.count(b"\n")
        sizes = f"S={len(content)},W={len(content) + lines}"
        place = path / "cur" / f"{_DAY + number}.M{number}P1.example,{sizes}:2,"
        place.write_bytes(content)
        os.utime(place, (_DAY + number, _DAY + number))


def messages(count: int, is_mixed: bool = True) -> Iterator[bytes]:
    """The first so many messages."""
    return (message(number, is_mixed) for number in range(count))
