"""The store of a user of the system: own mailboxes, public ones, and others' by way of their owners' hosts.

It stands before `store.sharing`'s store, which in a session host knows no account but its own. A name in the
namespace of other users goes to its owner's host (`owners`); all else stays here, and so do subscriptions.
Where one mailbox is here and one there, or both belong to different owners, COPY reads at one side and
appends at the other.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from mailserver.accounts.account import Account
from mailserver.guests.mailbox import GuestMailbox
from mailserver.guests.owners import Owners, OwnersMailboxes
from mailserver.store.acl import Acl, Rights
from mailserver.store.contract import (
    AccessKey,
    AccountStore,
    BadMailboxName,
    Folder,
    Mailbox,
    MailboxStatus,
    Namespaces,
    NoSuchMailbox,
    Quota,
    Reader,
    StoreError,
    StoreRegistry,
)
from mailserver.store.guarded import denied
from mailserver.store.names import checked_name
from mailserver.store.namespaces import NamespaceRules
from mailserver.store.sharing import SharingStore


class VisitingRegistry(StoreRegistry):
    """Stores with others' mailboxes. `sharers` names the owners that may share something; it blocks."""

    def __init__(
        self,
        stores: StoreRegistry,
        owners: Owners,
        sharers: Callable[[], Sequence[str]],
        rules: NamespaceRules,
        warn: Callable[[str], None],
    ) -> None:
        self.owners = owners
        self.sharers = sharers
        self.rules = rules
        self.warn = warn
        self._stores = stores

    def open(self, account: Account) -> AccountStore:
        """See `StoreRegistry.open`."""
        store = self._stores.open(account)
        assert isinstance(store, SharingStore)
        return VisitingStore(self, account, store)

    def close(self, store: AccountStore) -> None:
        """See `StoreRegistry.close`."""
        assert isinstance(store, VisitingStore)
        self._stores.close(store.near)


