"""The gate: everything that a session reaches of mail passes here, and its ACL decides.

A `SharingStore` stands before the stores of `store.account`, one for each account with sessions. An own
mailbox without an ACL is given as it is; one with an ACL, and all of others, as `GuardedMailbox`. What a
user may not look up does not exist for him: every answer about it is the one about a name that
nobody has. RFC 4314 §4 and §6.

Where the account has a mailbox of its own whose name lies in another namespace, from before there was
one, that mailbox stays what the name means.

CREATE gives a mailbox its parent's ACL. A crash behind it leaves a mailbox that only its owner sees.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from mailserver.accounts.account import Account, TemporaryAccountFailure
from mailserver.store.acl import ALL, NONE, OWNER, OWNER_KEEPS, Acl, Identifier, Kind, Person, Rights
from mailserver.store.acl_files import UNREADABLE, AclFiles
from mailserver.store.contract import (
    AccessDenied,
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
    StoreFailure,
    StoreRegistry,
)
from mailserver.store.global_acls import GlobalAcls
from mailserver.store.guarded import GuardedMailbox, denied
from mailserver.store.names import INBOX, checked_name
from mailserver.store.namespaces import PUBLIC, NamespaceRules
from mailserver.store.quota_rules import Limits
from mailserver.store.shared_boxes import SharedBoxes

Lookup = Callable[[str], Account | None]
_ANY: Final = frozenset("lrikxa")  # MYRIGHTS takes one of these
_SHOWN: Final = frozenset("rswip")  # RFC 5464 §3.3: one of these and `l`
_PRIVATE: Final = "/private/"
_OTHERS: Final = "/others/"  # where a mailbox's annotations that are private to another user are kept


def _no_such() -> NoSuchMailbox:
    return NoSuchMailbox("There is no such mailbox")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a name leads: whose mailbox it is, and its name there ("" for a namespace itself)."""

    account: Account
    name: str
    is_own: bool

    @property
    def is_public(self) -> bool:
        return PUBLIC in self.account.extra


class SharingRegistry(StoreRegistry):
    """Stores behind the gate. `files` has those of all accounts, shared by whoever may reach them.

    `groups_of` gives the groups that ACLs may name. `lookup` finds other users; it blocks.
    """

    def __init__(
        self,
        files: StoreRegistry,
        acls: AclFiles,
        boxes: SharedBoxes,
        lookup: Lookup,
        groups_of: Callable[[Account], frozenset[str]],
        rules: NamespaceRules,
        global_acls: GlobalAcls | None = None,
        limit: Callable[[Account, Limits], None] | None = None,
        reaches_all: bool = True,
    ) -> None:
        """`limit` gives an account quota limits, durably; it blocks, and raises StoreError.

        `reaches_all`: the mail of every account is this process's to read.
        """
        self.limit = limit
        self.reaches_all = reaches_all
        self.files = files
        self.global_acls = global_acls or GlobalAcls()
        self.acls = acls
        self.boxes = boxes
        self.rules = rules
        self._lookup = lookup
        self._groups_of = groups_of
        self.public = {each.prefix: each.account() for each in rules.public}

    def open(self, account: Account) -> AccountStore:
        """See `StoreRegistry.open`."""
        person = Person(account.name, self._groups_of(account))
        return SharingStore(self, account, self.files.open(account), person)

    def close(self, store: AccountStore) -> None:
        """See `StoreRegistry.close`."""
        assert isinstance(store, SharingStore)
        self.files.close(store.own)

    def account(self, user: str) -> Account | None:
        """The user's account. Raises StoreFailure."""
        try:
            return self._lookup(user)
        except TemporaryAccountFailure as error:
            raise StoreFailure("The accounts cannot be read for now") from error

    @contextmanager
    def borrow(self, account: Account) -> Iterator[AccountStore]:
        """The store of another account, or of a namespace, for one piece of work."""
        store = self.files.open(account)
        try:
            yield store
        finally:
            self.files.close(store)


