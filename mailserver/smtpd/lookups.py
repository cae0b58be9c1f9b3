"""What access decisions ask of the outside: DNS, tables, networks, and who gets mail here.

The policy is written against these interfaces and imports none of their makers.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from mailserver.delivery.routing import AddressClass
from mailserver.envelope import Address
from mailserver.tables.table import Entry


class Resolver(Protocol):
    """DNS, in the three questions an SMTP server asks: `mailserver.dns.Resolver`.

    All raise TemporaryLookupFailure where neither "exists" nor "does not exist" may be concluded.
    """

    def ptr(self, address: str) -> Awaitable[tuple[str, ...]]:
        """The names of an IP address; () where it has none."""

    def addresses(self, name: str) -> Awaitable[tuple[str, ...]]:
        """The IP addresses (A and AAAA) of a name; () where it has none."""

    def mx(self, domain: str) -> Awaitable[tuple[str, ...]]:
        """The mail exchangers of a domain, best first; () without MX records.

        ("",) is the null MX: the domain takes no mail. RFC 7505.
        """


class Networks(Protocol):
    """A list of networks, such as `mynetworks`."""

    def find(self, address: str, name: str = "") -> Entry | None:
        """The item that includes the client, by address or confirmed name; or None. Raises TableError."""


class Destinations(Protocol):
    """Which addresses are ours: `mailserver.delivery.routing.Routing`. Blocking."""

    def classify(self, address: Address) -> AddressClass:
        """The class of the address's domain. Raises TableError."""

    def is_known(self, address: Address) -> bool:
        """Whether somebody gets this mail; true for remote addresses.

        Raises TableError, TemporaryAccountFailure.
        """

    def relocated_to(self, address: Address) -> str | None:
        """Where relocated_maps says that the user went. Raises TableError."""
