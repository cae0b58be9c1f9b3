r"""FETCH's answer compiled: one function for the shape that a command asks for.

Clients ask for the same few items of thousands of messages. The items become one template
and one expression, compiled once for all commands of that shape, so that a message costs one `%`.
The expression is put together from the fixed pieces below alone; what the client wrote gets into
the template, with `%` doubled, and never into the expression.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from mailserver.imapd.selected import RECENT
from mailserver.store.contract import Flags, Message, Uid
from mailserver.wire.imap_fetch import Attribute, Item
from mailserver.wire.imap_responses import LAST_SECOND, flag_list, internal_date

Row = tuple[int, Uid, Message]  # sequence number, UID, message
Rendered = Mapping[Uid, Any]  # what one item's source gave, by UID
Compiled = Callable[..., list[bytes]]

_FIXED: Final = {
    "FLAGS": (b"FLAGS %b", "(recent if u in claimed else plain)[m.flags]"),
    "UID": (b"UID %d", "u"),
    "INTERNALDATE": (b"INTERNALDATE %b", "date(m.internal_date)"),
    "MODSEQ": (b"MODSEQ (%d)", "m.modseq"),
}


class FlagText(dict[Flags, bytes]):
    """Sets of flags as wire octets, each rendered once. `extra` is put in front of every set."""

    def __init__(self, extra: bytes = b"") -> None:
        super().__init__()
        self._extra = frozenset([extra] if extra else [])

    def __missing__(self, flags: Flags) -> bytes:
        text = self[flags] = flag_list(flags | self._extra)
        return text


PLAIN_FLAGS: Final = FlagText()
RECENT_FLAGS: Final = FlagText(RECENT)
MOST_FLAG_SETS: Final = 10_000


@lru_cache(maxsize=65_536)
def _date_text(posix: int) -> bytes:
    """In the server's time zone, where the days of SEARCH begin too (RFC 3501 §6.4.4)."""
    return internal_date(posix, time.localtime(min(max(posix, 0), LAST_SECOND)).tm_gmtoff)


@dataclass(frozen=True, slots=True)
class RowWriter:
    """Writes rows of one shape. `sources` are the items whose text must be brought along."""

    sources: tuple[Item, ...]
    _template: bytes
    _function: Compiled

    def write(self, rows: Sequence[Row], sources: Sequence[Rendered], recent: Container[int]) -> list[bytes]:
        r"""The FETCH responses. `recent` has the UIDs of those messages that are \Recent."""
        for texts in (PLAIN_FLAGS, RECENT_FLAGS):
            if len(texts) > MOST_FLAG_SETS:
                texts.clear()
        return self._function(self._template, rows, sources, recent, RECENT_FLAGS, PLAIN_FLAGS, _date_text)


def compile_rows(items: Sequence[Item], is_recent_possible: bool, is_uid_only: bool = False) -> RowWriter:
    """The writer for the items, in their order. `is_uid_only`: of UIDFETCH responses (RFC 9586 §3.3)."""
    template: list[bytes] = []
    values = ["u" if is_uid_only else "n"]
    sources: list[Item] = []
    for item in items:
        text, value = _piece(item, len(sources))
        if "s[" in value:
            sources.append(item)
        if "claimed" in value and not is_recent_possible:
            value = "plain[m.flags]"
        template.append(text)
        if value:
            values.append(value)
    name = b"UIDFETCH" if is_uid_only else b"FETCH"
    line = b"* %d " + name + b" (" + b" ".join(template) + b")\r\n"
    return RowWriter(tuple(sources), line, _compiled(tuple(values)))


def _piece(item: Item, source: int) -> tuple[bytes, str]:
    if isinstance(item, Attribute) and item.name in _FIXED:
        return _FIXED[item.name]
    if item == Attribute("SAVEDATE"):
        return b"SAVEDATE %b", f"date(s[{source}][u])"
    if isinstance(item, Attribute):
        form = {"RFC822.SIZE": b" %d", "EMAILID": b" (%b)", "THREADID": b" (%b)"}.get(item.name, b" %b")
        return item.name.encode("ascii") + form, f"s[{source}][u]"
    return item.label.replace(b"%", b"%%") + b" %b", f"s[{source}][u]"


@lru_cache(maxsize=256)
def _compiled(values: tuple[str, ...]) -> Compiled:
    row = f"({', '.join(values)},)"
    code = f"lambda template, rows, s, claimed, recent, plain, date: [template % {row} for n, u, m in rows]"
    function: Compiled = eval(code, {"__builtins__": {}})
    return function
