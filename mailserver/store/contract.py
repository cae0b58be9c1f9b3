"""The Mailbox contract: what imapd and pop3d may ask of a store, whatever it is made of.

The contract knows no paths. mbox and maildir implement it here; a store that is not files
can implement it elsewhere and run the same test suite (`tests/store/contract_suite.py`).

Names of mailboxes are `str` with `/` between levels; INBOX is always spelt `INBOX`. Message
content is `bytes` with CRLF line ends, the same octets for every reader: STAT, RFC822.SIZE
and what is sent agree because only the store converts line ends.

Threads. Methods marked *blocking* read disks, wait for locks and fsync: the services call
them through `mailserver.threads`. Any number of threads may call them; one in-process lock
per mailbox orders them. The attributes (`messages`, `uids`, `highest_modseq`, …) may be read
in the reactor's thread at any time: each is replaced or changed by single operations that
are atomic for a reader, and `Message` values are immutable.

Change and notice. Every change, ours or another program's, gets a modseq above all earlier
ones. Listeners get a bare hint in an unspecified thread-safe manner (see `subscribe`); they
then ask `changes_since`. A session keeps its own list of UIDs and decides when it may tell.

A success is returned after it is durable (P1); a UID is durable before it is visible (P6).
"""

from __future__ import annotations

import abc
import secrets
import sys
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple, NewType

from mailserver.accounts.account import Account
from mailserver.message.text import searchable
from mailserver.store.acl import ALL, Acl, Rights
from mailserver.wire.imap_namespace import NO_PREFIX, PersonalNamespace

Uid = NewType("Uid", int)
Modseq = NewType("Modseq", int)

SEEN: Final = b"\\Seen"
ANSWERED: Final = b"\\Answered"
FLAGGED: Final = b"\\Flagged"
DELETED: Final = b"\\Deleted"
DRAFT: Final = b"\\Draft"
SYSTEM_FLAGS: Final = (ANSWERED, FLAGGED, DELETED, SEEN, DRAFT)

Flags = frozenset[bytes]  # system flags in the spelling above, keywords as first spelt; never \Recent


class StoreError(Exception):
    """Something the client can be told. The text is public."""


class NoSuchMailbox(StoreError):
    """There is no mailbox of that name (for APPEND and COPY: TRYCREATE)."""


class MailboxExists(StoreError):
    """A mailbox of that name is there already."""


class BadMailboxName(StoreError):
    """The name cannot be a mailbox here. The text says why."""


class MessageGone(StoreError):
    """The message was expunged, by us or by another program."""


class OverQuota(StoreError):
    """The account's limit leaves no room."""


class MailboxBusy(StoreError):
    """Another program held the mailbox's lock for too long; try again (IN-USE)."""


class StoreFailure(StoreError):
    """A local fault: full disk, I/O error, rights. Temporary, never the client's doing."""


class AccessDenied(StoreError):
    """The mailbox's ACL does not allow that to this user (NOPERM), who knows that the mailbox exists."""


class MailboxReplaced(StoreError):
    """The mailbox lost its UIDs (UIDVALIDITY changed, or it was deleted): sessions must end with BYE."""


class AccessRevoked(MailboxReplaced):
    """The user may no longer read the mailbox that is open."""


class Message(NamedTuple):
    """What is known of a message without reading it. `internal_date` is POSIX seconds, UTC."""

    uid: Uid
    flags: Flags
    modseq: Modseq
    internal_date: int


class StoreMode(Enum):
    """What a STORE does with the flags that it names."""

    ADD = "+"
    REMOVE = "-"
    REPLACE = ""


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened since a modseq, up to `highest_modseq`.

    `expunged` and `changed` are ascending; `changed` holds old messages with new flags and new
    messages alike. `complete` is false where the memory of expunges does not reach back that
    far: then `expunged` lists every UID below uidnext that is not in the mailbox (RFC 7162 §3.2.5.2
    allows it).
    """

    highest_modseq: Modseq
    changed: Sequence[Uid] = ()
    expunged: Sequence[Uid] = ()
    complete: bool = True


@dataclass(frozen=True, slots=True)
class FlagsChanged:
    """What a STORE did: `changed` got new flags, `modified` failed UNCHANGEDSINCE (RFC 7162 §3.1.3)."""

    changed: Sequence[Uid] = ()
    modified: Sequence[Uid] = ()


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to be stored. `content` has CRLF line ends; `internal_date` None means now."""

    content: bytes
    flags: Flags = frozenset()
    internal_date: int | None = None


