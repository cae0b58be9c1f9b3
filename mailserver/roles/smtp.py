"""SMTP listeners from the configuration: policy, settings, factory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from mailserver.accounts.dovecot_logins import DovecotLogins, connect
from mailserver.accounts.login import EXTERNAL, PASSWORD_MECHANISMS, Logins
from mailserver.config.config import Config
from mailserver.config.syntax import Setting
from mailserver.dns import Resolver
from mailserver.milter.connection import ReactorConnect
from mailserver.queue.cleanup import Cleanup
from mailserver.queue.file import QueueFile
from mailserver.roles.burl import ImapContent
from mailserver.roles.client_certificates import certificate_logins, smtp_authorities, smtp_certificates
from mailserver.roles.input_options import (
    NO_ADDRESS_MAPPINGS,
    NO_MILTERS,
    NO_UNKNOWN_RECIPIENT_CHECKS,
    cleanup_rules,
    input_options,
)
from mailserver.roles.logins import dovecot_socket, mechanisms
from mailserver.roles.milters import milter_macros, milter_rules, milters_by_client
from mailserver.roles.parts import Parts
from mailserver.roles.policy_services import PolicyServices
from mailserver.roles.retrieval import url_server
from mailserver.roles.verification import Verifications
from mailserver.service_endpoint import ServiceEndpoint, parse_endpoint
from mailserver.smtpd.address_restrictions import RecipientDirectory
from mailserver.smtpd.factory import SmtpFactory
from mailserver.smtpd.limits import ClientLimits
from mailserver.smtpd.local_clients import WORDS as LOCAL_WORDS
from mailserver.smtpd.local_clients import LocalClients
from mailserver.smtpd.milters import Milters
from mailserver.smtpd.policy import Policy, RestrictionTexts
from mailserver.smtpd.proxy import ProxyFilter
from mailserver.smtpd.reception import Take
from mailserver.smtpd.restrictions import Tools
from mailserver.smtpd.services import Services
from mailserver.smtpd.settings import SmtpdSettings
from mailserver.smtpd.verdict import Codes, RestrictionError
from mailserver.store.contract import StoreRegistry
from mailserver.tables.table import TableError
from mailserver.threads import Threads
from mailserver.wire.lines import BareNewline

# Mechanisms that show the password are excluded by each of these, SCRAM by the second ones.
_NO_PASSWORD: Final = frozenset({"noplaintext", "noactive", "nodictionary", "forward_secrecy", "mutual_auth"})
_NO_SCRAM: Final = frozenset({"nodictionary", "forward_secrecy"})
_CODES: Final = (
    "access_map_reject_code",
    "access_map_defer_code",
    "relay_domains_reject_code",
    "unknown_local_recipient_reject_code",
    "unknown_relay_recipient_reject_code",
    "unknown_virtual_alias_reject_code",
    "unknown_virtual_mailbox_reject_code",
    "unknown_address_reject_code",
    "unknown_client_reject_code",
    "unknown_hostname_reject_code",
    "invalid_hostname_reject_code",
    "non_fqdn_reject_code",
    "maps_rbl_reject_code",
    "plaintext_reject_code",
    "multi_recipient_bounce_reject_code",
    "unverified_sender_reject_code",
    "unverified_sender_defer_code",
    "unverified_recipient_reject_code",
    "unverified_recipient_defer_code",
    "reject_code",
    "defer_code",
)
_CONNECTIONS_FOR_A_PROCESS: Final = 10  # one process here serves what Postfix has many for
SPEED_ADJUST: Final = "speed_adjust"
_STAGES: Final = ("client", "helo", "sender", "relay", "recipient", "data", "end_of_data")


def smtpd_settings(config: Config) -> SmtpdSettings:
    """One listener's settings, from its view of the configuration; with those under stress."""
    return replace(_smtpd_settings(config), under_stress=_smtpd_settings(_under_stress(config)))


