"""Which class an address belongs to, whether it exists, and which way its mail goes.

The answers are Postfix's, from the same parameters: ADDRESS_CLASS_README for the classes,
local_recipient_maps for who exists, transport_maps and relayhost for the way out. Nothing is
expanded here: aliases and .forward are `delivery.expand`'s, at delivery time.

A table or account data base that cannot be read raises TableError or TemporaryAccountFailure:
the answer is 451 or deferral, never "unknown" (P5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from mailserver.accounts.account import AccountDirectory
from mailserver.delivery.srs import Srs
from mailserver.envelope import Address
from mailserver.tables.access import asks_whole_key
from mailserver.tables.table import Entry, Table
from mailserver.wire.address import AddressError, parse_lenient, split_extension


def _nothing(name: str) -> bool:
    return False


def _as_it_is(address: Address) -> Address:
    return address


@dataclass(frozen=True, slots=True)
class Masquerade:
    """masquerade_domains: of hosts below these domains only the domain is shown; `!host` is left alone.

    `exceptions` are the names of users whose addresses stay.
    """

    domains: tuple[str, ...]
    exceptions: frozenset[str] = frozenset()

    def __call__(self, address: Address) -> Address:
        """The address that is shown."""
        domain = address.domain.lower()
        if address.local.lower() in self.exceptions:
            return address
        for each in self.domains:
            parent = each.removeprefix("!").lower()
            if domain == parent or domain.endswith(f".{parent}"):
                return address if each.startswith("!") else Address(address.local, parent)
        return address


class AccountTable:
    """`unix:passwd.byname` in local_recipient_maps: whatever accounts there are, not only the system's."""

    def __init__(self, accounts: AccountDirectory) -> None:
        self.name = "unix:passwd.byname"
        self._accounts = accounts

    def find(self, key: str) -> Entry | None:
        """The account of that name. *Blocking.* Raises TemporaryAccountFailure."""
        return Entry(key, self.name) if self._accounts.lookup(key) is not None else None

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Nothing: accounts are not listed."""
        return iter(())


class AddressClass(Enum):
    """What kind of domain an address has, and the log's word for its recipient table."""

    LOCAL = "local recipient table"
    VIRTUAL_ALIAS = "virtual alias table"
    VIRTUAL_MAILBOX = "virtual mailbox table"
    RELAY = "relay recipient table"
    REMOTE = ""


