r"""Which messages a search key names.

What a program says of flags is answered for the whole mailbox at once (`flag_column`). Then lists of
UIDs, ascending, go down the tree of the rest and come back shorter. An AND asks its cheap
keys first (flags, dates, sizes, numbers: the index knows), then those that need header fields
(remembered as facts), then those that need content, and each only about what is left.
Disk and decoding happen in threads, a batch at a time.

RFC 3501 §6.4.4. Text is compared decoded and case-folded (RFC 5255 §4.4.1, i;unicode-casemap).
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from functools import partial
from itertools import filterfalse
from typing import Final, cast

from mailserver.imapd.content import fact
from mailserver.imapd.field_columns import column_of, field_values
from mailserver.imapd.flag_column import flag_column
from mailserver.imapd.fuzzy import likely
from mailserver.imapd.progress import Progress
from mailserver.imapd.selected import Selected
from mailserver.imapd.session import Session
from mailserver.message.dates import sent_date
from mailserver.message.header import header_end, scan
from mailserver.message.mime import parse
from mailserver.message.text import body_text, fold, headers_text
from mailserver.store.contract import Flags, Mailbox, Message, MessageGone, Uid
from mailserver.wire import imap_search as keys
from mailserver.wire.imap_fetch import Attribute

_BATCH: Final = 200  # messages in one call in a thread
_INDEX_BATCH: Final = 5000  # a few milliseconds


class Searcher:
    """Evaluates keys in one session's selected mailbox. `now` in POSIX seconds."""

    def __init__(
        self, session: Session, selected: Selected, now: float, progress: Progress | None = None
    ) -> None:
        self._session = session
        self._selected = selected
        self._now = int(now)
        self._progress = progress or Progress()
        self.scores: dict[Uid, tuple[int, ...]] = {}  # of what was found by FUZZY keys

    @property
    def everything(self) -> list[Uid]:
        """All messages of the session's list that the index still knows, ascending."""
        known = self._selected.mailbox.messages
        return [*filter(known.__contains__, cast(Sequence[Uid], self._selected.uids))]

    async def found(self, key: keys.Key) -> list[Uid]:
        """The messages that the key names, ascending."""
        parts = key.keys if isinstance(key, keys.Every) else (key,)
        column = await flag_column(self._session, self._selected.mailbox)
        if column is None:
            rest, uids = key, self.everything
        else:
            holds = self._flag_test(keys.Every(tuple(filter(_is_of_flags, parts))))
            uids = column.matching(holds, below=self._selected.next_told)
            rest = keys.Every(tuple(filterfalse(_is_of_flags, parts)))
        self._progress.goal += _dear_keys(rest) * len(uids)
        return await self.among(rest, uids)

    def _flag_test(self, key: keys.Key) -> Callable[[Flags], bool]:
        """What a key that `_is_of_flags` says of a set of flags."""
        match key:
            case keys.Every(parts):
                tests = [self._flag_test(part) for part in parts]
                return lambda flags: all(test(flags) for test in tests)
            case keys.Not(inner):
                opposite = self._flag_test(inner)
                return lambda flags: not opposite(flags)
            case keys.Either(first, second):
                one, other = self._flag_test(first), self._flag_test(second)
                return lambda flags: one(flags) or other(flags)
            case keys.HasFlag(flag):
                spelt = self._spelt(flag)
                return lambda flags: not flags.isdisjoint(spelt)
        raise AssertionError(key)

    async def among(self, key: keys.Key, uids: list[Uid]) -> list[Uid]:
        """Those of the ascending `uids` that the key names, ascending."""
        if not uids:
            return uids
        match key:
            case keys.Every(parts):
                for part in sorted(parts, key=_cost):
                    uids = await self.among(part, uids)
                return uids
            case keys.Not(inner):
                before = self.scores.copy()
                rest = _without(uids, await self.among(inner, uids))
                self.scores = before
                return rest
            case keys.Either(first, second):
                cheap, dear = sorted((first, second), key=_cost)
                before = self.scores.copy()
                found = await self.among(cheap, uids)
                rest = _without(uids, found)
                self._take_back(rest, before)
                return sorted(found + await self.among(dear, rest))
            case keys.Numbered(messages, by_uid):
                chosen = self._selected.chosen(messages, by_uid, is_strict=False)
                return _both(uids, chosen)
            case keys.IsRecent():
                return [uid for uid in uids if self._selected.is_recent(uid)]
        if _cost(key) == 0:
            return await self._by_index(key, uids)
        return await self._by_content(key, uids)

    def _take_back(self, uids: Iterable[Uid], before: Mapping[Uid, tuple[int, ...]]) -> None:
        """What the messages scored on a way that led nowhere does not count."""
        for uid in uids if self.scores else ():
            self.scores[uid] = before.get(uid, ())

    async def _by_index(self, key: keys.Key, uids: list[Uid]) -> list[Uid]:
        select = self._selection(key)
        found: list[Uid] = []
        for start in range(0, len(uids), _INDEX_BATCH):
            batch = uids[start : start + _INDEX_BATCH]
            found += select(batch)
            await self._session.output.room()
        return found

    def _selection(self, key: keys.Key) -> Callable[[list[Uid]], list[Uid]]:
        known = self._selected.mailbox.messages
        if isinstance(key, keys.HasFlag):
            flagged = _Flagged(self._spelt(key.flag))
            return lambda uids: [
                uid for uid in uids if (message := known.get(uid)) is not None and flagged[message.flags]
            ]
        holds = self._test(key)
        return lambda uids: [
            uid for uid in uids if (message := known.get(uid)) is not None and holds(message)
        ]

    def _test(self, key: keys.Key) -> Callable[[Message], bool]:
        match key:
            case keys.Dated(relation, day, False):
                low, high = _days(relation, day)
                return lambda message: low <= message.internal_date < high
            case keys.Aged("YOUNGER", seconds):
                return lambda message: message.internal_date >= self._now - seconds
            case keys.Aged(_, seconds):
                return lambda message: message.internal_date <= self._now - seconds
            case keys.ModifiedSince(modseq):
                return lambda message: message.modseq >= modseq
        raise AssertionError(key)

    def _spelt(self, flag: bytes) -> Flags:
        """The spellings of a flag that are in use."""
        same = {known for known in self._selected.mailbox.keywords if known.lower() == flag.lower()}
        return frozenset(same | {flag})

    async def _by_content(self, key: keys.Key, uids: list[Uid]) -> list[Uid]:
        if isinstance(key, keys.InText | keys.InField) and key.is_fuzzy:
            mailbox = self._selected.mailbox
            likeness = await likely(self._session, mailbox, key, uids, self._progress)
            for uid, score in likeness.items():
                self.scores[uid] = (*self.scores.get(uid, ()), score)
            return [*likeness]
        found: list[Uid] = []
        if isinstance(key, keys.InText):
            search = self._selected.mailbox.search_text
            known, unknown = await self._session.run(search, uids, fold(key.text), key.where == "TEXT")
            found, uids = [*known], [*unknown]
            self._progress.done += len(found)
        elif isinstance(key, keys.InField):
            found, uids = await self._session.run(_known_in_field, self._selected.mailbox, key, uids)
            self._progress.done += len(found)
        test = _batch_test(key)
        for start in range(0, len(uids), _BATCH):
            batch = uids[start : start + _BATCH]
            found += await self._session.run(test, self._selected.mailbox, batch)
            self._progress.done += len(batch)
            await self._session.output.room()
        return sorted(found)


