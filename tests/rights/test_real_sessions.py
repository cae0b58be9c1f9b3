"""IMAP and POP3 sessions that begin at a front and go on at a session host, with Python's own clients."""

from __future__ import annotations

import imaplib
import poplib
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.trial.unittest import TestCase

from mailserver.accounts.account import Account
from mailserver.accounts.codec import account_from, account_message
from mailserver.accounts.logged_in import LoggedIn
from mailserver.accounts.login import Attempt, Granted, Refused
from mailserver.accounts.scram import Challenge
from mailserver.imapd.factory import ImapFactory
from mailserver.imapd.settings import ImapSettings
from mailserver.maillog import ListLog
from mailserver.pop3d.factory import Pop3Factory
from mailserver.pop3d.service import Service
from mailserver.pop3d.settings import Pop3Settings
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

    def challenge(self, name: str) -> Deferred[Challenge | Refused]:
        return succeed(Refused())


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
        self.zygote, self.ports, self.inbox = zygote, {}, store.inbox
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
        self.logged_in = LoggedIn()  # the front's, which is made last
        more: Any = {"logged_in": self.logged_in}
        return {
            "imap": ImapFactory(ImapSettings(), *common, handover=hand_over("imap"), **more),
            "pop3": Pop3Factory(Service(Pop3Settings(), *common, handover=hand_over("pop3"), **more)),
        }

    def kick(self) -> None:
        """Every session is kicked, as `mailserver kick` does."""

        def act() -> None:
            self.logged_in.kick([login.session for login, _ in self.logged_in.logins()])

        blockingCallFromThread(reactor, act)

    def wait_for_log(self, text: str) -> None:
        """Returns when the host has written the text."""
        for _ in range(3000):
            if self.logged(self.host_log, text):
                return
            time.sleep(0.01)
        self.fail(f"{text} not in {self.host_log.lines}")

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

    def test_a_kicked_imap_session_is_sent_away_by_its_host(self) -> Deferred[None]:
        """BYE comes from the host, which alone knows where its answers end."""

        def client() -> None:
            session = imaplib.IMAP4("127.0.0.1", self.ports["imap"], timeout=30)
            session.login("alice", "secret")
            session.select()
            self.assertEqual(len(self.logged_in.logins()), 1)
            self.kick()
            self.assertEqual(session.readline(), b"* BYE Kicked by an administrator.\r\n")
            self.assertEqual(session.readline(), b"")
            session.shutdown()
            self.wait_for_log("Disconnected: Kicked by an administrator in=")

        return self.run_client(client)

    def test_a_kicked_pop3_session_deletes_nothing(self) -> Deferred[None]:
        """-ERR comes from the host; what was marked stays. RFC 1939 §6."""

        def client() -> None:
            session = poplib.POP3("127.0.0.1", self.ports["pop3"], timeout=30)
            session.user("alice")
            session.pass_("secret")
            session.dele(1)
            self.kick()
            assert session.file is not None
            self.assertEqual(session.file.readline(), b"-ERR [SYS/TEMP] Kicked by an administrator.\r\n")
            self.assertEqual(session.file.readline(), b"")
            session.close()
            self.wait_for_log("Disconnected: Kicked by an administrator top=")
            self.assertEqual(len(self.inbox.uids), 2)

        return self.run_client(client)

    def test_a_client_that_leaves_was_not_kicked(self) -> Deferred[None]:
        """Both ends of the stream closed is something else than its sending side shut down."""

        def client() -> None:
            session = imaplib.IMAP4("127.0.0.1", self.ports["imap"], timeout=30)
            session.login("alice", "secret")
            session.shutdown()
            self.wait_for_log("Disconnected: Connection closed in=")

        return self.run_client(client)
