"""Servers with TLSA records of every kind, and what this program and posttls-finger(1) make of them.

A program for a network and mount namespace of its own: it has port 53 and 25, and prints a line of JSON for
each case: its name, how far we believe the server (Verified, Trusted, or not), whether we send, and how far
Postfix believes it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.x509.oid import ExtendedKeyUsageOID
from twisted.internet import defer, reactor, utils
from twisted.internet.task import react
from twisted.names import dns

from mailserver.delivery.client_tls import ClientContexts
from mailserver.delivery.hosts import HostRules
from mailserver.delivery.relay import Relay, RelaySettings
from mailserver.delivery.tls_policy import DaneRules, TlsPolicy
from mailserver.dns import Resolver
from mailserver.dnssec import SecureResolver, Tlsa
from tests.delivery.test_dane import LEAF, MIDDLE, OTHER, ROOT, Context, Signed, sign
from tests.delivery.test_relay import mail
from tests.dns_server import TLSA, NameServer, Zone, tlsa
from tests.mx_server import ExchangerFactory

_BELIEVED = re.compile(r"\b(Verified|Trusted) TLS connection established")
_HOST, _ALIAS = "mx.test", "real.test"
_RIGHT, _WRONG = LEAF.record(3, 1, 1), OTHER.record(3, 1, 1)
_ANCHOR = MIDDLE.record(2, 0, 1)


@dataclass(frozen=True)
class Case:
    """A mail exchanger: its certificate, of which it shows `length`, its records, and what of DNS is odd."""

    name: str
    records: Sequence[Tlsa]
    signed: Signed | None = LEAF
    length: int = 9
    owner: str = _HOST
    is_alias: bool = False
    insecure: str = ""
    is_broken: bool = False


_OLD = sign(_HOST, MIDDLE, days=-1)
CASES = (
    Case("end entity", [_RIGHT]),
    Case("another end entity", [_WRONG]),
    Case("expired end entity", [_OLD.record(3, 1, 1)], _OLD),
    Case("trust anchor", [_ANCHOR]),
    Case("digest of a root that is not sent", [ROOT.record(2, 0, 1)], length=2),
    Case("whole root that is not sent", [ROOT.record(2, 0, 0)], length=2),
    Case("key of a root that is not sent", [ROOT.record(2, 1, 0)], length=2),
    Case("key of the issuer, alone", [ROOT.record(2, 1, 0)], sign(_HOST, ROOT), length=1),
    Case("expired below an anchor", [_ANCHOR], _OLD),
    Case("another name below an anchor", [_ANCHOR], sign("else.test", MIDDLE)),
    Case("the next hop's name", [_ANCHOR], sign("far.test", MIDDLE)),
    Case("a common name alone", [_ANCHOR], sign(_HOST, MIDDLE, [])),
    Case("no server's", [_ANCHOR], sign(_HOST, MIDDLE, use=ExtendedKeyUsageOID.CLIENT_AUTH)),
    Case("a leaf as anchor", [LEAF.record(2, 0, 1)]),
    Case("its own key as anchor", [OTHER.record(2, 1, 1)], OTHER),
    Case("no records", []),
    Case("PKIX-EE", [Tlsa(1, 1, 1, bytes(32))]),
    Case("PKIX-TA", [Tlsa(0, 0, 1, bytes(32))]),
    Case("too short", [Tlsa(3, 1, 1, b"abc")]),
    Case("a better digest that is wrong", [OTHER.record(3, 1, 2), _RIGHT]),
    Case("a better digest that is right", [_WRONG, LEAF.record(3, 1, 2)]),
    Case("a whole key beside a wrong digest", [OTHER.record(3, 1, 2), LEAF.record(3, 1, 0)]),
    Case("insecure records", [_RIGHT], insecure=f"_25._tcp.{_HOST}"),
    Case("insecure host", [_RIGHT], insecure=_HOST),
    Case("insecure MX", [_RIGHT], insecure="far.test"),
    Case("records of what an alias leads to", [_RIGHT], owner=_ALIAS, is_alias=True),
    Case("records of an alias", [_RIGHT], is_alias=True),
    Case("records of an alias that leads to what is insecure", [_RIGHT], is_alias=True, insecure=_ALIAS),
    Case("no answer", [_RIGHT], is_broken=True),
    Case("no TLS", [_RIGHT], None),
    Case("neither TLS nor records", [], None),
)


def fill(zone: Zone, case: Case) -> None:
    """The name server knows the case."""
    owner = f"_25._tcp.{case.owner}"
    end = _ALIAS if case.is_alias else _HOST
    zone.records = [("far.test", dns.Record_MX(10, _HOST.encode())), (end, dns.Record_A("127.0.0.1"))]
    if case.is_alias:
        zone.records.append((_HOST, dns.Record_CNAME(_ALIAS.encode())))
    for each in case.records:
        zone.records.append((owner, tlsa(each.usage, each.selector, each.matching_type, each.data)))
    zone.secure = {"far.test", _HOST, _ALIAS, owner} - {case.insecure}
    zone.broken = {(owner, TLSA)} if case.is_broken else set()


async def ours() -> tuple[str, bool]:
    """How far this program believes the server, and whether it has sent the mail."""
    lines: list[str] = []
    settings = RelaySettings(
        helo_name="client.test",
        client_tls=ClientContexts(),
        tls_policy=lambda nexthop: TlsPolicy("dane"),
        dane=DaneRules(resolver=SecureResolver(reactor)),
        hosts=HostRules(own_ports=frozenset()),
        log=lines.append,
    )
    relay = Relay(reactor, Resolver(reactor, hosts_file=os.devnull), settings)
    (outcome,) = await relay.deliver("far.test", mail())
    relay.close()
    return believed(" ".join(lines)), outcome.status.name == "DELIVERED"


async def theirs() -> str:
    """How far posttls-finger believes it."""
    words = ["-c", "-a", "ipv4", "-L", "summary", "-l", "dane", "-t", "20", "far.test"]
    out, err, _ = await utils.getProcessOutputAndValue("/usr/sbin/posttls-finger", words, env=os.environ)
    return believed((out + err).decode())


def believed(text: str) -> str:
    """Verified, Trusted, or ""."""
    match = _BELIEVED.search(text)
    return match[1] if match else ""


async def play(unused: object) -> None:
    """Every case."""
    zone = Zone([])
    NameServer(reactor, zone, 53)
    for case in CASES:
        fill(zone, case)
        far = ExchangerFactory(Context(case.signed.pair(case.length)) if case.signed else None)
        port: Any = reactor.listenTCP(25, far, interface="127.0.0.1")  # type: ignore[attr-defined]
        mine, is_sent = await ours()
        print(json.dumps([case.name, mine, is_sent, await theirs()]), flush=True)
        for connection in far.connections:
            connection.transport.abortConnection()
        await defer.maybeDeferred(port.stopListening)


if __name__ == "__main__":
    react(lambda unused: defer.ensureDeferred(play(unused)))
    sys.exit()