class _Flagged(dict[Flags, bool]):
    """Whether a set of flags holds one of those named: asked once for each set, of which there are few."""

    def __init__(self, named: Flags) -> None:
        super().__init__()
        self._named = named

    def __missing__(self, flags: Flags) -> bool:
        answer = self[flags] = not flags.isdisjoint(self._named)
        return answer


def _is_of_flags(key: keys.Key) -> bool:
    match key:
        case keys.Every(parts):
            return all(map(_is_of_flags, parts))
        case keys.Not(inner):
            return _is_of_flags(inner)
        case keys.Either(first, second):
            return _is_of_flags(first) and _is_of_flags(second)
    return isinstance(key, keys.HasFlag)


def _both(uids: list[Uid], others: list[Uid]) -> list[Uid]:
    """Those that are in both of the ascending lists."""
    if uids and others and len(others) == others[-1] - others[0] + 1:  # one run
        return uids[bisect_left(uids, others[0]) : bisect_right(uids, others[-1])]
    return sorted(set(uids).intersection(others))


def _without(uids: list[Uid], others: list[Uid]) -> list[Uid]:
    gone = set(others)
    return [uid for uid in uids if uid not in gone]


def _cost(key: keys.Key) -> int:
    """0: the index knows; 1: header fields; 2: content."""
    match key:
        case keys.Every(parts):
            return max(map(_cost, parts), default=0)
        case keys.Not(inner):
            return _cost(inner)
        case keys.Either(first, second):
            return max(_cost(first), _cost(second))
        case keys.InText():
            return 2
        case keys.InField() | keys.Saved() | keys.Sized() | keys.Dated(_, _, True) | keys.HasObject():
            return 1
    return 0


