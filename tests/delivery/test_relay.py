"""Relaying to exchangers that behave, and to those that misbehave at every stage: F37–F40, F43, F44."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography import x509
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet import reactor
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.names import dns, error
from zope.interface import implementer

from mailserver.delivery.client_tls import ClientContexts, OwnCertificates, Trust
from mailserver.delivery.hosts import HostFinder, HostRules
from mailserver.delivery.next_hop import parse_next_hop
from mailserver.delivery.outgoing_content import OutgoingRules
from mailserver.delivery.relay import Relay, RelaySettings
from mailserver.delivery.remote import RemoteTransport
from mailserver.delivery.smtp_client import TimeLimits
from mailserver.delivery.smtp_login import Login
from mailserver.delivery.smtp_mail import Mail, RemoteRecipient
from mailserver.delivery.tls_policy import TlsPolicy
from mailserver.delivery.transport import Outgoing
from mailserver.dns import Resolver
from mailserver.envelope import Address, Envelope, Recipient, Status
from mailserver.threads import Inline
from mailserver.tls import CertificateError, KeyPair, make_context, self_signed
from tests.dns_server import NameServer, Zone
from tests.mx_server import ExchangerFactory, babble, drop, endless, flood, hang, reset
from tests.reactor_case import ReactorCase

SHORT = TimeLimits(**dict.fromkeys(TimeLimits.__dataclass_fields__, 0.3))
CONTENT = b"Subject: relayed\n\n.dot\nlong " + b"x" * 3000 + b"\nend\n"


@implementer(IOpenSSLContextFactory)
class OurContext:
    """A server's certificate for mx.test, signed by itself: `chain` is its own authority."""

    def __init__(self, *names: str) -> None:
        pair = self_signed(names or ("mx.test",), time.time())
        self.chain = pair.chain
        self.context = make_context([pair], "test")

    def getContext(self) -> Any:
        return self.context


