"""Which services listen where: the inet rows of master.cf, and Dovecot's `protocols`.

A row `[host:]port inet … smtpd|pop3d|imapd` listens on its host, or on inet_interfaces. Where no row
has pop3d or imapd, `protocols` opens 110 and 143, with `ssl` other than no also 995 and 993, on `listen`.
TLS begins with the connection on the ports 465, 993 and 995, unless the row says
smtpd_tls_wrappermode=no, and wherever it says yes.

An IPv6 socket must be bound with IPV6_V6ONLY, since `0.0.0.0` and `::` are both given.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import Final

from mailserver.config.config import Config
from mailserver.config.master import Row
from mailserver.config.syntax import ConfigError

COMMANDS: Final = frozenset({"smtpd", "pop3d", "imapd"})
PORTS: Final = {
    "smtp": 25, "smtps": 465, "submissions": 465, "submission": 587, "lmtp": 24,
    "pop3": 110, "pop-3": 110, "pop3s": 995, "imap": 143, "imap2": 143, "imaps": 993,
}  # fmt: skip
IMPLICIT_TLS_PORTS: Final = frozenset({465, 993, 995})
RETRIEVAL: Final = (("imap", "imapd", 143, 993), ("pop3", "pop3d", 110, 995))


@dataclass(frozen=True, slots=True)
class Listener:
    """One address and port to bind, and the service behind it.

    `name` is the row's service as it is written (smtp, submission, 127.0.0.1:2525), or the protocol;
    `config` is the configuration with the row's own settings; `process_limit` is None for the default.
    """

    service: str  # smtpd, pop3d or imapd
    address: str
    port: int
    implicit_tls: bool
    name: str
    config: Config
    where: str
    process_limit: int | None = None


def listeners(config: Config) -> list[Listener]:
    """All that is to be bound, in the order of master.cf. Raises ConfigError."""
    found: list[Listener] = []
    for row in config.services:
        if row.type == "inet" and _service(config, row) in COMMANDS:
            found += _row_listeners(config, row)
    served = {listener.service for listener in found}
    if not served & {"pop3d", "imapd"}:
        found += _protocol_listeners(config)
    return _without_doubles(found)


def _service(config: Config, row: Row) -> str:
    """The command of the row; smtpd where postscreen may be left out. Raises ConfigError."""
    if row.program == "postscreen":
        if "postscreen" in config.words("allow_unsupported"):
            return "smtpd"
        raise ConfigError(
            f"{row.where}: postscreen is not supported: write smtpd in this row,"
            " or put postscreen into allow_unsupported"
        )
    return row.program


def _row_listeners(config: Config, row: Row) -> list[Listener]:
    view = config.with_overrides(row)
    host, port = _host_and_port(row)
    addresses = _resolve(view, row.where, [host]) if host else interface_addresses(view, "inet_interfaces")
    implicit = _is_implicit(view, row, port)
    service = _service(config, row)
    return [
        Listener(service, address, port, implicit, row.service, view, row.where, row.process_maximum)
        for address in addresses
    ]


def _is_implicit(view: Config, row: Row, port: int) -> bool:
    if "smtpd_tls_wrappermode" in row.overrides:
        return view.boolean("smtpd_tls_wrappermode")
    return port in IMPLICIT_TLS_PORTS


def _host_and_port(row: Row) -> tuple[str, int]:
    """`[host:]port` with the port as a number; an IPv6 host stands in brackets. Raises ConfigError."""
    text = row.service
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise ConfigError(f"{row.where}: {text}: write [address]:port")
        return host, port_number(rest[1:], row.where)
    host, _, port = text.rpartition(":")
    return host, port_number(port, row.where)


def port_number(text: str, where: str) -> int:
    """The port of a number or service name. Raises ConfigError."""
    if text.isdecimal() and 0 <= int(text) <= 65535:
        return int(text)
    if text in PORTS:
        return PORTS[text]
    try:
        return socket.getservbyname(text, "tcp")
    except OSError as error:
        raise ConfigError(f"{where}: unknown port {text}: write its number") from error


def _protocol_listeners(config: Config) -> list[Listener]:
    wanted = {word.lower() for word in config.words("protocols")}
    with_tls = config.string("ssl").lower() != "no"
    where = config.where("protocols")
    addresses = interface_addresses(config, "listen")
    found: list[Listener] = []
    for protocol, service, port, tls_port in RETRIEVAL:
        for name, number, implicit in ((protocol, port, False), (f"{protocol}s", tls_port, True)):
            if (name in wanted or (protocol in wanted and implicit)) and (with_tls or not implicit):
                found += [
                    Listener(service, address, number, implicit, name, config, where) for address in addresses
                ]
    return found


def interface_addresses(config: Config, name: str) -> list[str]:
    """The addresses that inet_interfaces or `listen` name, as inet_protocols allows. Raises ConfigError."""
    found: list[str] = []
    for word in config.words(name):
        if word.lower() == "all":
            found += ["0.0.0.0", "::"]
        elif word in ("*", "0.0.0.0"):
            found.append("0.0.0.0")
        elif word in ("::", "[::]"):
            found.append("::")
        elif word.lower() == "loopback-only":
            found += ["127.0.0.1", "::1"]
        else:
            found += _resolve(config, config.where(name), [word])
    usable = _allowed(config, dict.fromkeys(found))
    if not usable:
        raise config.error(
            name, f'no address to listen on in "{config.string(name)}": see inet_protocols too'
        )
    return usable


def protocols(config: Config) -> frozenset[int]:
    """The IP versions that inet_protocols names and the system has. Raises ConfigError."""
    versions: set[int] = set()
    for word in config.words("inet_protocols"):
        if word.lower() not in ("all", "ipv4", "ipv6"):
            raise config.error("inet_protocols", f'unknown protocol "{word}": write all, ipv4 or ipv6')
        versions |= {"all": {4, 6}, "ipv4": {4}, "ipv6": {6}}[word.lower()]
    if 6 in versions and not config.host.has_ipv6():
        versions.discard(6)
    return frozenset(versions)


def _allowed(config: Config, addresses: dict[str, None]) -> list[str]:
    versions = protocols(config)
    return [text for text in addresses if ipaddress.ip_address(text).version in versions]


def _resolve(config: Config, where: str, names: list[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        try:
            found += config.host.resolve(name.strip("[]"))
        except OSError as error:
            raise ConfigError(f"{where}: {name}: {error.strerror or error}: write an address") from error
    return [text.partition("%")[0] for text in found]


def _without_doubles(found: list[Listener]) -> list[Listener]:
    """Each address and port once. Raises ConfigError where two rows want the same."""
    taken: dict[tuple[str, int], Listener] = {}
    for listener in found:
        other = taken.setdefault((listener.address, listener.port), listener)
        if other is not listener and other.where != listener.where:
            raise ConfigError(
                f"{listener.where}: {listener.address}:{listener.port} is taken by {other.where}: remove one"
            )
    return list(taken.values())
