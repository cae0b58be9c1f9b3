"""The SMTP transports of master.cf: which there are, and what must be known of them before any role starts.

Without Twisted, so that the supervisor stays small; `roles.relays` makes them work.
"""

from __future__ import annotations

from mailserver.config.config import Config
from mailserver.roles.parts import Parts, secret_sources

_TABLES = ("smtp_tls_policy_maps", "smtp_sasl_password_maps")


def transports(config: Config) -> dict[str, Config]:
    """The transports by name, each with its view of the configuration; smtp and relay always exist."""
    views = {"smtp": config, "relay": config}
    for row in config.services:
        if row.type == "unix" and row.program == "smtp":
            views[row.service] = config.with_overrides(row) if row.overrides else config
    return views


def check_tables(parts: Parts) -> None:
    """Raises ConfigError where a transport names a table that there cannot be."""
    for view in transports(parts.config).values():
        for name in _TABLES:
            parts.tables_of(view, name)


def password_files(config: Config) -> frozenset[str]:
    """The sources of all smtp_sasl_password_maps: root's files, usually."""
    views = transports(config).values()
    sources = (path for view in views for _, path in secret_sources(view, "smtp_sasl_password_maps"))
    return frozenset(filter(None, sources))
