"""STARTTLS over real sockets: RFC 3207; RELIABILITY B2, B3, T1, T2; TWISTED.md, Everywhere."""

from __future__ import annotations

import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailserver.prompt import make_prompt
from mailserver.prompt_tls import PromptTlsFactory
from mailserver.smtpd.factory import SmtpFactory
from mailserver.threads import WorkerThreads
from mailserver.tls import ServerTls, self_signed
from tests.smtpd.harness import House, read_content

TLS = ServerTls("smtp", lambda: 0, lambda: [self_signed(["mx.example.org"], time.time())])
_USING = (
    rb"\n\t\(using TLSv1\.3 with cipher [A-Z0-9_]+ \(\d+/\d+ bits\)\)"
    rb"\n\t\(No client certificate requested\)\n\tby "
)
ENVELOPE = "MAIL FROM:<s@example.com>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n"


class Client:
    """A blocking client, for a thread."""

    def __init__(self, port: int) -> None:
        self.socket: Any = socket.create_connection(("127.0.0.1", port), timeout=10)

    def read(self) -> str:
        """What comes next; "" at the end of the connection, however it ends."""
        try:
            return str(self.socket.recv(65_536).decode())
        except (ConnectionError, ssl.SSLError):
            return ""

    def send(self, text: str) -> None:
        """The text is sent."""
        self.socket.sendall(text.encode())

    def ask(self, text: str) -> str:
        """The reply to the text."""
        self.send(text)
        return self.read()

    def ask_until(self, text: str, last: str) -> str:
        """The replies to the text, up to the one that has `last` in it."""
        self.send(text)
        said = self.read()
        while last not in said:
            more = self.read()
            assert more, said
            said += more
        return said

    def secure(self) -> None:
        """TLS is up."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.socket = context.wrap_socket(self.socket, server_hostname="mx.example.org")


class StartTls(TestCase):
    """Each test runs a blocking client in a thread against the real protocol on a real port."""

    def setUp(self) -> None:
        directory = Path(tempfile.mkdtemp())
        threads = WorkerThreads(reactor, 4)
        self.addCleanup(threads.stop)
        self.house = House(directory, clock=reactor, threads=threads, tls=TLS)
        self.listen(self.house.factory)

    def listen(self, factory: Any) -> None:
        """The factory listens on a free port."""
        self.port = reactor.listenTCP(0, factory, interface="127.0.0.1")  # type: ignore[attr-defined]
        make_prompt(self.port)
        self.addCleanup(self.port.stopListening)
        self.addCleanup(self.house.factory.shut_down)

    def run_client(self, script: Callable[[Client], Any]) -> Deferred[Any]:
        """The script's result."""

        def work() -> Any:
            client = Client(self.port.getHost().port)
            try:
                assert client.read().startswith("220 ")
                return script(client)
            finally:
                client.socket.close()

        return deferToThread(work)

    async def test_a_message_over_tls(self) -> None:
        """STARTTLS is offered, works, and is gone inside; the message says how it came."""

        def script(client: Client) -> None:
            assert "250-STARTTLS" in client.ask("EHLO x\r\n")
            assert client.ask("STARTTLS\r\n") == "220 2.0.0 Ready to start TLS\r\n"
            client.secure()
            inside = client.ask("EHLO x\r\n")
            assert "STARTTLS" not in inside
            assert "AUTH PLAIN LOGIN" in inside
            assert client.ask("STARTTLS\r\n") == "554 5.5.1 Error: TLS already active\r\n"
            client.ask_until(ENVELOPE, "354 End data with <CR><LF>.<CR><LF>\r\n")
            assert "queued as" in client.ask("Subject: x\r\n\r\nbody\r\n.\r\n")
            assert client.ask("QUIT\r\n") == "221 2.0.0 Bye\r\n"
            assert client.read() == ""

        await self.run_client(script)
        content = read_content(self.house.accepted[0])
        self.assertIn(b" with ESMTPS id ", content)
        self.assertRegex(content, _USING)

    async def test_what_follows_starttls_in_clear_is_not_obeyed(self) -> None:
        """CVE-2011-0411, in one segment: no reply, the connection ends."""

        def script(client: Client) -> str:
            client.ask("EHLO x\r\n")
            return client.ask("STARTTLS\r\nMAIL FROM:<injected@evil>\r\n") + client.read()

        self.assertEqual(await self.run_client(script), "")

    async def test_what_follows_in_a_second_segment_is_no_command(self) -> None:
        """Clear text behind the 220 fails the handshake; nothing of it runs."""

        def script(client: Client) -> str:
            client.ask("EHLO x\r\n")
            client.ask("STARTTLS\r\n")
            client.send("MAIL FROM:<injected@evil>\r\nRSET\r\n")
            return "".join(iter(client.read, ""))

        self.assertNotIn("250", await self.run_client(script))

    async def test_everything_said_in_clear_is_forgotten(self) -> None:
        """RFC 3207 §4.2: HELO, MAIL and RCPT from before do not count inside."""

        def script(client: Client) -> list[str]:
            client.ask("EHLO x\r\n")
            client.ask_until("MAIL FROM:<s@example.com>\r\nRCPT TO:<alice@example.org>\r\n", "250 2.1.5")
            client.ask("STARTTLS\r\n")
            client.secure()
            return [
                client.ask("DATA\r\n"),
                client.ask("RCPT TO:<alice@example.org>\r\n"),
                client.ask("AUTH PLAIN\r\n"),
            ]

        self.assertEqual(
            await self.run_client(script),
            [
                "503 5.5.1 Error: need RCPT command\r\n",
                "503 5.5.1 Error: need MAIL command\r\n",
                "503 5.5.1 Error: authentication not enabled\r\n",
            ],
        )

    async def test_close_notify_ends_the_session(self) -> None:
        """Exim CVE-2026-45185: clear text after close_notify within content is never looked at."""

        def script(client: Client) -> str:
            client.ask("EHLO x\r\n")
            client.ask("STARTTLS\r\n")
            client.secure()
            client.ask("EHLO x\r\n")
            client.ask_until(ENVELOPE, "354 ")
            client.send("half a message\r\n")
            clear = client.socket.unwrap()
            clear.settimeout(10)
            clear.sendall(b"rest\r\n.\r\nNOOP\r\n")
            heard = b""
            try:
                while data := clear.recv(4096):
                    heard += data
            except ConnectionError:
                pass
            clear.close()
            return heard.decode("latin-1")

        self.assertNotIn("250", await self.run_client(script))
        self.assertEqual(self.house.accepted, [])

    async def test_tls_from_the_start(self) -> None:
        """Port 465, RFC 8314 §3.3: no STARTTLS, AUTH at once."""
        factory = SmtpFactory(self.house.services, is_tls=True)
        port = reactor.listenTCP(0, PromptTlsFactory(TLS, False, factory), interface="127.0.0.1")  # type: ignore[attr-defined]
        make_prompt(port)
        self.addCleanup(port.stopListening)
        self.addCleanup(factory.shut_down)

        def work() -> None:
            client = Client(port.getHost().port)
            client.secure()
            assert client.read().startswith("220 ")
            said = client.ask("EHLO x\r\n")
            assert "STARTTLS" not in said
            assert "AUTH PLAIN LOGIN" in said
            client.ask_until(ENVELOPE, "354 ")
            assert "queued as" in client.ask("x\r\n.\r\n")
            client.ask("QUIT\r\n")
            assert client.read() == ""
            client.socket.close()

        await deferToThread(work)
        self.assertIn(b"(using TLSv1.3 with cipher", read_content(self.house.accepted[0]))

    async def test_encryption_may_be_required(self) -> None:
        """smtpd_tls_security_level = encrypt: 530 5.7.0 before STARTTLS."""
        self.house = House(Path(tempfile.mkdtemp()), clock=reactor, tls=TLS, tls_required=True)
        self.listen(self.house.factory)

        def script(client: Client) -> str:
            client.ask("EHLO x\r\n")
            return client.ask("MAIL FROM:<s@example.com>\r\n")

        self.assertEqual(await self.run_client(script), "530 5.7.0 Must issue a STARTTLS command first\r\n")

    async def test_a_big_message_with_real_threads(self) -> None:
        """5 MB through pausing and flushing over TCP: the octets are the same."""
        lines = [f"line {number} " + "x" * 60 for number in range(70_000)]

        def script(client: Client) -> str:
            client.ask_until("EHLO x\r\n" + ENVELOPE, "354 ")
            client.send("A: b\r\n\r\n" + "\r\n".join(lines) + "\r\n.\r\nQUIT\r\n")
            return "".join(iter(client.read, ""))

        said = await self.run_client(script)
        self.assertIn("queued as", said)
        self.assertTrue(
            read_content(self.house.accepted[0]).endswith(("\n" + "\n".join(lines) + "\n").encode())
        )

    async def test_half_close(self) -> None:
        """RELIABILITY F41: everything pipelined, then the writing side closed."""

        def script(client: Client) -> str:
            client.send("EHLO x\r\n" + ENVELOPE + "A: b\r\n\r\nx\r\n.\r\n")
            client.socket.shutdown(socket.SHUT_WR)
            return "".join(iter(client.read, ""))

        self.assertIn("queued as", await self.run_client(script))
        self.assertEqual(len(self.house.accepted), 1)