def _smtpd_settings(config: Config) -> SmtpdSettings:
    level = config.string("smtpd_tls_security_level")
    return SmtpdSettings(
        myhostname=config.string("myhostname"),
        banner=config.string("smtpd_banner"),
        mail_name=config.string("mail_name"),
        syslog_service=_syslog_service(config),
        message_size_limit=config.octets("message_size_limit"),
        recipient_limit=config.integer("smtpd_recipient_limit"),
        recipient_overshoot_limit=config.integer("smtpd_recipient_overshoot_limit"),
        soft_error_limit=config.integer("smtpd_soft_error_limit"),
        hard_error_limit=config.integer("smtpd_hard_error_limit"),
        error_sleep_time=config.seconds("smtpd_error_sleep_time"),
        junk_command_limit=config.integer("smtpd_junk_command_limit"),
        timeout=config.seconds("smtpd_timeout"),
        starttls_timeout=config.seconds("smtpd_starttls_timeout"),
        per_request_deadline=config.boolean("smtpd_per_request_deadline"),
        min_data_rate=config.integer("smtpd_min_data_rate"),
        line_length_limit=config.integer("line_length_limit"),
        forbid_bare_newline=_bare_newline(config),
        forbid_bare_newline_reject_code=config.integer("smtpd_forbid_bare_newline_reject_code"),
        forbid_unauth_pipelining=config.boolean("smtpd_forbid_unauth_pipelining"),
        helo_required=config.boolean("smtpd_helo_required"),
        disable_vrfy_command=config.boolean("disable_vrfy_command"),
        strict_rfc821_envelopes=config.boolean("strict_rfc821_envelopes"),
        allow_min_user=config.boolean("allow_min_user"),
        resolve_numeric_domain=config.boolean("resolve_numeric_domain"),
        sasl_auth_enable=config.boolean("smtpd_sasl_auth_enable"),
        allow_plaintext_auth=not config.boolean("smtpd_tls_auth_only"),
        mechanisms_in_clear=_mechanisms(config, "smtpd_sasl_security_options"),
        mechanisms_under_tls=_mechanisms(config, "smtpd_sasl_tls_security_options"),
        tls_required=level == "encrypt" or config.boolean("smtpd_enforce_tls"),
        sasl_authenticated_header=config.boolean("smtpd_sasl_authenticated_header"),
        tls_received_header=config.boolean("smtpd_tls_received_header"),
        soft_bounce=config.boolean("soft_bounce"),
        always_add_missing_headers=config.boolean("always_add_missing_headers")
        or bool(config.string("remote_header_rewrite_domain")),
        discard_ehlo_keywords=_discarded_keywords(config),
        content_filter=config.string("content_filter"),
        adds_copies=NO_ADDRESS_MAPPINGS not in input_options(config),
        client_connection_count_limit=config.integer("smtpd_client_connection_count_limit"),
        client_connection_rate_limit=config.integer("smtpd_client_connection_rate_limit"),
        client_message_rate_limit=config.integer("smtpd_client_message_rate_limit"),
        client_recipient_rate_limit=config.integer("smtpd_client_recipient_rate_limit"),
        client_auth_rate_limit=config.integer("smtpd_client_auth_rate_limit"),
        anvil_rate_time_unit=config.seconds("anvil_rate_time_unit"),
        sasl_message_rate_limit=config.integer("smtpd_sasl_message_rate_limit"),
        sasl_recipient_rate_limit=config.integer("smtpd_sasl_recipient_rate_limit"),
        sasl_rate_time_unit=config.seconds("smtpd_sasl_rate_time_unit"),
        stress_connections=_CONNECTIONS_FOR_A_PROCESS * config.integer("default_process_limit"),
    )


def _mechanisms(config: Config, options: str) -> tuple[str, ...]:
    """Those of auth_mechanisms that the options leave."""
    words = config.words(options)
    left = (
        name
        for name in (PASSWORD_MECHANISMS if dovecot_socket(config) else mechanisms(config))
        if (_NO_PASSWORD if name in PASSWORD_MECHANISMS else _NO_SCRAM).isdisjoint(words) or name == EXTERNAL
    )
    return tuple(left)


def _with_lists(parts: Parts, settings: SmtpdSettings, config: Config) -> SmtpdSettings:
    """The settings with what lists of names say, which may ask tables. Raises ConfigError.

    smtpd_forbidden_commands, smtpd_sasl_mechanism_filter.
    """
    settings = replace(settings, forbidden_commands=parts.names_of(config, "smtpd_forbidden_commands"))
    name = "smtpd_sasl_mechanism_filter"
    if not config.words(name):
        return settings
    wanted = parts.names_of(config, name)
    try:
        under_tls = [each for each in settings.mechanisms_under_tls if wanted.find(each)]
        in_clear = [each for each in settings.mechanisms_in_clear if wanted.find(each)]
    except TableError as error:
        raise config.error(name, str(error)) from error
    return replace(settings, mechanisms_under_tls=tuple(under_tls), mechanisms_in_clear=tuple(in_clear))


def _under_stress(config: Config) -> Config:
    """The configuration as it is when `stress` is on."""
    settings = {**config.settings, "stress": Setting("stress", "yes", config.where("stress"))}
    return Config(config.directory, settings, config.services, config.warnings, config.host)


def _discarded_keywords(config: Config) -> frozenset[str]:
    words = frozenset(word.lower() for word in config.words("smtpd_discard_ehlo_keywords"))
    return words if config.boolean("smtputf8_enable") else words | {"smtputf8"}


