"""POP3 over real sockets: TLS, back-pressure, and the files of the real store."""

from __future__ import annotations

import os
import poplib
import socket
import ssl
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from mailserver.accounts.account import Account
from mailserver.maillog import ListLog
from mailserver.pop3d.factory import Pop3Factory
from mailserver.pop3d.protocol import Pop3Server
from mailserver.pop3d.service import Service
from mailserver.pop3d.settings import Pop3Settings
from mailserver.store.contract import NewMessage
from mailserver.store.layout import layout_for
from mailserver.store.registry import FileStoreRegistry
from mailserver.threads import WorkerThreads
from mailserver.tls import make_context, self_signed
from tests.pop3d.dialogue import TWO, FixedLogins
from tests.store_memory import MemoryAccountStore, MemoryRegistry

LARGE = b"Subject: large\r\n\r\n" + b".line that begins with a dot\r\n" * 100_000


@implementer(IOpenSSLContextFactory)
class Tls:
    """A context factory with a certificate of its own."""

    def __init__(self) -> None:
        self._context = make_context([self_signed(["localhost"], 1_700_000_000, 36_500)], "pop3")

    def getContext(self) -> Any:
        """See IOpenSSLContextFactory."""
        return self._context


def memory(*messages: bytes) -> MemoryRegistry:
    """A registry in which alice has the messages."""
    store = MemoryAccountStore()
    store.inbox.deliver(*messages)
    return MemoryRegistry(alice=store)


def trusting() -> ssl.SSLContext:
    """A client's context that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def retrieved(client: poplib.POP3, number: int) -> bytes:
    """The message as the client reads it."""
    return b"".join(line + b"\r\n" for line in client.retr(number)[1])


class SocketTests(TestCase):
    """The server runs in the reactor, the client in a thread."""

    timeout = 30

    def serve(self, registry: Any) -> int:
        """The port of a server that is gone with the test."""
        ended: list[Deferred[None]] = []

        class Watched(Pop3Server):
            def connectionMade(self) -> None:
                self.ended: Deferred[None] = Deferred()
                ended.append(self.ended)
                super().connectionMade()

            def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
                super().connectionLost(reason)
                self.ended.callback(None)

        threads = WorkerThreads(reactor, 4)
        self.addCleanup(threads.stop)
        service = Service(Pop3Settings(), FixedLogins(), registry, threads, reactor, ListLog(), Tls())
        factory = Pop3Factory(service)
        factory.protocol = Watched
        listener = reactor.listenTCP(0, factory, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(lambda: DeferredList(ended))
        self.addCleanup(listener.stopListening)
        port: int = listener.getHost().port
        return port

    def test_stls_forgets_what_came_before(self) -> Deferred[None]:
        """RFC 2595 §4: after STLS the user must be named again, and STLS is offered no more."""

        def dialogue() -> None:
            client = connected(port)
            client.user("alice")
            self.assertIn("STLS", client.capa())
            client.stls(trusting())
            self.assertNotIn("STLS", client.capa())
            self.assertRaises(poplib.error_proto, client.pass_, "secret")
            client.user("alice")
            client.pass_("secret")
            self.assertEqual(retrieved(client, 1), TWO)
            client.quit()

        port = self.serve(memory(TWO))
        return deferToThread(dialogue)

    def test_a_large_message_under_tls(self) -> Deferred[None]:
        """Back-pressure works through the TLS layer that STLS put in."""

        def dialogue() -> None:
            client = connected(port)
            client.stls(trusting())
            client.user("alice")
            client.pass_("secret")
            self.assertEqual(retrieved(client, 1), LARGE)
            self.assertEqual(retrieved(client, 2), TWO)
            client.quit()

        port = self.serve(memory(LARGE, TWO))
        return deferToThread(dialogue)

    def test_a_hundred_pipelined_retrievals(self) -> Deferred[None]:
        """RFC 2449 §6.6: answers come in order, whole, to a client that reads late."""
        messages = [b"Subject: %d\r\n\r\n" % number + b".x\r\n" * 9000 for number in range(100)]

        def dialogue() -> bytes:
            with socket.create_connection(("127.0.0.1", port), 20) as connection:
                retrievals = b"".join(b"RETR %d\r\n" % number for number in range(1, 101))
                connection.sendall(b"USER alice\r\nPASS secret\r\n" + retrievals + b"QUIT\r\n")
                return connection.makefile("rb").read()

        def compare(said: bytes) -> None:
            expected = b"".join(
                b"+OK %d octets\r\n%b.\r\n" % (len(message), message.replace(b"\r\n.", b"\r\n.."))
                for message in messages
            )
            self.assertTrue(said.startswith(b"+OK Mail server ready.\r\n+OK\r\n+OK Logged in.\r\n"))
            self.assertTrue(said.endswith(expected + b"+OK Logging out.\r\n"))

        port = self.serve(memory(*messages))
        return deferToThread(dialogue).addCallback(compare)

    def test_the_real_store_as_maildir(self) -> Deferred[None]:
        """See `check_real_store`."""
        return self.check_real_store("maildir:{home}/Maildir")

    def test_the_real_store_as_mbox(self) -> Deferred[None]:
        """See `check_real_store`."""
        return self.check_real_store("mbox:{home}/mail:INBOX={home}/inbox")

    def check_real_store(self, location: str) -> Deferred[None]:
        """STAT, LIST and RETR agree; ids survive sessions; deletions are on disk after QUIT."""
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        directory = Path(temporary.name)
        home = directory / "home"
        (home / "mail").mkdir(parents=True)
        account = Account("alice", os.getuid(), os.getgid(), str(home))
        layout = layout_for(account, location.format(home=home))
        registry = FileStoreRegistry(lambda _: layout, str(directory / "state"), "localhost")

        def dialogue() -> None:
            fill(registry, account, TWO, b"Subject: b\r\n\r\nFrom here\r\n", TWO)
            client = connected(port)
            client.user("alice")
            client.pass_("secret")
            count, octets = client.stat()
            messages = [retrieved(client, number) for number in range(1, count + 1)]
            self.assertEqual(messages[::2], [TWO, TWO])
            self.assertEqual([int(line.split()[1]) for line in client.list()[1]], list(map(len, messages)))
            self.assertEqual(octets, sum(map(len, messages)))
            before = client.uidl()[1]
            client.dele(1)
            client.quit()
            client = connected(port)
            client.user("alice")
            client.pass_("secret")
            after = [line.split()[1] for line in client.uidl()[1]]
            self.assertEqual(after, [line.split()[1] for line in before[1:]])
            self.assertEqual(retrieved(client, 2), TWO)
            client.quit()

        port = self.serve(registry)
        return deferToThread(dialogue)


def fill(registry: FileStoreRegistry, account: Account, *messages: bytes) -> None:
    """The messages are in the account's INBOX."""
    store = registry.open(account)
    inbox = store.open("INBOX")
    inbox.append([NewMessage(message) for message in messages])
    store.close(inbox)
    registry.close(store)


def connected(port: int) -> poplib.POP3:
    """A client that was greeted."""
    return poplib.POP3("127.0.0.1", port, timeout=20)