class AskingContext(OurContext):
    """The same, for a server that asks for the client's certificate, whoever signed it; `shown` has them."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: set[x509.Certificate] = set()
        self.context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._look)

    def _look(self, connection: SSL.Connection, found: X509, number: int, depth: int, is_good: int) -> bool:
        self.shown.add(found.to_cryptography())
        return True


def mail(*recipients: str, content: bytes = CONTENT, **fields: Any) -> Mail:
    async def read(offset: int, length: int) -> bytes:
        return content[offset : offset + length]

    return Mail(
        "alice@example.org",
        tuple(RemoteRecipient(address) for address in recipients or ("bob@far.test",)),
        len(content),
        read,
        **fields,
    )


class RelayTestCase(ReactorCase):
    """What tests of relays stand on: real sockets, and DNS packets."""

    def setUp(self) -> None:
        self.zone = Zone([])
        self.server = NameServer(reactor, self.zone)
        self.addCleanup(self.server.stop)
        self.resolver = Resolver(reactor, [self.server.address])
        self.relay = self.make()

    def make(self, limits: TimeLimits | None = None, **settings: Any) -> Relay:
        values = RelaySettings(
            helo_name="mail.example.org",
            limits=limits or TimeLimits(),
            **{"client_tls": ClientContexts(), **settings},
        )
        relay = Relay(reactor, self.resolver, values)
        self.addCleanup(relay.close)
        return relay

    def listen(
        self, factory: ExchangerFactory, address: str = "127.0.0.1", port: int = 0, tls: Any = None
    ) -> int:
        if tls is not None:
            listening = reactor.listenSSL(port, factory, tls, interface=address)  # type: ignore[attr-defined]
        else:
            listening = reactor.listenTCP(port, factory, interface=address)  # type: ignore[attr-defined]
        self.ends_with_the_test(factory, listening)
        return int(listening.getHost().port)


class RelayTests(RelayTestCase):
    """mailserver.delivery.relay.Relay over SMTP."""

    def test_a_message_arrives_as_it_is(self) -> Any:
        """CRLF line ends, stuffed dots, long lines folded at 998, and Postfix's text in the outcome."""

        async def test() -> None:
            far = ExchangerFactory()
            port = self.listen(far)
            (outcome,) = await self.relay.deliver(f"[127.0.0.1]:{port}", mail())
            self.assertEqual(outcome.status, Status.DELIVERED)
            self.assertEqual(outcome.text, "250 2.0.0 Ok: queued as TEST")
            self.assertEqual(outcome.relay, f"127.0.0.1[127.0.0.1]:{port}")
            _, _, content = far.messages[0]
            self.assertIn(b"\r\n.dot\r\n", content)
            self.assertTrue(all(len(line) <= 998 for line in content.split(b"\r\n")))
            self.assertEqual(content.replace(b"\r\n ", b""), CONTENT.replace(b"\n", b"\r\n"))

        return self.run_test(test)

    def test_the_envelope_is_pipelined_with_what_the_server_offers(self) -> Any:
        """SIZE, 8BITMIME, SMTPUTF8 and DSN parameters go to servers that know them."""

        async def test() -> None:
            far = ExchangerFactory()
            port = self.listen(far)
            message = mail(is_8bit=True, smtputf8=True, ret="HDRS", envid="a+b")
            (outcome,) = await self.relay.deliver(f"[127.0.0.1]:{port}", message)
            self.assertTrue(outcome.reports_itself)
            self.assertEqual(
                far.commands[1],
                b"MAIL FROM:<alice@example.org> SIZE=%d BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb"
                % len(CONTENT),
            )

        return self.run_test(test)

    def test_filters_are_told_whose_mail_it_is(self) -> Any:
        """smtp_send_xforward_command: what the server offers, in short lines, whatever it answers."""

        async def test() -> None:
            far = ExchangerFactory()
            hop = f"[127.0.0.1]:{self.listen(far)}"
            client = (("NAME", "c.test"), ("ADDR", ""), ("HELO", "a b"), ("IDENT", "4Q"))
            await self.relay.deliver(hop, mail(client=client))
            self.assertFalse(any(line.startswith(b"XFORWARD") for line in far.commands))
            far = ExchangerFactory()
            far.extensions.append("XFORWARD NAME ADDR HELO")
            (outcome,) = await self.relay.deliver(f"[127.0.0.1]:{self.listen(far)}", mail(client=client))
            self.assertEqual(outcome.status, Status.DELIVERED)
            self.assertEqual(
                far.commands[1:3], [b"XFORWARD NAME=c.test ADDR=[UNAVAILABLE]", b"XFORWARD HELO=a+20b"]
            )

        return self.run_test(test)

    def test_a_session_is_used_again(self) -> Any:
        """Several messages for one next hop share a connection."""

        async def test() -> None:
            far = ExchangerFactory()
            hop = f"[127.0.0.1]:{self.listen(far)}"
            for _ in range(3):
                (outcome,) = await self.relay.deliver(hop, mail())
                self.assertEqual(outcome.status, Status.DELIVERED)
            self.assertEqual((len(far.connections), len(far.messages)), (1, 3))

        return self.run_test(test)

    def test_a_session_that_the_server_closed_is_replaced(self) -> Any:
        """A server may hang up on an idle session; nothing is deferred for that."""

        async def test() -> None:
            far = ExchangerFactory()
            hop = f"[127.0.0.1]:{self.listen(far)}"
            await self.relay.deliver(hop, mail())
            far.connections[0].transport.loseConnection()
            (outcome,) = await self.relay.deliver(hop, mail())
            self.assertEqual(outcome.status, Status.DELIVERED)
            self.assertEqual(len(far.messages), 2)

        return self.run_test(test)

    def test_each_recipient_has_its_own_outcome(self) -> Any:
        """F38: 4xx defers, 5xx bounces, per recipient, with the remote text."""

        async def test() -> None:
            far = ExchangerFactory()
            far.recipients = {
                "no@far.test": "550 5.1.1 who?",
                "later@far.test": "450 4.2.0 wait",
                "full@far.test": "552 5.5.3 too many",
            }
            hop = f"[127.0.0.1]:{self.listen(far)}"
            outcomes = await self.relay.deliver(
                hop, mail("yes@far.test", "no@far.test", "later@far.test", "full@far.test")
            )
            self.assertEqual(
                [outcome.status for outcome in outcomes],
                [Status.DELIVERED, Status.FAILED, Status.DEFERRED, Status.DEFERRED],
            )
            self.assertIn("said: 550 5.1.1 who? (in reply to RCPT TO command)", outcomes[1].text)
            self.assertEqual(outcomes[1].dsn, "5.1.1")

        return self.run_test(test)

    def test_a_refusal_at_each_stage(self) -> Any:
        """F38: 5xx from MAIL on bounces; before it, and 4xx anywhere, defers."""

        async def test() -> None:
            for stage in ("greeting", "EHLO", "MAIL", "RCPT", "DATA", "dot"):
                for code in (451, 554):
                    far = ExchangerFactory(**{stage: f"{code} {code // 100}.3.2 no"})
                    if stage == "EHLO":
                        far.deeds = {**far.deeds, "HELO": f"{code} {code // 100}.3.2 no"}
                    (outcome,) = await self.relay.deliver(f"[127.0.0.1]:{self.listen(far)}", mail())
                    permanent = code == 554 and stage not in ("greeting", "EHLO")
                    expected = Status.FAILED if permanent else Status.DEFERRED
                    self.assertEqual(outcome.status, expected, (stage, code, outcome))

        return self.run_test(test)

    def test_silence_and_nonsense_at_each_stage_defer(self) -> Any:
        """F37, F39: hang, drop, reset, babble, endless and flooding replies; the stage is in the text."""

        async def test() -> None:
            relay = self.make(SHORT)
            for stage in ("greeting", "EHLO", "MAIL", "RCPT", "DATA", "dot"):
                for deed in (hang, drop, reset, babble, endless, flood):
                    far = ExchangerFactory(**{stage: deed})
                    (outcome,) = await relay.deliver(f"[127.0.0.1]:{self.listen(far)}", mail())
                    self.assertEqual(outcome.status, Status.DEFERRED, (stage, deed))
                    self.assertTrue(outcome.dsn.startswith("4."), outcome)

        return self.run_test(test)

    def test_a_connection_lost_after_the_dot_is_not_tried_elsewhere(self) -> Any:
        """P3: the first exchanger may have taken it, so the second one does not get a second copy at once."""

        async def test() -> None:
            for deed in (drop, reset, babble):
                far, second = ExchangerFactory(dot=deed), ExchangerFactory()
                hops = f"[127.0.0.1]:{self.listen(far)}, [127.0.0.1]:{self.listen(second)}"
                (outcome,) = await self.make(SHORT).deliver(hops, mail())
                self.assertEqual((outcome.status, len(second.messages)), (Status.DEFERRED, 0))
                self.assertIn("127.0.0.1[127.0.0.1]", outcome.relay)

        return self.run_test(test)

    def test_a_hang_at_quit_changes_nothing(self) -> Any:
        """F37: the message was taken."""

        async def test() -> None:
            far = ExchangerFactory(QUIT=hang)
            (outcome,) = await self.relay.deliver(f"[127.0.0.1]:{self.listen(far)}", mail())
            self.assertEqual(outcome.status, Status.DELIVERED)

        return self.run_test(test)

    def test_exchangers_in_order_with_fall_back(self) -> Any:
        """F44: the best one is dead, the second takes the mail. RFC 5321 §5.1."""

        async def test() -> None:
            second = ExchangerFactory()
            port = self.listen(second, "127.0.0.3")
            self.zone.records += [
                ("far.test", dns.Record_MX(10, b"one.far.test")),
                ("far.test", dns.Record_MX(20, b"two.far.test")),
                ("one.far.test", dns.Record_A("127.0.0.2")),
                ("two.far.test", dns.Record_A("127.0.0.3")),
            ]
            (outcome,) = await self.relay.deliver(f"far.test:{port}", mail())
            self.assertEqual(outcome.status, Status.DELIVERED)
            self.assertEqual(outcome.relay, f"two.far.test[127.0.0.3]:{port}")

        return self.run_test(test)

    def test_a_deferred_recipient_is_tried_at_the_next_exchanger(self) -> Any:
        """A greeting of 421 or a 450 at RCPT is one host's trouble."""

        async def test() -> None:
            first = ExchangerFactory()
            first.recipients = {"bob@far.test": "450 4.2.0 not here, not now"}
            port = self.listen(first, "127.0.0.2")
            second = ExchangerFactory()
            self.listen(second, "127.0.0.3", port)
            self.zone.records += [
                ("far.test", dns.Record_MX(10, b"one.far.test")),
                ("far.test", dns.Record_MX(20, b"two.far.test")),
                ("one.far.test", dns.Record_A("127.0.0.2")),
                ("two.far.test", dns.Record_A("127.0.0.3")),
            ]
            outcomes = await self.relay.deliver(f"far.test:{port}", mail("bob@far.test", "eve@far.test"))
            self.assertEqual([outcome.status for outcome in outcomes], [Status.DELIVERED] * 2)
            self.assertEqual(second.messages[0][1], [b"RCPT TO:<bob@far.test>"])

        return self.run_test(test)

    def test_what_dns_says_for_certain_bounces_and_nothing_else(self) -> Any:
        """F43: NXDOMAIN 5.4.4, null MX 5.1.10, ourselves 5.4.6; SERVFAIL and nothing usable are temporary."""

        async def test() -> None:
            self.zone.records += [
                ("null.test", dns.Record_MX(0, b"")),
                ("self.test", dns.Record_MX(10, b"mail.example.org")),
                ("address.test", dns.Record_A("127.0.0.1")),
                ("dead.test", dns.Record_MX(10, b"broken.test")),
            ]
            self.zone.broken |= {"servfail.test", "broken.test"}
            relay = self.make(
                hosts=HostRules(
                    own_names=frozenset({"mail.example.org"}), own_addresses=frozenset({"127.0.0.1"})
                )
            )
            expected = {
                "nowhere.test": (Status.FAILED, "5.4.4"),
                "null.test": (Status.FAILED, "5.1.10"),
                "self.test": (Status.FAILED, "5.4.6"),
                "address.test": (Status.FAILED, "5.4.6"),
                "servfail.test": (Status.DEFERRED, "4.4.3"),
                "dead.test": (Status.DEFERRED, "4.4.3"),
            }
            for domain, result in expected.items():
                (outcome,) = await relay.deliver(domain, mail())
                self.assertEqual((outcome.status, outcome.dsn), result, (domain, outcome))
            self.flushLoggedErrors(error.ResolverError)

        return self.run_test(test)

    def test_tls_is_used_where_it_is_offered(self) -> Any:
        """Opportunistic by default; with encrypt, a server without STARTTLS gets nothing."""

        async def test() -> None:
            far = ExchangerFactory(OurContext())
            (outcome,) = await self.relay.deliver(f"[127.0.0.1]:{self.listen(far)}", mail())
            self.assertEqual(outcome.status, Status.DELIVERED)
            self.assertTrue(far.connections[0].is_tls)
            bare = ExchangerFactory()
            strict = self.make(tls_policy=lambda nexthop: TlsPolicy("encrypt"))
            (outcome,) = await strict.deliver(f"[127.0.0.1]:{self.listen(bare)}", mail())
            self.assertEqual((outcome.status, outcome.dsn), (Status.DEFERRED, "4.7.4"))
            self.assertEqual(bare.messages, [])

        return self.run_test(test)

    def test_tls_that_fails_falls_back_to_clear_only_where_it_may(self) -> Any:
        """A refused STARTTLS: `may` goes on in clear on a new connection, `encrypt` defers."""

        async def test() -> None:
            far = ExchangerFactory(OurContext(), STARTTLS="454 4.7.0 not now")
            hop = f"[127.0.0.1]:{self.listen(far)}"
            (outcome,) = await self.relay.deliver(hop, mail())
            self.assertEqual(outcome.status, Status.DELIVERED)
            strict = self.make(tls_policy=lambda nexthop: TlsPolicy("encrypt"))
            (outcome,) = await strict.deliver(hop, mail())
            self.assertEqual(outcome.status, Status.DEFERRED)

        return self.run_test(test)

    def test_verify_refuses_a_certificate_that_nobody_signed(self) -> Any:
        """smtp_tls_security_level = verify: a self-signed certificate defers, in no case in clear."""

        async def test() -> None:
            far = ExchangerFactory(OurContext())
            strict = self.make(tls_policy=lambda nexthop: TlsPolicy("verify", ("hostname",)))
            (outcome,) = await strict.deliver(f"[127.0.0.1]:{self.listen(far)}", mail())
            self.assertEqual(outcome.status, Status.DEFERRED)
            self.assertEqual(far.messages, [])

        return self.run_test(test)

    def test_plaintext_behind_the_starttls_reply_ends_the_session(self) -> Any:
        """RELIABILITY B2, client side: what came in clear is never read as if inside TLS."""

        async def test() -> None:
            far = ExchangerFactory(OurContext(), STARTTLS="220 go\r\n250 injected")
            strict = self.make(tls_policy=lambda nexthop: TlsPolicy("encrypt"))
            (outcome,) = await strict.deliver(f"[127.0.0.1]:{self.listen(far)}", mail())
            self.assertEqual(outcome.status, Status.DEFERRED)
            self.assertIn("plaintext after STARTTLS", outcome.text)

        return self.run_test(test)

    def test_a_smart_host_is_logged_in_to(self) -> Any:
        """smtp_sasl_password_maps: AUTH PLAIN with the initial response."""

        async def test() -> None:
            far = ExchangerFactory()
            far.extensions.append("AUTH PLAIN LOGIN")
            relay = self.make(login=lambda nexthop, host, sender: Login("alice", "secret"))
            (outcome,) = await relay.deliver(f"[127.0.0.1]:{self.listen(far)}", mail())
            self.assertEqual(outcome.status, Status.DELIVERED)
            self.assertIn(b"AUTH PLAIN AGFsaWNlAHNlY3JldA==", far.commands)

        return self.run_test(test)

    def test_a_message_above_the_servers_size_is_not_sent(self) -> Any:
        """RFC 1870 §6.1: 5.3.4 without a byte of content."""

        async def test() -> None:
            far = ExchangerFactory()
            far.extensions[1] = "SIZE 100"
            (outcome,) = await self.relay.deliver(f"[127.0.0.1]:{self.listen(far)}", mail())
            self.assertEqual((outcome.status, outcome.dsn), (Status.FAILED, "5.3.4"))

        return self.run_test(test)

    def test_a_size_that_is_no_number_is_none(self) -> Any:
        """RFC 1870 §4: digits of ASCII; what else counts as a digit elsewhere says nothing."""

        async def test() -> None:
            far = ExchangerFactory()
            far.extensions[1] = "SIZE ²"
            (outcome,) = await self.relay.deliver(f"[127.0.0.1]:{self.listen(far)}", mail())
            self.assertEqual(outcome.status, Status.DELIVERED)

        return self.run_test(test)

    def trusting(self, context: OurContext, policy: TlsPolicy, **settings: Any) -> Relay:
        """A relay that trusts that certificate, with one policy for everybody."""
        file = Path(tempfile.mkdtemp(), "file")
        file.write_bytes(context.chain)
        contexts = ClientContexts(Trust(str(file)))
        return self.make(client_tls=contexts, tls_policy=lambda nexthop: policy, **settings)

    def test_a_trusted_certificate_must_have_the_right_name(self) -> Any:
        """verify wants the host's name, secure the next hop's; smtp_tls_CAfile says who is trusted."""

        async def test() -> None:
            for names, policy, expected in (
                (("mx.test",), TlsPolicy("verify", ("hostname",)), Status.DEFERRED),
                (("127.0.0.1.test",), TlsPolicy("secure", ("127.0.0.1.test",)), Status.DELIVERED),
                (("*.provider.test",), TlsPolicy("secure", (".provider.test",)), Status.DELIVERED),
                (("mx.test",), TlsPolicy("secure", ("nexthop", "dot-nexthop")), Status.DEFERRED),
                (("mx.test",), TlsPolicy("encrypt"), Status.DELIVERED),
            ):
                context = OurContext(*names)
                far = ExchangerFactory(context)
                relay = self.trusting(context, policy)
                (outcome,) = await relay.deliver(f"[127.0.0.1]:{self.listen(far)}", mail())
                self.assertEqual((names, policy.match, outcome.status), (names, policy.match, expected))
                self.assertEqual(len(far.messages), expected is Status.DELIVERED)

        return self.run_test(test)

    def test_a_server_that_asks_is_shown_our_certificate(self) -> Any:
        """smtp_tls_cert_file; one that was renewed is shown, one that broke leaves the one before."""

        async def test() -> None:
            own = [self_signed(("mail.example.org",), time.time())]
            warnings: list[str] = []
            certificates = OwnCertificates(lambda: len(own), lambda: own[-1:], warnings.append)
            relay = self.make(client_tls=ClientContexts(own=certificates))
            for expected in (own[0], self_signed(("mail.example.org",), time.time()), None):
                if expected is None:
                    own.append(KeyPair(own[0].chain, own[1].key))
                elif expected is not own[0]:
                    own.append(expected)
                context = AskingContext()
                port = self.listen(ExchangerFactory(context))
                (outcome,) = await relay.deliver(f"[127.0.0.1]:{port}", mail())
                self.assertEqual(outcome.status, Status.DELIVERED)
                (shown,) = context.shown
                self.assertEqual(shown, x509.load_pem_x509_certificate((expected or own[1]).chain))
            self.assertEqual(len(warnings), 1)
            self.assertIn("do not fit together", warnings[0])
            with self.assertRaises(CertificateError):
                ClientContexts(own=OwnCertificates(read=lambda: own[-1:]))

        return self.run_test(test)

    def test_tls_from_the_first_octet(self) -> Any:
        """smtp_tls_wrappermode: a submissions port. RFC 8314 §3.3."""

        async def test() -> None:
            far = ExchangerFactory()
            port = self.listen(far, tls=OurContext())
            relay = self.make(tls_wrappermode=True, tls_policy=lambda nexthop: TlsPolicy("encrypt"))
            (outcome,) = await relay.deliver(f"[127.0.0.1]:{port}", mail())
            self.assertEqual((outcome.status, len(far.messages)), (Status.DELIVERED, 1))

        return self.run_test(test)

    def test_a_password_is_shown_only_where_it_may_be(self) -> Any:
        """smtp_sasl_security_options = noplaintext: CRAM-MD5 in clear, or no mail; RFC 2195."""

        async def test() -> None:
            login = Login("tim", "tanstaaftanstaaf", in_clear=False)
            relay = self.make(login=lambda nexthop, host, sender: login)
            far = ExchangerFactory()
            far.extensions.append("AUTH PLAIN LOGIN")
            (outcome,) = await relay.deliver(f"[127.0.0.1]:{self.listen(far)}", mail())
            self.assertEqual((outcome.status, outcome.dsn), (Status.DEFERRED, "4.7.0"))
            self.assertIn("no mechanism available", outcome.text)
            challenge = "PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+"
            clever = ExchangerFactory(None, AUTH=f"334 {challenge}")
            clever.extensions.append("AUTH PLAIN CRAM-MD5")
            await relay.deliver(f"[127.0.0.1]:{self.listen(clever)}", mail())
            self.assertIn(b"dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw", clever.commands)

        return self.run_test(test)

    def test_a_login_for_each_sender_has_sessions_of_its_own(self) -> Any:
        """smtp_sender_dependent_authentication: nobody's mail goes over another's login."""

        async def test() -> None:
            far = ExchangerFactory()
            far.extensions.append("AUTH PLAIN")
            hop = f"[127.0.0.1]:{self.listen(far)}"
            relay = self.make(
                login=lambda nexthop, host, sender: Login(sender, "x"), login_depends_on_sender=True
            )
            for sender in ("a@example.org", "b@example.org", "a@example.org"):
                await relay.deliver(hop, replace(mail(), sender=sender))
            self.assertEqual((len(far.connections), len(far.messages)), (2, 3))

        return self.run_test(test)

    def test_what_cannot_be_delivered_goes_to_the_fallback(self) -> Any:
        """smtp_fallback_relay: for unknown and unreachable next hops, not for refused recipients."""

        async def test() -> None:
            last = ExchangerFactory()
            relay = self.make(fallback_relay=(f"[127.0.0.1]:{self.listen(last)}",))
            far = ExchangerFactory()
            far.recipients = {"bob@far.test": "550 5.1.1 no"}
            for hop, status, taken in (
                ("nowhere.test", Status.DELIVERED, 1),
                ("[127.0.0.1]:1", Status.DELIVERED, 2),
                (f"[127.0.0.1]:{self.listen(far)}", Status.FAILED, 2),
            ):
                (outcome,) = await relay.deliver(hop, mail())
                self.assertEqual((hop, outcome.status, len(last.messages)), (hop, status, taken))

        return self.run_test(test)

    def test_next_hops_may_be_a_list(self) -> Any:
        """relayhost = [a], [b]: the second one where the first cannot be reached."""

        async def test() -> None:
            second = ExchangerFactory()
            hops = f"[127.0.0.1]:1, [127.0.0.1]:{self.listen(second)}"
            (outcome,) = await self.relay.deliver(hops, mail())
            self.assertEqual((outcome.status, len(second.messages)), (Status.DELIVERED, 1))

        return self.run_test(test)

    def test_connections_come_from_the_address_that_was_chosen(self) -> Any:
        """smtp_bind_address."""

        async def test() -> None:
            far = ExchangerFactory()
            relay = self.make(bind_addresses=("127.0.0.7", "::1"))
            await relay.deliver(f"[127.0.0.1]:{self.listen(far)}", mail())
            self.assertEqual(far.connections[0].transport.getPeer().host, "127.0.0.7")

        return self.run_test(test)

    def test_addresses_by_family_and_by_the_system(self) -> Any:
        """inet_protocols, smtp_address_preference, smtp_host_lookup = native, a limit of addresses."""

        async def native(name: str) -> tuple[str, ...]:
            return ("127.0.0.9",) if name == "native.test" else ()

        async def found(name: str, **rules: Any) -> list[str]:
            finder = HostFinder(self.resolver, HostRules(**rules))
            return [host.address for host in await finder.find(parse_next_hop(f"[{name}]"))]

        async def test() -> None:
            self.zone.records = [
                ("both.test", dns.Record_A("192.0.2.1")),
                ("both.test", dns.Record_AAAA("2001:db8::1")),
            ]
            self.assertEqual(
                await found("both.test", address_preference="ipv4"), ["192.0.2.1", "2001:db8::1"]
            )
            self.assertEqual(
                await found("both.test", address_preference="ipv6"), ["2001:db8::1", "192.0.2.1"]
            )
            self.assertEqual(await found("both.test", families=frozenset({4})), ["192.0.2.1"])
            self.assertEqual(len(await found("both.test", mx_address_limit=1)), 1)
            ways = {"host_lookup": ("native", "dns"), "native": native}
            self.assertEqual(await found("native.test", **ways), ["127.0.0.9"])
            self.assertEqual(len(await found("both.test", **ways)), 2)
            finder = HostFinder(self.resolver, HostRules(uses_mx=False))
            self.assertEqual(len(await finder.find(parse_next_hop("both.test"))), 2)

        return self.run_test(test)

    def test_long_lines_are_broken_at_the_limit_or_not_at_all(self) -> Any:
        """smtp_line_length_limit: 0 sends a signed message as it is."""

        async def test() -> None:
            far = ExchangerFactory()
            hop = f"[127.0.0.1]:{self.listen(far)}"
            await self.make(line_length_limit=0).deliver(hop, mail())
            self.assertEqual(far.messages[0][2], CONTENT.replace(b"\n", b"\r\n"))
            await self.make(line_length_limit=100).deliver(hop, mail())
            self.assertEqual(max(map(len, far.messages[1][2].split(b"\r\n"))), 100)

        return self.run_test(test)

    def test_others_see_the_addresses_that_they_know(self) -> Any:
        """smtp_generic_maps: in the envelope and in the header; the body stays, wherever pieces are cut."""

        async def test() -> None:
            far = ExchangerFactory()
            known = {"me@laptop.local": Address("me", "provider.test")}
            relay = self.make(rules=OutgoingRules(generic=lambda each: known.get(str(each).lower(), each)))
            body = b"\nme@laptop.local\n" + b"x\n" * 100_000
            path = Path(tempfile.mkdtemp(), "file")
            path.write_bytes(b"before" + b"From: Me <me@laptop.local>\nTo: bob@far.test\n" + body)
            with path.open("rb") as file:
                sent = Outgoing(
                    "ID",
                    "smtp",
                    f"[127.0.0.1]:{self.listen(far)}",
                    Envelope(Address("me", "laptop.local"), (Recipient(Address("bob", "far.test")),)),
                    file.fileno(),
                    len(b"before"),
                    path.stat().st_size - len(b"before"),
                )
                transport = RemoteTransport(lambda name: relay if name == "smtp" else None, Inline())
                (outcome,) = await transport.deliver(sent)
            self.assertEqual(outcome.status, Status.DELIVERED)
            sender, _, content = far.messages[0]
            whole = b"From: Me <me@provider.test>\nTo: bob@far.test\n" + body
            self.assertIn(b"MAIL FROM:<me@provider.test> SIZE=%d" % len(whole), sender)
            self.assertEqual(content, whole.replace(b"\n", b"\r\n"))

        return self.run_test(test)
