"""DANE: what TLSA records make of a server's certificate, and of mail for its host. RFC 7671, RFC 7672."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.internet import reactor
from twisted.names import dns, error

from mailserver.delivery.certificate_names import CertificateMismatch
from mailserver.delivery.dane import Dane, authenticate, usable
from mailserver.delivery.hosts import HostRules
from mailserver.delivery.relay import Relay
from mailserver.delivery.smtp_client import TimeLimits
from mailserver.delivery.tls_policy import DaneRules, TlsPolicy
from mailserver.dnssec import NameServer, SecureResolver, Tlsa
from mailserver.envelope import Outcome, Status
from mailserver.tls import KeyPair, make_context
from tests.delivery.test_relay import OurContext, RelayTestCase, mail
from tests.dns_server import TLSA, tlsa
from tests.mx_server import ExchangerFactory

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Signed:
    """A certificate, its key, and who signed it."""

    certificate: x509.Certificate
    key: Any
    issuers: tuple[Signed, ...] = ()

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        return (self.certificate, *(each.certificate for each in self.issuers))

    def pair(self, length: int = 9) -> KeyPair:
        """As a server shows it, `length` certificates of it."""
        pem = b"".join(each.public_bytes(Encoding.PEM) for each in self.chain[:length])
        return KeyPair(pem, self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def record(self, usage: int, selector: int, matching_type: int) -> Tlsa:
        """The record that this certificate fits."""
        if selector == 0:
            data = self.certificate.public_bytes(Encoding.DER)
        else:
            data = self.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        digests = {0: bytes, 1: _sha256, 2: _sha512}
        return Tlsa(usage, selector, matching_type, digests[matching_type](data))


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _sha512(data: bytes) -> bytes:
    return hashlib.sha512(data).digest()


def sign(
    name: str,
    by: Signed | None = None,
    alternatives: Sequence[str] | None = None,
    is_authority: bool = False,
    days: int = 5,
    key: Any = None,
    use: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
) -> Signed:
    """A certificate for `name`, and for `alternatives` (default: the name) as subjectAltName."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - 10 * DAY)
        .not_valid_after(NOW + days * DAY)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    names = [x509.DNSName(each) for each in ((name,) if alternatives is None else alternatives)]
    if names and not is_authority:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if not is_authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
    signer = by.key if by else key
    return Signed(builder.sign(signer, hashes.SHA256()), key, (by, *by.issuers) if by else ())


ROOT = sign("Root", is_authority=True)
MIDDLE = sign("Middle", ROOT, is_authority=True)
LEAF = sign("mx.test", MIDDLE)
OTHER = sign("other.test")
RSA_ROOT = sign("RSA Root", is_authority=True, key=rsa.generate_private_key(65537, 2048))


def judge(records: Sequence[Tlsa], chain: Sequence[x509.Certificate], *names: str) -> str:
    """What `authenticate` says: "" where the server is who it says."""
    try:
        authenticate(Dane(usable(records), "mx.test", names or ("mx.test",)), chain)
    except CertificateMismatch as mismatch:
        return f"{'trusted: ' if mismatch.is_trusted else ''}{mismatch}"
    return ""


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching_type", [0, 1, 2])
def test_each_kind_of_record(selector: int, matching_type: int) -> None:
    """RFC 6698 §2.1: certificate or key, whole or as SHA-256 or SHA-512; another one's fails."""
    for usage, right in ((3, LEAF), (2, MIDDLE), (2, ROOT)):
        assert judge([right.record(usage, selector, matching_type)], LEAF.chain) == ""
        wrong = OTHER.record(usage, selector, matching_type)
        assert "no TLSA record matches" in judge([wrong], LEAF.chain) or usage == 2
        assert judge([wrong], LEAF.chain) != ""
        assert judge([wrong, right.record(usage, selector, matching_type)], LEAF.chain) == ""


