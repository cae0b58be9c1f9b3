"""A message as milters see and change it, before it is committed to the queue.

Fields are raw, LF line ends. The Received: field of this server (`own`) is not shown, and cannot be changed;
but an index of INSERT_HEADER counts it, as in Postfix. A replaced body is held in memory, and bounded by
`body_limit`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Final

from mailserver.envelope import Address, Envelope, Recipient
from mailserver.wire import milter
from mailserver.wire.address import AddressError, parse_lenient
from mailserver.wire.milter import Edit, MilterError

LARGEST_HEADER: Final = 1 << 20  # octets that are shown as fields; what follows passes with the body
BODY_LIMIT: Final = 1 << 26  # octets of a replaced body where there is no other limit
_FIELD: Final = re.compile(rb"[!-9;-~]++[ \t]*+:[^\n]*+\n(?>(?:[ \t][^\n]*+\n)*)")
_NAME: Final = re.compile(rb"[!-9;-~]+")
_BARE: Final = re.compile(rb"\n(?![ \t])")


@dataclass(slots=True)
class MilterContent:
    """`open_body` gives the body's pieces, LF line ends, without the blank line above it; blocking."""

    envelope: Envelope
    own: bytes
    fields: list[bytes]
    open_body: Callable[[], Iterable[bytes]]
    body_limit: int = BODY_LIMIT
    new_body: bytearray | None = None
    is_changed: bool = False  # fields or body
    quarantine: str = ""
    notes: list[str] = field(default_factory=list)

    def body(self) -> Iterator[bytes]:
        """The body as it is now."""
        if self.new_body is not None:
            yield bytes(self.new_body)
        else:
            yield from self.open_body()

    def pieces(self) -> Iterator[bytes]:
        """The whole content as it is now."""
        yield b"".join((*self.fields, b"\n"))
        yield from self.body()

    def named(self) -> Iterator[tuple[bytes, bytes]]:
        """Name and value of each field, as milters are told: the colon and the last line end left off."""
        for at in self._shown():
            name, _, value = self.fields[at].partition(b":")
            yield name.rstrip(), value.removesuffix(b"\n")

    def _shown(self) -> list[int]:
        """The places of the fields that milters see."""
        places = list(range(len(self.fields)))
        if self.own in self.fields:
            places.remove(self.fields.index(self.own))
        return places

    def apply(self, edits: Iterable[Edit], leading_space: bool) -> None:
        """The changes are made. `leading_space`: values begin behind the colon, not behind a blank.

        Raises MilterError for what cannot be done: then nothing is.
        """
        edits, before = tuple(edits), copy(self)
        before.fields = list(self.fields)
        try:
            self._apply_all(edits, leading_space)
        except MilterError:
            for name in self.__slots__:
                setattr(self, name, getattr(before, name))
            raise

    def _apply_all(self, edits: Sequence[Edit], leading_space: bool) -> None:
        if any(each.command == milter.REPLACE_BODY for each in edits):
            self.new_body = bytearray()
            self.is_changed = True
        for each in edits:
            self._apply(each, leading_space)
        if self.new_body is not None:
            self.new_body = self.new_body.replace(b"\r\n", b"\n")

    def _apply(self, edit: Edit, leading_space: bool) -> None:
        match edit.command:
            case milter.ADD_HEADER:
                self._insert(len(self.fields), _field(edit, leading_space))
            case milter.INSERT_HEADER:
                self._insert(edit.index, _field(edit, leading_space))
            case milter.CHANGE_HEADER:
                self._change(edit, leading_space)
            case milter.REPLACE_BODY:
                assert self.new_body is not None
                self.new_body += edit.texts[0]
                if len(self.new_body) > self.body_limit:
                    raise MilterError("its body is too large")
            case milter.QUARANTINE:
                self.quarantine = edit.texts[0].decode("utf-8", "replace") or "no reason given"
            case _:
                self._change_envelope(edit)

    def _insert(self, position: int, text: bytes) -> None:
        self.fields.insert(position, text)
        self.is_changed = True

    def _change(self, edit: Edit, leading_space: bool) -> None:
        """The index-th field of the name, counted from 1, has that value; an empty one removes it."""
        name = edit.texts[0].lower()
        found = [at for at in self._shown() if self.fields[at].partition(b":")[0].rstrip().lower() == name]
        index = max(edit.index, 1) - 1
        if index >= len(found):
            if edit.texts[1]:
                self._insert(len(self.fields), _field(edit, leading_space))
            return
        self.fields[found[index] : found[index] + 1] = [_field(edit, leading_space)] if edit.texts[1] else []
        self.is_changed = True

    def _change_envelope(self, edit: Edit) -> None:
        address = _address(edit.texts[0])
        recipients = self.envelope.recipients
        if edit.command == milter.CHANGE_FROM:
            self.envelope = replace(self.envelope, sender=address)
        elif address is None:
            raise MilterError("its recipient is the null address")
        elif edit.command == milter.DELETE_RECIPIENT:
            kept = tuple(each for each in recipients if str(each.address).lower() != str(address).lower())
            self.envelope = replace(self.envelope, recipients=kept)
        else:
            added = Recipient(address, str(address), frozenset({"NEVER"}))
            self.envelope = replace(self.envelope, recipients=(*recipients, added))


def split_content(content: bytes) -> tuple[list[bytes], int]:
    """The fields at the start of the content, and where the body begins, behind the blank line."""
    fields, position = [], 0
    while (found := _FIELD.match(content, position)) is not None:
        fields.append(found[0])
        position = found.end()
    return fields, position + content.startswith(b"\n", position)


def _field(edit: Edit, leading_space: bool) -> bytes:
    """The field as it is stored. Raises MilterError for what is none."""
    name, value = edit.texts[0], edit.texts[1]
    if not _NAME.fullmatch(name):
        raise MilterError(f"{name!r} is no name of a header field")
    value = value.replace(b"\r\n", b"\n").replace(b"\r", b"").rstrip(b"\n")
    return name + (b":" if leading_space else b": ") + _BARE.sub(b"\n\t", value) + b"\n"


def _address(text: bytes) -> Address | None:
    """The address in angle brackets or without; None is the null one. Raises MilterError."""
    plain = text.decode("utf-8", "surrogateescape").strip()
    plain = plain[1:-1] if plain.startswith("<") and plain.endswith(">") else plain
    try:
        return parse_lenient(plain) if plain else None
    except AddressError as error:
        raise MilterError(f"{plain!r} is no address: {error}") from error
