"""What DNSSEC vouches for, by the AD bit of a server that may be believed: over real packets on loopback."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from twisted.internet import reactor
from twisted.names import dns, error

from mailserver.delivery.dane import usable
from mailserver.dns import MailExchanger, NoSuchDomain, TemporaryLookupFailure
from mailserver.dnssec import NameServer, SecureResolver, Tlsa
from tests import dns_server
from tests.dns_server import Zone, tlsa
from tests.reactor_case import ReactorCase


class SecureResolverTests(ReactorCase):
    """mailserver.dnssec.SecureResolver."""

    def setUp(self) -> None:
        self.zone = Zone(
            [
                ("signed.test", dns.Record_MX(20, b"two.signed.test")),
                ("signed.test", dns.Record_MX(10, b"one.signed.test")),
                ("null.test", dns.Record_MX(0, b"")),
                ("one.signed.test", dns.Record_A("192.0.2.1")),
                ("one.signed.test", dns.Record_AAAA("2001:db8::1")),
                ("alias.signed.test", dns.Record_CNAME(b"mid.test")),
                ("mid.test", dns.Record_CNAME(b"one.signed.test")),
                ("www.signed.test", dns.Record_CNAME(b"one.signed.test")),
                ("unsigned.test", dns.Record_MX(10, b"one.signed.test")),
                ("_25._tcp.one.signed.test", tlsa(3, 1, 1, bytes(range(32)))),
                ("_25._tcp.short.test", tlsa(3, 1, 1, b"")),
                ("_25._tcp.empty.test", _empty()),
                *(("_25._tcp.big.test", tlsa(3, 0, 0, bytes((n,)) * 900)) for n in range(5)),
            ]
        )
        self.zone.secure |= {
            "signed.test",
            "one.signed.test",
            "alias.signed.test",
            "www.signed.test",
            "_25._tcp.one.signed.test",
            "_25._tcp.big.test",
            "_25._tcp.short.test",
            "_25._tcp.empty.test",
        }
        server = dns_server.NameServer(reactor, self.zone)
        self.addCleanup(server.stop)
        self.address = server.address
        self.resolver = SecureResolver(reactor, [NameServer(*server.address, is_trusted=True)])

    def test_the_records_and_whether_they_are_secure(self) -> Any:
        """MX in order, addresses of one family, TLSA as RFC 6698 §2.1 has it; AD is what counts."""

        async def test() -> None:
            answer = await self.resolver.mail_exchangers("signed.test")
            self.assertEqual(answer.records[0], MailExchanger(10, "one.signed.test"))
            self.assertEqual((len(answer.records), answer.name, answer.is_secure), (2, "signed.test", True))
            self.assertFalse((await self.resolver.mail_exchangers("unsigned.test")).is_secure)
            self.assertEqual(
                (await self.resolver.mail_exchangers("null.test")).records, (MailExchanger(0, ""),)
            )
            self.assertEqual((await self.resolver.addresses("one.signed.test", 4)).records, ("192.0.2.1",))
            self.assertEqual((await self.resolver.addresses("one.signed.test", 6)).records, ("2001:db8::1",))
            found = await self.resolver.tlsa("one.signed.test", 25)
            self.assertEqual(found.records, (Tlsa(3, 1, 1, bytes(range(32))),))
            self.assertTrue(found.is_secure)

        return self.run_test(test)

    def test_an_alias_is_as_secure_as_its_weakest_link(self) -> Any:
        """RFC 7672 §2.2.2: the name at the end is told, and the first link can be asked about."""

        async def test() -> None:
            www = await self.resolver.addresses("www.signed.test", 4)
            self.assertEqual((www.name, www.is_secure), ("one.signed.test", True))
            alias = await self.resolver.addresses("alias.signed.test", 4)
            self.assertEqual((alias.records, alias.name), (("192.0.2.1",), "one.signed.test"))
            self.assertFalse(alias.is_secure)
            self.assertTrue(await self.resolver.is_alias_secure("alias.signed.test"))
            self.assertFalse(await self.resolver.is_alias_secure("mid.test"))
            self.assertFalse(await self.resolver.is_alias_secure("one.signed.test"))

        return self.run_test(test)

    def test_nothing_there_is_an_answer_and_no_answer_is_not(self) -> Any:
        """NXDOMAIN and NODATA are facts; SERVFAIL, which is what a bogus answer becomes, is not. P5."""

        async def test() -> None:
            with self.assertRaises(NoSuchDomain):
                await self.resolver.mail_exchangers("nowhere.test")
            self.assertEqual((await self.resolver.tlsa("nowhere.test", 25)).records, ())
            self.assertEqual((await self.resolver.tlsa("one.signed.test", 26)).records, ())
            self.assertEqual((await self.resolver.addresses("signed.test", 4)).records, ())
            self.zone.broken |= {"signed.test", "_25._tcp.one.signed.test"}
            for question in (
                self.resolver.mail_exchangers("signed.test"),
                self.resolver.tlsa("one.signed.test", 25),
            ):
                with self.assertRaises(TemporaryLookupFailure):
                    await question
            self.flushLoggedErrors(error.ResolverError)  # the test's own name server logs its faults

        return self.run_test(test)

    def test_records_that_cannot_be_read_are_there_all_the_same(self) -> Any:
        """F43, TLSA of 0 and of 3 octets: they are of no use, and still say that the host does TLS."""

        async def test() -> None:
            for name in ("short.test", "empty.test"):
                found = await self.resolver.tlsa(name, 25)
                self.assertEqual((len(found.records), usable(found.records), found.is_secure), (1, (), True))

        return self.run_test(test)

    def test_what_is_too_big_for_a_datagram_comes_over_tcp(self) -> Any:
        """RFC 7766: full certificates in TLSA records."""

        async def test() -> None:
            found = await self.resolver.tlsa("big.test", 25)
            self.assertEqual((len(found.records), found.is_secure), (5, True))

        return self.run_test(test)

    def test_only_servers_that_are_trusted_vouch_for_anything(self) -> Any:
        """resolv.conf(5): the loopback's, and all of them with `options trust-ad`; a change is seen."""

        async def test() -> None:
            path = Path(mkdtemp()) / "resolv.conf"
            path.write_text("nameserver 192.0.2.53\nnameserver 127.0.0.53\nnameserver ::1\n")
            resolver = SecureResolver(reactor, resolv_conf=str(path))
            trusted = [each.is_trusted for each in resolver.name_servers()]
            self.assertEqual(trusted, [False, True, True])
            path.write_text("options edns0 trust-ad\nnameserver 192.0.2.53\n# that is all\n")
            self.assertEqual(resolver.name_servers(), (NameServer("192.0.2.53", 53, True),))
            path.unlink()
            self.assertEqual(resolver.name_servers(), (NameServer("127.0.0.1", 53, True),))
            doubted = SecureResolver(reactor, [NameServer(*self.address, is_trusted=False)])
            answer = await doubted.mail_exchangers("signed.test")
            self.assertEqual((len(answer.records), answer.is_secure), (2, False))

        return self.run_test(test)

    def test_the_next_server_is_asked_where_one_fails(self) -> Any:
        """One that is not there, and one that says SERVFAIL."""

        async def test() -> None:
            broken = Zone([])
            broken.broken.add("signed.test")
            server = dns_server.NameServer(reactor, broken)
            self.addCleanup(server.stop)
            good = NameServer(*self.address, is_trusted=True)
            for bad in (NameServer("127.0.0.1", 1), NameServer(*server.address)):
                resolver = SecureResolver(reactor, [bad, good])
                self.assertTrue((await resolver.mail_exchangers("signed.test")).is_secure)
            self.flushLoggedErrors(error.ResolverError)

        return self.run_test(test)


def _empty() -> Any:
    record = tlsa(3, 1, 1, b"")
    record.data = b""
    return record