def test_an_end_entity_is_asked_for_neither_names_nor_dates() -> None:
    """RFC 7671 §5.1: the record binds the key to the host, and lives as long as it is published."""
    old = sign("elsewhere.test", days=-1)
    assert judge([old.record(3, 1, 1)], old.chain) == ""
    client = sign("mx.test", MIDDLE, use=ExtendedKeyUsageOID.CLIENT_AUTH)
    assert judge([client.record(3, 0, 1)], client.chain) == ""


def test_a_trust_anchor_wants_names_dates_and_a_path() -> None:
    """RFC 7671 §5.2: everything that an authority's certificate is checked for, but who is trusted."""
    record = MIDDLE.record(2, 0, 1)
    assert judge([record], LEAF.chain, "example.org") == "trusted: certificate is for mx.test"
    assert judge([record], LEAF.chain, "example.org", "mx.test") == ""
    assert judge([record], sign("x", MIDDLE, ["*.far.test"]).chain, "mx.far.test") == ""
    assert judge([record], sign("mx.test", MIDDLE, []).chain) == ""  # a common name, for want of others
    assert "expired" in judge([record], sign("mx.test", MIDDLE, days=-1).chain)
    assert "not for servers" in judge(
        [record], sign("mx.test", MIDDLE, use=ExtendedKeyUsageOID.CLIENT_AUTH).chain
    )
    forged = (sign("mx.test").certificate, MIDDLE.certificate)
    assert "verification failed" in judge([record], forged)
    no_authority = sign("mx.test", sign("nobody", MIDDLE))
    assert "verification failed" in judge([record], no_authority.chain)


def test_a_leaf_is_no_trust_anchor() -> None:
    """A DANE-TA(2) record with the server's own certificate says nothing. RFC 7671 §5.2."""
    assert judge([LEAF.record(2, 0, 1)], LEAF.chain) != ""
    assert judge([LEAF.record(2, 1, 1)], LEAF.chain) != ""


@pytest.mark.parametrize("root", [ROOT, RSA_ROOT])
def test_an_anchor_that_stands_in_dns_need_not_be_sent(root: Signed) -> None:
    """RFC 7671 §5.2.2-5.2.3: 2 0 0 has the certificate, 2 1 0 the key."""
    leaf = sign("mx.test", sign("Middle", root, is_authority=True))
    direct = sign("mx.test", root)
    for record in (root.record(2, 0, 0), root.record(2, 1, 0)):
        assert judge([record], leaf.chain[:2]) == ""
        assert judge([record], direct.chain[:1]) == ""
        assert judge([record], OTHER.chain) != ""
    assert judge([root.record(2, 0, 1)], leaf.chain[:2]) != ""  # of a digest nothing can be made


def test_the_best_digest_counts_alone() -> None:
    """RFC 7671 §9: for each usage and selector; full data count beside digests."""
    strong, weak = LEAF.record(3, 1, 2), OTHER.record(3, 1, 1)
    assert usable([weak, strong]) == (strong,)
    assert usable([weak, strong], ("sha256", "sha512")) == (weak,)
    assert usable([weak, strong], ("sha256",)) == (weak,)
    others = [LEAF.record(3, 0, 1), MIDDLE.record(2, 1, 1), LEAF.record(3, 1, 0)]
    assert usable([strong, *others]) == (strong, *others)
    assert judge([OTHER.record(3, 1, 2), LEAF.record(3, 1, 1)], LEAF.chain) != ""


@pytest.mark.parametrize(
    "record",
    [
        Tlsa(0, 0, 1, bytes(32)),  # RFC 7672 §3.1.3: PKIX-TA, PKIX-EE
        Tlsa(1, 1, 1, bytes(32)),
        Tlsa(4, 0, 1, bytes(32)),
        Tlsa(255, 255, 255, b""),
        Tlsa(3, 2, 1, bytes(32)),
        Tlsa(3, 1, 3, bytes(32)),
        Tlsa(3, 1, 1, bytes(31)),
        Tlsa(3, 1, 2, bytes(32)),
        Tlsa(3, 1, 1, b""),
        Tlsa(3, 0, 0, b""),
        Tlsa(2, 0, 0, b"no certificate"),
        Tlsa(2, 1, 0, b"\x30\x00"),
    ],
)
def test_what_is_unusable(record: Tlsa) -> None:
    """RFC 7671 §4: unknown parameters, and data that cannot be right."""
    assert usable([record]) == ()


