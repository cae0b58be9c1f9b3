"""smtp_tls_policy_maps asked of another program, as postfix-mta-sts-resolver answers. RFC 8461."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.protocols.basic import NetstringReceiver

from mailserver.delivery.client_tls import ClientContexts, Trust
from mailserver.envelope import Outcome, Status
from mailserver.roles.relays import relay_settings
from mailserver.tables.table import TableError
from mailserver.threads import WorkerThreads
from tests.delivery.test_relay import OurContext, RelayTestCase, mail
from tests.mx_server import ExchangerFactory
from tests.roles.test_stock import DATA, parts_of


class PolicyServer(NetstringReceiver):
    """Answers `postfix NEXTHOP`. It lives in the reactor that must not wait for it."""

    factory: Any

    def connectionMade(self) -> None:
        self.factory.connections.append(self)

    def stringReceived(self, string: bytes) -> None:
        self.factory.asked.append(string)
        self.sendString(self.factory.policies.get(string.split()[1], b"NOTFOUND "))


class PolicyTests(RelayTestCase):
    """A relay whose policies come from a socketmap: table, with TLS and a policy server on loopback."""

    def setUp(self) -> None:
        super().setUp()
        factory: Any = Factory.forProtocol(PolicyServer)
        factory.noisy = False
        factory.asked, factory.policies = self.asked, self.policies = [], {}
        factory.connections = []
        listening = reactor.listenTCP(0, factory, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.ends_with_the_test(factory, listening)
        self.map = f"socketmap:inet:127.0.0.1:{listening.getHost().port}:postfix"
        self.threads = WorkerThreads(reactor, 2)
        self.addCleanup(self.threads.stop)
        self.parts = parts_of(
            str(DATA / "seed"), smtp_tls_policy_maps=self.map, smtp_tls_security_level="may"
        )
        self.policy = relay_settings(self.parts, self.parts.config, frozenset()).tls_policy

    async def deliver(self, context: OurContext, policy: str) -> tuple[Outcome, ExchangerFactory]:
        far = ExchangerFactory(context)
        hop = f"[127.0.0.1]:{self.listen(far)}"
        self.policies[hop.encode()] = policy.encode()
        file = Path(tempfile.mkdtemp(), "file")
        file.write_bytes(context.chain)
        trusting = ClientContexts(Trust(str(file)))
        relay = self.make(tls_policy=self.policy, threads=self.threads, client_tls=trusting)
        (outcome,) = await relay.deliver(hop, mail())
        return outcome, far

    def test_a_policy_of_mta_sts(self) -> Any:
        """RFC 8461 §4.1: one of the policy's names and a trusted authority, or no mail."""

        async def test() -> None:
            for name, policy, status in (
                ("mx.test", "OK secure match=mx.test servername=hostname", Status.DELIVERED),
                ("a.mx.test", "OK secure match=other.test:.mx.test servername=hostname", Status.DELIVERED),
                ("mx.test", "OK secure match=other.test servername=hostname", Status.DEFERRED),
                (
                    "mx.test",
                    "OK secure match=mx.test policy_type=sts { policy_string = mode: enforce }",
                    Status.DELIVERED,
                ),
                ("mx.test", "NOTFOUND ", Status.DELIVERED),
            ):
                outcome, far = await self.deliver(OurContext(name), policy)
                self.assertEqual((policy, outcome.status), (policy, status), outcome)
                self.assertEqual(len(far.messages), status is Status.DELIVERED)
            self.assertEqual(outcome.text, "250 2.0.0 Ok: queued as TEST")
            self.assertTrue(self.asked[0].startswith(b"postfix [127.0.0.1]:"))

        return self.run_test(test)

    def test_a_policy_that_is_not_told_lets_nothing_out(self) -> Any:
        """P5: the table's fault is temporary, and never falls back to less."""

        async def test() -> None:
            for policy in ("TEMP try again", "OK ", "OK secure match=mx.test unheard=of"):
                with self.assertRaises(TableError):
                    await self.deliver(OurContext("mx.test"), policy)

        return self.run_test(test)