class Reader(NamedTuple):
    r"""A user whose \Seen in a mailbox is his own, by name.

    A message of which he never said so is \Seen for him where it is for all and he `starts_with_common`.
    """

    name: str
    starts_with_common: bool


@dataclass(eq=False, slots=True)
class Sleeping:
    """What is known of a mailbox whose messages are not in memory; none of them is \\Recent.

    `first_unseen` is a sequence number, 0 where all are seen; `size` None where it is not known of a
    message. `uids` are those that the mailbox had at `modseq`, there once it woke.
    """

    modseq: Modseq
    uidnext: Uid
    messages: int
    unseen: int
    deleted: int
    first_unseen: int
    size: int | None
    uids: Sequence[int] | None = None


class Mailbox(abc.ABC):
    """One mailbox of one account, shared by every session of this process that has it open.

    `rights` is what its user may do with it, as far as was known last. A mailbox that a user may not
    read (a target of APPEND, say) has attributes that raise AccessDenied.
    """

    rights: Rights = ALL
    is_guarded: bool = False  # whether `rights` can change while it is open

    name: str
    uidvalidity: int
    uidnext: Uid
    highest_modseq: Modseq
    messages: Mapping[Uid, Message]
    uids: Sequence[Uid]  # ascending
    keywords: Sequence[bytes]  # those in use, in the order of first use
    mailbox_id: str  # RFC 8474; survives a rename
    sleeping: Sleeping | None = None  # until somebody asks for `messages` or `uids`, or there is news

    def wake(self) -> None:  # noqa: B027  (nothing to be done where none sleeps)
        """`messages` and `uids` are in memory: asking for them does not block. *Blocking.*"""

    def check_rights(self) -> None:  # noqa: B027  (nothing to be done where nobody has an ACL)
        """`rights` is what the ACL says now. *Blocking.*"""

    def as_target(self) -> Target:
        """Where copies really go. Raises AccessDenied. *Blocking.*"""
        return Target(self)

    def seen_by(self, reader: Reader) -> Mailbox:
        r"""The mailbox as that user sees it, with a \Seen of his own; itself in a store that keeps none.

        Until it was told to `wake`, it is good for `append` and as a target alone.
        """
        return self

    @abc.abstractmethod
    def subscribe(self, listener: Callable[[], None]) -> None:
        """`listener` is called after every change, in the thread that made it.

        A session's listener does nothing but `reactor.callFromThread` (coalesced).
        """

    @abc.abstractmethod
    def unsubscribe(self, listener: Callable[[], None]) -> None:
        """The listener is not called again. No error where it was not subscribed."""

    @abc.abstractmethod
    def changes_since(self, modseq: Modseq) -> Changes:
        """All changes with a modseq above `modseq`. Answered from memory where it is recent."""

    @abc.abstractmethod
    def refresh(self) -> bool:
        """What other programs did is known, numbered and durable; true where there was anything.

        *Blocking.* Cheap where nothing changed (a stat or two). Raises MailboxReplaced.
        """

    def is_current(self) -> bool:
        """Whether `refresh` would find nothing now: a stat or two. False also where that cannot be told.

        Blocks for nothing: for the reactor's thread, which may then spare itself a thread.
        """
        return False

    @abc.abstractmethod
    def claim_recent(self) -> range:
        """The UIDs that are \\Recent to this caller alone: all that nobody claimed yet. RFC 3501 §2.3.2.

        *Blocking.* An empty answer, too, stops where those begin that came later.
        """

    @abc.abstractmethod
    def peek_recent(self) -> Uid:
        """The first UID that `claim_recent` would give, not claimed (EXAMINE, STATUS)."""

    @abc.abstractmethod
    def read(self, uid: Uid) -> bytes:
        """The whole message, CRLF line ends. *Blocking.* Raises MessageGone, StoreFailure."""

    def expunged_message(self, uid: Uid) -> Message | None:
        """What was known of a message that was expunged lately; None where it is not remembered."""
        return None

    def read_batch(self, uids: Sequence[Uid], most: int) -> tuple[int, Mapping[Uid, bytes]]:
        """The first of the messages, as `read` gives them, until they hold `most` octets or more.

        And of how many of `uids` that is. Gone messages are left out. *Blocking.*
        """
        contents: dict[Uid, bytes] = {}
        octets = taken = 0
        for taken, uid in enumerate(uids, 1):  # noqa: B007
            try:
                contents[uid] = self.read(uid)
            except MessageGone:
                continue
            octets += len(contents[uid])
            if octets >= most:
                break
        return taken, contents

    @abc.abstractmethod
    def sizes(self, uids: Sequence[Uid]) -> Mapping[Uid, int]:
        """Octets of each message as `read` gives it; gone ones are left out. *Blocking*, cached."""

    @abc.abstractmethod
    def save_dates(self, uids: Sequence[Uid]) -> Mapping[Uid, int]:
        """When each message came into this mailbox, POSIX seconds; gone ones are left out. *Blocking.*

        By APPEND, COPY or MOVE, or when it was first seen here. RFC 8514 §2.
        """

    def file_names(self, uids: Sequence[Uid]) -> Mapping[Uid, str]:
        """Names of the files that hold the messages, without flags: a maildir's base names.

        They are Dovecot's GUIDs too. Messages that share a file, or are gone, are left out.
        """
        return {}

    @abc.abstractmethod
    def facts(
        self, uids: Sequence[Uid], make: Callable[[bytes], bytes], kind: str, of_header: bool = False
    ) -> Mapping[Uid, bytes]:
        """`make(content)` for each message, remembered in the droppable cache under `kind`.

        The services use it for ENVELOPE, BODYSTRUCTURE and header blocks, rendered once as wire
        bytes. `kind` names the renderer and its version ("envelope.1"). `of_header`: `make` is given
        the header alone, its blank line included. Gone messages are left
        out. *Blocking*; one batch read of the cache, one batch write of what was missing.
        """

    @abc.abstractmethod
    def known_facts(self, uids: Sequence[Uid], kind: str) -> Mapping[Uid, bytes]:
        """Those of `facts` that are remembered: nothing is read or made. *Blocking*, but not for long."""

    def search_text(
        self, uids: Sequence[Uid], needle: str, with_header: bool
    ) -> tuple[Sequence[Uid], Sequence[Uid]]:
        """Those of the messages that hold the text, and those of which that is not known.

        `needle` and the messages are compared as `message.text.searchable` gives them: decoded and
        folded. The body is searched, or also `with_header`. *Blocking.* A store without a text index
        knows nothing.
        """
        return [], uids

    def may_hold(
        self, uids: Sequence[Uid], pieces: Sequence[Sequence[str]], with_header: bool
    ) -> Sequence[Uid]:
        """All of the messages that hold one of the pieces of each group, and perhaps others.

        The text is `message.text.searchable`'s, accents taken away from it and from the pieces. *Blocking.*
        """
        return uids

    def texts(self, uids: Sequence[Uid]) -> Mapping[Uid, tuple[str, str]]:
        """Headers and body of each message as `message.text.searchable` gives them; gone ones are left out.

        Of a very long message perhaps only the start. *Blocking.*
        """
        _, contents = self.read_batch(uids, sys.maxsize)
        return {uid: searchable(content) for uid, content in contents.items()}

    @abc.abstractmethod
    def append(self, messages: Sequence[NewMessage]) -> Sequence[Uid]:
        """All of the messages are in the mailbox, durable, with ascending UIDs, or none is.

        *Blocking.* Raises OverQuota, MailboxBusy, StoreFailure.
        """

    @abc.abstractmethod
    def change_flags(
        self,
        uids: Sequence[Uid],
        flags: Flags,
        mode: StoreMode,
        unchanged_since: Modseq | None = None,
    ) -> FlagsChanged:
        """The flags are durable, under one new modseq. Gone messages are left out. *Blocking.*"""

    @abc.abstractmethod
    def expunge(self, uids: Sequence[Uid] | None = None) -> Sequence[Uid]:
        """The messages with \\Deleted (of `uids` only, where given) are gone for good; their UIDs.

        *Blocking.* RFC 3501 §6.4.3, RFC 4315 §2.1.
        """

    @abc.abstractmethod
    def remove(self, uids: Sequence[Uid]) -> Sequence[Uid]:
        """The messages are gone for good, \\Deleted or not (POP3 QUIT); those that were there. *Blocking.*"""

    @abc.abstractmethod
    def copy(self, uids: Sequence[Uid], target: Mailbox) -> Sequence[tuple[Uid, Uid]]:
        """Copies are in `target` with flags, keywords and internal date; (source, new) pairs in order.

        All or none. *Blocking.* RFC 3501 §6.4.7.
        """

    @abc.abstractmethod
    def move(self, uids: Sequence[Uid], target: Mailbox) -> Sequence[tuple[Uid, Uid]]:
        """As `copy`, and the sources are gone. At no moment is a message in neither. RFC 6851."""


