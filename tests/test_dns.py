"""DNS answers are facts, and silence is not: over real packets on loopback."""

from __future__ import annotations

from collections.abc import Coroutine
from tempfile import NamedTemporaryFile
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.names import dns, error
from twisted.trial.unittest import TestCase

from mailserver.dns import MailExchanger, NoSuchDomain, Resolver, TemporaryLookupFailure
from tests.dns_server import NameServer, Zone


class ResolverTests(TestCase):
    """mailserver.dns.Resolver."""

    def setUp(self) -> None:
        self.zone = Zone(
            [
                ("example.net", dns.Record_MX(20, b"second.example.net")),
                ("example.net", dns.Record_MX(10, b"first.example.net")),
                ("null.example", dns.Record_MX(0, b"")),
                ("first.example.net", dns.Record_A("192.0.2.1")),
                ("first.example.net", dns.Record_AAAA("2001:db8::1")),
                ("bare.example", dns.Record_A("192.0.2.9")),
                ("1.2.0.192.in-addr.arpa", dns.Record_PTR(b"first.example.net")),
                ("text.example", dns.Record_TXT(b"v=spf1 ", b"-all")),
            ]
            + [("big.example", dns.Record_MX(n, b"host-%d.with.a.long.name.example" % n)) for n in range(300)]
        )
        self.server = NameServer(reactor, self.zone)
        self.resolver = Resolver(reactor, [self.server.address])
        self.addCleanup(self.server.stop)

    def ask(self, coroutine: Coroutine[Any, Any, object]) -> Deferred[object]:
        return ensureDeferred(coroutine)

    async def _answers(self) -> None:
        resolver = self.resolver
        self.assertEqual(
            await resolver.mail_exchangers("example.net"),
            (MailExchanger(10, "first.example.net"), MailExchanger(20, "second.example.net")),
        )
        self.assertEqual(await resolver.mx("null.example"), ("",))
        self.assertEqual(await resolver.mx("bare.example"), ())
        self.assertEqual(set(await resolver.addresses("first.example.net")), {"192.0.2.1", "2001:db8::1"})
        self.assertEqual(await resolver.ptr("192.0.2.1"), ("first.example.net",))
        self.assertEqual(await resolver.txt("text.example"), (b"v=spf1 -all",))

    def test_answers(self) -> Deferred[object]:
        """MX in order of preference, the null MX, both address families, PTR and TXT."""
        return self.ask(self._answers())

    async def _hosts(self) -> None:
        with NamedTemporaryFile("w") as file:
            file.write("# ours\n192.0.2.50 Box.example box # both names\n")
            file.flush()
            resolver = Resolver(reactor, [self.server.address], hosts_file=file.name)
        self.assertEqual(await resolver.addresses("BOX.example"), ("192.0.2.50",))
        self.assertEqual(await resolver.ptr("192.0.2.50"), ("box.example",))
        self.assertEqual(await resolver.ptr("192.0.2.1"), ("first.example.net",))

    def test_the_hosts_file_comes_first(self) -> Deferred[object]:
        """hosts(5): what stands there needs no name server."""
        return self.ask(self._hosts())

    async def _nothing(self) -> None:
        with self.assertRaises(NoSuchDomain):
            await self.resolver.mail_exchangers("nowhere.example")
        self.assertEqual(await self.resolver.addresses("nowhere.example"), ())
        self.assertEqual(await self.resolver.ptr("192.0.2.77"), ())

    def test_a_name_that_does_not_exist(self) -> Deferred[object]:
        """NXDOMAIN is a fact."""
        return self.ask(self._nothing())

    async def _broken(self) -> None:
        self.zone.broken |= {"example.net", "first.example.net"}
        for question in (self.resolver.mx("example.net"), self.resolver.addresses("first.example.net")):
            with self.assertRaises(TemporaryLookupFailure):
                await question
        self.flushLoggedErrors(error.ResolverError)  # the test's own name server logs its faults

    def test_a_server_failure_is_temporary(self) -> Deferred[object]:
        """SERVFAIL says nothing about the name: RELIABILITY F43, P5."""
        return self.ask(self._broken())

    async def _big(self) -> None:
        exchangers = await self.resolver.mail_exchangers("big.example")
        self.assertEqual(len(exchangers), 100)

    def test_a_truncated_answer_is_asked_for_again_over_tcp(self) -> Deferred[object]:
        """300 MX records do not fit into a datagram; what is used of them is bounded."""
        return self.ask(self._big())
