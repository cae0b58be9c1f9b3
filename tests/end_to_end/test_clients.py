"""Real clients from Debian: they send, and they read what was sent.

RFC 6409 §4, RFC 3501 §6, RFC 1939 §7.
"""

from __future__ import annotations

import imaplib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.server import DEADLINE, Server, running
from tests.end_to_end.test_exchange import received


@pytest.fixture(scope="module", params=["mbox", "maildir"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp(f"clients-{request.param}") / "home", request.param) as server:
        yield server


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def run(home: Path, *command: str, text: str = "", status: int = 0) -> str:
    """Standard output of a client with a home of its own."""
    environment = {
        "HOME": str(home),
        "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin",
        "LANG": "C.UTF-8",
        "TERM": "xterm",
        "USER": "alice",
        "LOGNAME": "alice",
    }
    done = subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        env=environment,
        cwd=home,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == status, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.needs("swaks")
def test_swaks_sends(server: Server, home: Path) -> None:
    """swaks over plain SMTP, and with STARTTLS and a login over submission."""
    run(
        home, "swaks", "--server", f"127.0.0.1:{server.ports['smtp']}", "--from", "carol@example.net",
        "--to", "bob@example.org", "--header", "Message-ID: <plain@swaks>",
    )  # fmt: skip
    run(
        home, "swaks", "--server", f"127.0.0.1:{server.ports['submission']}", "--from", "alice@example.org",
        "--to", "bob@example.org", "--header", "Message-ID: <tls@swaks>", "-tls", "-a",
        "--auth-user", "alice", "--auth-password", server.passwords["alice"],
    )  # fmt: skip
    assert b"with ESMTP id" in received(server, "bob", "<plain@swaks>")
    assert b"with ESMTPSA id" in received(server, "bob", "<tls@swaks>")


@pytest.mark.needs("curl")
def test_curl_sends_and_reads(server: Server, home: Path) -> None:
    """curl over smtp, smtps, pop3, pop3s, imap and imaps."""
    (home / "message").write_text("Message-ID: <one@curl>\r\nSubject: by curl\r\n\r\nhello\r\n")
    login = f"alice:{server.passwords['alice']}"
    run(
        home, "curl", "-sS", "-k", f"smtps://127.0.0.1:{server.ports['submissions']}", "-u", login,
        "--mail-from", "alice@example.org", "--mail-rcpt", "alice@example.org", "-T", "message",
    )  # fmt: skip
    received(server, "alice", "<one@curl>")
    assert "INBOX" in run(home, "curl", "-sS", "-u", login, f"imap://127.0.0.1:{server.ports['imap']}/")
    url = f"imaps://127.0.0.1:{server.ports['imaps']}/INBOX;MAILINDEX=1"
    assert "ordinary mailbox" in run(home, "curl", "-sS", "-k", "-u", login, url)
    listing = run(home, "curl", "-sS", "-k", "-u", login, f"pop3s://127.0.0.1:{server.ports['pop3s']}/")
    assert listing.startswith("1 ")
    text = run(home, "curl", "-sS", "-u", login, f"pop3://127.0.0.1:{server.ports['pop3']}/1")
    assert "ordinary mailbox" in text


@pytest.mark.needs("mutt")
def test_mutt_sends_and_reads(server: Server, home: Path) -> None:
    """mutt -s by SMTP with a login; then it opens INBOX over IMAP and saves a message from there."""
    password = server.passwords["alice"]
    (home / ".muttrc").write_text(
        f"""set from="alice@example.org" realname="Alice" use_envelope_from=yes copy=no
set smtp_url="smtp://alice@127.0.0.1:{server.ports["submission"]}/" smtp_pass="{password}"
set imap_user=alice imap_pass="{password}" pop_user=alice pop_pass="{password}"
set ssl_starttls=yes ssl_force_tls=no ssl_verify_host=no ssl_verify_dates=no certificate_file="{home}/trusted"
set folder="imap://127.0.0.1:{server.ports["imap"]}/" spoolfile="+INBOX"
set mbox_type=mbox confirmappend=no confirmcreate=no delete=yes quit=yes move=no timeout=5 sleep_time=0
my_hdr Message-ID: <one@mutt>
"""
    )
    (home / "trusted").write_bytes((server.directory / "tls" / "certificate.pem").read_bytes())
    run(home, "mutt", "-s", "by mutt", "bob@example.org", text="hello from mutt\n")
    assert b"hello from mutt" in received(server, "bob", "<one@mutt>")
    out = home / "saved"
    script = f"push '<limit>~s Welcome<enter><copy-message><kill-line>{out}<enter><exit>'"
    run(home, "script", "-qec", f'mutt -n -F {home}/.muttrc -e "{script}"', "/dev/null")
    assert "ordinary mailbox" in out.read_text()


@pytest.mark.needs("s-nail")
def test_s_nail_reads_over_imap_and_pop3(server: Server, home: Path) -> None:
    """s-nail lists headers over both protocols."""
    password = server.passwords["alice"]
    for protocol in ("pop3", "imap"):
        url = f"{protocol}://alice:{password}@127.0.0.1:{server.ports[protocol]}"
        settings = ("v15-compat=yes", "imap-auth=login", "tls-verify=ignore")
        settings += ("pop3-use-starttls=no", "imap-use-starttls=no")
        options = [word for setting in settings for word in ("-S", setting)]
        text = run(home, "s-nail", "-n", *options, "-Y", "from *", "-Y", "x", "-R", "-f", url, text="x\n")
        assert "Welcome to your mail" in text, text


def configure_mbsync(server: Server, home: Path, patterns: str) -> None:
    """isync knows alice's mail as `far`, and maildirs in `mail` as `near`."""
    (home / "mail").mkdir()
    (home / ".mbsyncrc").write_text(
        f"""IMAPStore far
Host 127.0.0.1
Port {server.ports["imap"]}
User alice
Pass "{server.passwords["alice"]}"
SSLType None
AuthMechs LOGIN

MaildirStore near
Path {home}/mail/
Inbox {home}/mail/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns {patterns}
Create Both
Expunge Both
SyncState *
"""
    )


@pytest.mark.needs("mbsync")
def test_mbsync_syncs_and_then_has_nothing_to_do(server: Server, home: Path) -> None:
    """isync copies every message once; the second run transfers nothing."""
    configure_mbsync(server, home, "*")
    run(home, "mbsync", "-q", "-a")
    messages = list((home / "mail" / "INBOX" / "cur").iterdir()) + list(
        (home / "mail" / "INBOX" / "new").iterdir()
    )
    assert len(messages) >= 4
    assert (home / "mail" / "Sent").is_dir()
    again = run(home, "mbsync", "-a")
    assert "+0" in again or "+" not in again, again


@pytest.mark.needs("mbsync")
def test_mbsync_converges_both_ways(server: Server, home: Path) -> None:
    """New mail, flags, deletions and folders of both sides are on both; then nothing moves any more."""
    configure_mbsync(server, home, "Both*")
    near = home / "mail" / "Both"

    def mail(subject: str) -> bytes:
        return f"From: alice@example.org\r\nSubject: {subject}\r\n\r\n{subject}\r\n".encode()

    def files() -> dict[str, Path]:
        """By subject, flags in the name."""
        found = (path for folder in ("cur", "new") for path in (near / folder).iterdir())
        return {path.read_text().partition("Subject: ")[2].partition("\n")[0]: path for path in found}

    with imaplib.IMAP4("127.0.0.1", server.ports["imap"], timeout=DEADLINE) as far:
        far.login("alice", server.passwords["alice"])
        far.create("Both")
        for subject in ("one", "two", "three"):
            far.append("Both", "", "", mail(subject))
        run(home, "mbsync", "-q", "-a")
        found = files()
        assert sorted(found) == ["one", "three", "two"]
        found["one"].unlink()
        found["two"].rename(near / "cur" / (found["two"].name.partition(":")[0] + ":2,F"))
        (near / "new" / "1700000000.1.here").write_bytes(mail("near").replace(b"\r\n", b"\n"))
        far.select("Both")
        far.store("3", "+FLAGS.SILENT", "(\\Answered)")
        far.append("Both", "", "", mail("far"))
        far.create("Both-far")
        for level in ("cur", "new", "tmp"):
            (home / "mail" / "Both-near" / level).mkdir(parents=True)
        run(home, "mbsync", "-q", "-a")
        run(home, "mbsync", "-q", "-a")
        assert sorted(files()) == ["far", "near", "three", "two"]
        assert files()["three"].name.endswith("R")
        assert far.select("Both")[1] == [b"4"]
        assert far.search(None, "FLAGGED", "SUBJECT", "two")[1] != [b""]
        assert far.search(None, "SUBJECT", "near")[1] != [b""]
        assert far.search(None, "SUBJECT", "one")[1] == [b""]
        assert far.select("Both-near")[0] == "OK"
        assert (home / "mail" / "Both-far" / "cur").is_dir()
        far.unselect()
        before, there = files(), far.status("Both", "(MESSAGES UIDNEXT HIGHESTMODSEQ)")
        run(home, "mbsync", "-q", "-a")
        assert (files(), far.status("Both", "(MESSAGES UIDNEXT HIGHESTMODSEQ)")) == (before, there)


@pytest.mark.needs("offlineimap")
def test_offlineimap_converges(server: Server, home: Path) -> None:
    """Two runs, the second of which changes nothing on either side; then flags travel both ways."""
    near, rc = home / "near" / "INBOX", home / "rc"
    rc.write_text(
        f"""[general]
accounts = alice
metadata = {home}/metadata
[Account alice]
localrepository = near
remoterepository = far
[Repository near]
type = Maildir
localfolders = {home}/near
[Repository far]
type = IMAP
remotehost = 127.0.0.1
remoteport = {server.ports["imap"]}
remoteuser = alice
remotepass = {server.passwords["alice"]}
ssl = no
starttls = no
"""
    )

    def names() -> list[str]:
        """The maildir's files without offlineimap's own marks, flags included."""
        return sorted(path.name for folder in ("cur", "new") for path in (near / folder).iterdir())

    def sync() -> None:
        run(home, "offlineimap", "-c", str(rc), "-o", "-u", "quiet")

    with imaplib.IMAP4("127.0.0.1", server.ports["imap"], timeout=DEADLINE) as far:
        far.login("alice", server.passwords["alice"])
        far.select("INBOX")
        far.uid("STORE", "1:*", "-FLAGS.SILENT", "(\\Seen \\Flagged \\Answered)")
        sync()
        before, there = names(), far.status("INBOX", "(MESSAGES UIDNEXT HIGHESTMODSEQ)")
        assert len(before) >= 4
        sync()
        assert (names(), far.status("INBOX", "(MESSAGES UIDNEXT HIGHESTMODSEQ)")) == (before, there)
        first = next(path for folder in ("new", "cur") for path in (near / folder).glob("*,U=1,*"))
        first.rename(near / "cur" / (first.name.partition(":")[0] + ":2,FS"))
        far.uid("STORE", "2", "+FLAGS.SILENT", "(\\Answered)")
        sync()
        found = b"".join(line for line in far.uid("FETCH", "1", "(FLAGS)")[1] if b"UID 1 " in line)
        assert b"\\Flagged" in found and b"\\Seen" in found
        (second,) = [name for name in names() if ",U=2," in name]
        assert second.endswith(":2,R")


@pytest.mark.needs("getmail")
def test_getmail_retrieves(server: Server, home: Path) -> None:
    """getmail over IMAP, by UID: every message once, and none the second time."""
    (home / "getmailrc").write_text(
        f"""[retriever]
type = SimpleIMAPRetriever
server = 127.0.0.1
port = {server.ports["imap"]}
username = alice
password = {server.passwords["alice"]}
[destination]
type = MDA_external
path = /usr/bin/tee
arguments = ("-a", "{home}/retrieved")
allow_root_commands = true
[options]
read_all = false
"""
    )
    run(home, "getmail", "--getmaildir", str(home))
    retrieved = (home / "retrieved").read_bytes()
    assert b"Welcome to your mail" in retrieved
    run(home, "getmail", "--getmaildir", str(home))
    assert (home / "retrieved").read_bytes() == retrieved


@pytest.mark.needs("fetchmail")
def test_fetchmail_fetches(server: Server, home: Path) -> None:
    """fetchmail takes everything over POP3 and keeps it on the server."""
    rc = home / ".fetchmailrc"
    rc.write_text(
        f"""poll 127.0.0.1 service {server.ports["pop3"]} protocol pop3 uidl
  user "alice" password "{server.passwords["alice"]}" keep sslproto ""
  mda "cat >> {home}/fetched"
"""
    )
    rc.chmod(0o600)
    run(home, "fetchmail", "-f", str(rc), "--nosyslog", "--pidfile", str(home / "pid"))
    assert "ordinary mailbox" in (home / "fetched").read_text()


@pytest.mark.needs("mail", "s-nail")
def test_mail_programs_read_the_spool_file(server: Server, home: Path) -> None:
    """bsd-mailx, s-nail and mutt list the same spool that we serve."""
    inbox = str(server.inbox("alice"))
    if server.mail_format == "mbox":
        assert "Welcome to your mail" in run(home, "bsd-mailx", "-f", inbox, text="h\nx\n")
    assert "Welcome to your mail" in run(home, "s-nail", "-n", "-R", "-H", "-f", inbox)