class SharingStore(AccountStore):
    """See the module. `own` is the account's own store."""

    keeps_acls = True

    def __init__(
        self, registry: SharingRegistry, account: Account, own: AccountStore, person: Person
    ) -> None:
        self.own = own
        self.namespace = replace(own.namespace, others=registry.rules.roots)
        self._registry = registry
        self._rules = registry.rules
        self._acls = registry.acls
        self._global = registry.global_acls
        self._account = account
        self._person = person

    # Whose a name is.

    def _find(self, name: str) -> _Place | None:
        """Where the name leads; None where it leads nowhere. Raises StoreFailure, BadMailboxName."""
        name = checked_name(name)
        public, user = self._rules.public_of(name), self._rules.user_of(name)
        if (public is None and user is None) or self.own.exists(name):
            return _Place(self._account, name, is_own=True)
        if public is not None:
            return self._in(self._registry.public[public.prefix], name[len(public.prefix) :])
        assert user is not None
        account = self._registry.account(user[0]) if user[1] else None
        if account is None or account.name != user[0]:
            return None
        return self._in(account, user[1])

    def _in(self, account: Account, name: str) -> _Place:
        return _Place(account, checked_name(name) if name else "", account.name == self._account.name)

    def _place(self, name: str) -> _Place:
        place = self._find(name)
        if place is None or not place.name:
            raise _no_such()
        return place

    def _prefix(self, account: Account) -> str | None:
        """What the names of the account's mailboxes begin with here; None where they have no names."""
        if account.name == self._account.name:
            return ""
        if PUBLIC in account.extra:
            return account.extra[PUBLIC]
        return self._rules.prefix_of(account.name) if self._rules.shared_prefix else None

    def namespaces(self) -> Namespaces:
        """See `AccountStore.namespaces`."""
        shared = self._rules.shared_root
        return Namespaces(
            other_users=[shared] if shared else [], shared=[each.prefix for each in self._rules.public]
        )

    def home(self, name: str) -> tuple[Hashable, str]:
        """See `AccountStore.home`."""
        public, user = self._rules.public_of(name), self._rules.user_of(name)
        if (public is None and user is None) or self.own.exists(name):
            return self._account.name, name
        if public is not None:
            return self._registry.public[public.prefix].name, name[len(public.prefix) :]
        assert user is not None
        return user

    def local_name(self, owner: Hashable, name: str) -> str | None:
        """See `AccountStore.local_name`."""
        if owner == self._account.name:
            return name
        for prefix, account in self._registry.public.items():
            if account.name == owner:
                return prefix + name
        return self._rules.prefix_of(str(owner)) + name if self._rules.shared_prefix else None

    # Rights.

    def _acl(self, place: _Place) -> Acl:
        """The mailbox's, under what the administrator says of it by its name here."""
        prefix = self._prefix(place.account) or ""
        name = self.namespace.told(place.name) if place.is_own else prefix + place.name
        above = self._global.of(name)
        return self._own_acl(place).under(above)

    def _own_acl(self, place: _Place) -> Acl:
        if not place.is_public:
            return self._acls.read(place.account, place.name)
        default = self._acls.default(place.account)
        if not place.name or default is UNREADABLE:
            return default
        acl = self._acls.read(place.account, place.name)
        return acl if acl is UNREADABLE else acl.over(default)

    def _rights(self, place: _Place) -> Rights:
        acl = self._acl(place)
        if not acl:
            return ALL if place.is_own else NONE
        return acl.rights_of(self._person, place.is_own)

    def _require(self, place: _Place, needed: str) -> Rights:
        """The rights, which are all of these. Raises AccessDenied, NoSuchMailbox where it may not be seen."""
        rights = self._rights(place)
        if not set(needed) <= rights:
            raise denied() if "l" in rights and self._exists(place) else _no_such()
        return rights

    def _exists(self, place: _Place) -> bool:
        if place.is_own:
            return self.own.exists(place.name)
        with self._registry.borrow(place.account) as store:
            return store.exists(place.name)

    def _require_parent(self, place: _Place) -> Acl:
        """The ACL that a new mailbox there inherits. Raises AccessDenied. RFC 4314 §4: `k`."""
        above = place.name
        while "/" in above:
            above = above.rpartition("/")[0]
            parent = replace(place, name=above)
            if self._acls.read(place.account, above) or self._exists(parent):
                if "k" not in self._rights(parent):
                    raise denied()
                return self._acls.read(place.account, above)
        if not place.is_own and "k" not in self._rights(replace(place, name="")):
            raise denied()
        return Acl()

    @contextmanager
    def _store(self, place: _Place) -> Iterator[AccountStore]:
        if place.is_own:
            yield self.own
        else:
            with self._registry.borrow(place.account) as store:
                yield store

    def exists(self, name: str) -> bool:
        """See `AccountStore.exists`; what cannot be looked up does not."""
        place = self._find(name)
        return place is not None and bool(place.name) and "l" in self._rights(place) and self._exists(place)

    # Opening.

    def open(self, name: str) -> Mailbox:
        """See `AccountStore.open`; `r` is needed."""
        place = self._place(name)
        if self._is_all_own(place):
            return self.own.open(place.name)
        self._require(place, "r")
        store = self.own if place.is_own else self._registry.files.open(place.account)
        try:
            mailbox = store.open(place.name)
        except BaseException:
            self._give_back(place, store)
            raise

        def leave() -> None:
            try:
                store.close(mailbox)
            finally:
                self._give_back(place, store)

        try:
            guarded = self._guarded(place, mailbox, leave)
            if self._reader(place) is not None:
                guarded.wake()
        except BaseException:
            leave()
            raise
        return guarded

    def open_at_once(self, name: str) -> Mailbox | None:
        """See `AccountStore.open_at_once`: an own mailbox without an ACL."""
        return self.own.open_at_once(name) if self._is_free(name) else None

    def close_at_once(self, mailbox: Mailbox) -> bool:
        """See `AccountStore.close_at_once`."""
        return not isinstance(mailbox, GuardedMailbox) and self.own.close_at_once(mailbox)

    def status_at_once(self, name: str, with_size: bool = False) -> MailboxStatus | None:
        """See `AccountStore.status_at_once`: of an own mailbox without an ACL."""
        return self.own.status_at_once(name, with_size) if self._is_free(name) else None

    def stamp_at_once(self, name: str) -> Hashable | None:
        """See `AccountStore.stamp_at_once`: of an own mailbox without an ACL."""
        return self.own.stamp_at_once(name) if self._is_free(name) else None

    def _is_free(self, name: str) -> bool:
        """Whether the name is an own mailbox's and has no ACL; access(2), for the reactor's thread."""
        if name.startswith(self._rules.roots) or self._global.of(self.namespace.told(name)):
            return False
        return self._acls.has_none(self._account, name)

    def _is_all_own(self, place: _Place) -> bool:
        """Whether nobody but the owner has to do with it, and he may do everything."""
        return place.is_own and not self._acl(place)

    def _give_back(self, place: _Place, store: AccountStore) -> None:
        if not place.is_own:
            self._registry.files.close(store)

    def _reader(self, place: _Place) -> Reader | None:
        r"""The user, where \Seen is each reader's own there. A public namespace's starts as it is for all."""
        if place.is_own or not self._rules.has_private_seen(place.account.extra.get(PUBLIC)):
            return None
        return Reader(self._person.name, starts_with_common=place.is_public)

    def _guarded(self, place: _Place, mailbox: Mailbox, leave: Callable[[], None]) -> GuardedMailbox:
        prefix = self._prefix(place.account) or ""
        reader = self._reader(place)
        seen = mailbox if reader is None else mailbox.seen_by(reader)

        def look() -> Rights:
            return self._rights(replace(place, name=mailbox.name))

        return GuardedMailbox(seen, lambda inner: prefix + inner, look, lambda: self._acls.generation, leave)

    def close(self, mailbox: Mailbox) -> None:
        """See `AccountStore.close`."""
        if isinstance(mailbox, GuardedMailbox):
            mailbox.leave()
        else:
            self.own.close(mailbox)

    @contextmanager
    def borrow(self, name: str) -> Iterator[Mailbox]:
        """See `AccountStore.borrow`; `r` or `i` is needed, and each use of the mailbox takes its right."""
        place = self._place(name)
        if self._is_all_own(place):
            with self.own.borrow(place.name) as mailbox:
                yield mailbox
            return
        if not self._rights(place) & {"r", "i"}:
            self._require(place, "i")
        with self._store(place) as store, store.borrow(place.name) as mailbox:
            yield self._guarded(place, mailbox, lambda: None)

    def status(self, name: str, with_size: bool = False, reader: Reader | None = None) -> MailboxStatus:
        """See `AccountStore.status`; `r` is needed."""
        place = self._place(name)
        self._require(place, "r")
        with self._store(place) as store:
            return store.status(place.name, with_size, reader or self._reader(place))

    # Names.

    def folders(self) -> Sequence[Folder]:
        """See `AccountStore.folders`: the account's own, and of others those with `l`."""
        own = self.own.folders()
        found = self._others({folder.name for folder in own})
        if not found:
            return own
        subscribed = set(self.own.subscriptions())
        parents = {name.rpartition("/")[0] for name in found}
        return [
            *own,
            *(
                Folder(name, found[name], name in parents, name in subscribed, is_personal=False)
                for name in sorted(found)
            ),
        ]

    def _others(self, taken: set[str]) -> dict[str, bool]:
        """The mailboxes of others, by the names that they have here, and the levels above them (false)."""
        found: dict[str, bool] = {}
        for account in self._sharers():
            prefix = self._prefix(account)
            assert prefix is not None
            try:
                names = self._acls.names(account)
            except StoreError as error:  # the own ones are listed all the same
                self._acls.warn(f"{account.name}: {error}: not in the list of {self._person.name}")
                continue
            for name in (name for name, is_mailbox in names.items() if is_mailbox):
                if prefix + name not in taken and "l" in self._rights(_Place(account, name, is_own=False)):
                    found[prefix + name] = True
        for name in list(found):
            while "/" in name:
                name = name.rpartition("/")[0]
                if name not in taken:
                    found.setdefault(name, False)
        return found

    def _sharers(self) -> Iterator[Account]:
        """Namespaces and accounts that may have something for this one."""
        yield from self._registry.public.values()
        if not self._rules.shared_prefix:
            return
        try:
            for user in self._registry.boxes.owners_for(self._person):
                account = self._registry.account(user)
                if account is not None and account.name != self._account.name:
                    yield account
        except StoreError as error:
            self._acls.warn(f"{error}: {self._person.name} does not see what others share")

    def set_subscribed(self, name: str, subscribed: bool) -> None:
        """See `AccountStore.set_subscribed`; others' names stand in the account's own list."""
        self.own.set_subscribed(name, subscribed)

    def subscriptions(self) -> Sequence[str]:
        """See `AccountStore.subscriptions`."""
        return self.own.subscriptions()

    # Changing folders.

    def create(self, name: str, special_use: bytes = b"") -> None:
        """See `AccountStore.create`; `k` on the nearest parent is needed."""
        place = self._find(name)
        if place is None or not place.name:
            raise denied()
        inherited = self._require_parent(place)
        if special_use and not place.is_own:
            raise denied()
        with self._store(place) as store:
            if not store.exists(place.name):
                self._acls.remove(place.account, place.name)  # one of a mailbox that is gone
            store.create(place.name, special_use)
        if inherited:
            self._acls.inherit(place.account, place.name, inherited)
            self._note(place.account)

    def delete(self, name: str) -> None:
        """See `AccountStore.delete`; `x` is needed. The ACL goes too."""
        place = self._place(name)
        self._require(place, "x")
        had_acl = bool(self._acls.read(place.account, place.name))
        with self._store(place) as store:
            store.delete(place.name)
        self._acls.remove(place.account, place.name)
        if had_acl:
            self._note(place.account)

    def rename(self, old: str, new: str) -> None:
        """See `AccountStore.rename`; `x` on the old name and `k` on the new parent are needed."""
        source = self._place(old)
        self._require(source, "x")
        target = self._find(new)
        if target is None or not target.name:
            raise denied()
        self._require_parent(target)
        if target.account.name != source.account.name:
            raise BadMailboxName("A mailbox cannot be moved into another namespace")
        if source.name == INBOX and not source.is_own:
            raise denied()
        with self._store(source) as store:
            store.rename(source.name, target.name)
        if source.name != INBOX:
            self._acls.move(source.account, source.name, target.name)

    # Annotations, quota, maildrop.

    def annotations(self, name: str) -> Mapping[str, bytes]:
        """See `AccountStore.annotations`; of others' mailboxes the shared ones and this user's private ones.

        `l` and one of `r s w i p` are needed. RFC 5464 §3.3.
        """
        if not name:
            return self.own.annotations("")
        place = self._place(name)
        self._require_annotations(place)
        with self._store(place) as store:
            return self._visible(place, store.annotations(place.name))

    def _require_annotations(self, place: _Place) -> None:
        if not self._require(place, "l") & _SHOWN:
            raise denied()

    def _private(self) -> str:
        return f"{_OTHERS}{self._person.name}{_PRIVATE}"

    def _visible(self, place: _Place, entries: Mapping[str, bytes]) -> Mapping[str, bytes]:
        if place.is_own:
            return {entry: value for entry, value in entries.items() if not entry.startswith(_OTHERS)}
        mine = self._private()
        shown = {entry: value for entry, value in entries.items() if entry.startswith("/shared/")}
        own = {
            _PRIVATE + entry[len(mine) :]: value for entry, value in entries.items() if entry.startswith(mine)
        }
        return {**shown, **own}

    def annotate(self, name: str, values: Mapping[str, bytes | None]) -> None:
        """See `AccountStore.annotate`; as `annotations`, and `w` for what is shared."""
        if not name:
            self.own.annotate("", values)
            return
        place = self._place(name)
        self._require_annotations(place)
        if any(not entry.startswith(_PRIVATE) for entry in values):
            self._require(place, "w")
        mine = _PRIVATE if place.is_own else self._private()
        stored = {
            mine + entry[len(_PRIVATE) :] if entry.startswith(_PRIVATE) else entry: value
            for entry, value in values.items()
        }
        with self._store(place) as store:
            store.annotate(place.name, stored)

    def access_key(self, name: str) -> AccessKey | None:
        """See `AccountStore.access_key`; others' names stand in the account's own table."""
        return self.own.access_key(name)

    def make_access_key(self, name: str, uidvalidity: int, renew: bool = False) -> AccessKey:
        """See `AccountStore.make_access_key`."""
        return self.own.make_access_key(name, uidvalidity, renew)

    def remove_access_keys(self) -> None:
        """See `AccountStore.remove_access_keys`."""
        self.own.remove_access_keys()

    @contextmanager
    def store_of(self, user: str) -> Iterator[AccountStore | None]:
        """See `AccountStore.store_of`; ACLs are asked for that user. Who was never here stays away."""
        account = self._registry.account(user) if self._registry.reaches_all else None
        if account is None or account.name != user or not self._registry.files.is_known(account):
            yield None
            return
        store = self._registry.open(account)
        try:
            yield store
        finally:
            self._registry.close(store)

    def quota(self) -> Quota | None:
        """See `AccountStore.quota`."""
        return self.own.quota()

    @property
    def sets_quotas(self) -> bool:  # type: ignore[override]
        """See `AccountStore.sets_quotas`: Dovecot's userdb field `admin`."""
        is_admin = self._account.extra.get("userdb_admin", "").lower() in ("y", "yes", "1", "true")
        return is_admin and self._registry.limit is not None

    def quota_of(self, user: str) -> Quota | None:
        """See `AccountStore.quota_of`."""
        if not self.sets_quotas:
            return super().quota_of(user)
        with self._registry.borrow(self._limited(user)) as store:
            return store.quota()

    def set_quota(self, user: str, octets: int, messages: int) -> None:
        """See `AccountStore.set_quota`."""
        if not self.sets_quotas or self._registry.limit is None:
            super().set_quota(user, octets, messages)
            return
        self._registry.limit(self._limited(user), Limits(octets, messages))

    def _limited(self, user: str) -> Account:
        account = self._registry.account(user or self._account.name)
        if account is None:
            raise NoSuchMailbox("There is no such account")
        return account

    def lock_maildrop(self) -> Callable[[], None] | None:
        """See `AccountStore.lock_maildrop`."""
        return self.own.lock_maildrop()

    # ACLs.

    def my_rights(self, name: str) -> Rights:
        """See `AccountStore.my_rights`; one of `l r i k x a` is needed."""
        place = self._acl_place(name)
        rights = self._rights(place)
        if not rights & _ANY or not (place.name == "" or self._exists(place)):
            raise _no_such()
        return rights

    def _acl_place(self, name: str) -> _Place:
        """As `_place`; a public namespace has an ACL of its own."""
        place = self._find(name)
        if place is None or (not place.name and not place.is_public):
            raise _no_such()
        return place

    def _administered(self, name: str) -> _Place:
        place = self._acl_place(name)
        if place.name and not self._exists(place):
            raise _no_such()
        rights = self._rights(place)
        if "a" not in rights:
            raise denied() if "l" in rights else _no_such()
        return place

    def acl(self, name: str) -> Acl:
        """See `AccountStore.acl`; `a` is needed."""
        place = self._administered(name)
        acl = self._acl(place)
        named = acl.granted.keys() | (acl.above.granted.keys() if acl.above is not None else set())
        if place.is_public or named & {OWNER, Identifier(Kind.USER, place.account.name)}:
            return acl
        return replace(acl, granted={OWNER: ALL, **acl.granted})

    def owner(self, name: str) -> str:
        """See `AccountStore.owner`."""
        home, _ = self.home(name)
        return "" if "/" in str(home) else str(home)

    def change_acl(self, name: str, change: Callable[[Acl], Acl]) -> None:
        """See `AccountStore.change_acl`; `a` is needed."""
        place = self._administered(name)

        def checked(acl: Acl) -> Acl:
            changed = change(acl)
            if not place.is_public:
                changed = _with_owners_rights(changed, Identifier(Kind.USER, place.account.name))
            if place.is_own and not self._rules.shared_prefix and _others_of(changed) - _others_of(acl):
                raise AccessDenied("Accounts of this server cannot share mailboxes with each other")
            return changed

        self._acls.update(place.account, place.name, checked)
        self._note(place.account)

    def _note(self, account: Account) -> None:
        """The index of shared mailboxes says what the account's ACLs say; a fault of it is only told."""
        if PUBLIC not in account.extra and self._rules.shared_prefix:
            try:
                self._registry.boxes.set(account.name, self._acls.all(account).values())
            except StoreError as error:
                self._acls.warn(f"{account.name}: {error}: others do not see all that is shared")


def _with_owners_rights(acl: Acl, owner: Identifier) -> Acl:
    """Entries that name the owner have what he always has: so every reader of the file understands it."""
    granted = {
        each: rights | OWNER_KEEPS if each in (OWNER, owner) else rights
        for each, rights in acl.granted.items()
    }
    return Acl(granted, acl.withheld)


def _others_of(acl: Acl) -> frozenset[Identifier]:
    return frozenset(each for each, rights in acl.granted.items() if rights and each.kind is not Kind.OWNER)
