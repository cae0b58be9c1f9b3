"""`mailserver explain ADDRESS`: where mail for an address would go, step by step, and why.

The same plan that a delivery makes, printed; nothing is sent. With --client, the verdict that
this client would hear at RCPT comes first, with the restriction that decided.

Of a queue id, or a Message-ID in angle brackets, it tells what happened to that message: from the
mail log (and its rotated predecessors), and from the queue.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from mailserver.commands.errors import CommandError
from mailserver.commands.history import as_lines as history_lines
from mailserver.commands.history import as_values as history_values
from mailserver.commands.history import history, is_message, queue_ids
from mailserver.commands.log_lines import usual_logs
from mailserver.config.config import Config
from mailserver.config.listeners import listeners
from mailserver.config.read import ConfigError, read_config
from mailserver.delivery.explain import Explanation as Plan
from mailserver.delivery.explain import as_lines, as_values, explain
from mailserver.delivery.lookups import LiveLookups
from mailserver.delivery.plan import LeafKind, Step
from mailserver.dns import TemporaryLookupFailure
from mailserver.envelope import Address
from mailserver.maillog import ListLog
from mailserver.roles.parts import Parts
from mailserver.roles.queueing import local_agents
from mailserver.smtpd.policy import Explanation
from mailserver.threads import Inline
from mailserver.wire.address import AddressError, parse_lenient

_EXAMPLES = """\
examples:
  mailserver explain alice+x@example.org
  mailserver explain --client 192.0.2.7 --from spam@example.net bob@elsewhere.example
  mailserver explain --json staff@example.org
  mailserver explain A909922E0CD
  mailserver explain '<20261124022204.A1BEE22E949@mx.example.org>'
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `mailserver explain`."""
    parser = subparsers.add_parser(
        "explain",
        help="show where mail would go and why, or what became of a message",
        description="Show where mail for ADDRESS would go, with file and line of each step; nothing is sent. "
        "Or tell what happened to the message with that QUEUE-ID or <MESSAGE-ID>.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("address", metavar="ADDRESS|QUEUE-ID|<MESSAGE-ID>")
    parser.add_argument("--client", metavar="IP", help="show the verdict for this SMTP client too")
    parser.add_argument("--helo", default="", help="the name that the client gives")
    parser.add_argument("--from", dest="sender", default="", help="the envelope sender (default: <>)")
    parser.add_argument("--login", default="", help="the account that the client logged in with")
    parser.add_argument(
        "--port", type=int, default=0, help="the listener's port (default: the first SMTP row)"
    )
    parser.add_argument(
        "--log",
        action="append",
        metavar="FILE",
        help="the mail log (default: maillog_file, else /var/log/mail.log)",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The explanation is printed. Raises CommandError."""
    try:
        config = read_config(arguments.config_directory, os.environ)
        parts = Parts(config, ListLog())
        if is_message(arguments.address):
            return _tell_history(arguments, parts)
        verdict = _verdict(arguments, config, parts) if arguments.client else None
        lookups = LiveLookups(parts.routing, parts.local_rules, local_agents(parts))
        plan = explain(_address(arguments.address), parts.routing, parts.local_rules, lookups)
        _require_rights(plan)
        plan = _with_filter(_with_lines(plan, config), config, arguments.port)
    except ConfigError as error:
        raise CommandError(str(error)) from error
    if arguments.json:
        values = as_values(plan)
        if verdict is not None:
            values["smtp"] = _verdict_values(verdict)
        print(json.dumps(values, indent=2))
    else:
        lines = [*(_verdict_lines(verdict) if verdict is not None else ()), *as_lines(plan)]
        print("\n".join(lines))
    return 0


def _require_rights(explanation: Plan) -> None:
    """Raises CommandError where only this user's rights stand between us and the answer."""
    leaves = explanation.plan.leaves if explanation.plan is not None else ()
    reasons = [explanation.trouble, *(leaf.target for leaf in leaves if leaf.kind is LeafKind.PENDING)]
    closed = next((reason for reason in reasons if reason.endswith(os.strerror(errno.EACCES))), "")
    if closed and os.geteuid() != 0:
        raise CommandError(f"{closed}: the server may read it, you may not: ask as root, or as its user")


