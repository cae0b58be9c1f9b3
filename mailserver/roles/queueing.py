"""The queue's runner from the configuration, with its ways out: mailboxes, commands, other hosts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from mailserver.config.bounce_templates import expanded, read_templates
from mailserver.config.config import Config
from mailserver.delivery.job import Agents
from mailserver.delivery.local import LocalAgents
from mailserver.delivery.lookups import LiveLookups
from mailserver.dns import Resolver
from mailserver.message.bounce_template import Template
from mailserver.message.report import Kind
from mailserver.queue.bounce import Bounces, Reporter
from mailserver.queue.direct import LOCK_PATIENCE, DirectDelivery
from mailserver.queue.runner import Runner
from mailserver.queue.services import Services
from mailserver.queue.slots import Slots
from mailserver.roles.parts import Parts
from mailserver.roles.ways_out import WaysOut, exported_environment
from mailserver.store.locking import LockRules
from mailserver.store.side_by_side import SideBySide
from mailserver.threads import Threads

SYNC_THREADS: Final = 4  # that wait for the disk when several messages go into a maildir at once


def local_agents(
    parts: Parts, rules: LockRules | None = None, helpers: SideBySide | None = None
) -> LocalAgents:
    """Whoever delivers with the rights of this process; `rules` for locks, where not the configured ones."""
    config = parts.config
    mode = config.string("forward_file_mode")
    return LocalAgents(
        config.string("myhostname"),
        forward_file_mode=None if mode == "any" else int(mode, 8),
        mboxrd=config.string("mbox_quoting") == "mboxrd",
        full_is_temporary=config.boolean("quota_full_tempfail"),
        quota_warnings=parts.store.quota_warnings,
        quota_grace=parts.store.quota_grace,
        accounts_directory=os.path.join(config.string("state_directory"), "accounts"),
        rules=rules or parts.store.lock_rules,
        requires_home=config.boolean("require_home_directory"),
        strict_ownership=config.boolean("strict_mailbox_ownership"),
        command_shell=config.words("local_command_shell"),
        report=parts.warn("local"),
        helpers=helpers,
    )


def make_runner(
    parts: Parts,
    threads: Threads,
    reactor: Any,
    resolver: Resolver,
    agents: Agents,
    delivered: Callable[[str], None],
    smtp_ports: frozenset[int],
    agents_are_this_process: bool,
) -> tuple[Runner, Services, WaysOut]:
    """The runner, not started, what it delivers with, and the ways out to close when it has stopped."""
    config = parts.config
    ways_out = WaysOut(parts, threads, reactor, resolver, agents, agents_are_this_process, smtp_ports)
    services = Services(
        queue=parts.queue,
        threads=threads,
        log=parts.log,
        clock=time.time,
        routing=parts.routing,
        rules=parts.local_rules,
        lookups=LiveLookups(parts.routing, parts.local_rules, agents),
        agents=agents,
        bounces=Bounces(parts.queue, reporter(config, parts.warn("bounce")), time.time),
        host=config.string("myhostname"),
        mail_name=config.string("mail_name"),
        transport=ways_out.transport,
        retry=parts.retry_times,
        mailbox_size_limit=config.octets("mailbox_size_limit"),
        quota_rules=config.string("quota_rule"),
        command_time_limit=config.seconds("command_time_limit"),
        environment=exported_environment(config),
        soft_bounce=config.boolean("soft_bounce"),
        defer_transports=frozenset(config.words("defer_transports")),
        enable_original_recipient=config.boolean("enable_original_recipient"),
        delivered=delivered,
        account_slots=Slots(config.integer("local_destination_concurrency_limit")),
        destination_slots=Slots(ways_out.concurrency_limit),
        recipient_limit=ways_out.recipient_limit,
    )
    runner = Runner(
        services,
        reactor,
        active_limit=config.integer("qmgr_message_active_limit"),
        queue_run_delay=config.seconds("queue_run_delay"),
    )
    return runner, services, ways_out


def direct_delivery(parts: Parts, services: Services, reactor: Any) -> DirectDelivery:
    """Whoever delivers before the reply, where this process may write to all mailboxes."""
    rules = replace(parts.store.lock_rules, patience=min(parts.store.lock_rules.patience, LOCK_PATIENCE))
    return DirectDelivery(services, local_agents(parts, rules, SideBySide(SYNC_THREADS)), reactor)


def reporter(config: Config, warn: Callable[[str], None]) -> Reporter:
    """Whom delivery reports come from, and their texts. Raises ConfigError."""
    return Reporter(
        host=config.string("myhostname"),
        mail_name=config.string("mail_name"),
        return_limit=config.octets("bounce_size_limit"),
        double_bounce_recipient=config.string("2bounce_notice_recipient"),
        my_origin=config.string("myorigin"),
        copies=_postmaster_copies(config),
        templates=_templates(config, warn),
    )


def _templates(config: Config, warn: Callable[[str], None]) -> dict[str, Template]:
    found = read_templates(config.string("bounce_template_file"), warn)
    return {name: expanded(template, config) for name, template in found.items()}


def _postmaster_copies(config: Config) -> dict[Kind, str]:
    """Who else hears of bounces and delays: those notices that notify_classes names."""
    notices = {
        "bounce": (Kind.FAILED, "bounce_notice_recipient"),
        "delay": (Kind.DELAYED, "delay_notice_recipient"),
    }
    wanted = [notices[word] for word in config.words("notify_classes") if word in notices]
    return {kind: config.string(name) for kind, name in wanted}