def _syslog_service(config: Config) -> str:
    """`submission/smtpd` where the row has `-o syslog_name=postfix/submission`."""
    _, slash, rest = config.string("syslog_name").partition("/")
    return f"{rest}/smtpd" if slash else "smtpd"


def _bare_newline(config: Config) -> BareNewline:
    word = config.string("smtpd_forbid_bare_newline").lower()
    return BareNewline.NORMALIZE if word in ("yes", "note") else BareNewline(word)


class SmtpListeners:
    """Makes the factories of all SMTP listeners of a process, which share counters and knowledge."""

    def __init__(
        self,
        parts: Parts,
        threads: Threads,
        reactor: Any,
        resolver: Resolver,
        logins: Logins,
        accepted: Callable[[QueueFile], None],
        connect_auth: Callable[[str], int] = connect,
        own_ports: frozenset[int] | None = None,
        limits: ClientLimits | None = None,
        take: Take | None = None,
        stores: StoreRegistry | None = None,
    ) -> None:
        """`connect_auth` connects to the Dovecot at a socket, where one checks logins.

        `own_ports` are the ports that we listen on for SMTP; None: no address is probed, as for explanations.
        `limits` are counters to share with others. `stores` has the mail for BURL; None: there is no BURL.
        """
        self._parts = parts
        self._threads = threads
        self._reactor = reactor
        self._resolver = resolver
        self._logins = logins
        self._accepted = accepted
        self._take = take
        self._stores = stores
        self._connect_auth = connect_auth
        self._dovecots: dict[str, Logins] = {}
        self._verifications = (
            Verifications(parts, threads, reactor, resolver, own_ports) if own_ports is not None else None
        )
        self.limits = limits or ClientLimits(reactor.seconds)
        self._recipients = RecipientDirectory(parts.routing, threads, reactor.seconds)

    def policy(self, config: Config) -> Policy:
        """The access rules of one listener. Raises ConfigError."""
        parts, verifications = self._parts, self._verifications
        texts = {stage: config.string(f"smtpd_{stage}_restrictions") for stage in _STAGES}
        tools = Tools(
            directory=self._recipients,
            mynetworks=parts.networks("mynetworks"),
            threads=self._threads,
            open_table=parts.opener.table,
            resolver=self._resolver,
            classes={name: config.string(name) for name in config.words("smtpd_restriction_classes")},
            sender_login_maps=parts.tables("smtpd_sender_login_maps"),
            relay_certificates=parts.tables("relay_clientcerts"),
            delimiters=config.string("recipient_delimiter"),
            allow_untrusted_routing=config.boolean("allow_untrusted_routing"),
            shows_table_name=config.boolean("show_user_unknown_table_name"),
            codes=Codes(**{name: config.integer(name) for name in _CODES}),
            verification=partial(verifications.of, config) if verifications is not None else None,
            open_policy_service=PolicyServices(config, self._reactor, parts.warn("smtpd")).open,
        )
        try:
            return Policy(
                RestrictionTexts(**texts),
                tools,
                delay_reject=config.boolean("smtpd_delay_reject"),
                reject_unlisted_recipient=config.boolean("smtpd_reject_unlisted_recipient")
                and NO_UNKNOWN_RECIPIENT_CHECKS not in input_options(config),
                reject_unlisted_sender=config.boolean("smtpd_reject_unlisted_sender"),
                sources=_sources(config),
            )
        except (RestrictionError, TableError) as error:
            raise config.error("smtpd_relay_restrictions", str(error)) from error

    def factory(self, config: Config, is_tls: bool) -> SmtpFactory:
        """The factory of one listener. Raises ConfigError."""
        parts = self._parts
        rules = cleanup_rules(parts.cleanup_rules, input_options(config))

        def make_filter(received: bytes, missing: Mapping[str, str], is_local: bool) -> Cleanup:
            return Cleanup(rules, received, missing, is_local)

        services = Services(
            settings=_with_lists(parts, smtpd_settings(config), config),
            policy=self.policy(config),
            queue=parts.queue,
            make_filter=make_filter,
            accepted=self._accepted,
            logins=self._logins_for(config),
            threads=self._threads,
            log=parts.log,
            clock=self._reactor,
            now=time.time,
            limits=self.limits,
            resolver=self._resolver if config.boolean("smtpd_peername_lookup") else None,
            certificates=smtp_certificates(config),
            tls=self._tls(config),
            may_override_client=parts.networks("smtpd_authorized_xclient_hosts"),
            may_forward_client=parts.networks("smtpd_authorized_xforward_hosts"),
            may_send_bare_newlines=parts.networks("smtpd_forbid_bare_newline_exclusions"),
            are_not_limited=parts.networks("smtpd_client_event_limit_exceptions"),
            local_clients=_local_clients(parts, config),
            are_offered_no_login=parts.networks("smtpd_sasl_exceptions_networks"),
            sasl_rate_limits=parts.tables("smtpd_sasl_rate_limit_maps"),
            certificate_logins=certificate_logins(parts.config) if smtp_authorities(config) else None,
            logged_in=parts.logged_in,
            milters=self.milters(config),
            take=self._take,
            proxy=self._proxy(config),
            urls=self._urls(config),
        )
        return SmtpFactory(services, is_tls=is_tls)

    def _urls(self, config: Config) -> ImapContent | None:
        """What BURL may use at one listener."""
        server, stores, lookup = url_server(config), self._stores, self._parts.accounts.lookup
        if stores is None or not server.is_open or not config.boolean("smtpd_burl_enable"):
            return None
        return ImapContent(server, config.string("myhostname"), stores, lookup, self._threads)

    def _logins_for(self, config: Config) -> Logins:
        """Whoever checks logins of a listener."""
        path = dovecot_socket(config)
        if not path:
            return self._logins
        if path not in self._dovecots:
            ask = partial(self._connect_auth, path)
            self._dovecots[path] = DovecotLogins(self._reactor, self._threads, ask)
            self._parts.log.write("master", f"SMTP logins are checked by Dovecot at {path}")
        return self._dovecots[path]

    def _proxy(self, config: Config) -> ProxyFilter | None:
        """The before-queue filter of one listener. Raises ConfigError."""
        text = config.string("smtpd_proxy_filter")
        if not text:
            return None
        try:
            endpoint = _proxy_endpoint(text, config.string("queue_directory"))
        except ValueError as problem:
            raise config.error("smtpd_proxy_filter", str(problem)) from problem
        options = config.words("smtpd_proxy_options")
        if unknown := [word for word in options if word != SPEED_ADJUST]:
            raise config.error("smtpd_proxy_options", f"unknown word {unknown[0]}: write {SPEED_ADJUST}")
        return ProxyFilter(
            endpoint=endpoint,
            reactor=self._reactor,
            ehlo=config.string("smtpd_proxy_ehlo"),
            timeout=config.seconds("smtpd_proxy_timeout"),
            directory=self._parts.queue.path,
            warn=self._parts.warn(_syslog_service(config)),
            speed_adjust=SPEED_ADJUST in options,
        )

    def milters(self, config: Config) -> Milters | None:
        """The milters of one listener. Raises ConfigError."""
        if NO_MILTERS in input_options(config):
            return None
        rules, tables = milter_rules(config, "smtpd_milters"), self._parts.tables("smtpd_milter_maps")
        if not rules and not tables:
            return None
        by_client = milters_by_client(config, tables, rules) if tables else None
        connect, warn = ReactorConnect(self._reactor), self._parts.warn("smtpd")
        return Milters(rules, connect, warn, milter_macros(config), by_client)

    def _tls(self, config: Config) -> Any:
        level = config.string("smtpd_tls_security_level")
        wanted = level not in ("", "none") or config.boolean("smtpd_tls_wrappermode")
        wanted = wanted or config.boolean("smtpd_use_tls") or config.boolean("smtpd_enforce_tls")
        return self._parts.tls.server("smtp", config) if wanted else None


