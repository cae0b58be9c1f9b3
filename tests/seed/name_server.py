"""The DNS of the tutorial: its own domain, and two others whose mail host cannot be reached."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.names import dns

from tests.dns_server import NameServer, Zone

RECORDS: list[tuple[str, Any]] = [
    ("hxz.ass", dns.Record_MX(10, b"www.hxz.ass")),
    ("hxz.ass", dns.Record_TXT(b"v=spf1 mx -all")),
    ("www.hxz.ass", dns.Record_A("192.0.2.25")),
    ("25.2.0.192.in-addr.arpa", dns.Record_PTR(b"www.hxz.ass")),
    ("pc.hxz.ass", dns.Record_A("10.2.2.2")),
    ("2.2.2.10.in-addr.arpa", dns.Record_PTR(b"pc.hxz.ass")),
]
for domain in (b"ass.com", b"mail.com", b"163.com"):
    RECORDS.append((domain.decode(), dns.Record_MX(10, b"mx." + domain)))
    RECORDS.append((f"mx.{domain.decode()}", dns.Record_A("198.51.100.1")))

if __name__ == "__main__":
    NameServer(reactor, Zone(RECORDS), 53)
    reactor.run()  # type: ignore[attr-defined]
