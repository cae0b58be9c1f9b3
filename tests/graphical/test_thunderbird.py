"""Thunderbird's own account code against a running server. `make thunderbird` runs it."""

from __future__ import annotations

import imaplib
import smtplib
from pathlib import Path

import pytest

from tests.end_to_end.server import running
from tests.graphical.marionette import thunderbird

_ACCOUNT = """
const [imap, smtp, password] = parameters;
const server = MailServices.accounts.createIncomingServer("alice", "127.0.0.1", "imap");
server.port = imap; server.socketType = 0; server.authMethod = 3; server.password = password;
const identity = MailServices.accounts.createIdentity();
identity.email = "alice@example.org";
const out = MailServices.outgoingServer.createServer("smtp");
out.QueryInterface(Ci.nsISmtpServer);
out.hostname = "127.0.0.1"; out.port = smtp; out.socketType = 0; out.authMethod = 1;
identity.smtpServerKey = out.key;
MailServices.outgoingServer.defaultServer = out;
const account = MailServices.accounts.createAccount();
account.incomingServer = server; account.addIdentity(identity);
MailServices.accounts.defaultAccount = account;
server.performExpand(null);
await until(() => server.rootFolder.descendants.length >= 6);
return server.rootFolder.descendants.map((folder) => [folder.name, folder.flags]);
"""
_INBOX = """
const account = MailServices.accounts.defaultAccount;
const root = account.incomingServer.rootFolder;
const inbox = root.getFolderWithFlags(0x1000);
const subjects = () => [...inbox.messages].map((header) => header.mime2DecodedSubject);
"""
_READ = """
inbox.updateFolder(null);
await until(() => inbox.getTotalMessages(false) >= 4);
return subjects();
"""
_CHANGE = """
const messages = [...inbox.messages];
inbox.markMessagesRead([messages[0]], true);
inbox.markMessagesFlagged([messages[1]], true);
const archive = root.descendants.find((folder) => folder.name.startsWith("Archive"));
await new Promise((stopped) => MailServices.copy.copyMessages(inbox, [messages[2]], archive, true, {
  onStartCopy() {}, onProgress() {}, setMessageKey() {}, getMessageId() {}, onStopCopy: stopped,
  QueryInterface: ChromeUtils.generateQI(["nsIMsgCopyServiceListener"])}, null, false));
inbox.deleteMessages([messages[3]], null, false, false, {onStopCopy() {}}, false);
return await until(() => inbox.getTotalMessages(false) == 2);
"""
_SEND = """
const fields = Cc["@mozilla.org/messengercompose/composefields;1"].createInstance(Ci.nsIMsgCompFields);
fields.to = fields.from = "alice@example.org";
fields.subject = "From Thunderbird gr\\u00fc\\u00dfe"; fields.body = "hello\\r\\n";
fields.forcePlainText = true;
const how = Cc["@mozilla.org/messengercompose/composeparams;1"].createInstance(Ci.nsIMsgComposeParams);
how.composeFields = fields; how.identity = account.defaultIdentity;
how.format = Ci.nsIMsgCompFormat.PlainText;
const compose = MailServices.compose.initCompose(how);
await compose.sendMsg(Ci.nsIMsgCompDeliverMode.Now, account.defaultIdentity, account.key, null, null);
const sent = root.descendants.find((folder) => folder.flags & 0x200);
await until(() => subjects().some((subject) => subject.startsWith("From Thunderbird")));
sent.updateFolder(null);
return await until(() => sent.getTotalMessages(false) == 1);
"""
_PUSHED = 'return await until(() => subjects().includes("pushed"));'


@pytest.mark.needs("thunderbird", "Xvfb")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mail_format", ["mbox", "maildir"])
def test_thunderbird_reads_sorts_sends_and_is_pushed_to(tmp_path: Path, mail_format: str) -> None:
    """It lists special folders, reads, flags, moves, deletes, sends with a copy kept, hears of new mail."""
    with running(tmp_path / "home", mail_format) as server, thunderbird(tmp_path) as client:
        password = server.passwords["alice"]
        folders = dict(client.script(_ACCOUNT, server.ports["imap"], server.ports["smtp"], password))
        assert folders["Drafts"] & 0x400 and folders["Sent"] & 0x200 and folders["Trash"] & 0x100
        assert "今夜の夕食 / dinner tonight?" in client.script(_INBOX + _READ)
        assert client.script(_INBOX + _CHANGE)
        assert client.script(_INBOX + _SEND)
        with smtplib.SMTP("127.0.0.1", server.ports["smtp"]) as sender:
            sender.sendmail("carol@example.net", ["alice@example.org"], "Subject: pushed\r\n\r\nx\r\n")
        assert client.script(_INBOX + _PUSHED)
        imap = imaplib.IMAP4("127.0.0.1", server.ports["imap"])
        imap.login("alice", password)
        for folder, subject in {
            "Archive": b"The drawing",
            "Trash": b"Cron",
            "Sent": b"From_Thunderbird",
        }.items():
            imap.select(folder, readonly=True)
            assert subject in imap.fetch("1", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1][0][1]
        imap.select("INBOX", readonly=True)
        flags = imap.fetch("1:2", "(FLAGS)")[1]
        assert b"\\Seen" in flags[0] and b"\\Flagged" in flags[1]
        imap.logout()
