"""Certificates by name and their expiry, without a server."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.task import Clock

from mailserver.roles.certificates import ExpiryWatch, NamedCertificates, SecretFiles, files_in
from mailserver.tables.open import TableOpener
from mailserver.tls import CertificateError, KeyPairFiles, ServerTls, self_signed

DAY = 86_400


def test_an_expiry_is_warned_of_once_a_day() -> None:
    """From 14 days ahead on, and after it."""
    clock, said = Clock(), list[str]()
    chain = self_signed(["a.test"], 0.0, days=16).chain
    watch = ExpiryWatch(clock, lambda: [("/a.pem", chain), ("/b.pem", b"none")], said.append, clock.seconds)
    watch.start()
    assert not said
    clock.pump([DAY] * 2)
    assert said == ["TLS certificate /a.pem expires in 14 days: renew it"]
    clock.pump([DAY] * 3)
    assert len(said) == 4  # one a day
    clock.advance(20 * DAY)
    assert said[-1].startswith("TLS certificate /a.pem expired ")
    watch.stop()
    assert not clock.getDelayedCalls()


def test_a_value_names_one_file_or_two() -> None:
    """The key's first, as Postfix wants it."""
    assert files_in("/key.pem, /chain.pem") == KeyPairFiles("/chain.pem", "/key.pem")
    assert files_in("/both.pem") == KeyPairFiles("/both.pem", "/both.pem")
    for wrong in ("", "/a /b /c"):
        with pytest.raises(CertificateError):
            files_in(wrong)


def test_a_name_without_usable_files_gets_the_default(tmp_path: Path) -> None:
    """And the log says why."""
    table = TableOpener(str(tmp_path)).table("inline:{{a.test = /no/such.pem}}")
    said: list[str] = []

    def make(pair: KeyPairFiles) -> ServerTls:
        return ServerTls("imap", lambda: pair.stamp(), lambda: [pair.read()])

    assert NamedCertificates([table], make, said.append).find("a.test") is None
    assert NamedCertificates([table], make, said.append).find("b.test") is None
    assert len(said) == 1
    assert "a.test" in said[0]


def test_the_helper_gives_the_files_that_are_named_and_no_others(tmp_path: Path) -> None:
    """Those of the tables follow the tables."""
    (tmp_path / "sni").write_text("a.test /a/key.pem /a/chain.pem\n")
    table = TableOpener(str(tmp_path)).table(f"texthash:{tmp_path}/sni")
    files = SecretFiles([KeyPairFiles("/own/chain.pem", "/own/key.pem")], [table])
    assert all(path in files for path in ("/own/chain.pem", "/own/key.pem", "/a/key.pem", "/a/chain.pem"))
    assert "/etc/shadow" not in files