def _all_flags(flags: Flags) -> Flags:
    return flags


@dataclass(frozen=True, slots=True)
class Target:
    r"""Where copies really go: the mailbox, which flags go with them, and whose alone \Seen then is."""

    mailbox: Mailbox
    keep: Callable[[Flags], Flags] = _all_flags
    reader: str | None = None


@dataclass(frozen=True, slots=True)
class Folder:
    """A name in LIST's answer. `selectable` is false for a level that only has children."""

    name: str
    selectable: bool = True
    has_children: bool = False
    subscribed: bool = False
    special_use: bytes = b""  # b"\\Sent" …; RFC 6154
    is_personal: bool = True  # else another user's, or everybody's


@dataclass(frozen=True, slots=True)
class Namespaces:
    """The prefixes of mailbox names, each with its separator's level behind it. RFC 2342."""

    personal: Sequence[str] = ("",)
    other_users: Sequence[str] = ()
    shared: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class MailboxStatus:
    """STATUS's figures. `size` is the sum of RFC822.SIZE (RFC 8438); None where it was not asked for."""

    messages: int
    recent: int
    uidnext: Uid
    uidvalidity: int
    unseen: int
    highest_modseq: Modseq
    deleted: int = 0
    size: int | None = None
    mailbox_id: str = ""