@dataclass(frozen=True, slots=True)
class Match:
    """An entry that was found, and the extension, delimiter first, that its key lacked."""

    entry: Entry
    extension: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """How a recipient's mail leaves the queue.

    `transport` is local, virtual, relay, smtp, error, discard or another one's name; `nexthop`
    is a domain or `[host]:port`, for `error` the text. `source` says which parameter or
    `file:line` decided.
    """

    transport: str
    nexthop: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """The domains of this server and the tables that speak about addresses.

    `is_own_literal` tells whether an address literal's text (no brackets) is one of our
    interfaces. Domain matchers take a name in lower case. An empty `local_recipient_maps` in
    main.cf is `accept_all_local`. `canonical_maps` and `sender_canonical_maps` are those for envelope
    recipients and senders, the specific tables first. `relay_recipient_maps` None accepts every
    user of relay_domains, `local_recipient_maps` None stands for accounts and alias_maps. `domain_tables`
    are those that the domain matchers ask. `append_dot_mydomain` is the domain that a host name without
    a dot gets, "" for none. Transports are `name` or `name:nexthop`.
    """

    my_origin: str
    is_my_destination: Callable[[str], bool]
    accounts: AccountDirectory
    alias_maps: Sequence[Table] = ()
    recipient_delimiter: str = ""
    is_own_literal: Callable[[str], bool] = _nothing
    is_relay_domain: Callable[[str], bool] = _nothing
    is_virtual_alias_domain: Callable[[str], bool] = _nothing
    is_virtual_mailbox_domain: Callable[[str], bool] = _nothing
    domain_tables: Sequence[Table] = ()
    virtual_alias_maps: Sequence[Table] = ()
    virtual_mailbox_maps: Sequence[Table] = ()
    local_recipient_maps: Sequence[Table] | None = None
    relay_recipient_maps: Sequence[Table] | None = None
    transport_maps: Sequence[Table] = ()
    canonical_maps: Sequence[Table] = ()
    sender_canonical_maps: Sequence[Table] = ()
    relocated_maps: Sequence[Table] = ()
    relayhost: str = ""
    local_transport: str = "local"
    virtual_transport: str = "virtual"
    relay_transport: str = "relay"
    default_transport: str = "smtp"
    sender_dependent_relayhost_maps: Sequence[Table] = ()
    sender_dependent_default_transport_maps: Sequence[Table] = ()
    propagate_unmatched_extensions: frozenset[str] = frozenset({"canonical", "virtual"})
    append_at_myorigin: str = ""
    append_dot_mydomain: str = ""
    masquerade: Callable[[Address], Address] = _as_it_is
    srs: Srs | None = None
    luser_relay: str = ""
    accept_all_local: bool = False

    @property
    def tables(self) -> tuple[Table, ...]:
        """Every table on which the way of mail depends."""
        return (
            *self.domain_tables,
            *self.alias_maps,
            *self.virtual_alias_maps,
            *self.virtual_mailbox_maps,
            *(self.relay_recipient_maps or ()),
            *self.transport_maps,
            *self.canonical_maps,
            *self.sender_canonical_maps,
            *self.relocated_maps,
            *self.sender_dependent_relayhost_maps,
            *self.sender_dependent_default_transport_maps,
        )

    # ------------------------------------------------------------ classes

    def complete(self, address: Address) -> Address:
        """The address with a domain where it had none, and a host name with its domain."""
        domain = address.domain
        if not domain:
            return Address(address.local, self.append_at_myorigin or self.my_origin)
        if self.append_dot_mydomain and "." not in domain and not domain.startswith("["):
            return Address(address.local, f"{domain}.{self.append_dot_mydomain}")
        return address

    def classify(self, address: Address) -> AddressClass:
        """The class of the address's domain; without one it is that of `myorigin`."""
        domain = self.complete(address).domain.lower().removesuffix(".")
        if self._is_local(domain):
            return AddressClass.LOCAL
        if self.is_virtual_alias_domain(domain):
            return AddressClass.VIRTUAL_ALIAS
        if self.is_virtual_mailbox_domain(domain):
            return AddressClass.VIRTUAL_MAILBOX
        return AddressClass.RELAY if self.is_relay_domain(domain) else AddressClass.REMOTE

    def _is_local(self, domain: str) -> bool:
        domain = domain.lower()
        if domain.startswith("["):
            return self.is_own_literal(domain[1:-1].removeprefix("ipv6:"))
        return self.is_my_destination(domain)

    # ------------------------------------------------------------ who exists

    def is_known(self, address: Address) -> bool:
        """Whether the address has a mailbox or an expansion, for all that can be known here. *Blocking.*

        Always true for remote addresses. Raises TableError, TemporaryAccountFailure.
        """
        if self.find_virtual_alias(address) is not None or self.srs_original(address) is not None:
            return True
        match self.classify(address):
            case AddressClass.LOCAL:
                return self.accept_all_local or bool(self.luser_relay) or self._is_local_user(address)
            case AddressClass.VIRTUAL_MAILBOX:
                return self.virtual_mailbox_account(address) is not None
            case AddressClass.VIRTUAL_ALIAS:
                return False
            case AddressClass.RELAY:
                maps = self.relay_recipient_maps
                return maps is None or self._find_address(maps, address) is not None
        return True

    def _is_local_user(self, address: Address) -> bool:
        name = address.local.lower()
        if name == "postmaster":
            return True
        if self.local_recipient_maps is not None:
            return self._find_address(self.local_recipient_maps, address, catch_all=True) is not None
        return any(self._has_local_name(each) for each in dict.fromkeys((name, self.split(name)[0])))

    def _has_local_name(self, name: str) -> bool:
        return find_first(self.alias_maps, name) is not None or self.accounts.lookup(name) is not None

    def virtual_mailbox_account(self, address: Address) -> str | None:
        """The account of a virtual mailbox address, extension dropped, or None. *Blocking.*"""
        for local in dict.fromkeys((address.local.lower(), self.split(address.local.lower())[0])):
            name = f"{local}@{address.domain.lower()}"
            if (
                find_first(self.virtual_mailbox_maps, name) is not None
                or self.accounts.lookup(name) is not None
            ):
                return name
        if find_first(self.virtual_mailbox_maps, f"@{address.domain.lower()}") is not None:
            return f"{address.local.lower()}@{address.domain.lower()}"
        return None

    def split(self, local: str) -> tuple[str, str]:
        """User and extension, by recipient_delimiter; the extension may be ""."""
        return split_extension(local, self.recipient_delimiter)

    # ------------------------------------------------------------ tables of whole addresses

    def find_virtual_alias(self, address: Address) -> Match | None:
        """The address's entry in virtual_alias_maps. *Blocking.* virtual(5). Raises TableError."""
        return self._find_address(self.virtual_alias_maps, address, catch_all=True)

    def canonical_recipient(self, address: Address) -> Address:
        """The recipient as canonical(5) rewrites it. *Blocking.* Raises TableError."""
        return self.canonical(self.canonical_maps, address)

    def canonical_sender(self, address: Address) -> Address:
        """The sender as canonical(5) rewrites it, masqueraded. *Blocking.* Raises TableError."""
        return self.masquerade(self.canonical(self.sender_canonical_maps, address))

    def generic(self, tables: Sequence[Table], address: Address) -> Address:
        """The address that others know instead of ours: generic(5). *Blocking.* Raises TableError."""
        return self.canonical(tables, address, "generic")

    def canonical(self, tables: Sequence[Table], address: Address, place: str = "canonical") -> Address:
        """The tables' address, completed; `@domain` keeps the local-part. *Blocking.* Raises TableError.

        Unusable values change nothing.
        """
        match = self._find_address(tables, address, catch_all=True)
        if match is None:
            return address
        value = match.entry.value.strip()
        if value.startswith("@"):
            return Address(address.local, value[1:])
        try:
            return self.extended(self.complete(parse_lenient(value)), match.extension, place)
        except AddressError:
            return address

    def extended(self, address: Address, extension: str, place: str) -> Address:
        """The result of a table with the extension that its key lacked, where `place` says so.

        `place` is a word of propagate_unmatched_extensions.
        """
        if not extension or place not in self.propagate_unmatched_extensions:
            return address
        return Address(address.local + extension, address.domain)

    def srs_original(self, address: Address) -> Address | None:
        """Whom mail to an SRS address of ours is for; None for all others. Raises TableError."""
        return self.srs.reverse(address) if self.srs is not None else None

    def sender_for(self, sender: Address, recipient: Address) -> Address:
        """The sender with which mail that we forward goes to the recipient. Raises TableError.

        An SRS address where both are others' domains; what is ours, or internal, stays.
        """
        both = (self.classify(sender), self.classify(recipient))
        if self.srs is None or any(each is not AddressClass.REMOTE for each in both):
            return sender
        return self.srs.forward(sender)

    def relocated_to(self, address: Address) -> str | None:
        """Where relocated_maps says the user went: `550 5.1.6 User has moved to ...`. *Blocking.*"""
        match = self._find_address(self.relocated_maps, address, catch_all=True)
        return match.entry.value if match is not None else None

    def find_by_address(self, tables: Sequence[Table], address: Address) -> Entry | None:
        """The entry of `user+ext@domain`, `user@domain` or `@domain`: bcc maps. *Blocking.*"""
        match = self._find_address(tables, address, catch_all=True)
        return match.entry if match is not None else None

    def _find_address(
        self, tables: Sequence[Table], address: Address, catch_all: bool = False
    ) -> Match | None:
        if not tables:
            return None
        for key, extension in self._address_keys(address, catch_all):
            entry = find_first(tables, key)
            if entry is not None:
                return Match(entry, extension)
            tables = [table for table in tables if not asks_whole_key(table)]
        return None

    def _address_keys(self, address: Address, catch_all: bool) -> Iterator[tuple[str, str]]:
        """user+ext@domain, user@domain, then user+ext, user where the domain is ours, then @domain.

        With each key goes the extension that it lacks, delimiter first.
        """
        address = self.complete(address)
        domain, local = address.domain.lower(), address.local.lower()
        user = self.split(local)[0]
        lacking = address.local[len(user) :]
        locals_ = ((local, ""), (user, lacking)) if lacking else ((local, ""),)
        yield from ((f"{name}@{domain}", rest) for name, rest in locals_)
        if domain == self.my_origin.lower() or self._is_local(domain):
            yield from locals_
        if catch_all:
            yield f"@{domain}", lacking

    # ------------------------------------------------------------ the way out

    def resolve(self, address: Address, sender: Address | None = None) -> Route:
        """The transport and next hop for the address; None is the null sender. *Blocking.*

        Raises TableError.
        """
        address = self.complete(address)
        default = self._default_route(address, sender)
        tables = self.transport_maps
        for key in self._transport_keys(address):
            entry = find_first(tables, key)
            if entry is not None:
                transport, _, nexthop = entry.value.strip().partition(":")
                return Route(
                    transport or default.transport,
                    nexthop or (address.domain if transport else default.nexthop),
                    f"transport_maps, {entry.source}",
                )
            tables = [table for table in tables if not asks_whole_key(table)]
        return default

    def _default_route(self, address: Address, sender: Address | None) -> Route:
        match self.classify(address):
            case AddressClass.LOCAL:
                return self._over(self.local_transport, address.domain, "mydestination")
            case AddressClass.VIRTUAL_ALIAS:
                text = "5.1.1 User unknown in virtual alias table"
                return Route("error", text, "virtual_alias_domains")
            case AddressClass.VIRTUAL_MAILBOX:
                return self._over(self.virtual_transport, address.domain, "virtual_mailbox_domains")
            case AddressClass.RELAY:
                nexthop, source = self._next_hop(address, sender, "relay_domains")
                return self._over(self.relay_transport, nexthop, source)
        own = self._of_sender(self.sender_dependent_default_transport_maps, sender)
        nexthop, source = self._next_hop(address, sender, "the domain's MX records")
        if own is not None:
            return self._over(own.value, nexthop, f"sender_dependent_default_transport_maps, {own.source}")
        return self._over(self.default_transport, nexthop, source)

    def _over(self, transport: str, nexthop: str, source: str) -> Route:
        """By `transport` or `transport:nexthop`; local and virtual mail is always for the domain."""
        name, _, own = transport.strip().partition(":")
        return Route(name, nexthop if name in ("local", "virtual") else own or nexthop, source)

    def _next_hop(self, address: Address, sender: Address | None, source: str) -> tuple[str, str]:
        own = self._of_sender(self.sender_dependent_relayhost_maps, sender)
        if own is not None:
            return own.value, f"sender_dependent_relayhost_maps, {own.source}"
        return (self.relayhost, "relayhost") if self.relayhost else (address.domain, source)

    def _of_sender(self, tables: Sequence[Table], sender: Address | None) -> Entry | None:
        """What a table says for `user@domain` or `@domain` of the sender; DUNNO is nothing."""
        if not tables:
            return None
        found = find_first(tables, "<>") if sender is None else self.find_by_address(tables, sender)
        return None if found is None or found.value.strip().upper() == "DUNNO" else found

    def _transport_keys(self, address: Address) -> Iterator[str]:
        """transport(5), TABLE SEARCH ORDER."""
        if not self.transport_maps:
            return
        domain = address.domain.lower()
        for local in dict.fromkeys((address.local.lower(), self.split(address.local.lower())[0])):
            yield f"{local}@{domain}"
        yield domain
        parent = domain
        while "." in parent:
            parent = parent.partition(".")[2]
            yield f".{parent}"
            yield parent
        yield "*"


def find_first(tables: Sequence[Table], key: str) -> Entry | None:
    """The entry of the first table that has the key. Raises TableError."""
    for table in tables:
        entry = table.find(key)
        if entry is not None:
            return entry
    return None
