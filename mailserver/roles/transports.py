"""The transports of master.cf: which there are, and what must be known of them before any role starts.

Without Twisted, so that the supervisor stays small; `roles.relays` makes them work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mailserver.config.config import Config
from mailserver.roles.parts import Parts, secret_sources

SMTP: Final = "smtp"
LMTP: Final = "lmtp"


@dataclass(frozen=True, slots=True)
class RelayView:
    """What an SMTP or LMTP transport sees of the configuration; its parameters begin with `client`."""

    config: Config
    client: str


def transports(config: Config) -> dict[str, RelayView]:
    """The transports to other servers, by name; smtp, relay and lmtp always exist."""
    views = {SMTP: RelayView(config, SMTP), "relay": RelayView(config, SMTP), LMTP: RelayView(config, LMTP)}
    for row in config.services:
        if row.type == "unix" and row.program in (SMTP, LMTP):
            own = config.with_overrides(row) if row.overrides else config
            views[row.service] = RelayView(own, row.program)
    return views


def check_tables(parts: Parts) -> None:
    """Raises ConfigError where a transport names a table that there cannot be."""
    for view in transports(parts.config).values():
        for name in (f"{view.client}_tls_policy_maps", f"{view.client}_sasl_password_maps"):
            parts.tables_of(view.config, name)


def password_files(config: Config) -> frozenset[str]:
    """The sources of all smtp_sasl_password_maps and lmtp_sasl_password_maps: root's files, usually."""
    return frozenset(filter(None, _password_sources(config)))


def _password_sources(config: Config) -> Iterator[str]:
    for view in transports(config).values():
        for _, path in secret_sources(view.config, f"{view.client}_sasl_password_maps"):
            yield path