def _dear_keys(key: keys.Key) -> int:
    """How many keys each message may be read for."""
    match key:
        case keys.Every(parts):
            return sum(map(_dear_keys, parts))
        case keys.Not(inner):
            return _dear_keys(inner)
        case keys.Either(first, second):
            return _dear_keys(first) + _dear_keys(second)
    return int(_cost(key) > 0)


def _days(relation: str, day: date) -> tuple[float, float]:
    """From when and until when it is so. Days begin at midnight where the server is, as INTERNALDATE does."""
    start, end = (time.mktime((day.year, day.month, day.day + n, 0, 0, 0, 0, 0, -1)) for n in (0, 1))
    return {"BEFORE": (float("-inf"), start), "ON": (start, end), "SINCE": (start, float("inf"))}[relation]


BatchTest = Callable[[Mailbox, Sequence[Uid]], Iterable[Uid]]


def _batch_test(key: keys.Key) -> BatchTest:
    match key:
        case keys.InField(name, text, _):
            return partial(_in_field, name.lower(), _needle(text))
        case keys.InText(where, text, _):
            return partial(_in_text, where == "TEXT", fold(text))
        case keys.Saved(relation, day):
            return partial(_saved, *_days(relation, day))
        case keys.Sized(relation, octets):
            return partial(_sized, relation == "LARGER", octets)
        case keys.Dated(relation, day, _):
            return partial(_sent, relation, day.isoformat().encode("ascii"))
        case keys.HasObject(kind, identifier):
            return partial(_has_object, kind, identifier)
    raise AssertionError(key)


def _saved(low: float, high: float, mailbox: Mailbox, uids: Sequence[Uid]) -> Iterable[Uid]:
    return [uid for uid, saved in mailbox.save_dates(uids).items() if low <= saved < high]


def _sized(is_larger: bool, octets: int, mailbox: Mailbox, uids: Sequence[Uid]) -> Iterable[Uid]:
    sizes = mailbox.sizes(uids).items()
    return [uid for uid, size in sizes if (size > octets if is_larger else size < octets)]


def _needle(text: str) -> bytes:
    return fold(text).encode("utf-8", "replace")


def _known_in_field(mailbox: Mailbox, key: keys.InField, uids: list[Uid]) -> tuple[list[Uid], list[Uid]]:
    return column_of(mailbox, key.name.lower()).search(_needle(key.text), uids)


def _in_field(name: bytes, text: bytes, mailbox: Mailbox, uids: Sequence[Uid]) -> Iterable[Uid]:
    values = field_values(mailbox, name, uids)
    column_of(mailbox, name).add(values)
    return [uid for uid, value in values.items() if value and text in value]


def sent_fact(content: bytes) -> bytes:
    """The day of the Date field as YYYY-MM-DD, b"" where there is none. RFC 3501 §6.4.4 SENTON."""
    for name, body in scan(content[: header_end(content)]):
        if name.strip().lower() == b"date":
            sent = sent_date(body.removeprefix(b":").strip())
            return sent.day.isoformat().encode("ascii") if sent is not None else b""
    return b""


def _sent(relation: str, day: bytes, mailbox: Mailbox, uids: Sequence[Uid]) -> Iterable[Uid]:
    days = mailbox.facts(uids, sent_fact, "sent.1", of_header=True).items()
    if relation == "BEFORE":
        return [uid for uid, sent in days if sent and sent < day]
    if relation == "ON":
        return [uid for uid, sent in days if sent == day]
    return [uid for uid, sent in days if sent and sent >= day]


def _has_object(kind: str, identifier: bytes, mailbox: Mailbox, uids: Sequence[Uid]) -> Iterable[Uid]:
    source = fact(Attribute(kind))
    assert source is not None
    facts = mailbox.facts(uids, source.make, source.kind, source.of_header)
    return [uid for uid, known in facts.items() if known == identifier]


def _in_text(with_header: bool, text: str, mailbox: Mailbox, uids: Sequence[Uid]) -> Iterable[Uid]:
    return [uid for uid in uids if _holds(mailbox, uid, with_header, text)]


def _holds(mailbox: Mailbox, uid: Uid, with_header: bool, text: str) -> bool:
    try:
        content = mailbox.read(uid)
    except MessageGone:
        return False
    message = parse(content)
    if with_header and text in fold(headers_text(content, message)):
        return True
    return text in fold(body_text(content, message))
