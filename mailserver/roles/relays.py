"""The ways to other servers from the configuration: one Relay for each SMTP or LMTP transport of master.cf.

`smtp`, `relay` and `lmtp` always exist; a row such as `slow unix - - n - 1 smtp -o smtp_helo_name=...` makes
a transport of that name, with its own settings. What smtp_X is to SMTP, lmtp_X is to LMTP: `client` says
which.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

from mailserver.config.config import Config
from mailserver.delivery.client_tls import Trust
from mailserver.delivery.content_checks import CheckTables
from mailserver.delivery.hosts import HostRules
from mailserver.delivery.next_hop import KNOWN_PORTS, parse_port
from mailserver.delivery.outgoing_content import OutgoingRules
from mailserver.delivery.relay import Relay, RelaySettings
from mailserver.delivery.smtp_client import TimeLimits
from mailserver.delivery.smtp_login import Login
from mailserver.delivery.tls_policy import DANE, DANE_ONLY, ENCRYPT, LEVELS, MAY, DaneRules, TlsPolicy
from mailserver.dns import Resolver, TemporaryLookupFailure
from mailserver.dnssec import SecureResolver
from mailserver.roles.parts import Parts
from mailserver.roles.transports import LMTP, SMTP, transports
from mailserver.tables.access import first_entry
from mailserver.tables.table import Entry, Table, TableError
from mailserver.threads import Inline, Threads
from mailserver.tls import lowest_version

_STAGES: Final = ("connect", "starttls", "mail", "rcpt", "data_init", "data_xfer", "data_done", "xforward")
_FAMILIES: Final = {"all": {4, 6}, "ipv4": {4}, "ipv6": {6}}
# Attributes of smtp_tls_policy_maps that this program has no choice in: its ciphers are the strong ones.
_DIGESTS: Final = {"sha256": "1", "sha512": "2"}  # tls_dane_digests, and their numbers
_NO_CHOICE: Final = frozenset({"ciphers", "exclude", "connection_reuse", "enable_rpk", "servername"})
# What a resolver of MTA-STS policies says for reports (TLSRPT), which this program does not send.
_FOR_REPORTS: Final = frozenset(
    {"policy_type", "policy_domain", "policy_ttl", "policy_string", "policy_failure", "mx_host_pattern"}
)
_BRACED: Final = re.compile(r"\{\s*(\w+)\s*=[^}]*\}")


class Relays:
    """The relays of a process, made when they are first needed; all settings are read at once."""

    def __init__(
        self, parts: Parts, threads: Threads, reactor: Any, resolver: Resolver, own_ports: frozenset[int]
    ) -> None:
        """`own_ports` are the ports that we listen on for SMTP. Raises ConfigError."""
        native, views = _native(threads), transports(parts.config)
        secure = SecureResolver(reactor)
        settings = {
            name: relay_settings(parts, view.config, own_ports, native, view.client, secure, threads)
            for name, view in views.items()
        }
        self._relays = {name: Relay(reactor, resolver, each) for name, each in settings.items()}

    def find(self, transport: str) -> Relay | None:
        """The relay of that transport; None where master.cf has none of that name."""
        return self._relays.get(transport)

    def close(self) -> None:
        """Idle sessions say QUIT."""
        for relay in self._relays.values():
            relay.close()


def _native(threads: Threads) -> Callable[[str], Awaitable[Sequence[str]]]:
    """Addresses as the system finds them: nsswitch.conf(5)."""

    def ask(name: str) -> Sequence[str]:
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            if error.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
                return ()
            raise TemporaryLookupFailure(f"{name}: {error.strerror}") from error
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    async def addresses(name: str) -> Sequence[str]:
        return await threads.run(ask, name)

    return addresses


def relay_settings(
    parts: Parts,
    config: Config,
    own_ports: frozenset[int],
    native: Callable[[str], Awaitable[Sequence[str]]] | None = None,
    client: str = SMTP,
    secure: SecureResolver | None = None,
    threads: Threads | None = None,
) -> RelaySettings:
    """How mail goes to other hosts by one transport. Raises ConfigError."""
    trust = Trust(
        config.string(f"{client}_tls_CAfile"),
        config.string(f"{client}_tls_CApath"),
        config.boolean("tls_append_default_CA"),
    )
    _check_trust(parts, trust, client)
    port = parse_port(config.string(f"{client}_tcp_port"))
    if not port:
        raise config.error(f"{client}_tcp_port", "is no port: write a number, or smtp, submission, smtps")
    bind = (f"{client}_bind_address", f"{client}_bind_address6")
    is_lmtp = client == LMTP
    return RelaySettings(
        helo_name=config.string("lmtp_lhlo_name" if is_lmtp else "smtp_helo_name"),
        client_tls=parts.tls.client(config, client, trust),
        tls_policy=_tls_policy(parts, config, client),
        dane=_dane_rules(parts, config, client, secure),
        tls_wrappermode=config.boolean(f"{client}_tls_wrappermode"),
        login=_login(parts, config, client),
        login_depends_on_sender=config.boolean(f"{client}_sender_dependent_authentication"),
        hosts=_host_rules(parts, config, own_ports, native, client),
        tcp_port=port,
        fallback_relay=config.words(f"{client}_fallback_relay"),
        bind_addresses=tuple(filter(None, (config.string(name).strip("[]") for name in bind))),
        mx_session_limit=config.integer(f"{client}_mx_session_limit"),
        line_length_limit=config.integer(f"{client}_line_length_limit"),
        rules=_outgoing_rules(parts, config, client),
        limits=_time_limits(config, client),
        is_lmtp=is_lmtp,
        sends_xforward=config.boolean(f"{client}_send_xforward_command"),
        socket_directory=config.string("queue_directory"),
        log=partial(parts.log.write, client)
        if config.integer(f"{client}_tls_loglevel")
        else lambda text: None,
        note_starttls_offer=partial(parts.log.write, client)
        if config.boolean(f"{client}_tls_note_starttls_offer")
        else lambda text: None,
        warn=parts.warn(client),
        threads=threads or Inline(),
    )


def _time_limits(config: Config, client: str) -> TimeLimits:
    limits = {stage: config.seconds(f"{client}_{stage}_timeout") for stage in _STAGES}
    hello = config.seconds("lmtp_lhlo_timeout" if client == LMTP else "smtp_helo_timeout")
    return TimeLimits(**limits, helo=hello)


def _outgoing_rules(parts: Parts, config: Config, client: str) -> OutgoingRules:
    """What smtp_header_checks, smtp_generic_maps and their like make of mail that goes out."""
    generic = parts.tables_of(config, f"{client}_generic_maps")
    checks = CheckTables(
        header_checks=parts.tables_of(config, f"{client}_header_checks"),
        mime_header_checks=parts.tables_of(config, f"{client}_mime_header_checks"),
        nested_header_checks=parts.tables_of(config, f"{client}_nested_header_checks"),
        body_checks=parts.tables_of(config, f"{client}_body_checks"),
        body_checks_size_limit=config.octets("body_checks_size_limit"),
        mime_nesting_limit=config.integer("mime_nesting_limit"),
    )
    return OutgoingRules(checks, partial(parts.routing.generic, generic) if generic else None)


def _check_trust(parts: Parts, trust: Trust, client: str) -> None:
    """A warning where the authorities are not there: only levels that verify need them."""
    for name, path in ((f"{client}_tls_CAfile", trust.file), (f"{client}_tls_CApath", trust.directory)):
        if path and not os.access(path, os.R_OK):
            parts.warn(client)(f"{name}: cannot read {path}: no certificate can be verified by it")


def _host_rules(
    parts: Parts,
    config: Config,
    own_ports: frozenset[int],
    native: Callable[[str], Awaitable[Sequence[str]]] | None,
    client: str,
) -> HostRules:
    support = config.string(f"{client}_dns_support_level")
    is_without_dns = support == "disabled" or (not support and config.boolean("disable_dns_lookups"))
    return HostRules(
        own_addresses=parts.own_addresses,
        own_ports=own_ports,
        own_names=frozenset({config.string("myhostname").lower()}),
        uses_mx=not is_without_dns,
        ignore_mx_lookup_error=config.boolean("ignore_mx_lookup_error"),
        defer_if_no_mx_address_found=config.boolean(f"{client}_defer_if_no_mx_address_found"),
        host_lookup=("native",) if is_without_dns else config.words(f"{client}_host_lookup"),
        native=native,
        families=frozenset().union(*(_FAMILIES.get(word, set()) for word in config.words("inet_protocols"))),
        address_preference=config.string(f"{client}_address_preference"),
        mx_address_limit=config.integer(f"{client}_mx_address_limit"),
    )


# TLS policy.


def _tls_policy(parts: Parts, config: Config, client: str) -> Callable[[str], TlsPolicy]:
    tables = parts.tables_of(config, f"{client}_tls_policy_maps")
    level = config.string(f"{client}_tls_security_level") or "none"
    if config.boolean(f"{client}_enforce_tls") and level in ("none", "may"):
        level = "encrypt"
    elif config.boolean(f"{client}_use_tls") and level == "none":
        level = "may"
    usual = _policy(config, level, client)

    def find(nexthop: str) -> TlsPolicy:
        entry = first_entry(tables, _policy_keys(nexthop)) if tables else None
        return usual if entry is None else _from_entry(config, entry, client)

    return find


def _dane_rules(parts: Parts, config: Config, client: str, secure: SecureResolver | None) -> DaneRules:
    """How TLSA records are found and judged. A warning where they would be asked for in vain."""
    policy = config.string(f"{client}_tls_dane_insecure_mx_policy")
    if policy not in (DANE, ENCRYPT, MAY):
        raise config.error(f"{client}_tls_dane_insecure_mx_policy", "is none of dane, encrypt, may")
    digests = tuple(_digests(config))
    why = ""
    if config.string(f"{client}_dns_support_level") != "dnssec" or "dns" not in config.words(
        f"{client}_host_lookup"
    ):
        why = "dnssec lookups disabled"
    elif client == SMTP and config.boolean("ignore_mx_lookup_error"):
        why = "MX lookup errors ignored"
    level = config.string(f"{client}_tls_security_level")
    if why and level in (DANE, DANE_ONLY):
        parts.warn(client)(f"{level} configured with {why}: set {client}_dns_support_level = dnssec")
    elif level in (DANE, DANE_ONLY) and secure and not any(each.is_trusted for each in secure.name_servers()):
        parts.warn(client)(
            "DNSSEC validation may be unavailable: no server of /etc/resolv.conf is on the loopback "
            "interface, nor does `options trust-ad` stand there"
        )
    return DaneRules(
        resolver=None if why else secure,
        insecure_mx_policy=policy,
        digests=digests,
        force=config.boolean(f"{client}_tls_force_insecure_host_tlsa_lookup"),
    )


def _digests(config: Config) -> Iterator[str]:
    """tls_dane_digests, best first, without the numbers that may stand behind them. Raises ConfigError."""
    for word in config.words("tls_dane_digests"):
        name, equals, number = word.lower().partition("=")
        if name not in _DIGESTS or (equals and number != _DIGESTS[name]):
            raise config.error("tls_dane_digests", f"{word} is neither sha512 nor sha256")
        yield name


def _policy(config: Config, level: str, client: str) -> TlsPolicy:
    is_demanded = level not in ("none", "may")
    protocols = f"{client}_tls_mandatory_protocols" if is_demanded else f"{client}_tls_protocols"
    match = config.words(f"{client}_tls_{level}_cert_match") if level in ("verify", "secure") else ()
    return TlsPolicy(level, match, lowest_version(config.words(protocols)))


def _from_entry(config: Config, entry: Entry, client: str) -> TlsPolicy:
    """`level attribute=value …`. Raises TableError for what would promise more than is done."""
    level, *attributes = _BRACED.sub(r"\1=", entry.value).split() or [""]
    if level not in LEVELS:
        raise TableError(f"{entry.source}: TLS level {level} is not supported: write {', '.join(LEVELS)}")
    policy = _policy(config, level, client)
    match, minimum = policy.match, policy.minimum
    for attribute in attributes:
        name, _, value = attribute.partition("=")
        if name == "match":
            match = tuple(value.split(":"))
        elif name == "protocols":
            minimum = lowest_version(value.split(":"))
        elif name not in _NO_CHOICE and name not in _FOR_REPORTS:
            raise TableError(f"{entry.source}: TLS policy attribute {name} is not supported")
    return TlsPolicy(level, match, minimum)


def _policy_keys(nexthop: str) -> Iterator[str]:
    """The next hop as written, then its domain's parents with a dot in front. postconf(5)."""
    yield from _destination_keys(nexthop)
    domain = nexthop.partition(":")[0]
    while not domain.startswith("[") and "." in domain:
        domain = domain.partition(".")[2]
        yield f".{domain}"


