"""IMAP and POP3 sessions that begin at a front and go on at a session host, with Python's own clients."""

from __future__ import annotations

import imaplib
import poplib
import socket
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailserver.accounts.account import Account
from mailserver.accounts.codec import account_from, account_message
from mailserver.accounts.login import Attempt, Granted, Refused
from mailserver.imapd.factory import ImapFactory, ImapSettings
from mailserver.maillog import ListLog
from mailserver.pop3d.factory import Pop3Factory, Pop3Settings
from mailserver.rights import messages
from mailserver.rights.handover import Handover
from mailserver.rights.session_host import SessionHost
from mailserver.threads import Inline
from tests.store_memory import MemoryAccountStore, MemoryRegistry

LARGE = b"Subject: large\r\n\r\n" + (b"0123456789abcdef" * 4 + b"\r\n") * 20_000
ALICE = Account("alice", 1000, 1000, "/home/alice")


class StreamLogins:
    """Grants everything, with a stream to the host at the other end of `control`."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control

    def login(self, attempt: Attempt) -> Deferred[Granted | Refused]:
        front, host = socket.socketpair()
        with host:
            messages.send(self._control, {"account": account_message(ALICE)}, (host.fileno(),))
        return succeed(Granted(ALICE, front.detach()))


class Sessions(TestCase):
    """A front without a store, and a host with one."""

    def setUp(self) -> None:
        store = MemoryAccountStore()
        store.inbox.deliver(b"Subject: small\r\n\r\nhello\r\n", LARGE)
        zygote, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.front_log, self.host_log = ListLog(), ListLog()
        served = self.factories(MemoryRegistry(alice=store), StreamLogins(zygote), self.host_log)
        self.stopped: Deferred[None] = Deferred()

        def build(account: Mapping[str, Any], service: str, preamble: Mapping[str, Any]) -> Any:
            return served[service].resumed(account_from(account), preamble)

        SessionHost(reactor, control, build, self.host_log, lambda: self.stopped.callback(None), 600)
        fronts = self.factories(MemoryRegistry(), StreamLogins(zygote), self.front_log, handover=True)
        self.zygote, self.ports = zygote, {}
        for service, factory in fronts.items():
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")  # type: ignore[attr-defined]
            self.addCleanup(port.stopListening)
            self.ports[service] = port.getHost().port

    def tearDown(self) -> Deferred[None]:
        """The zygote is gone: the host ends after its last session."""
        self.zygote.close()
        return self.stopped

    def factories(
        self, registry: MemoryRegistry, logins: StreamLogins, log: ListLog, handover: bool = False
    ) -> dict[str, Any]:
        def hand_over(service: str) -> Handover | None:
            return Handover(reactor, service) if handover else None

        common: Any = (logins, registry, Inline(), reactor, log)
        return {
            "imap": ImapFactory(ImapSettings(), *common, handover=hand_over("imap")),
            "pop3": Pop3Factory(Pop3Settings(), *common, handover=hand_over("pop3")),
        }

    def logged(self, log: ListLog, text: str) -> int:
        return sum(text in line for _, line in log.lines)

    def run_client(self, client: Callable[[], None]) -> Deferred[None]:
        return deferToThread(client)

    def test_imap_goes_on_at_the_host(self) -> Deferred[None]:
        """The tagged OK, large answers, large appends and LOGOUT come from the host."""

        def client() -> None:
            session = imaplib.IMAP4("127.0.0.1", self.ports["imap"], timeout=20)
            self.assertEqual(session.login("alice", "secret")[0], "OK")
            self.assertEqual(session.select()[1], [b"2"])
            _, data = session.fetch("2", "BODY[]")
            part: Any = data[0]
            self.assertEqual(part[1], LARGE)
            self.assertEqual(session.append("INBOX", "", "", LARGE)[0], "OK")
            self.assertEqual(session.logout()[0], "BYE")
            self.assertEqual(self.logged(self.front_log, "Login: user=<alice>"), 1)
            self.assertEqual(self.logged(self.host_log, "Login: user=<alice>"), 0)

        return self.run_client(client)

    def test_commands_pipelined_behind_login_are_answered_in_order(self) -> Deferred[None]:
        """What the front had read already travels with the session."""

        def client() -> None:
            with socket.create_connection(("127.0.0.1", self.ports["imap"]), 20) as connection:
                connection.sendall(
                    b"a LOGIN alice secret\r\nb EXAMINE INBOX\r\nc UID FETCH 1 UID\r\nd LOGOUT\r\n"
                )
                file = connection.makefile("rb")
                tagged = [line.split()[:2] for line in file if line[:2] in (b"a ", b"b ", b"c ", b"d ")]
            self.assertEqual(tagged, [[tag, b"OK"] for tag in (b"a", b"b", b"c", b"d")])

        return self.run_client(client)

    def test_pop3_goes_on_at_the_host(self) -> Deferred[None]:
        """STAT, RETR of a large message, QUIT."""

        def client() -> None:
            session = poplib.POP3("127.0.0.1", self.ports["pop3"], timeout=20)
            session.user("alice")
            self.assertTrue(session.pass_("secret").startswith(b"+OK"))
            self.assertEqual(session.stat()[0], 2)
            self.assertEqual(b"\r\n".join(session.retr(2)[1]) + b"\r\n", LARGE)
            self.assertTrue(session.quit().startswith(b"+OK"))

        return self.run_client(client)
