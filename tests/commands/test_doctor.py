"""`mailserver doctor` against a name server of its own: what is right, wrong, and not to be known."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from twisted.internet import protocol, reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.names import dns, error
from twisted.trial.unittest import TestCase

from mailserver.commands import sender_policy
from mailserver.commands.doctor import Greeting, site_of
from mailserver.commands.domain_setup import OK, UNKNOWN, WRONG, Examination, Finding, Site
from mailserver.config.read import read_config
from mailserver.dns import Resolver
from tests.dns_server import NameServer, Zone

HOST = "mail.example.org"
ADDRESS = "192.0.2.1"
GOOD = [
    (HOST, dns.Record_A(ADDRESS)),
    ("example.org", dns.Record_MX(10, HOST.encode())),
    ("example.org", dns.Record_TXT(b"v=spf1 mx -all")),
    ("1.2.0.192.in-addr.arpa", dns.Record_PTR(HOST.encode())),
]


async def silent(host: str) -> str:
    """No host answers."""
    raise OSError("timed out")


async def friendly(host: str) -> str:
    """Every host answers."""
    return f"220 {host} ESMTP"


class DoctorTests(TestCase):
    """mailserver.commands.domain_setup."""

    def resolver(self, records: list[tuple[str, object]], *broken: str) -> Resolver:
        """Answers from the records; SERVFAIL for the broken names."""
        zone = Zone(records)
        zone.broken |= set(broken)
        server = NameServer(reactor, zone)
        self.addCleanup(server.stop)
        return Resolver(reactor, [server.address], hosts_file="")

    async def examine(
        self,
        records: list[tuple[str, object]],
        *broken: str,
        own: tuple[str, ...] = (ADDRESS,),
        block_lists: tuple[str, ...] = (),
        peer: str = "",
        connect: Callable[[str], Awaitable[str]] = silent,
    ) -> dict[str, Finding]:
        """The findings by subject."""
        site = Site(HOST, ("example.org",), frozenset(own), block_lists, peer)
        examination = Examination(site, self.resolver(records, *broken), connect)
        return {finding.subject: finding async for finding in examination.findings()}

    async def _good(self) -> None:
        found = await self.examine(GOOD, peer="example.org", connect=friendly)
        states = {subject: finding.state for subject, finding in found.items()}
        self.assertEqual(states.pop("port 25 inwards"), UNKNOWN)
        self.assertEqual(set(states.values()), {OK}, found)
        self.assertIn(f"PTR of {ADDRESS}", states)

    def test_a_domain_that_is_set_up_well(self) -> Deferred[None]:
        """Everything is ok but what only elsewhere can tell."""
        return ensureDeferred(self._good())

    async def _bare(self) -> None:
        found = await self.examine([(HOST, dns.Record_A(ADDRESS)), ("example.org", dns.Record_NS(b"x"))])
        for subject in ("MX of example.org", f"PTR of {ADDRESS}", "SPF of example.org"):
            self.assertEqual(found[subject].state, WRONG, found)
        self.assertEqual(found["MX of example.org"].text, f"none: publish `example.org. MX 10 {HOST}.`")
        self.assertEqual(found["port 25 outwards"].state, UNKNOWN)

    def test_what_is_missing_is_named_with_its_remedy(self) -> Deferred[None]:
        """No MX, no PTR, no SPF."""
        return ensureDeferred(self._bare())

    async def _elsewhere(self) -> None:
        records = [
            *GOOD[:1],
            ("example.org", dns.Record_MX(10, b"other.example.net")),
            ("other.example.net", dns.Record_A("192.0.2.99")),
            ("example.org", dns.Record_TXT(b"v=spf1 ip4:192.0.2.99 ~all")),
            ("1.2.0.192.in-addr.arpa", dns.Record_PTR(b"other.example.net")),
        ]
        found = await self.examine(records, peer="[mx.example]")
        self.assertIn("none is this host", found["MX of example.org"].text)
        self.assertIn("softfail for 192.0.2.1: add ip4:192.0.2.1", found["SPF of example.org"].text)
        self.assertIn("make them agree", found[f"PTR of {ADDRESS}"].text)
        self.assertEqual(found["port 25 outwards"].state, WRONG)

    def test_records_that_lead_elsewhere_are_wrong(self) -> Deferred[None]:
        """MX, PTR and SPF of somebody else."""
        return ensureDeferred(self._elsewhere())

    async def _silence(self) -> None:
        found = await self.examine(GOOD, "example.org", "1.2.0.192.in-addr.arpa")
        self.assertEqual(found[f"address of {HOST}"].state, OK)
        self.assertNotIn(WRONG, {finding.state for finding in found.values()}, found)
        self.flushLoggedErrors(error.ResolverError)  # the name server's own

    def test_no_answer_is_unknown(self) -> Deferred[None]:
        """P5: SERVFAIL says nothing about MX, PTR or SPF."""
        return ensureDeferred(self._silence())

    async def _lists(self) -> None:
        records = [
            *GOOD,
            ("1.2.0.192.listed.example", dns.Record_A("127.0.0.2")),
            ("1.2.0.192.error.example", dns.Record_A("127.255.255.254")),
        ]
        found = await self.examine(records, block_lists=("listed.example", "error.example", "clean.example"))
        states = [found[f"{ADDRESS} at {zone}.example"].state for zone in ("listed", "error", "clean")]
        self.assertEqual(states, [WRONG, UNKNOWN, OK])

    def test_an_error_code_of_a_block_list_is_no_listing(self) -> Deferred[None]:
        """RFC 5782 §2.1: listings are in 127.0.0.0/16."""
        return ensureDeferred(self._lists())

    async def _nat(self) -> None:
        found = await self.examine(GOOD, own=("10.0.0.5",))
        self.assertEqual(found[f"address of {HOST}"].state, UNKNOWN)
        found = await self.examine(GOOD, own=("192.0.2.77",))
        self.assertEqual(found[f"address of {HOST}"].state, WRONG)

    def test_behind_nat_the_own_address_is_unknown(self) -> Deferred[None]:
        """A public address on no interface is wrong only where the interfaces have public ones."""
        return ensureDeferred(self._nat())

    async def _policies(self) -> None:
        policies = {
            "net.example": (b"v=spf1 ip4:192.0.2.0/24 -all", "pass"),
            "outside.example": (b"v=spf1 ip4:198.51.100.0/24 ip6:2001:db8::/32 -all", "fail"),
            "indirect.example": (b"v=spf1 include:net.example ~all", "pass"),
            "moved.example": (b"v=spf1 redirect=outside.example", "fail"),
            "host.example": (b"v=spf1 a:mail.example.org/24 -all", "pass"),
            "silent.example": (b"v=spf1 exp=text.example", "neutral"),
            "macro.example": (b"v=spf1 exists:%{i}.example -all", ""),
            "loop.example": (b"v=spf1 include:loop.example -all", ""),
            "wrong.example": (b"v=spf1 ip4:999 -all", ""),
        }
        records = [(name, dns.Record_TXT(text)) for name, (text, _) in policies.items()]
        resolver = self.resolver([*GOOD, *records])
        for name, (_, verdict) in policies.items():
            self.assertEqual(await sender_policy.evaluate(resolver, name, ADDRESS), verdict, name)

    def test_policies(self) -> Deferred[None]:
        """RFC 7208 §5: mechanisms left to right; what needs a message cannot be told."""
        return ensureDeferred(self._policies())

    async def _greeting(self) -> None:
        class Host(protocol.Protocol):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.write(b"220 here ESMTP\r\n")

            def dataReceived(self, data: bytes) -> None:
                assert self.transport is not None
                self.transport.loseConnection()

        port = reactor.listenTCP(0, protocol.Factory.forProtocol(Host), interface="127.0.0.1")  # type: ignore[attr-defined]
        number = port.getHost().port
        self.assertEqual(await Greeting(reactor, number).of("127.0.0.1"), "220 here ESMTP")
        await port.stopListening()
        with self.assertRaises(OSError):
            await Greeting(reactor, number).of("127.0.0.1")

    def test_the_greeting_of_a_real_port(self) -> Deferred[None]:
        """A first line is heard; a closed port is an OSError."""
        return ensureDeferred(self._greeting())

    def test_the_domains_of_main_cf(self) -> None:
        """Tables, localhost and the host's own name are no mail domains."""
        home = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (home / "main.cf").write_text(
            "compatibility_level = 3.6\nmyhostname = mail.example.org\nmydomain = example.org\n"
            "mydestination = $myhostname, $mydomain, localhost.$mydomain, localhost, hash:/etc/more.cf\n"
            "relayhost = [relay.example.org]:587\n"
        )
        (home / "master.cf").write_text("")
        site = site_of(read_config(str(home), {}), [], [], "")
        self.assertEqual((site.domains, site.peer), (("example.org",), ""))
