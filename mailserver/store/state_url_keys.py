"""state.db's table of mailbox access keys: what the URLs that the account authorised are proved by.

    url_key       mailbox's name as the account knows it -> its UIDVALIDITY and the key (RFC 4467 §2.3)

Names of others' mailboxes are among them. A key counts for the mailbox that has that UIDVALIDITY, so one that
is made anew under an old name needs no clean-up. A release without this table leaves it alone, and cannot
make it wrong.
"""

from __future__ import annotations

from mailserver.store.contract import AccessKey
from mailserver.store.state_database import StateDatabase


class UrlKeysState(StateDatabase):
    """The questions and changes; see `State`."""

    def access_key(self, name: str) -> AccessKey | None:
        """The key of the mailbox of that name."""
        rows = self._read("SELECT uidvalidity, key FROM url_key WHERE name=?", (name,))
        return AccessKey(*rows[0]) if rows else None  # type: ignore[arg-type]

    def set_access_key(self, name: str, key: AccessKey) -> None:
        """The mailbox has this key instead of any other. In a transaction."""
        self._db.execute("INSERT OR REPLACE INTO url_key VALUES (?, ?, ?)", (name, key.uidvalidity, key.key))

    def remove_access_keys(self) -> None:
        """There are no keys. In a transaction."""
        self._db.execute("DELETE FROM url_key")
