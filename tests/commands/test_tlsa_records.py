"""`mailserver doctor` on TLSA: whether this host's own records fit its certificates. RFC 7672 §6."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import TestCase

from mailserver.commands.tlsa_records import read_chains, tlsa_findings
from mailserver.dnssec import NameServer, SecureResolver, Tlsa
from tests import dns_server
from tests.delivery.test_dane import LEAF, OTHER
from tests.dns_server import Zone, tlsa


class TlsaFindingsTests(TestCase):
    """mailserver.commands.tlsa_records."""

    def test_records_and_certificates(self) -> Any:
        """What fits, what does not, with the record that would; nothing where there are no records."""

        async def test() -> None:
            file = Path(tempfile.mkdtemp(), "cert.pem")
            file.write_bytes(LEAF.pair().chain)
            zone = Zone([])
            server = dns_server.NameServer(reactor, zone)
            self.addCleanup(server.stop)
            resolver = SecureResolver(reactor, [NameServer(*server.address, is_trusted=True)])
            owner, right = "_25._tcp.mx.test", LEAF.record(3, 1, 1)
            for record, secure, path, state, text in (
                (right, True, file, "ok", "fits"),
                (right, False, file, "unknown", "sign the zone"),
                (OTHER.record(3, 1, 1), True, file, "wrong", f"publish `3 1 1 {right.data.hex()}`"),
                (Tlsa(1, 1, 1, bytes(32)), True, file, "wrong", "none is usable"),
                (right, True, file.parent / "none", "unknown", "cannot be read"),
            ):
                zone.records = [(owner, tlsa(record.usage, 1, 1, record.data))]
                zone.secure = {owner} if secure else set()
                chains = read_chains([str(path)])
                (found,) = [each async for each in tlsa_findings(resolver, "mx.test", (), chains)]
                self.assertEqual((found.state, found.subject), (state, "TLSA of mx.test"))
                self.assertIn(text, found.text)
            zone.records = []
            self.assertEqual([each async for each in tlsa_findings(resolver, "mx.test", (), {})], [])

        return ensureDeferred(test())