def _tell_history(arguments: argparse.Namespace, parts: Parts) -> int:
    logs = arguments.log or usual_logs(parts.config)
    found = [history(each, logs, parts.queue) for each in queue_ids(arguments.address, logs)]
    told = [each for each in found if each is not None]
    if not told:
        raise CommandError(
            f"{arguments.address}: neither in {', '.join(logs) or 'a mail log'} nor in {parts.queue.path}: "
            f"name {'an older' if logs else 'the'} log with --log FILE"
        )
    if arguments.json:
        print(json.dumps([history_values(each) for each in told], indent=2))
    else:
        print("\n".join(line for each in told for line in history_lines(each)))
    return 0


def _with_lines(explanation: Plan, config: Config) -> Plan:
    """Parameters that decided a step have their `path:line` beside them."""
    plan = explanation.plan
    if plan is None:
        return explanation
    steps = tuple(
        replace(step, source=f"{step.source}, {config.where(step.source)}")
        if config.is_known(step.source)
        else step
        for step in plan.steps
    )
    return replace(explanation, plan=replace(plan, steps=steps))


def _with_filter(explanation: Plan, config: Config, port: int) -> Plan:
    """The filters that mail over SMTP goes through before are the first steps."""
    plan = explanation.plan
    rows = [row.config for row in listeners(config) if row.service == "smtpd" and port in (0, row.port)]
    view = rows[0] if rows else config
    steps = tuple(
        Step(0, f"first through the {kind} {view.string(name)}", f"{name}, {view.where(name)}")
        for name, kind in (("smtpd_proxy_filter", "proxy filter"), ("content_filter", "filter"))
        if view.string(name)
    )
    if plan is None or not steps:
        return explanation
    return replace(explanation, plan=replace(plan, steps=(*steps, *plan.steps)))


def _address(text: str) -> Address:
    try:
        return parse_lenient(text)
    except AddressError as error:
        raise CommandError(f"{text}: {error}: write it as user@domain") from error


def _verdict(arguments: argparse.Namespace, config: Config, parts: Parts) -> Explanation:
    """What the client would hear at RCPT; DNS is asked, so a reactor runs for that long."""
    from twisted.internet import reactor
    from twisted.internet.task import react

    from mailserver.accounts.local_logins import LocalLogins
    from mailserver.dns import Resolver
    from mailserver.roles.logins import judge
    from mailserver.roles.smtp import SmtpListeners
    from mailserver.smtpd.verdict import Request, Stage

    rows = [row for row in listeners(config) if row.service == "smtpd" and arguments.port in (0, row.port)]
    if not rows:
        raise CommandError(f"no SMTP listener on port {arguments.port}: `mailserver check` lists them")
    answers: list[Explanation] = []

    async def ask(clock: Any) -> None:
        resolver = Resolver(clock)
        logins = LocalLogins(judge(parts), Inline(), clock)
        smtp = SmtpListeners(parts, Inline(), clock, resolver, logins, lambda message: None)
        request = Request(
            address=arguments.client,
            client_name=await _confirmed_name(resolver, arguments.client),
            helo=arguments.helo or f"[{arguments.client}]",
            login=arguments.login,
            sender=_address(arguments.sender) if arguments.sender.strip("<>") else None,
            recipient=_address(arguments.address),
            recipient_count=1,
            stage=Stage.RCPT,
        )
        answers.append(await smtp.policy(rows[0].config).explain_recipient(request))

    try:
        react(ask, _reactor=reactor)
    except SystemExit as stop:
        if stop.code or not answers:
            raise
    return answers[0]


async def _confirmed_name(resolver: Any, address: str) -> str:
    """The client's name, where PTR and address agree; "unknown" else."""
    try:
        for name in await resolver.ptr(address):
            if address in await resolver.addresses(name):
                return str(name)
    except (TemporaryLookupFailure, ValueError):
        pass
    return "unknown"


def _verdict_lines(explanation: Explanation) -> Iterator[str]:
    verdict = explanation.verdict
    yield f"SMTP verdict: {verdict.code} {verdict.dsn} {verdict.text}"
    for step in explanation.trace:
        yield f"  {step}"
    if verdict.reason:
        yield f"  decided by {verdict.reason}"


def _verdict_values(explanation: Explanation) -> dict[str, Any]:
    verdict = explanation.verdict
    return {
        "code": verdict.code,
        "dsn": verdict.dsn,
        "text": verdict.text,
        "reason": verdict.reason,
        "trace": list(explanation.trace),
    }
