"""The narrow seam between the index and what lies on disk: one mailbox in one format.

`store.mailbox.IndexedMailbox` implements the Mailbox contract once, for all formats: it
gives UIDs and modseqs, keeps them in `state.db`, and calls a `MailboxFormat` for the rest.
A format knows nothing of UIDs except those that a foreign program left (`Found.uid`).

A message is named by its `key`, which outlives flag changes, renames and rewrites by any
program: in a maildir the file name up to the colon, in an mbox the digest of everything
but the status fields, followed by `#n` for the n-th equal one. Where it lies at the moment
is its `place`, text that only the format understands (a file name; offset and length). The
index remembers places across restarts and hands them back in `load`.

All methods block. The caller holds the mailbox's in-process lock; locks against other
programs are the format's. Failures of the disk are OSError, locks that stay taken
`MailboxBusy`. A write returns after it is durable, data and directory entry.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mailserver.message.header import header_end
from mailserver.store.contract import Flags, MessageGone, NewMessage


@dataclass(frozen=True, slots=True)
class Found:
    """A message as it lies in the mailbox.

    `flags` are those stored beside the message. `uid` is one that another server
    gave it (X-UID, dovecot-uidlist), 0 where none did. `size` is in octets with CRLF line
    ends, None where it is not known without reading.
    """

    key: str
    place: str
    flags: Flags
    internal_date: int
    uid: int = 0
    size: int | None = None


class Known(NamedTuple):
    """A message as the index remembers it, handed to `MailboxFormat.load`."""

    key: str
    place: str
    flags: Flags


@dataclass(frozen=True, slots=True)
class Delta:
    """What changed in the mailbox since the last `load`, `poll` or write of ours.

    `added` is in mailbox order. `flags` holds only messages whose stored flags another program
    changed (a change of theirs wins over ours). `places` holds messages that lie elsewhere now.
    `token` is an opaque mark of the state seen, remembered across restarts: where it still
    fits at the next `load`, nothing need be scanned. A token that is not empty promises that all
    reported so far is durable; places reported without one are kept in memory until one comes.
    """

    added: Sequence[Found] = ()
    removed: Sequence[str] = ()
    flags: Mapping[str, Flags] | None = None
    places: Mapping[str, str] | None = None
    token: str = ""


@dataclass(frozen=True, slots=True)
class Adopted:
    """What another server left about the mailbox as a whole; zeros where it left nothing."""

    uidvalidity: int = 0
    uidnext: int = 0
    keywords: Sequence[bytes] = ()


class MailboxFormat(abc.ABC):
    """One mailbox on disk. `keys_are_file_names`: each message has a file, which is called by its key."""

    keys_are_file_names = False

    @abc.abstractmethod
    def load(self, known: Sequence[Known], token: str) -> None:
        """The format knows what the index remembers. Reads nothing yet."""

    @abc.abstractmethod
    def adopted(self) -> Adopted:
        """UIDVALIDITY, UIDNEXT and keywords that Dovecot or UW left. See also `foreign_uids`."""

    @abc.abstractmethod
    def poll(self) -> Delta | None:
        """What other programs did since; None, after a stat or two, where they did nothing.

        An outsider's half-written message is not reported before it is whole. A vanished
        mailbox is an empty one (mail clients remove empty spool files).
        """

    def has_news(self) -> bool:
        """Whether `poll` may find something: a stat or two, and nothing is read or waited for."""
        return True

    def is_at(self, token: str) -> bool:
        """Whether the mailbox is as it was when it gave that token (`Delta`): a stat or two."""
        return False

    def needs_settling(self) -> bool:
        """Whether `settle` would do anything. Looks at no disk."""
        return True

    def expect_news(self, path: str) -> None:
        """Something came into one of the watched paths: the next `poll` looks, whatever the times say.

        For any thread; waits for nothing.
        """
        return None

    @abc.abstractmethod
    def read(self, key: str) -> bytes:
        """The message, CRLF line ends, the format's own header fields (X-UID, Status, …) hidden.

        Raises MessageGone. Safe beside writes of other programs: never another message's bytes.
        """

    def contents(self, keys: Iterable[str]) -> Iterator[bytes | None]:
        """Each message as `read` gives it, None for one that is gone. Read when it is asked for."""
        for key in keys:
            try:
                yield self.read(key)
            except MessageGone:
                yield None

    def headers(self, keys: Iterable[str]) -> Iterator[bytes | None]:
        """As `contents`, of each message the header only, its blank line included."""
        for content in self.contents(keys):
            yield content[: header_end(content)] if content is not None else None

    @abc.abstractmethod
    def append(self, messages: Sequence[NewMessage]) -> tuple[Sequence[Found], Delta | None]:
        """All of the messages are durable in the mailbox, or none is; and what was noticed meanwhile.

        Delta reports other programs' changes found under the lock; it excludes the new messages.
        """

    @abc.abstractmethod
    def write_flags(self, flags: Mapping[str, Flags]) -> Delta | None:
        """The flags are stored beside the messages, as far and as soon as the format can.

        `state.db` has them already; an mbox may wait for the next rewrite where there is no room.
        """

    @abc.abstractmethod
    def remove(self, keys: Sequence[str], keeps: bool = True) -> Delta | None:
        """The messages are gone, durably. Those that were gone already are no error.

        A format that can bring back what was removed `keeps` it for that, unless told otherwise.
        """

    def link(self, source: MailboxFormat, flags: Mapping[str, Flags]) -> Sequence[Found] | None:
        """Copies of `source`'s messages, named by key, are here with these flags, durable, all or none.

        None where the two formats cannot share content: then the caller reads and appends.
        Raises MessageGone.
        """
        return None

    def export(self, uidvalidity: int, uidnext: int, uids: Mapping[str, int]) -> None:
        """Other servers' own index of this mailbox has these UIDs by key (ascending), where it has one."""
        return None

    def is_exported(self, uidvalidity: int, uidnext: int) -> bool:
        """Whether `export` would find that there is nothing to be done. A short read."""
        return True

    def foreign_mark(self) -> str:
        """Changes when another server gives UIDs here; "" where none ever did. A stat or a short read."""
        return ""

    def foreign_uids(self) -> Mapping[str, int]:
        """UIDs by key as another server left them; asked, with `adopted`, where the mark has changed."""
        return {}

    def leave(
        self, uidvalidity: int, uidnext: int, uids: Mapping[str, int], keywords: Sequence[bytes]
    ) -> Delta | None:
        """As `export`, and also where that means to write the mailbox anew: somebody asked for it."""
        self.export(uidvalidity, uidnext, uids)
        return None

    @abc.abstractmethod
    def settle(self) -> Delta | None:
        """What was put off is done (last session gone, CLOSE, stop): pending flags, foreign indexes."""

    @abc.abstractmethod
    def watched_paths(self) -> Sequence[str]:
        """Files and directories whose change means that `poll` has news, for inotify."""
