"""Which keys access(5) and its relatives look up, and in which order.

The generators yield from the most specific key to the least. A pattern table (regexp, pcre,
cidr, static) is asked once, with the first key only.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Final

from mailserver.tables.table import Entry, Table
from mailserver.wire.address import split_extension

NULL_SENDER_KEY: Final = "<>"


def first_entry(tables: Iterable[Table], keys: Iterable[str]) -> Entry | None:
    """The first entry of the first table that has one of the keys. Raises TableError.

    Each table is asked for all keys before the next one is.
    """
    wanted = tuple(keys)
    for table in tables:
        for key in wanted[:1] if asks_whole_key(table) else wanted:
            entry = table.find(key)
            if entry is not None:
                return entry
    return None


def asks_whole_key(table: Table) -> bool:
    """Whether the table matches whole keys itself, so that parts of a key must not be asked."""
    return bool(getattr(table, "whole_key", False))


def domain_keys(domain: str, parents_match_subdomains: bool = True) -> Iterator[str]:
    """`a.b.c`, then its parents: `b.c` and `.b.c`, or with False `.b.c` alone.

    Postfix looks for `.b.c` only where `b.c` would not match; here both spellings match.
    """
    domain = domain.rstrip(".").lower()
    yield domain
    while "." in domain.lstrip("."):
        domain = domain.lstrip(".").split(".", 1)[1]
        if parents_match_subdomains:
            yield domain
        yield "." + domain


def client_address_keys(address: str) -> Iterator[str]:
    """`1.2.3.4`, `1.2.3`, `1.2`, `1`; for IPv6 the compressed form, cut at each colon."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        yield address
        return
    separator = "." if parsed.version == 4 else ":"
    text = str(parsed)
    yield text
    while separator in text:
        text = text.rsplit(separator, 1)[0].rstrip(separator)
        if text:
            yield text


def mail_address_keys(
    address: str,
    delimiters: str = "",
    parents_match_subdomains: bool = True,
    null_key: str = NULL_SENDER_KEY,
) -> Iterator[str]:
    """`user+x@domain`, `user@domain`, the domain and its parents, `user+x@`, `user@`.

    The empty address is the null sender's key alone. `delimiters` is recipient_delimiter.
    """
    if not address:
        yield null_key
        return
    local, at, domain = address.rpartition("@")
    if not at:
        local, domain = address, ""
    locals_ = dict.fromkeys((local, split_extension(local, delimiters)[0]))
    if domain:
        yield from (f"{name}@{domain}" for name in locals_)
        yield from domain_keys(domain, parents_match_subdomains)
    yield from (f"{name}@" for name in locals_)
