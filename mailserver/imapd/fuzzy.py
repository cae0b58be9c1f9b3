"""FUZZY search keys over the messages of a mailbox, and their relevancy. RFC 6203; see `message.fuzzy`.

The text index says which messages may answer; each of these is read from it, or from the mailbox, and scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from mailserver.imapd.field_columns import field_values
from mailserver.imapd.progress import Progress
from mailserver.imapd.session import Session
from mailserver.message.fuzzy import FuzzyText
from mailserver.store.contract import Mailbox, Uid
from mailserver.wire.imap_search import InField, InText

_TEXTS: Final = 20  # messages whose text is in memory at once
_FIELDS: Final = 500

Scores = Mapping[Uid, tuple[int, ...]]  # of each key that a message answers


async def likely(
    session: Session, mailbox: Mailbox, key: InField | InText, uids: Sequence[Uid], progress: Progress
) -> dict[Uid, int]:
    """Those of the ascending UIDs that answer the key, ascending, with their scores."""
    wanted, found = FuzzyText(key.text), dict[Uid, int]()
    if isinstance(key, InText):
        candidates = await session.run(mailbox.may_hold, uids, wanted.pieces, key.where == "TEXT")
        progress.done += len(uids) - len(candidates)
        uids = candidates
    size = _TEXTS if isinstance(key, InText) else _FIELDS
    for start in range(0, len(uids), size):
        batch = uids[start : start + size]
        found.update(await session.run(_scored, mailbox, key, wanted, batch))
        progress.done += len(batch)
        await session.output.room()
    return found


def _scored(
    mailbox: Mailbox, key: InField | InText, wanted: FuzzyText, uids: Sequence[Uid]
) -> dict[Uid, int]:
    if isinstance(key, InText):
        texts = mailbox.texts(uids)
        scores = {
            uid: wanted.of_text(*texts[uid], with_header=key.where == "TEXT") for uid in uids if uid in texts
        }
    else:
        values = field_values(mailbox, key.name.lower(), uids)
        scores = {uid: wanted.of_value(values[uid].decode("utf-8")) for uid in uids if values.get(uid)}
    return {uid: score for uid, score in scores.items() if score}


def relevancy(scores: Scores, uid: Uid) -> int:
    """1 to 100: the mean over the keys; 100 for a message that answers without any. RFC 6203 §4."""
    own = scores.get(uid)
    return sum(own) // len(own) if own else 100
