"""The queue's runner from the configuration, with its ways out: mailboxes, commands, other hosts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from mailserver.config.config import Config
from mailserver.delivery.job import Agents
from mailserver.delivery.local import LocalAgents
from mailserver.delivery.lookups import LiveLookups
from mailserver.delivery.relay import Relay, RelaySettings
from mailserver.delivery.remote import RemoteTransport
from mailserver.delivery.smtp_client import TimeLimits
from mailserver.dns import Resolver
from mailserver.message.report import Kind
from mailserver.queue.bounce import Bounces, Reporter
from mailserver.queue.runner import Runner
from mailserver.queue.services import Services
from mailserver.queue.slots import Slots
from mailserver.roles.parts import Parts
from mailserver.tables.access import first_entry
from mailserver.threads import Threads
from mailserver.tls import ClientTls

_STAGES = ("connect", "helo", "starttls", "mail", "rcpt", "data_init", "data_xfer", "data_done")


def local_agents(parts: Parts) -> LocalAgents:
    """Whoever delivers with the rights of this process."""
    config = parts.config
    mode = config.string("forward_file_mode")
    return LocalAgents(
        config.string("myhostname"),
        forward_file_mode=None if mode == "any" else int(mode, 8),
        mboxrd=config.string("mbox_quoting") == "mboxrd",
        rules=parts.lock_rules,
        requires_home=config.boolean("require_home_directory"),
        strict_ownership=config.boolean("strict_mailbox_ownership"),
        command_shell=config.words("local_command_shell"),
        report=parts.warn("local"),
    )


def make_runner(
    parts: Parts,
    threads: Threads,
    reactor: Any,
    resolver: Resolver,
    agents: Agents,
    delivered: Callable[[str], None],
    smtp_ports: frozenset[int],
) -> tuple[Runner, Relay]:
    """The runner, not started, and the relay to close when it has stopped."""
    config = parts.config
    relay = Relay(reactor, resolver, relay_settings(parts, smtp_ports))
    services = Services(
        queue=parts.queue,
        threads=threads,
        log=parts.log,
        clock=time.time,
        routing=parts.routing,
        rules=parts.local_rules,
        lookups=LiveLookups(parts.routing, parts.local_rules, agents),
        agents=agents,
        bounces=Bounces(parts.queue, reporter(config), time.time),
        host=config.string("myhostname"),
        mail_name=config.string("mail_name"),
        transport=RemoteTransport(relay, threads),
        retry=parts.retry_times,
        mailbox_size_limit=config.octets("mailbox_size_limit"),
        command_time_limit=config.seconds("command_time_limit"),
        environment=_environment(config),
        soft_bounce=config.boolean("soft_bounce"),
        delivered=delivered,
        account_slots=Slots(config.integer("local_destination_concurrency_limit")),
        destination_slots=Slots(config.integer("default_destination_concurrency_limit")),
    )
    runner = Runner(
        services,
        reactor,
        active_limit=config.integer("qmgr_message_active_limit"),
        queue_run_delay=config.seconds("queue_run_delay"),
    )
    return runner, relay


def reporter(config: Config) -> Reporter:
    """Whom delivery reports come from."""
    return Reporter(
        host=config.string("myhostname"),
        mail_name=config.string("mail_name"),
        return_limit=config.octets("bounce_size_limit"),
        double_bounce_recipient=config.string("2bounce_notice_recipient"),
        my_origin=config.string("myorigin"),
        copies=_postmaster_copies(config),
    )


def _postmaster_copies(config: Config) -> dict[Kind, str]:
    """Who else hears of bounces and delays: those notices that notify_classes names."""
    notices = {
        "bounce": (Kind.FAILED, "bounce_notice_recipient"),
        "delay": (Kind.DELAYED, "delay_notice_recipient"),
    }
    wanted = [notices[word] for word in config.words("notify_classes") if word in notices]
    return {kind: config.string(name) for kind, name in wanted}


def relay_settings(parts: Parts, smtp_ports: frozenset[int]) -> RelaySettings:
    """How mail goes to other hosts. `smtp_ports` are the ports that we listen on ourselves."""
    config = parts.config
    policies, passwords = parts.tables("smtp_tls_policy_maps"), parts.tables("smtp_sasl_password_maps")
    level = config.string("smtp_tls_security_level") or "none"

    def tls_level(nexthop: str) -> str:
        entry = first_entry(policies, _destination_keys(nexthop))
        return entry.value.split()[0] if entry is not None and entry.value else level

    def password(nexthop: str) -> tuple[str, str] | None:
        entry = first_entry(passwords, _destination_keys(nexthop))
        name, _, secret = entry.value.partition(":") if entry is not None else ("", "", "")
        return (name, secret) if name else None

    return RelaySettings(
        helo_name=config.string("smtp_helo_name"),
        client_tls=ClientTls,
        tls_level=tls_level,
        password=password if config.boolean("smtp_sasl_auth_enable") else lambda nexthop: None,
        own_addresses=parts.own_addresses,
        own_ports=smtp_ports,
        own_names=frozenset({config.string("myhostname").lower()}),
        limits=TimeLimits(**{stage: config.seconds(f"smtp_{stage}_timeout") for stage in _STAGES}),
    )


def _destination_keys(nexthop: str) -> tuple[str, ...]:
    """`[host]:port` as written, then without the port, then the bare name."""
    bare = nexthop.partition(":")[0] if not nexthop.startswith("[") else nexthop.partition("]")[0] + "]"
    return tuple(dict.fromkeys((nexthop, bare, bare.strip("[]"))))


def _environment(config: Config) -> tuple[tuple[str, str], ...]:
    """What commands find in their environment besides the message's own variables."""
    found = []
    for word in config.words("export_environment"):
        name, equals, value = word.partition("=")
        if name == "MAIL_CONFIG" and not equals:
            found.append((name, config.directory))
        elif equals or name in os.environ:
            found.append((name, value if equals else os.environ[name]))
    return tuple(found)