class VisitingStore(AccountStore):
    """See the module. `near` is the store behind the gate of this process."""

    keeps_acls = True

    def __init__(self, registry: VisitingRegistry, account: Account, near: SharingStore) -> None:
        self.near = near
        self.namespace = near.namespace
        self._registry = registry
        self._account = account

    # Whose a name is.

    def _user(self, name: str) -> str:
        """The other user whose mailbox it would be, "" for all other names. Blocks. Raises StoreError."""
        rules = self._registry.rules
        found = rules.user_of(name)
        if found is None or not all(found) or found[0] == self._account.name:
            return ""
        if rules.public_of(name) is not None or self.near.own.exists(checked_name(name)):
            return ""
        return found[0]

    def _far(self, name: str) -> OwnersMailboxes | None:
        """The owner's mailboxes, None where the name is to be looked for here. Raises StoreError."""
        user = self._user(name)
        return self._registry.owners.of(user) if user else None

    def namespaces(self) -> Namespaces:
        """See `AccountStore.namespaces`."""
        return self.near.namespaces()

    def home(self, name: str) -> tuple[Hashable, str]:
        """See `AccountStore.home`."""
        return self.near.home(name)

    def local_name(self, owner: Hashable, name: str) -> str | None:
        """See `AccountStore.local_name`."""
        return self.near.local_name(owner, name)

    # Opening.

    def exists(self, name: str) -> bool:
        """See `AccountStore.exists`."""
        try:
            far = self._far(name)
        except NoSuchMailbox:
            return False
        return self.near.exists(name) if far is None else far.exists(checked_name(name))

    def open(self, name: str) -> Mailbox:
        """See `AccountStore.open`."""
        far = self._far(name)
        return self.near.open(name) if far is None else far.open(checked_name(name), is_selected=True)

    def close(self, mailbox: Mailbox) -> None:
        """See `AccountStore.close`."""
        if isinstance(mailbox, GuestMailbox):
            mailbox.leave()
        else:
            self.near.close(mailbox)

    @contextmanager
    def borrow(self, name: str) -> Iterator[Mailbox]:
        """See `AccountStore.borrow`."""
        far = self._far(name)
        if far is None:
            with self.near.borrow(name) as mailbox:
                yield mailbox
            return
        borrowed = far.open(checked_name(name), is_selected=False)
        try:
            yield borrowed
        finally:
            borrowed.leave()

    def open_at_once(self, name: str) -> Mailbox | None:
        """See `AccountStore.open_at_once`: never another's."""
        return self.near.open_at_once(name)

    def close_at_once(self, mailbox: Mailbox) -> bool:
        """See `AccountStore.close_at_once`."""
        return not isinstance(mailbox, GuestMailbox) and self.near.close_at_once(mailbox)

    def status_at_once(self, name: str, with_size: bool = False) -> MailboxStatus | None:
        """See `AccountStore.status_at_once`."""
        return self.near.status_at_once(name, with_size)

    def stamp_at_once(self, name: str) -> Hashable | None:
        """See `AccountStore.stamp_at_once`."""
        return self.near.stamp_at_once(name)

    def status(self, name: str, with_size: bool = False, reader: Reader | None = None) -> MailboxStatus:
        """See `AccountStore.status`."""
        far = self._far(name)
        if far is None:
            return self.near.status(name, with_size, reader)
        return far.status(checked_name(name), with_size)

    # Names.

    def folders(self) -> Sequence[Folder]:
        """See `AccountStore.folders`; an owner who cannot be asked now is left out."""
        here = self.near.folders()
        taken = {folder.name for folder in here}
        found: dict[str, bool] = {}
        for owner in self._sharers():
            for folder in self._folders_of(owner):
                if folder.name not in taken:
                    found[folder.name] = found.get(folder.name, False) or folder.selectable
        for name in list(found):
            while "/" in name:
                name = name.rpartition("/")[0]
                if name not in taken:
                    found.setdefault(name, False)
        if not found:
            return here
        subscribed = set(self.subscriptions())
        parents = {name.rpartition("/")[0] for name in found}
        return [
            *here,
            *(
                Folder(name, found[name], name in parents, name in subscribed, is_personal=False)
                for name in sorted(found)
            ),
        ]

    def _sharers(self) -> Sequence[str]:
        try:
            return self._registry.sharers()
        except StoreError as error:
            self._registry.warn(f"{error}: {self._account.name} does not see what others share")
            return []

    def _folders_of(self, owner: str) -> Sequence[Folder]:
        try:
            return self._registry.owners.of(owner).folders()
        except NoSuchMailbox:
            return []
        except StoreError as error:
            self._registry.owners.leave_alone(owner)
            self._registry.warn(f"{owner}: {error}: not in the list of {self._account.name}")
            return []

    def set_subscribed(self, name: str, subscribed: bool) -> None:
        """See `AccountStore.set_subscribed`; others' names stand in the account's own list."""
        self.near.set_subscribed(name, subscribed)

    def subscriptions(self) -> Sequence[str]:
        """See `AccountStore.subscriptions`."""
        return self.near.subscriptions()

    def create(self, name: str, special_use: bytes = b"") -> None:
        """See `AccountStore.create`."""
        try:
            far = self._far(name)
        except NoSuchMailbox:
            raise denied() from None
        if far is None:
            self.near.create(name, special_use)
        else:
            far.create(checked_name(name), special_use)

    def delete(self, name: str) -> None:
        """See `AccountStore.delete`."""
        far = self._far(name)
        if far is None:
            self.near.delete(name)
        else:
            far.delete(checked_name(name))

    def rename(self, old: str, new: str) -> None:
        """See `AccountStore.rename`; a mailbox stays its owner's."""
        source = self._user(old)
        if source == self._user(new):
            if source:
                self._registry.owners.of(source).rename(checked_name(old), checked_name(new))
            else:
                self.near.rename(old, new)
            return
        if "x" not in self.my_rights(old):
            raise denied()
        raise BadMailboxName("A mailbox cannot be moved into another namespace")

    # Annotations, quota, maildrop.

    def annotations(self, name: str) -> Mapping[str, bytes]:
        """See `AccountStore.annotations`."""
        far = self._far(name)
        return self.near.annotations(name) if far is None else far.annotations(checked_name(name))

    def annotate(self, name: str, values: Mapping[str, bytes | None]) -> None:
        """See `AccountStore.annotate`."""
        far = self._far(name)
        if far is None:
            self.near.annotate(name, values)
        else:
            far.annotate(checked_name(name), values)

    def access_key(self, name: str) -> AccessKey | None:
        """See `AccountStore.access_key`; others' names stand in the account's own table."""
        return self.near.access_key(name)

    def make_access_key(self, name: str, uidvalidity: int, renew: bool = False) -> AccessKey:
        """See `AccountStore.make_access_key`."""
        return self.near.make_access_key(name, uidvalidity, renew)

    def remove_access_keys(self) -> None:
        """See `AccountStore.remove_access_keys`."""
        self.near.remove_access_keys()

    @contextmanager
    def store_of(self, user: str) -> Iterator[AccountStore | None]:
        """See `AccountStore.store_of`: another account's is not to be had here."""
        with self.near.store_of(user) as store:
            yield store

    @property
    def sets_quotas(self) -> bool:  # type: ignore[override]
        """See `AccountStore.sets_quotas`."""
        return self.near.sets_quotas

    def quota_of(self, user: str) -> Quota | None:
        """See `AccountStore.quota_of`."""
        return self.near.quota_of(user)

    def set_quota(self, user: str, octets: int, messages: int) -> None:
        """See `AccountStore.set_quota`."""
        self.near.set_quota(user, octets, messages)

    def quota(self) -> Quota | None:
        """See `AccountStore.quota`."""
        return self.near.quota()

    def lock_maildrop(self) -> Callable[[], None] | None:
        """See `AccountStore.lock_maildrop`."""
        return self.near.lock_maildrop()

    # ACLs.

    def my_rights(self, name: str) -> Rights:
        """See `AccountStore.my_rights`."""
        far = self._far(name)
        return self.near.my_rights(name) if far is None else far.my_rights(checked_name(name))

    def acl(self, name: str) -> Acl:
        """See `AccountStore.acl`."""
        far = self._far(name)
        return self.near.acl(name) if far is None else far.acl(checked_name(name))

    def owner(self, name: str) -> str:
        """See `AccountStore.owner`."""
        return self.near.owner(name)

    def change_acl(self, name: str, change: Callable[[Acl], Acl]) -> None:
        """See `AccountStore.change_acl`."""
        far = self._far(name)
        if far is None:
            self.near.change_acl(name, change)
        else:
            far.change_acl(checked_name(name), change)
