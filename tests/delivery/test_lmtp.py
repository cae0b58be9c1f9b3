"""LMTP: an answer for each recipient, over TCP and UNIX-domain sockets, to servers that misbehave too."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor

from mailserver.delivery.next_hop import NextHop, NoRoute, parse_lmtp_next_hop
from mailserver.delivery.relay import Relay
from mailserver.delivery.smtp_client import TimeLimits
from mailserver.delivery.tls_policy import TlsPolicy
from mailserver.envelope import Status
from tests.delivery.test_relay import CONTENT, SHORT, OurContext, RelayTestCase, mail
from tests.mx_server import ExchangerFactory, MailExchanger, babble, drop, hang

SENT, LATER, NEVER = Status.DELIVERED, Status.DEFERRED, Status.FAILED


def server(tls: Any = None, **deeds: Any) -> ExchangerFactory:
    """An LMTP server; deeds after the dot are named by address, `at` for the sign."""
    factory = ExchangerFactory(tls, **deeds)
    factory.deeds = {name.replace("_at_", "@"): deed for name, deed in deeds.items()}
    factory.is_lmtp = True
    return factory


def and_then(reply: str, deed: Callable[[MailExchanger], None]) -> Callable[[MailExchanger], None]:
    """The reply, and the deed behind it."""

    def do(exchanger: MailExchanger) -> None:
        exchanger.sendLine(reply.encode())
        deed(exchanger)

    return do


class LmtpTests(RelayTestCase):
    """RFC 2033."""

    def lmtp(self, limits: TimeLimits | None = None, **settings: Any) -> Relay:
        return self.make(limits, is_lmtp=True, **settings)

    def test_each_recipient_is_answered_after_the_dot(self) -> Any:
        """RFC 2033 §4.2: one reply for each recipient that RCPT accepted, in order; LHLO, no EHLO."""

        async def test() -> None:
            far = server(full_at_far="452 4.2.2 over quota", gone_at_far="550 5.2.1 disabled")
            far.recipients = {"who@far": "550 5.1.1 unknown"}
            hop = f"inet:127.0.0.1:{self.listen(far)}"
            to = ("a@far", "who@far", "full@far", "gone@far", "b@far")
            outcomes = await self.lmtp().deliver(hop, mail(*to))
            self.assertEqual([each.status for each in outcomes], [SENT, NEVER, LATER, NEVER, SENT])
            self.assertEqual([each.dsn for each in outcomes], ["2.0.0", "5.1.1", "4.2.2", "5.2.1", "2.0.0"])
            self.assertEqual(outcomes[0].text, "250 2.0.0 <a@far> Saved")
            self.assertIn("said: 452 4.2.2 over quota (in reply to end of DATA command)", outcomes[2].text)
            self.assertEqual(far.commands[0], b"LHLO mail.example.org")

        return self.run_test(test)

    def test_what_was_answered_counts_whatever_becomes_of_the_rest(self) -> Any:
        """P3: a recipient that was saved gets no second copy because the session broke behind it."""

        async def test() -> None:
            for deed in (drop, babble, hang):
                far = server(b_at_far=deed)
                hop = f"127.0.0.1:{self.listen(far)}"
                relay = self.lmtp(SHORT)
                outcomes = await relay.deliver(hop, mail("a@far", "b@far", "c@far"))
                self.assertEqual([each.status for each in outcomes], [SENT, LATER, LATER], deed)
                (outcome,) = await relay.deliver(hop, mail("a@far"))
                self.assertEqual(outcome.status, SENT)

        return self.run_test(test)

    def test_a_broken_session_that_was_idle_repeats_nobody(self) -> Any:
        """P3 over a session that is used again."""

        async def test() -> None:
            far = server()
            hop = f"127.0.0.1:{self.listen(far)}"
            relay = self.lmtp()
            await relay.deliver(hop, mail("a@far"))
            far.deeds = {"b@far": and_then("550 5.2.1 disabled", drop)}
            outcomes = await relay.deliver(hop, mail("a@far", "b@far", "c@far"))
            self.assertEqual([each.status for each in outcomes], [SENT, NEVER, LATER])
            self.assertEqual((len(far.connections), len(far.messages)), (1, 2))

        return self.run_test(test)

    def test_over_a_socket_of_this_host(self) -> Any:
        """lmtp:unix:path, below the queue directory; no TLS there, and mail waits where it is demanded."""

        async def test() -> None:
            directory = tempfile.mkdtemp()
            far = server(OurContext())
            listening = reactor.listenUNIX(str(Path(directory, "lmtp")), far)  # type: ignore[attr-defined]
            self.addCleanup(listening.stopListening)
            relay = self.lmtp(socket_directory=directory)
            for _ in range(2):
                (outcome,) = await relay.deliver("unix:lmtp", mail("a@far"))
                self.assertEqual((outcome.status, outcome.relay), (SENT, "mail.example.org[lmtp]"))
            self.assertEqual((len(far.connections), len(far.messages)), (1, 2))
            self.assertEqual(far.messages[0][2].replace(b"\r\n ", b""), CONTENT.replace(b"\n", b"\r\n"))
            self.assertFalse(far.connections[0].is_tls)
            strict = self.lmtp(tls_policy=lambda nexthop: TlsPolicy("encrypt"), socket_directory=directory)
            (outcome,) = await strict.deliver("unix:lmtp", mail("a@far"))
            self.assertEqual((outcome.status, outcome.dsn), (LATER, "4.7.4"))
            (outcome,) = await relay.deliver(f"unix:{directory}/nobody", mail("a@far"))
            self.assertEqual((outcome.status, outcome.relay), (LATER, "none"))
            self.assertIn(f"[{directory}/nobody]: No such file or directory", outcome.text)

        return self.run_test(test)

    def test_a_server_that_speaks_smtp_alone_gets_nothing(self) -> Any:
        """LHLO refused: one answer for all could be taken for one of several."""

        async def test() -> None:
            far = server(EHLO="502 5.5.1 unknown command")
            (outcome,) = await self.lmtp().deliver(f"127.0.0.1:{self.listen(far)}", mail("a@far"))
            self.assertEqual((outcome.status, far.messages), (LATER, []))

        return self.run_test(test)

    def test_next_hops_of_lmtp(self) -> None:
        """lmtp(8): unix:path, inet:host, host:port; never an MX."""
        self.assertEqual(parse_lmtp_next_hop("unix:private/x", 24), NextHop("private/x", 0, True))
        self.assertEqual(str(parse_lmtp_next_hop("unix:/run/x", 24)), "unix:/run/x")
        self.assertEqual(parse_lmtp_next_hop("inet:mail.test", 24), NextHop("mail.test", 24, True))
        self.assertEqual(parse_lmtp_next_hop("[::1]:2003", 24), NextHop("::1", 2003, True))
        for wrong in ("unix:", "inet:", "inet:a:nonsense"):
            self.assertRaises(NoRoute, parse_lmtp_next_hop, wrong, 24)