# Login.


def _login(parts: Parts, config: Config, client: str) -> Callable[[str, str, str], Login | None]:
    tables = parts.secret_tables_of(config, f"{client}_sasl_password_maps")
    if not config.boolean(f"{client}_sasl_auth_enable"):
        return lambda nexthop, host, sender: None
    by_sender = config.boolean(f"{client}_sender_dependent_authentication")
    in_clear = "noplaintext" not in config.words(f"{client}_sasl_security_options")
    under_tls = "noplaintext" not in config.words(f"{client}_sasl_tls_security_options")
    mechanisms = frozenset(word.upper() for word in config.words(f"{client}_sasl_mechanism_filter"))

    def find(nexthop: str, host: str, sender: str) -> Login | None:
        keys = (*((sender, f"@{sender.rpartition('@')[2]}") if by_sender and sender else ()), host)
        entry = _first(tables, (*keys, *_destination_keys(nexthop)))
        name, _, password = entry.value.partition(":") if entry is not None else ("", "", "")
        return Login(name, password, in_clear, under_tls, mechanisms) if name else None

    return find


def _first(tables: Sequence[Table], keys: Sequence[str]) -> Entry | None:
    """The entry of the first key, in whichever table. Raises TableError."""
    found = (table.find(key) for key in keys for table in tables)
    return next(filter(None, found), None)


def _destination_keys(nexthop: str) -> tuple[str, ...]:
    """`[host]:port` in every spelling of the port, then without it, then the bare name."""
    name, _, digits = nexthop.rpartition(":")
    if not digits.isdecimal():
        name, digits = nexthop, "25"
    services = [service for service, number in KNOWN_PORTS.items() if number == int(digits)]
    spelled = [f"{name}:{port}" for port in (digits, *services)]
    return tuple(dict.fromkeys((nexthop, *spelled, name, name.strip("[]"))))