class DaneRelayTests(RelayTestCase):
    """mailserver.delivery.relay with DANE: DNS packets with the AD bit, and TLS."""

    def setUp(self) -> None:
        super().setUp()
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def dane(self, level: str = "dane", rules: dict[str, Any] | None = None, **settings: Any) -> Relay:
        server = NameServer(*self.server.address, is_trusted=settings.pop("is_trusted", True))
        secure = SecureResolver(reactor, [server])
        return self.make(
            tls_policy=lambda nexthop: TlsPolicy(level),
            dane=DaneRules(resolver=secure, **(rules or {})),
            log=self.lines.append,
            warn=self.warnings.append,
            **{"hosts": HostRules(own_ports=frozenset()), **settings},
        )

    def server_of(self, signed: Signed | None, length: int = 9) -> tuple[ExchangerFactory, int]:
        """A mail exchanger with that certificate, and its port."""
        context = Context(signed.pair(length)) if signed is not None else None
        far = ExchangerFactory(context)
        return far, self.listen(far)

    def publish(self, port: int, *records: Tlsa, secure: Sequence[str] = (), host: str = "mx.test") -> str:
        """far.test has an MX whose host has these records; the next hop. `secure` is all, where empty."""
        owner = f"_{port}._tcp.{host}"
        self.zone.records = [
            ("far.test", dns.Record_MX(10, b"mx.test")),
            ("mx.test", dns.Record_A("127.0.0.1")),
            *((owner, tlsa(each.usage, each.selector, each.matching_type, each.data)) for each in records),
        ]
        self.zone.secure = set(secure) or {"far.test", "mx.test", owner}
        return f"far.test:{port}"

    async def deliver(self, relay: Relay, hop: str) -> Outcome:
        (outcome,) = await relay.deliver(hop, mail())
        relay.close()
        return outcome

    def test_a_server_is_verified_by_its_record(self) -> Any:
        """RFC 7672 §2.2: the mail goes, and the log says Verified, as Postfix's does."""

        async def test() -> None:
            for record in (LEAF.record(3, 1, 1), MIDDLE.record(2, 0, 1)):
                for level in ("dane", "dane-only"):
                    far, port = self.server_of(LEAF)
                    outcome = await self.deliver(self.dane(level), self.publish(port, record))
                    self.assertEqual((outcome.status, far.connections[0].is_tls), (Status.DELIVERED, True))
                    line = self.lines[-1]
                    start = f"Verified TLS connection established to mx.test[127.0.0.1]:{port}: TLSv1.3 with "
                    self.assertTrue(line.startswith(start), line)

        return self.run_test(test)

    def test_another_certificate_gets_no_mail(self) -> Any:
        """It is deferred, and not sent in clear: whoever sits between would want just that."""

        async def test() -> None:
            for record, text in (
                (OTHER.record(3, 1, 1), "Server certificate not trusted"),
                (sign("Elsewhere", is_authority=True).record(2, 0, 1), "Server certificate not trusted"),
                (ROOT.record(2, 0, 1), "Server certificate not verified"),
            ):
                far, port = self.server_of(sign("elsewhere.test", MIDDLE))
                outcome = await self.deliver(self.dane(), self.publish(port, record))
                self.assertEqual((outcome.status, outcome.dsn), (Status.DEFERRED, "4.7.5"))
                self.assertEqual((outcome.text, far.messages), (text, []))
                self.assertIn("certificate verification failed for mx.test[127.0.0.1]", self.warnings[-1])

        return self.run_test(test)

    def test_a_server_without_tls_gets_no_mail(self) -> Any:
        """RFC 7672 §2.2: STARTTLS that was taken out of the reply is an attack like any other."""

        async def test() -> None:
            for level in ("dane", "dane-only"):
                far, port = self.server_of(None)
                outcome = await self.deliver(self.dane(level), self.publish(port, LEAF.record(3, 1, 1)))
                self.assertEqual((outcome.status, outcome.dsn), (Status.DEFERRED, "4.7.4"))
                self.assertIn("TLS is required, but was not offered by host mx.test[127.0.0.1]", outcome.text)
                self.assertEqual(far.messages, [])

        return self.run_test(test)

    def test_without_secure_records_tls_is_opportunistic_or_mandatory_dane_fails(self) -> Any:
        """RFC 7672 §2.1.3: none, or none that somebody vouches for, or from a server that nobody trusts."""

        async def test() -> None:
            record = LEAF.record(3, 1, 1)
            for records, secure, is_trusted, why in (
                ((), (), True, "no TLSA records found"),
                ((record,), ("far.test", "mx.test"), True, "no TLSA records found"),
                ((record,), ("far.test", "OWNER"), True, "no TLSA records found"),
                ((record,), ("nothing",), True, "non DNSSEC destination"),
                ((record,), (), False, "non DNSSEC destination"),
            ):
                for level, status in (("dane", Status.DELIVERED), ("dane-only", Status.DEFERRED)):
                    _, port = self.server_of(OTHER)
                    hop = self.publish(port, *records, secure=secure)
                    if "OWNER" in secure:
                        self.zone.secure.add(f"_{port}._tcp.mx.test")
                    outcome = await self.deliver(self.dane(level, is_trusted=is_trusted), hop)
                    self.assertEqual((why, level, outcome.status), (why, level, status), outcome)
                    if status is Status.DEFERRED:
                        self.assertEqual((outcome.text, outcome.dsn, outcome.relay), (why, "4.7.5", "none"))
                        self.assertEqual(self.warnings[-1], f"TLS policy lookup for far.test/mx.test: {why}")
                    else:
                        self.assertIn("Untrusted TLS connection established", self.lines[-1])
            _, port = self.server_of(None)
            outcome = await self.deliver(self.dane(), self.publish(port))
            self.assertEqual(outcome.status, Status.DELIVERED)  # in clear, as at level may

        return self.run_test(test)

    def test_unusable_records_still_say_that_the_host_does_tls(self) -> Any:
        """RFC 7672 §2.2: encryption without authentication, and never in clear; dane-only waits."""

        async def test() -> None:
            unusable = Tlsa(1, 1, 1, bytes(32))
            far, port = self.server_of(OTHER)
            outcome = await self.deliver(self.dane(), self.publish(port, unusable))
            self.assertEqual((outcome.status, far.connections[0].is_tls), (Status.DELIVERED, True))
            self.assertIn("Untrusted TLS connection established", self.lines[-1])
            plain, port = self.server_of(None)
            outcome = await self.deliver(self.dane(), self.publish(port, unusable))
            self.assertEqual((outcome.status, plain.messages), (Status.DEFERRED, []))
            outcome = await self.deliver(self.dane("dane-only"), self.publish(port, unusable))
            self.assertEqual(outcome.text, "TLSA records unusable")

        return self.run_test(test)

    def test_a_lookup_without_an_answer_defers(self) -> Any:
        """RFC 7672 §2.1.2: bogus answers and silence say nothing, so nothing is sent, let alone in clear."""

        async def test() -> None:
            far, port = self.server_of(LEAF)
            hop = self.publish(port, LEAF.record(3, 1, 1))
            for level in ("dane", "dane-only"):
                self.zone.broken = {(f"_{port}._tcp.mx.test", TLSA)}
                outcome = await self.deliver(self.dane(level), hop)
                self.assertEqual((outcome.status, outcome.dsn), (Status.DEFERRED, "4.7.5"))
                self.assertEqual(outcome.text, f"TLSA lookup error for mx.test:{port}")
            for name in ("far.test", "mx.test"):
                self.zone.broken = {name}
                outcome = await self.deliver(self.dane(), hop)
                self.assertEqual((outcome.status, outcome.dsn), (Status.DEFERRED, "4.4.3"))
            self.assertEqual(far.messages, [])
            self.flushLoggedErrors(error.ResolverError)  # the test's own name server logs its faults

        return self.run_test(test)

    def test_the_next_exchanger_is_tried(self) -> Any:
        """What one host's records say is that host's matter. RFC 7672 §2.2.1."""

        async def test() -> None:
            far, port = self.server_of(LEAF)
            hop = self.publish(port, OTHER.record(3, 1, 1))
            second = ExchangerFactory(Context(OTHER.pair()))
            self.listen(second, "127.0.0.2", port)
            owner = f"_{port}._tcp.two.test"
            record = OTHER.record(3, 1, 1)
            self.zone.records += [
                ("far.test", dns.Record_MX(20, b"two.test")),
                ("two.test", dns.Record_A("127.0.0.2")),
                (owner, tlsa(3, 1, 1, record.data)),
            ]
            self.zone.secure |= {"two.test", owner}
            outcome = await self.deliver(self.dane(), hop)
            self.assertEqual((outcome.status, far.messages), (Status.DELIVERED, []))
            self.assertEqual(outcome.relay, f"two.test[127.0.0.2]:{port}")

        return self.run_test(test)

    def test_an_insecure_mx(self) -> Any:
        """smtp_tls_dane_insecure_mx_policy: dane, whose log line is Trusted, encrypt, may."""

        async def test() -> None:
            for policy, signed, status, line in (
                ("dane", LEAF, Status.DELIVERED, "Trusted TLS"),
                ("dane", OTHER, Status.DEFERRED, ""),
                ("encrypt", OTHER, Status.DELIVERED, "Untrusted TLS"),
                ("encrypt", None, Status.DEFERRED, ""),
                ("may", None, Status.DELIVERED, ""),
            ):
                self.lines.clear()
                _, port = self.server_of(signed)
                hop = self.publish(port, LEAF.record(3, 1, 1), secure=("mx.test",))
                self.zone.secure.add(f"_{port}._tcp.mx.test")
                outcome = await self.deliver(self.dane(rules={"insecure_mx_policy": policy}), hop)
                self.assertEqual((policy, outcome.status), (policy, status))
                self.assertTrue("".join(self.lines).startswith(line))

        return self.run_test(test)

    def test_names_that_a_trust_anchor_vouches_for(self) -> Any:
        """RFC 7672 §3.2.2: the next hop's name is as good as the host's, and so is its alias's."""

        async def test() -> None:
            for name, status in (
                ("mx.test", Status.DELIVERED),
                ("far.test", Status.DELIVERED),
                ("real.test", Status.DELIVERED),
                ("elsewhere.test", Status.DEFERRED),
            ):
                _, port = self.server_of(sign(name, MIDDLE))
                self.publish(port, MIDDLE.record(2, 0, 1))
                self.zone.records[0] = ("far.test", dns.Record_CNAME(b"real.test"))
                self.zone.records.append(("real.test", dns.Record_MX(10, b"mx.test")))
                self.zone.secure.add("real.test")
                outcome = await self.deliver(self.dane(), f"far.test:{port}")
                self.assertEqual((name, outcome.status), (name, status))

        return self.run_test(test)

    def test_a_host_that_is_an_alias(self) -> Any:
        """RFC 7672 §2.2.2: the name at its end first, then its own; SNI is the one that has the records."""

        async def test() -> None:
            record = LEAF.record(3, 1, 1)
            for base, insecure, is_verified in (
                ("real.test", "", True),
                ("mx.test", "", True),
                ("mx.test", "real.test", True),  # the alias itself is vouched for
                ("real.test", "real.test", False),
                ("mx.test", "mx.test", False),
            ):
                context = Context(LEAF.pair())
                port = self.listen(ExchangerFactory(context))
                self.publish(port, record, host=base)
                self.zone.records[1:2] = [
                    ("mx.test", dns.Record_CNAME(b"real.test")),
                    ("real.test", dns.Record_A("127.0.0.1")),
                ]
                self.zone.secure = {"far.test", "mx.test", "real.test", f"_{port}._tcp.{base}"} - {insecure}
                outcome = await self.deliver(self.dane(), f"far.test:{port}")
                self.assertEqual(outcome.status, Status.DELIVERED, outcome)
                case = (base, insecure)
                verified = self.lines[-1].startswith("Verified")
                self.assertEqual((case, verified), (case, is_verified), self.lines[-1])
                expected = base if is_verified else "mx.test"
                self.assertEqual((case, context.asked_for), (case, expected.encode()))

        return self.run_test(test)

    def test_hosts_in_brackets_and_without_an_mx(self) -> Any:
        """RFC 7672 §2.2.1: what is asked for is then the next hop itself."""

        async def test() -> None:
            for hop in ("[mx.test]", "mx.test"):
                _, port = self.server_of(OTHER)
                self.publish(port, LEAF.record(3, 1, 1), secure=("mx.test", ""))
                self.zone.secure.add(f"_{port}._tcp.mx.test")
                outcome = await self.deliver(self.dane(), f"{hop}:{port}")
                self.assertEqual((hop, outcome.text), (hop, "Server certificate not trusted"))
            _, port = self.server_of(OTHER)
            outcome = await self.deliver(self.dane(), f"[127.0.0.1]:{port}")
            self.assertEqual(outcome.status, Status.DELIVERED)

        return self.run_test(test)

    def test_without_dnssec_lookups_there_is_no_dane(self) -> Any:
        """As Postfix has it: dane is then may, and dane-only a problem of the configuration."""

        async def test() -> None:
            for level, status in (("dane", Status.DELIVERED), ("dane-only", Status.DEFERRED)):
                _, port = self.server_of(OTHER)
                hop = self.publish(port, LEAF.record(3, 1, 1))
                relay = self.make(
                    limits=TimeLimits(),
                    tls_policy=lambda nexthop, level=level: TlsPolicy(level),
                    hosts=HostRules(own_ports=frozenset()),
                )
                outcome = await self.deliver(relay, hop)
                self.assertEqual((level, outcome.status), (level, status))
            self.assertEqual(outcome.text, "client TLS configuration problem")

        return self.run_test(test)

    def test_an_offer_that_is_not_taken_is_noted(self) -> Any:
        """smtp_tls_note_starttls_offer: at level none, of hosts that offer it."""

        async def test() -> None:
            for signed, level, noted in (
                (LEAF, "none", ["Host offered STARTTLS: [mx.test]"]),
                (None, "none", []),
                (LEAF, "dane", []),
            ):
                found: list[str] = []
                _, port = self.server_of(signed)
                outcome = await self.deliver(
                    self.dane(level, note_starttls_offer=found.append), self.publish(port)
                )
                self.assertEqual((outcome.status, found), (Status.DELIVERED, noted))

        return self.run_test(test)

    def test_hosts_that_are_not_vouched_for_are_asked_about_where_that_is_wanted(self) -> Any:
        """smtp_tls_force_insecure_host_tlsa_lookup; without it a zone that is not signed is left in peace."""

        async def test() -> None:
            for force in (False, True):
                _, port = self.server_of(LEAF)
                hop = self.publish(port, LEAF.record(3, 1, 1), secure=("far.test",))
                owner = f"_{port}._tcp.mx.test"
                self.zone.secure.add(owner)
                await self.deliver(self.dane(rules={"force": force}), hop)
                self.assertEqual((owner, TLSA) in self.zone.questions, force)
                self.assertEqual(self.lines[-1].startswith("Verified"), force)

        return self.run_test(test)


class Context(OurContext):
    """The TLS of a server with that certificate; `asked_for` is the last name that a client asked for."""

    def __init__(self, pair: KeyPair) -> None:
        self.context = make_context([pair], "test")
        self.asked_for: bytes | None = None
        self.context.set_tlsext_servername_callback(self._note)

    def _note(self, connection: Any) -> None:
        self.asked_for = connection.get_servername()
