"""The transports of master.cf: which there are, and what must be known of them before any role starts.

Without Twisted, so that the supervisor stays small; `roles.relays` and `roles.ways_out` make them work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mailserver.config.config import Config
from mailserver.config.syntax import ConfigError
from mailserver.delivery.pipe_attributes import BadAttribute, Pipe, parse_attributes
from mailserver.roles.parts import secret_sources
from mailserver.roles.tls_parts import key_pair_files
from mailserver.tls import KeyPairFiles

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


def pipes(config: Config) -> dict[str, Pipe]:
    """The transports that are commands, by name. Raises ConfigError."""
    found = {}
    for row in config.services:
        if row.type == "unix" and row.program == "pipe":
            try:
                attributes = parse_attributes(row.arguments)
            except BadAttribute as error:
                raise ConfigError(f"{row.where}: {row.service}: {error}") from error
            limit = config.with_overrides(row).seconds(f"{row.service}_time_limit")
            found[row.service] = Pipe(attributes, limit, row.where, row.process_maximum or 0)
    return found


def transport_names(config: Config) -> frozenset[str]:
    """Every transport that mail can be given. Raises ConfigError."""
    return frozenset({"local", "virtual", "error", "retry", "discard", *transports(config), *pipes(config)})


def longest_command(config: Config) -> int:
    """The most seconds that a command may run: command_time_limit, or a pipe row's own."""
    return max([config.seconds("command_time_limit"), *(pipe.time_limit for pipe in pipes(config).values())])


def client_key_pairs(config: Config) -> Iterator[KeyPairFiles]:
    """Our certificates for other servers: smtp_tls_cert_file and its like, of every transport."""
    for view in transports(config).values():
        yield from key_pair_files(view.config, view.client)


def password_files(config: Config) -> frozenset[str]:
    """The sources of all smtp_sasl_password_maps and lmtp_sasl_password_maps: root's files, usually."""
    return frozenset(filter(None, _password_sources(config)))


def _password_sources(config: Config) -> Iterator[str]:
    for view in transports(config).values():
        for _, path in secret_sources(view.config, f"{view.client}_sasl_password_maps"):
            yield path
