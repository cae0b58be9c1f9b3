"""What distributions install as main.cf becomes a server: every part is made, nothing is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.task import Clock

from mailserver.config.config import Config
from mailserver.config.listeners import listeners
from mailserver.config.read import read_config
from mailserver.config.syntax import ConfigError, Setting
from mailserver.dnssec import NameServer, SecureResolver
from mailserver.maillog import ListLog
from mailserver.roles.parts import Parts
from mailserver.roles.queueing import local_agents, reporter
from mailserver.roles.relays import Relays, relay_settings
from mailserver.roles.smtp import SmtpListeners, smtpd_settings
from mailserver.tables.table import TableError
from mailserver.threads import Inline
from tests.config.hosts import KnownHost

DATA = Path(__file__).parent.parent / "config" / "data"


def parts_of(directory: str, **changes: str) -> Parts:
    """The parts of that configuration, with a mail owner that every machine has."""
    config = read_config(directory, {}, KnownHost())
    values = {"mail_owner": "nobody"} | changes
    settings = {**config.settings, **{name: Setting(name, text, "test") for name, text in values.items()}}
    return Parts(Config(config.directory, settings, config.services, (), config.host), ListLog())


def make_all(parts: Parts) -> Relays:
    """Everything that reads the configuration for mail transfer. Raises ConfigError."""
    clock, resolver = Clock(), cast(Any, None)
    for each in (parts.routing, parts.local_rules, parts.cleanup_rules, parts.retry_times, parts.copies):
        assert each is not None
    assert local_agents(parts) and reporter(parts.config, parts.warn("bounce"))
    smtp = SmtpListeners(parts, Inline(), clock, resolver, cast(Any, None), lambda message: None)
    for listener in listeners(parts.config):
        if listener.service == "smtpd":
            assert smtp.policy(listener.config) and smtpd_settings(listener.config)
    return Relays(parts, Inline(), clock, resolver, frozenset({25}))


@pytest.mark.parametrize("name", ["debian12", "debian13", "rhel9", "seed"])
def test_stock_files_make_a_server(name: str) -> None:
    """Debian 12 and 13, RHEL 9, and the service that all this recreates: each with its transports."""
    relays = make_all(parts_of(str(DATA / name)))
    assert relays.find("smtp") is not None and relays.find("relay") is not None
    assert relays.find("uucp") is None


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("smtp_tcp_port", "nonsense", "is no port"),
        # Without root there is one owner, whatever the maps say.
        pytest.param("virtual_uid_maps", "hash:/etc/uids", "static:NUMBER", marks=pytest.mark.needs("root")),
        ("transport_maps", "nosuch:/etc/transport", "transport_maps"),
        ("smtp_connect_timeout", "soon", "smtp_connect_timeout"),
    ],
)
def test_what_cannot_be_used_is_named(name: str, value: str, problem: str) -> None:
    """A bad parameter stops the start, with its place."""
    with pytest.raises(ConfigError, match=problem):
        make_all(parts_of(str(DATA / "seed"), **{name: value}))


def test_dane_wants_dnssec_lookups(tmp_path: Path) -> None:
    """postconf(5): without them dane is not done, and a warning says so."""
    secure = SecureResolver(None, [NameServer("127.0.0.1", is_trusted=True)])
    values = {"smtp_tls_security_level": "dane", "smtp_dns_support_level": "dnssec"}
    parts = parts_of(str(DATA / "seed"), **values, tls_dane_digests="sha512=2, sha256")
    rules = relay_settings(parts, parts.config, frozenset(), secure=secure).dane
    assert (rules.resolver, rules.insecure_mx_policy, rules.digests) == (secure, "dane", ("sha512", "sha256"))
    parts = parts_of(str(DATA / "seed"), smtp_dns_support_level="dnssec")
    assert relay_settings(parts, parts.config, frozenset(), secure=secure).dane.insecure_mx_policy == "may"
    for name, value in (
        ("smtp_dns_support_level", "enabled"),
        ("smtp_host_lookup", "native"),
        ("ignore_mx_lookup_error", "yes"),
    ):
        parts = parts_of(str(DATA / "seed"), **{**values, name: value})
        assert relay_settings(parts, parts.config, frozenset(), secure=secure).dane.resolver is None
        assert "dane configured with" in str(parts.log.lines)
    for name, value in (("tls_dane_digests", "md5"), ("smtp_tls_dane_insecure_mx_policy", "secure")):
        parts = parts_of(str(DATA / "seed"), **{name: value})
        with pytest.raises(ConfigError, match=name):
            relay_settings(parts, parts.config, frozenset(), secure=secure)


def test_policies_and_passwords_by_next_hop(tmp_path: Path) -> None:
    """smtp_tls_policy_maps and smtp_sasl_password_maps: the next hop in every spelling, parents, hosts."""
    parts = parts_of(
        str(DATA / "seed"),
        smtp_tls_security_level="may",
        smtp_tls_policy_maps="inline:{ { [mx.test]:587 = verify match=mx.test:.mx.test protocols=>=TLSv1.3 } "
        "{ .secret.test = secure } { signed.test = dane-only } "
        "{ broken.test = fingerprint } }",
        smtp_sasl_auth_enable="yes",
        smtp_sasl_password_maps="inline:{ { [mx.test]:submission = me:one:two } { host.test = other:x } "
        "{ alice@example.org = alice:y } }",
        smtp_sender_dependent_authentication="yes",
    )
    settings = relay_settings(parts, parts.config, frozenset({25}))
    policy = settings.tls_policy("[mx.test]:587")
    assert (policy.level, policy.minimum) == ("verify", "TLSv1.3")
    assert policy.names("mx.test", "h.test") == ("mx.test", ".mx.test")
    inner = settings.tls_policy("a.secret.test")
    assert inner.names("a.secret.test", "h.test") == ("a.secret.test", ".a.secret.test")
    assert settings.tls_policy("else.test").level == "may"
    assert settings.tls_policy("signed.test").level == "dane-only"
    with pytest.raises(TableError, match="fingerprint is not supported"):
        settings.tls_policy("broken.test")

    def name(nexthop: str, host: str, sender: str = "") -> tuple[str, str]:
        login = settings.login(nexthop, host, sender)
        return (login.name, login.password) if login is not None else ("", "")

    assert name("[mx.test]:587", "mx.test") == ("me", "one:two")
    assert name("else.test", "host.test") == ("other", "x")
    assert name("else.test", "host.test", "alice@example.org") == ("alice", "y")
    assert name("else.test", "h.test") == ("", "")
    login = settings.login("[mx.test]:587", "mx.test", "")
    assert login is not None and (login.in_clear, login.under_tls) == (False, True)
    assert "one" not in repr(login)
