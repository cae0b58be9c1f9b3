"""The owner's mailboxes as a guest may use them: `store.sharing`'s gate, and behind it one account's mail."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mailserver.accounts.account import Account
from mailserver.store.acl import Person
from mailserver.store.contract import (
    AccessKey,
    AccountStore,
    Folder,
    Mailbox,
    MailboxStatus,
    NoSuchMailbox,
    Reader,
)
from mailserver.store.sharing import SharingRegistry, SharingStore


def store_of(guest: Person, owner: Account, sharing: SharingRegistry) -> tuple[AccountStore, str]:
    """The owner's mailboxes for the guest, and what their names begin with.

    `sharing` is the owner's own gate, which learns at once what the guest changes.
    """
    rules = sharing.rules
    registry = SharingRegistry(
        sharing.files,
        sharing.acls,
        sharing.boxes,
        lambda name: owner if name == owner.name else None,
        lambda account: frozenset(),
        type(rules)(rules.shared_prefix, (), rules.private_seen),
        sharing.global_acls,
    )
    account = Account(guest.name, -1, -1, "/", may_login=False)
    return SharingStore(registry, account, NoMailboxes(), guest), rules.prefix_of(owner.name)


def _none() -> NoSuchMailbox:
    return NoSuchMailbox("There is no such mailbox")


class NoMailboxes(AccountStore):
    """What a guest has of his own at the owner's: nothing."""

    def folders(self) -> Sequence[Folder]:
        """See `AccountStore.folders`."""
        return []

    def open(self, name: str) -> Mailbox:
        """See `AccountStore.open`."""
        raise _none()

    def close(self, mailbox: Mailbox) -> None:
        """See `AccountStore.close`."""
        raise _none()

    def create(self, name: str, special_use: bytes = b"") -> None:
        """See `AccountStore.create`."""
        raise _none()

    def delete(self, name: str) -> None:
        """See `AccountStore.delete`."""
        raise _none()

    def rename(self, old: str, new: str) -> None:
        """See `AccountStore.rename`."""
        raise _none()

    def set_subscribed(self, name: str, subscribed: bool) -> None:
        """See `AccountStore.set_subscribed`."""
        raise _none()

    def subscriptions(self) -> Sequence[str]:
        """See `AccountStore.subscriptions`."""
        return []

    def status(self, name: str, with_size: bool = False, reader: Reader | None = None) -> MailboxStatus:
        """See `AccountStore.status`."""
        raise _none()

    def annotations(self, name: str) -> Mapping[str, bytes]:
        """See `AccountStore.annotations`."""
        raise _none()

    def annotate(self, name: str, values: Mapping[str, bytes | None]) -> None:
        """See `AccountStore.annotate`."""
        raise _none()

    def access_key(self, name: str) -> AccessKey | None:
        """See `AccountStore.access_key`."""
        return None

    def make_access_key(self, name: str, uidvalidity: int, renew: bool = False) -> AccessKey:
        """See `AccountStore.make_access_key`."""
        raise _none()

    def remove_access_keys(self) -> None:
        """See `AccountStore.remove_access_keys`."""
        raise _none()

    def lock_maildrop(self) -> Callable[[], None] | None:
        """See `AccountStore.lock_maildrop`."""
        raise _none()