def _proxy_endpoint(text: str, directory: str) -> ServiceEndpoint:
    """`inet:host:port`, `host:port`, `port` of this host, `unix:path`. Raises ValueError."""
    written = text if text.startswith(("inet:", "unix:")) else f"inet:{text}"
    if written.removeprefix("inet:").isdigit():
        written = f"inet:localhost:{written.removeprefix('inet:')}"
    return replace(parse_endpoint(written, directory), text=text)


def _local_clients(parts: Parts, config: Config) -> LocalClients:
    """Whose headers are completed as our users' are. Raises ConfigError."""
    name = "local_header_rewrite_clients"
    words = [word for word in config.words(name) if word != "check_address_map"]
    unknown = [word for word in words if ":" not in word and word not in LOCAL_WORDS]
    if unknown:
        raise config.error(name, f"unknown word {unknown[0]}: write {', '.join(LOCAL_WORDS)} or type:table")
    try:
        tables = [parts.opener.table(word) for word in words if ":" in word]
    except TableError as error:
        raise config.error(name, str(error)) from error
    permits = [word for word in words if ":" not in word]
    return LocalClients(permits, parts.own_addresses.__contains__, tables, parts.tables("relay_clientcerts"))


def _sources(config: Config) -> Mapping[str, str]:
    names = [f"smtpd_{stage}_restrictions" for stage in _STAGES]
    return {name: config.where(name) for name in names if config.is_set(name)}
