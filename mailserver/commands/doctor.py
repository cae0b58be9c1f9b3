"""`mailserver doctor`: what the world sees of this mail host, and what is missing there.

Asks DNS, and with --peer port 25 of one other host; changes nothing. Exit status 1 where
something is wrong. `mailserver check` looks at the machine itself.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure

from mailserver.commands.domain_setup import WRONG, Examination, Finding, Site
from mailserver.commands.errors import CommandError
from mailserver.commands.tlsa_records import read_chains, tlsa_findings
from mailserver.config.config import Config
from mailserver.config.read import ConfigError, read_config
from mailserver.dns import Resolver
from mailserver.dnssec import SecureResolver
from mailserver.roles.tls_parts import key_pair_files

_PATIENCE = 20  # seconds for another host's greeting


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `mailserver doctor`."""
    parser = subparsers.add_parser(
        "doctor",
        help="examine MX, addresses, PTR, SPF and TLSA of this host's domains",
        description="Ask DNS for what other mail hosts want to see: MX, A/AAAA, PTR, SPF, block lists, TLSA.",
        epilog="examples:\n  mailserver doctor\n  mailserver doctor example.org --peer example.net",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("domains", metavar="DOMAIN", nargs="*", help="default: the domains of main.cf")
    parser.add_argument("--peer", metavar="DOMAIN", default="", help="try port 25 of its mail exchanger")
    parser.add_argument(
        "--block-list",
        metavar="ZONE",
        action="append",
        default=[],
        help="ask this DNS block list too, e.g. zen.spamhaus.org",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The findings are printed as they come. Raises CommandError."""
    from twisted.internet import reactor
    from twisted.internet.task import react

    try:
        config = read_config(arguments.config_directory, os.environ)
        site = site_of(config, arguments.domains, arguments.block_list, arguments.peer)
    except ConfigError as error:
        raise CommandError(str(error)) from error
    findings: list[Finding] = []
    files = [pair.certificate for pair in key_pair_files(config, "smtpd")]
    tlsa = (site.hostname, site.domains, read_chains(files))

    async def ask(clock: Any) -> None:
        secure = SecureResolver(clock)
        examination = Examination(site, Resolver(clock, hosts_file=os.devnull), Greeting(clock).of)
        async for finding in _all(examination.findings(), tlsa_findings(secure, *tlsa)):
            findings.append(finding)
            if not arguments.json:
                print(f"{finding.state:8} {finding.subject}: {finding.text}", flush=True)

    try:
        react(ask, _reactor=reactor)
    except SystemExit as stop:
        if stop.code:
            raise
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    return int(any(finding.state == WRONG for finding in findings))


async def _all(*questions: AsyncIterator[Finding]) -> AsyncIterator[Finding]:
    for question in questions:
        async for finding in question:
            yield finding


def site_of(config: Config, domains: list[str], block_lists: list[str], peer: str) -> Site:
    """What main.cf says of this host; the domains are those it names, where none are given."""
    named = [
        word.lower()
        for name in ("mydestination", "virtual_alias_domains", "virtual_mailbox_domains")
        for word in config.words(name)
        if "." in word and not any(mark in word for mark in ":/!{") and not word.startswith("localhost.")
    ]
    hostname = config.string("myhostname")
    mail_domains = [name for name in dict.fromkeys(named) if name != hostname.lower()] or [hostname.lower()]
    own = {str(interface.ip) for interface in config.host.interfaces()}
    return Site(
        hostname,
        tuple(domains or mail_domains),
        frozenset(own | set(config.words("proxy_interfaces"))),
        tuple(block_lists),
        peer or _relay_at_port_25(config.string("relayhost")),
    )


def _relay_at_port_25(relayhost: str) -> str:
    """`domain` or `[host]`; "" where another port is named."""
    return relayhost if relayhost.endswith("]") or ":" not in relayhost else ""


class _Listener(LineReceiver):
    """Waits for one line."""

    def __init__(self) -> None:
        self.line: Deferred[str] = Deferred()

    def close(self) -> None:
        """The connection, if there is one, is closed."""
        transport: Any = self.transport
        if transport is not None:
            transport.loseConnection()

    def lineReceived(self, line: bytes) -> None:
        if not self.line.called:
            self.line.callback(line.decode("ascii", "replace")[:200])
            self.sendLine(b"QUIT")

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if not self.line.called:
            self.line.errback(OSError("the connection ended without a greeting"))


class Greeting:
    """Hears what a host says on `port`."""

    def __init__(self, reactor: Any, port: int = 25) -> None:
        self._reactor = reactor
        self._port = port

    async def of(self, host: str) -> str:
        """The first line. Raises OSError."""
        listener = _Listener()
        endpoint = HostnameEndpoint(self._reactor, host, self._port, timeout=_PATIENCE)
        try:
            await connectProtocol(endpoint, listener)
            return await listener.line.addTimeout(_PATIENCE, self._reactor)
        except (ConnectError, DNSLookupError, TimeoutError) as error:
            raise OSError(str(error) or "no answer") from error
        finally:
            listener.close()
