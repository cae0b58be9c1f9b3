"""The administrator's ACLs over IMAP: `acl = vfile:FILE`."""

from __future__ import annotations

from pathlib import Path

from mailserver.store.global_acls import GlobalAcls
from tests.imapd.harness import message
from tests.imapd.sharing import SharingServer


def test_global_acls(tmp_path: Path) -> None:
    """bob's Invoices can only be read, by him and by dave; bob cannot change that."""
    rules = tmp_path / "global-acls"
    rules.write_text("Invoices owner lri\nshared/*/Invoices user=dave lr\n")
    server = SharingServer(tmp_path)
    server.sharing.global_acls = GlobalAcls(str(rules))
    bob, dave = server.log_in("bob"), server.log_in("dave")
    assert b"a OK" in bob.ask(b"a CREATE Invoices")
    mail = message()
    assert b"b OK" in bob.ask(b"b APPEND Invoices {%d+}\r\n%b" % (len(mail), mail))
    assert b'* MYRIGHTS "Invoices" lri\r\n' in bob.ask(b"c MYRIGHTS Invoices")
    bob.ask(b"d SELECT Invoices")
    assert b"* 1 FETCH" not in bob.ask(b"e STORE 1 +FLAGS (\\Deleted)")
    assert b"f NO [NOPERM]" in bob.ask(b"f EXPUNGE")
    assert b"g NO [NOPERM]" in bob.ask(b"g SETACL Invoices owner lrswipkxtea")
    assert b'* MYRIGHTS "Invoices" lri\r\n' in bob.ask(b"h MYRIGHTS Invoices")
    assert b"i NO [NOPERM]" in bob.ask(b"i DELETE Invoices")
    assert b"b OK" in dave.ask(b"b SELECT shared/bob/Invoices")
    assert b"c NO [NOPERM]" in dave.ask(b"c APPEND shared/bob/Invoices {%d+}\r\n%b" % (len(mail), mail))
    assert b"d NO" in dave.ask(b"d SELECT shared/bob/INBOX")
    server.close()
