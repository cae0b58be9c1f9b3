"""The order of messages: what each is sorted by is a fact that the store remembers. RFC 5256 §3, RFC 5957."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from mailserver.imapd.fuzzy import Scores, relevancy
from mailserver.imapd.progress import Progress
from mailserver.message.dates import sent_date
from mailserver.message.header import first, header_end
from mailserver.message.sort_keys import base_subject, capitals, display_key, mailbox_key
from mailserver.store.contract import Mailbox, Uid

Keys = Mapping[Uid, Any]
Criteria = Sequence[tuple[str, bool]]  # names, and whether in reverse


def in_order(
    mailbox: Mailbox,
    uids: Sequence[Uid],
    criteria: Criteria,
    progress: Progress | None = None,
    scores: Scores | None = None,
) -> list[Uid]:
    """The messages that are still there, in order; equal ones as in the mailbox. Blocking."""
    progress = progress or Progress()
    ordered = list(uids)
    for name, is_reverse in reversed(criteria):  # the last one first
        if name == "RELEVANCY":  # RFC 6203 §6: the highest first
            found: Keys = {uid: -relevancy(scores or {}, uid) for uid in uids}
        else:
            found = _keys(mailbox, uids, name, progress)
        ordered = [uid for uid in ordered if uid in found]
        ordered.sort(key=found.__getitem__, reverse=is_reverse)
    return ordered


def _keys(mailbox: Mailbox, uids: Sequence[Uid], name: str, progress: Progress) -> Keys:
    known = mailbox.messages
    if name == "ARRIVAL":
        return {uid: found.internal_date for uid in uids if (found := known.get(uid)) is not None}
    if name == "SIZE":
        return mailbox.sizes(uids)
    if name == "DATE":
        return sent_times(mailbox, uids, progress)
    return mailbox.facts(uids, progress.counting(_TEXT_KEYS[name]), f"sort.2 {name}", of_header=True)


def sent_times(mailbox: Mailbox, uids: Sequence[Uid], progress: Progress) -> dict[Uid, int]:
    """The sent date, or the internal date of messages without. RFC 5256 §2.2."""
    known = mailbox.messages
    dates = mailbox.facts(uids, progress.counting(_date_fact), "sort.1 DATE", of_header=True).items()
    return {
        uid: int(sent) if sent else found.internal_date
        for uid, sent in dates
        if (found := known.get(uid)) is not None
    }


def _field(name: bytes, content: bytes) -> bytes:
    return first(content[: header_end(content)], name) or b""


def _date_fact(content: bytes) -> bytes:
    sent = sent_date(_field(b"date", content))
    return b"" if sent is None else b"%d" % sent.posix


def _subject_fact(content: bytes) -> bytes:
    return capitals(base_subject(_field(b"subject", content))[0]).encode("utf-8", "replace")


def _mailbox_fact(name: bytes, content: bytes) -> bytes:
    return capitals(mailbox_key(_field(name, content))).encode("utf-8", "replace")


def _display_fact(name: bytes, content: bytes) -> bytes:
    return capitals(display_key(_field(name, content))).encode("utf-8", "replace")


_TEXT_KEYS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "SUBJECT": _subject_fact,
    "FROM": partial(_mailbox_fact, b"from"),
    "TO": partial(_mailbox_fact, b"to"),
    "CC": partial(_mailbox_fact, b"cc"),
    "DISPLAYFROM": partial(_display_fact, b"from"),  # RFC 5957
    "DISPLAYTO": partial(_display_fact, b"to"),
}
