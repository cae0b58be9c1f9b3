"""What BURL asks for, from the stores of this process: RFC 4468, where all mail has one owner."""

from __future__ import annotations

from collections.abc import Callable

from mailserver.accounts.account import Account, TemporaryAccountFailure
from mailserver.imapd.url_access import (
    NotAuthorized,
    OtherServer,
    Reader,
    UrlServer,
    find,
)
from mailserver.store.contract import StoreError, StoreRegistry
from mailserver.threads import Threads
from mailserver.wire.imap_url import BadUrl, Url
from mailserver.wire.smtp import SmtpError


class ImapContent:
    """See `mailserver.smtpd.services.UrlContent`. `stores` are as IMAP sessions see them."""

    def __init__(
        self,
        server: UrlServer,
        myhostname: str,
        stores: StoreRegistry,
        lookup: Callable[[str], Account | None],
        threads: Threads,
    ) -> None:
        self.authority = server.authority_of(myhostname)
        self._server = server
        self._stores = stores
        self._lookup = lookup
        self._threads = threads

    async def fetch(self, user: str, url: bytes) -> bytes:
        """See `UrlContent.fetch`. RFC 4468 §6; RFC 5248 §2.4 for 5.7.14."""
        try:
            return await self._threads.run(self._read, user, Url(url))
        except OtherServer as fault:
            raise SmtpError(554, "5.7.14", "URL resolution requires trust relationship") from fault
        except NotAuthorized as fault:
            raise SmtpError(554, "5.7.0", "IMAP URL authorization failed") from fault
        except BadUrl as fault:
            raise SmtpError(554, "5.6.6", "IMAP URL resolution failed") from fault
        except (StoreError, TemporaryAccountFailure) as fault:
            raise SmtpError(451, "4.4.1", "IMAP server unavailable") from fault

    def _read(self, user: str, url: Url) -> bytes:
        """Blocking."""
        account = self._lookup(user)
        if account is None:
            raise NotAuthorized("Not an account of this server")
        store = self._stores.open(account)
        try:
            return find(self._server, Reader(account.name, store, submits=True), url).octets()
        finally:
            self._stores.close(store)
