"""A real listener on loopback, met by Python's imaplib and by Debian's clients.

The server's reactor runs here; the clients run in threads and processes of their own.
"""

from __future__ import annotations

import imaplib
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from imap_tools import AND, MailBoxUnencrypted
from imapclient import IMAPClient
from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from mailserver.accounts.account import Account
from mailserver.imapd.factory import ImapFactory
from mailserver.imapd.settings import ImapSettings
from mailserver.maillog import ListLog
from mailserver.prompt_tls import PromptTlsFactory
from mailserver.store.contract import AccountStore
from mailserver.store.layout import layout_for
from mailserver.store.registry import FileStoreRegistry
from mailserver.threads import WorkerThreads
from mailserver.tls import KeyPairFiles, ServerTls, self_signed
from tests.imapd.harness import PasswordIsSecret, message

reactor: Any = the_reactor


class CountingRegistry(FileStoreRegistry):
    """Counts the sessions that hold a store."""

    in_use = 0

    def open(self, account: Account) -> AccountStore:
        store = super().open(account)
        self.in_use += 1
        return store

    def close(self, store: AccountStore) -> None:
        super().close(store)
        self.in_use -= 1


class RealClients(unittest.TestCase):
    """Maildirs below a temporary directory, a pool of threads, TLS with a self-signed certificate."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="imapd-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.threads = WorkerThreads(reactor, 4)
        self.addCleanup(self.threads.stop)
        self.registry = CountingRegistry(self._layout, str(self.directory / "state"), "host.example")
        self.addCleanup(self.registry.shut)
        self.log = ListLog()
        self.tls = self._tls()
        self.factory = ImapFactory(
            ImapSettings(poll_interval=0.2),
            PasswordIsSecret(),
            self.registry,
            self.threads,
            reactor,
            self.log,
            self.tls,
        )
        self.port = self._listen(self.factory)
        self.addCleanup(self._until_quiet)  # the last one added is the first to run

    def _until_quiet(self) -> Deferred[None]:
        """Every session has given back its store before the registry is shut."""
        check = LoopingCall(lambda: self._is_quiet() and check.stop())
        return check.start(0.01).addCallback(lambda _: None)

    def _is_quiet(self) -> bool:
        logins = sum(text.startswith("Login: ") for _, text in self.log.lines)
        ends = sum(service.startswith("imap(alice)<") for service, _ in self.log.lines)
        return logins == ends and not self.registry.in_use

    def _layout(self, account: Account) -> Any:
        return layout_for(account, f"maildir:{self.directory}/Maildir")

    def _tls(self) -> ServerTls:
        pair = self_signed(["localhost"], time.time())
        (self.directory / "cert.pem").write_bytes(pair.chain)
        (self.directory / "key.pem").write_bytes(pair.key)
        files = KeyPairFiles(str(self.directory / "cert.pem"), str(self.directory / "key.pem"))
        return ServerTls("imap", files.stamp, lambda: [files.read()])

    def _listen(self, factory: Factory) -> int:
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    def _client(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HOME": str(self.directory)}
        return subprocess.run(
            command, capture_output=True, text=True, timeout=30, env=environment, check=False, **options
        )

    def test_imaplib(self) -> Deferred[None]:
        """STARTTLS, login, append, search, fetch, store, copy, idle-free polling, logout."""
        return deferToThread(self._with_imaplib)

    def _with_imaplib(self) -> None:
        client = imaplib.IMAP4("127.0.0.1", self.port, timeout=20)
        client.starttls(_unverified())
        client.login("alice", "secret")
        self.assertIn(b" UIDPLUS ", client.capability()[1][0])
        for number in range(20):
            self.assertEqual(client.append("INBOX", "", "", message(f"number {number}"))[0], "OK")
        self.assertEqual(client.select()[1], [b"20"])
        _status, data = client.uid("fetch", "1:*", "(FLAGS BODY.PEEK[])")
        self.assertEqual([part[1] for part in data if isinstance(part, tuple)][3], message("number 3"))
        self.assertEqual(client.search(None, "SUBJECT", '"number 7"')[1], [b"8"])
        self.assertEqual(client.store("1:5", "+FLAGS", "\\Deleted")[0], "OK")
        self.assertEqual(client.create("Ablage")[0], "OK")
        self.assertEqual(client.copy("6", "Ablage")[0], "OK")
        self.assertEqual(client.expunge()[1], [b"5", b"4", b"3", b"2", b"1"])
        self.assertEqual(client.status("Ablage", "(MESSAGES)")[1], [b'"Ablage" (MESSAGES 1)'])
        self.assertEqual(client.close()[0], "OK")
        self.assertEqual(client.logout()[0], "BYE")
        self._wait_for_line("Disconnected: Logged out in=")

    def test_imapclient(self) -> Deferred[None]:
        """IMAPClient: UIDs, parsed ENVELOPEs, threads, IDLE, quota, and a move."""
        return deferToThread(self._with_imapclient)

    def _with_imapclient(self) -> None:
        with IMAPClient("127.0.0.1", port=self.port, ssl=False, timeout=20) as client:
            client.login("alice", "secret")
            for subject in ("one", "Re: one", "two"):
                client.append("INBOX", message(subject), flags=[b"\\Seen"])
            self.assertEqual(client.select_folder("INBOX")[b"EXISTS"], 3)
            self.assertEqual(client.search(["SUBJECT", "two", "SEEN"]), [3])
            self.assertEqual(client.sort(["REVERSE SUBJECT", "ARRIVAL"]), [3, 1, 2])
            self.assertEqual(client.thread("REFS"), ((1,), (2,), (3,)))
            fetched = client.fetch([2], ["ENVELOPE", "BODYSTRUCTURE", "INTERNALDATE", "BODY.PEEK[TEXT]"])[2]
            self.assertEqual(fetched[b"ENVELOPE"].subject, b"Re: one")
            self.assertEqual(fetched[b"BODY[TEXT]"], b"Hi.\r\n")
            self.assertEqual(client.get_quota_root("INBOX")[0].quota_roots, ["User quota"])
            client.idle()
            self.assertEqual(client.idle_check(timeout=0.01), [])
            client.idle_done()
            client.create_folder("Gr\u00fcn/unten")
            client.move([1, 2], "Gr\u00fcn/unten")
            self.assertEqual(client.folder_status("Gr\u00fcn/unten", ["MESSAGES"]), {b"MESSAGES": 2})
            self.assertEqual(client.find_special_folder(b"\\Trash"), "Trash")
        self._wait_for_line("Disconnected: Logged out in=")

    def test_imap_tools(self) -> Deferred[None]:
        """imap-tools: its mailbox, folder and message managers."""
        return deferToThread(self._with_imap_tools)

    def _with_imap_tools(self) -> None:
        with MailBoxUnencrypted("127.0.0.1", port=self.port, timeout=20).login("alice", "secret") as mailbox:
            for subject in ("one", "two"):
                mailbox.append(message(subject), "INBOX", flag_set=["\\Flagged"])
            found = list(mailbox.fetch(AND(subject="two", flagged=True), mark_seen=False))
            self.assertEqual(
                [(one.uid, one.text, one.from_) for one in found], [("2", "Hi.\r\n", "alice@example.org")]
            )
            mailbox.folder.create("there")
            self.assertTrue(mailbox.folder.exists("there"))
            mailbox.move(["1"], "there")
            mailbox.flag(["2"], ["work"], True)
            self.assertEqual(mailbox.uids(AND(keyword="work")), ["2"])
            self.assertEqual(mailbox.folder.status("there")["MESSAGES"], 1)
            mailbox.folder.rename("there", "elsewhere")
            mailbox.folder.delete("elsewhere")
        self._wait_for_line("Disconnected: Logged out in=")

    def _wait_for_line(self, start: str) -> None:
        """The log gets such a line of a logged-in session within seconds."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if any(
                text.startswith(start) and service.startswith("imap(alice)<")
                for service, text in self.log.lines
            ):
                return
            time.sleep(0.01)
        self.fail(f"no line {start!r} in {self.log.lines}")

    def test_unix_sockets(self) -> Deferred[None]:
        """A stream without TCP's options is served as well."""
        path = str(self.directory / "socket")
        port = reactor.listenUNIX(path, self.factory)
        self.addCleanup(port.stopListening)
        return deferToThread(self._over_unix, path)

    def _over_unix(self, path: str) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(path)
            client.sendall(b"a LOGIN alice secret\r\nb LOGOUT\r\n")
            said = b""
            while data := client.recv(4096):
                said += data
        self.assertIn(b"b OK Logout completed.\r\n", said)

    def test_large_messages_over_tls(self) -> Deferred[None]:
        """Twenty megabytes go in and come out, while another session's NOOP is answered."""
        port = self._listen(PromptTlsFactory(self.tls, False, self.factory))
        return deferToThread(self._large_messages, port)

    def _large_messages(self, port: int) -> None:
        client = imaplib.IMAP4_SSL("127.0.0.1", port, ssl_context=_unverified(), timeout=20)
        self.assertIn("AUTH=PLAIN", client.capabilities)
        client.authenticate("PLAIN", lambda challenge: b"\0alice\0secret")
        self.assertIn(", TLS, session=<", self.log.lines[-1][1])
        body = message("large", "0123456789abcdef" * 64 * 9500 + "\r\n")
        for _ in range(2):
            self.assertEqual(client.append("INBOX", "", "", body)[0], "OK")
        client.select()
        _status, data = client.fetch("1:2", "BODY[]")
        self.assertEqual([part[1] for part in data if isinstance(part, tuple)], [body, body])
        self.assertEqual(client.append("INBOX", "", "", body * 2)[0], "NO")
        client.logout()

    @pytest.mark.needs("curl")
    def test_curl(self) -> Deferred[None]:
        """curl uploads a message and gets it back."""
        (self.directory / "mail").write_bytes(message("by curl"))
        url = f"imap://127.0.0.1:{self.port}/INBOX"
        return deferToThread(self._with_curl, url)

    def _with_curl(self, url: str) -> None:
        login = ("-sS", "-u", "alice:secret")
        sent = self._client("curl", *login, "-T", str(self.directory / "mail"), url)
        self.assertEqual(sent.returncode, 0, sent.stderr)
        got = self._client("curl", *login, f"{url};UID=1")
        self.assertIn("Subject: by curl", got.stdout)
        self.assertIn("* SEARCH 1", self._client("curl", *login, f"{url}?SUBJECT%20curl").stdout)

    @pytest.mark.needs("mbsync")
    def test_mbsync(self) -> Deferred[None]:
        """mbsync fetches all folders, and the second run transfers nothing."""
        return deferToThread(self._with_mbsync)

    def _with_mbsync(self) -> None:
        client = imaplib.IMAP4("127.0.0.1", self.port, timeout=20)
        client.login("alice", "secret")
        client.create("Ablage/Tief")
        for mailbox in ("INBOX", "Ablage/Tief"):
            client.append(mailbox, "\\Flagged", "", message("for " + mailbox))
        client.logout()
        (self.directory / "copy").mkdir()
        (self.directory / ".mbsyncrc").write_text(
            f"IMAPAccount a\nHost 127.0.0.1\nPort {self.port}\nUser alice\nPass secret\nSSLType None\n"
            "AuthMechs LOGIN\n\nIMAPStore far\nAccount a\n\nMaildirStore near\nSubFolders Verbatim\n"
            f"Path {self.directory}/copy/\nInbox {self.directory}/copy/INBOX\n"
            "\nChannel c\nFar :far:\nNear :near:\nPatterns *\nCreate Near\nSyncState *\n"
        )
        first = self._client("mbsync", "-c", str(self.directory / ".mbsyncrc"), "c")
        self.assertEqual(first.returncode, 0, first.stderr)
        self.assertEqual(self._copies(), 2)
        second = self._client("mbsync", "-V", "-c", str(self.directory / ".mbsyncrc"), "c")
        self.assertEqual(second.returncode, 0, second.stderr)
        self.assertEqual(self._copies(), 2)

    def _copies(self) -> int:
        files = (self.directory / "copy").rglob("*")
        return sum(path.parent.name in ("cur", "new") for path in files)


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