@dataclass(frozen=True, slots=True)
class Quota:
    """What an account stores, in octets and messages, and what it may; a limit of 0 is none. RFC 9208."""

    octets: int
    messages: int
    octet_limit: int = 0
    message_limit: int = 0


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A mailbox access key, of the mailbox that has this UIDVALIDITY. RFC 4467 §2.3."""

    uidvalidity: int
    key: bytes

    @classmethod
    def random(cls, uidvalidity: int) -> AccessKey:
        """A key that nobody can guess."""
        return cls(uidvalidity, secrets.token_bytes(32))


class AccountStore(abc.ABC):
    """All mailboxes of one account, opened once per process and shared by its sessions.

    All methods are *blocking* unless they say otherwise.
    """

    namespace: PersonalNamespace = NO_PREFIX  # what clients are told; names here have no prefix
    keeps_acls: bool = False  # whether others can be given rights

    def namespaces(self) -> Namespaces:
        """Where mailboxes are. Does not block."""
        return Namespaces()

    def home(self, name: str) -> tuple[Hashable, str]:
        """Whose mailbox that is, as a value, and its name there. Does not block."""
        return self, name

    def is_own(self, name: str) -> bool:
        """Whether the name, there or not, is one of the account's own."""
        return self.home(name)[0] == self.home("")[0]

    def local_name(self, owner: Hashable, name: str) -> str | None:
        """What the account calls the mailbox that `home` gave; None where it has no name for it."""
        return name if owner is self else None

    # Access control lists, RFC 4314.

    def my_rights(self, name: str) -> Rights:
        """What the account's user may do with the mailbox. Raises NoSuchMailbox."""
        self.status(name)
        return ALL

    def acl(self, name: str) -> Acl:
        """The mailbox's ACL, its owner's implied rights included. Raises NoSuchMailbox, AccessDenied."""
        raise AccessDenied("There are no access control lists here")

    def owner(self, name: str) -> str:
        """The account whose mailbox that is; "" where it is nobody's. Does not block."""
        return ""

    def change_acl(self, name: str, change: Callable[[Acl], Acl]) -> None:
        """The ACL is what `change` made of it, durable. Raises NoSuchMailbox, AccessDenied, BadAcl."""
        raise AccessDenied("There are no access control lists here")

    @abc.abstractmethod
    def folders(self) -> Sequence[Folder]:
        """Every mailbox and every parent level, INBOX first, then by name; `subscribed` filled in."""

    def exists(self, name: str) -> bool:
        """Whether there is a mailbox of that name, not only a level."""
        return any(folder.name == name and folder.selectable for folder in self.folders())

    @abc.abstractmethod
    def open(self, name: str) -> Mailbox:
        """The mailbox, refreshed. Each open is given back with `close`.

        Raises NoSuchMailbox, BadMailboxName, MailboxBusy, StoreFailure.
        """

    @abc.abstractmethod
    def close(self, mailbox: Mailbox) -> None:
        """One user of the mailbox less. It may stay in memory for the next."""

    def open_at_once(self, name: str) -> Mailbox | None:
        """As `open`, where the mailbox is in memory and current; else None. Blocks for nothing."""
        return None

    def close_at_once(self, mailbox: Mailbox) -> bool:
        """As `close`, where nothing need be done for it; else false: `close` is due. Blocks for nothing."""
        return False

    @contextmanager
    def borrow(self, name: str) -> Iterator[Mailbox]:
        """The mailbox, refreshed, for one piece of work in this thread.

        As `open` with `close` behind it; a store may spare what serves longer stays.
        """
        mailbox = self.open(name)
        try:
            yield mailbox
        finally:
            self.close(mailbox)

    @abc.abstractmethod
    def create(self, name: str, special_use: bytes = b"") -> None:
        """The mailbox is there, its parents too. Raises MailboxExists, BadMailboxName."""

    @abc.abstractmethod
    def delete(self, name: str) -> None:
        """The mailbox and its messages are gone; children stay.

        Raises NoSuchMailbox; BadMailboxName for INBOX.
        """

    @abc.abstractmethod
    def rename(self, old: str, new: str) -> None:
        """Mailbox and children have the new name, UIDs kept. INBOX: its messages move. RFC 3501 §6.3.5."""

    @abc.abstractmethod
    def set_subscribed(self, name: str, subscribed: bool) -> None:
        """The subscription list is changed and durable. The mailbox need not exist."""

    @abc.abstractmethod
    def subscriptions(self) -> Sequence[str]:
        """Subscribed names, existing or not, sorted."""

    @abc.abstractmethod
    def status(self, name: str, with_size: bool = False, reader: Reader | None = None) -> MailboxStatus:
        """The figures, refreshed, without opening the mailbox to a client; UNSEEN as that reader has it."""

    def status_at_once(self, name: str, with_size: bool = False) -> MailboxStatus | None:
        """As `status`, where the mailbox is in memory and current; else None. Blocks for nothing."""
        return None

    def stamp_at_once(self, name: str) -> Hashable | None:
        """What is equal to an earlier answer only where `status` would say the same, `size` aside.

        None where that cannot be told at once. Blocks for nothing.
        """
        return None

    @abc.abstractmethod
    def annotations(self, name: str) -> Mapping[str, bytes]:
        """Values by entry, of a mailbox, or for "" of the account. Raises NoSuchMailbox. RFC 5464."""

    @abc.abstractmethod
    def annotate(self, name: str, values: Mapping[str, bytes | None]) -> None:
        """The entries have these values, durable, all or none; None removes one.

        They follow the mailbox's renaming and go with it. Raises NoSuchMailbox.
        """

    # What URLs of the account are proved by, RFC 4467.

    @abc.abstractmethod
    def access_key(self, name: str) -> AccessKey | None:
        """The account's key for that name, whether or not there is such a mailbox, its own or another's."""

    @abc.abstractmethod
    def make_access_key(self, name: str, uidvalidity: int, renew: bool = False) -> AccessKey:
        """The key that the mailbox has, durable: a new one where it had none, or has to get another."""

    @abc.abstractmethod
    def remove_access_keys(self) -> None:
        """The account has no keys, durably: none of its URLs proves anything any more."""

    @contextmanager
    def store_of(self, user: str) -> Iterator[AccountStore | None]:
        """What that user's own sessions reach, for one piece of work; None where it is not to be had here."""
        yield None

    sets_quotas: bool = False  # whether the account may change limits, its own and others'

    def quota_of(self, user: str) -> Quota | None:
        """Another account's figures. Raises AccessDenied, NoSuchMailbox where there is no such account."""
        raise AccessDenied("That is another account's quota")

    def set_quota(self, user: str, octets: int, messages: int) -> None:
        """The account ("" for this one) has these limits, 0 for none, durably. Raises as `quota_of`."""
        raise AccessDenied("The administrator sets quota, with userdb_quota_rule in the passwd-file.")

    def quota(self) -> Quota | None:
        """The account's figures; None where nothing is limited."""
        return None

    @abc.abstractmethod
    def lock_maildrop(self) -> Callable[[], None] | None:
        """POP3's exclusive lock on INBOX among POP3 sessions; call the answer to release. None: taken.

        Never a lock that a delivery waits for. RFC 1939 §3.
        """


class StoreRegistry(abc.ABC):
    """The stores of this process, one per account with sessions."""

    @abc.abstractmethod
    def open(self, account: Account) -> AccountStore:
        """The account's store, shared. Given back with `close`. *Blocking.* Raises StoreError."""

    def is_known(self, account: Account) -> bool:
        """Whether the account's store was ever opened, by this process or another. *Blocking.*"""
        return True

    @abc.abstractmethod
    def close(self, store: AccountStore) -> None:
        """One session less; databases of idle accounts are closed after a while."""
