r"""FETCH's answer compiled: one function for the shape that a command asks for.

Clients ask for the same few items of thousands of messages. The items become one template
and one expression, compiled once per command, so that a message costs one `%`. The expression
is put together from the fixed pieces below alone; what the client wrote gets into the template,
with `%` doubled, and never into the expression.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from mailserver.imapd.selected import RECENT
from mailserver.store.contract import Flags, Message, Uid
from mailserver.wire.imap_fetch import Attribute, Item
from mailserver.wire.imap_responses import flag_list, internal_date

Row = tuple[int, Uid, Message]  # sequence number, UID, message
Rendered = Mapping[Uid, Any]  # what one item's source gave, by UID
Compiled = Callable[..., list[bytes]]

_FIXED: Final = {
    "FLAGS": (b"FLAGS %b", "flags(u)[m.flags]"),
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
    return internal_date(posix)


@dataclass(frozen=True, slots=True)
class RowWriter:
    """Writes rows of one shape. `sources` are the items whose text must be brought along."""

    sources: tuple[Item, ...]
    _function: Compiled

    def write(
        self, rows: Sequence[Row], sources: Sequence[Rendered], is_recent: Callable[[int], bool] | None
    ) -> list[bytes]:
        r"""The FETCH responses. `is_recent` None: nothing is \Recent."""
        for texts in (PLAIN_FLAGS, RECENT_FLAGS):
            if len(texts) > MOST_FLAG_SETS:
                texts.clear()

        def flags(uid: int) -> FlagText:
            return RECENT_FLAGS if is_recent is not None and is_recent(uid) else PLAIN_FLAGS

        return self._function(rows, sources, flags, PLAIN_FLAGS, _date_text)


def compile_rows(items: Sequence[Item], is_recent_possible: bool, is_uid_only: bool = False) -> RowWriter:
    """The writer for the items, in their order. `is_uid_only`: of UIDFETCH responses (RFC 9586 §3.3)."""
    template: list[bytes] = []
    values = ["u" if is_uid_only else "n"]
    sources: list[Item] = []
    for item in items:
        text, value = _piece(item, len(sources))
        if "s[" in value:
            sources.append(item)
        if value == "flags(u)[m.flags]" and not is_recent_possible:
            value = "plain[m.flags]"
        template.append(text)
        if value:
            values.append(value)
    name = b"UIDFETCH" if is_uid_only else b"FETCH"
    line = b"* %d " + name + b" (" + b" ".join(template) + b")\r\n"
    return RowWriter(tuple(sources), _compiled(line, tuple(values)))


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
def _compiled(template: bytes, values: tuple[str, ...]) -> Compiled:
    row = f"({', '.join(values)},)"
    code = f"lambda template, rows, s, flags, plain, date: [template % {row} for n, u, m in rows]"
    function = eval(code, {"__builtins__": {}})
    return lambda *arguments: function(template, *arguments)
