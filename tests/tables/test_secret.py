"""Tables that somebody else reads for us."""

from __future__ import annotations

import pytest

from mailserver.tables.secret import SecretTable
from mailserver.tables.table import Entry, TableError


class Vault:
    """A file that only this object reads; counts how often it was asked to."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.mark = 1
        self.reads = 0

    def read(self, path: str) -> bytes:
        self.reads += 1
        return self.text

    def stamp(self, path: str) -> object:
        if self.mark < 0:
            raise PermissionError(13, "Permission denied")
        return self.mark


def test_the_text_is_read_again_only_after_a_change() -> None:
    """Keys in any case; the source's line is known."""
    vault = Vault(b"# relay\n[mx.test]:587\tme:one two\nbroken\n")
    table = SecretTable("hash:/etc/sasl_passwd", "/etc/sasl_passwd", vault.read, vault.stamp)
    assert table.find("[MX.test]:587") == Entry("me:one two", "/etc/sasl_passwd:2")
    assert table.find("other") is None
    with pytest.raises(TableError, match="has no value"):
        table.find("broken")
    assert vault.reads == 1
    vault.text, vault.mark = b"other me:x\n", 2
    assert table.find("other") == Entry("me:x", "/etc/sasl_passwd:1")
    vault.mark = -1
    with pytest.raises(TableError, match="Permission denied"):
        table.find("other")
    with pytest.raises(TableError):
        table.entries()
