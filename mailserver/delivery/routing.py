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
from typing import Final

from mailserver.accounts.account import AccountDirectory
from mailserver.envelope import Address
from mailserver.tables.table import Entry, Table
from mailserver.wire.address import AddressError, parse_lenient

RESERVED_NAMES: Final = frozenset(
    {"postmaster", "mailer-daemon", "double-bounce"}
)  # never split at the delimiter


def _nothing(name: str) -> bool:
    return False


class AddressClass(Enum):
    """What kind of domain an address has, and the log's word for its recipient table."""

    LOCAL = "local recipient table"
    VIRTUAL_ALIAS = "virtual alias table"
    VIRTUAL_MAILBOX = "virtual mailbox table"
    RELAY = "relay recipient table"
    REMOTE = ""


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
    user of relay_domains.
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
    virtual_alias_maps: Sequence[Table] = ()
    virtual_mailbox_maps: Sequence[Table] = ()
    relay_recipient_maps: Sequence[Table] | None = None
    transport_maps: Sequence[Table] = ()
    canonical_maps: Sequence[Table] = ()
    sender_canonical_maps: Sequence[Table] = ()
    relocated_maps: Sequence[Table] = ()
    relayhost: str = ""
    local_transport: str = "local"
    virtual_transport: str = "virtual"
    luser_relay: str = ""
    accept_all_local: bool = False

    # ------------------------------------------------------------ classes

    def complete(self, address: Address) -> Address:
        """The address with `myorigin` where it had no domain."""
        return address if address.domain else Address(address.local, self.my_origin)

    def classify(self, address: Address) -> AddressClass:
        """The class of the address's domain. An address without a domain is local."""
        domain = address.domain.lower().removesuffix(".")
        if not domain:
            return AddressClass.LOCAL if self._is_local(self.my_origin) else AddressClass.REMOTE
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
        if self.find_virtual_alias(address) is not None:
            return True
        match self.classify(address):
            case AddressClass.LOCAL:
                return self.accept_all_local or bool(self.luser_relay) or self._is_local_user(address.local)
            case AddressClass.VIRTUAL_MAILBOX:
                return self.virtual_mailbox_account(address) is not None
            case AddressClass.VIRTUAL_ALIAS:
                return False
            case AddressClass.RELAY:
                maps = self.relay_recipient_maps
                return maps is None or self._find_address(maps, address) is not None
        return True

    def _is_local_user(self, local: str) -> bool:
        name = local.lower()
        if name == "postmaster":
            return True
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
        """User and extension: cut at the first recipient_delimiter; the extension may be "".

        Reserved names and owner-list, list-request (owner_request_special) stay whole.
        """
        lowered = local.lower()
        if lowered in RESERVED_NAMES or lowered.startswith("owner-") or lowered.endswith("-request"):
            return local, ""
        for position, character in enumerate(local):
            if position and character in self.recipient_delimiter:
                return local[:position], local[position + 1 :]
        return local, ""

    # ------------------------------------------------------------ tables of whole addresses

    def find_virtual_alias(self, address: Address) -> Entry | None:
        """The address's entry in virtual_alias_maps. *Blocking.* virtual(5). Raises TableError."""
        if not self.virtual_alias_maps:
            return None
        return self._find_address(self.virtual_alias_maps, address, catch_all=True)

    def canonical_recipient(self, address: Address) -> Address:
        """The recipient as canonical(5) rewrites it. *Blocking.* Raises TableError."""
        return self._canonical(self.canonical_maps, address)

    def canonical_sender(self, address: Address) -> Address:
        """The sender as canonical(5) rewrites it. *Blocking.* Raises TableError."""
        return self._canonical(self.sender_canonical_maps, address)

    def _canonical(self, tables: Sequence[Table], address: Address) -> Address:
        """The table's address, completed; `@domain` keeps the local-part. Unusable values change nothing."""
        entry = self._find_address(tables, address, catch_all=True) if tables else None
        if entry is None:
            return address
        if entry.value.startswith("@"):
            return Address(address.local, entry.value[1:].strip())
        try:
            return self.complete(parse_lenient(entry.value))
        except AddressError:
            return address

    def relocated_to(self, address: Address) -> str | None:
        """Where relocated_maps says the user went: `550 5.1.6 User has moved to ...`. *Blocking.*"""
        tables = self.relocated_maps
        entry = self._find_address(tables, address, catch_all=True) if tables else None
        return entry.value if entry is not None else None

    def _find_address(
        self, tables: Sequence[Table], address: Address, catch_all: bool = False
    ) -> Entry | None:
        for key in self._address_keys(address, catch_all):
            entry = find_first(tables, key)
            if entry is not None:
                return entry
        return None

    def _address_keys(self, address: Address, catch_all: bool) -> Iterator[str]:
        """user+ext@domain, user@domain, then user+ext, user where the domain is ours, then @domain."""
        address = self.complete(address)
        domain = address.domain.lower()
        locals_ = tuple(dict.fromkeys((address.local.lower(), self.split(address.local.lower())[0])))
        for local in locals_:
            yield f"{local}@{domain}"
        if domain == self.my_origin.lower() or self._is_local(domain):
            yield from locals_
        if catch_all:
            yield f"@{domain}"

    # ------------------------------------------------------------ the way out

    def resolve(self, address: Address) -> Route:
        """The transport and next hop for the address. *Blocking.* Raises TableError."""
        address = self.complete(address)
        default = self._default_route(address)
        for key in self._transport_keys(address):
            entry = find_first(self.transport_maps, key)
            if entry is not None:
                transport, _, nexthop = entry.value.strip().partition(":")
                return Route(
                    transport or default.transport,
                    nexthop or (address.domain if transport else default.nexthop),
                    f"transport_maps, {entry.source}",
                )
        return default

    def _default_route(self, address: Address) -> Route:
        match self.classify(address):
            case AddressClass.LOCAL:
                return Route(self.local_transport, address.domain, "mydestination")
            case AddressClass.VIRTUAL_ALIAS:
                text = "5.1.1 User unknown in virtual alias table"
                return Route("error", text, "virtual_alias_domains")
            case AddressClass.VIRTUAL_MAILBOX:
                return Route(self.virtual_transport, address.domain, "virtual_mailbox_domains")
            case AddressClass.RELAY:
                return Route("relay", self.relayhost or address.domain, "relay_domains")
        if self.relayhost:
            return Route("smtp", self.relayhost, "relayhost")
        return Route("smtp", address.domain, "the domain's MX records")

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
