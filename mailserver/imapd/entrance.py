"""What a client may do before it is logged in, and the login itself.

The protocol gives commands and takes replies; whose password is right is `Logins`' business.
A granted login opens the account's store here, or brings a stream to the session host that
will; then the protocol hands the connection over. RFC 3501 §6.2.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from mailserver.accounts.account import Account
from mailserver.accounts.certificate_logins import Shown
from mailserver.accounts.login import Attempt, Granted, Logins, Peer, Refused, offered
from mailserver.accounts.sasl import ActsForAnother, Credentials, SaslProblem, by_scram, credentials, name_of
from mailserver.accounts.scram_dialogue import MECHANISMS as SCRAM
from mailserver.accounts.scram_dialogue import ScramDialogue
from mailserver.client_certificates import Chain
from mailserver.imapd import capability
from mailserver.imapd.authentication import AskLine, in_base64
from mailserver.imapd.journal import Journal
from mailserver.imapd.replies import ClientGone, Farewell, Refusal, Rejection, Reply, refusal_of
from mailserver.imapd.session import Service
from mailserver.rawlog import Transcript
from mailserver.store.contract import AccountStore, StoreError, StoreRegistry
from mailserver.wire.imap_commands import Command

Preamble = Mapping[str, Any]


class Entrance:
    """One connection's way in. `is_open` is false once the client has left."""

    __slots__ = (
        "_bindings", "_journal", "_logins", "_registry", "_service", "_shown", "is_open", "transcript",
    )  # fmt: skip

    def __init__(
        self,
        service: Service,
        logins: Logins,
        registry: StoreRegistry,
        journal: Journal,
        bindings: Callable[[], Mapping[str, bytes]],
        certificates: Callable[[], Chain],
    ) -> None:
        """`bindings` and `certificates` are those of the connection's TLS at the moment."""
        self.is_open = True
        self._service = service
        self._logins = logins
        self._registry = registry
        self._journal = journal
        self._bindings = bindings
        self._shown = Shown(service.settings.certificates, certificates)
        self.transcript: Transcript | None = None  # of the session, where an administrator wants one

    def capabilities(self, has_tls: bool) -> bytes:
        """What is announced to this client now."""
        return capability.before_login(self._mechanisms, has_tls and not self._journal.peer.is_tls)

    @property
    def _mechanisms(self) -> tuple[str, ...]:
        """Those that this client may use now."""
        settings = self._service.settings
        if not self._may_log_in:
            return ()
        return offered(settings.mechanisms, self._journal.peer.is_tls, bool(self._shown.name))

    @property
    def _may_log_in(self) -> bool:
        return self._journal.peer.is_secure or self._service.settings.allow_plaintext

    async def log_in(self, command: Command, ask: AskLine) -> Granted:
        """The login was granted; a Refusal or Rejection where it was not, ClientGone for who has left.

        A password that comes in clear is compromised: it is not looked at, and the client is dropped.
        """
        if not self._may_log_in:
            self._journal.reason = "Tried to use disallowed plaintext auth"
            raise Barred(
                Reply(b"NO", b"Plaintext authentication disallowed without TLS.", b"PRIVACYREQUIRED"),
                "Please use TLS.",
            )
        mechanism = "PLAIN" if command.name == "LOGIN" else command.arguments.mechanism
        if mechanism not in self._mechanisms:
            raise Refusal("Unsupported authentication mechanism.", b"CANNOT")
        answer = await self._answer(mechanism, command, ask)
        if isinstance(answer, Refused):
            raise self._refusal(answer)
        if not self.is_open:
            if answer.stream >= 0:
                os.close(answer.stream)
            raise ClientGone
        return answer

    async def _answer(self, mechanism: str, command: Command, ask: AskLine) -> Granted | Refused:
        try:
            if mechanism in SCRAM:
                dialogue = ScramDialogue(self._logins, self._attempt(mechanism), self._bindings())
                attempted = partial(self._journal.attempted, mechanism=mechanism)
                return await by_scram(dialogue, command.arguments.initial, in_base64(ask), attempted)
            said = await _credentials(command, ask)
        except ActsForAnother:
            raise Refusal("Authentication failed.", b"AUTHENTICATIONFAILED") from None
        except SaslProblem as problem:
            raise Rejection(str(problem)) from None
        self._journal.attempted(said.name or self._shown.name, mechanism)
        return await self._logins.login(self._attempt(mechanism, said.name, said.password))

    def _attempt(self, mechanism: str, name: str = "", password: bytes = b"") -> Attempt:
        peer, shown = self._journal.peer, self._shown.chain
        return Attempt("imap", mechanism, name, password, peer, self._journal.id, certificates=shown)

    def _refusal(self, refused: Refused) -> Exception:
        if refused.temporary:
            return Refusal("Temporary authentication failure.", b"UNAVAILABLE")
        refusal = Refusal("Authentication failed.", b"AUTHENTICATIONFAILED")
        if self._journal.attempts < self._service.settings.most_login_failures:
            return refusal
        return Barred(refusal.reply, "Too many failed logins.")

    async def open_store(self, account: Account) -> AccountStore:
        """The account's store. Raises Refusal; ClientGone, with nothing kept, for who has left."""
        try:
            store = await self._service.threads.run(self._open, account)
        except StoreError as fault:
            raise refusal_of(fault)
        if not self.is_open:
            await self.close_store(store)
            raise ClientGone
        return store

    def _open(self, account: Account) -> AccountStore:
        store = self._registry.open(account)
        if self._service.rawlog is not None:
            journal = self._journal
            address = journal.peer.address
            self.transcript = self._service.rawlog.begin(account.name, "imap", journal.id, address)
        return store

    async def close_store(self, store: AccountStore) -> None:
        """The registry has the store back."""
        if self.transcript is not None:
            self.transcript.close()
            self.transcript = None
        await self._service.threads.run(self._registry.close, store)


class Barred(Farewell):
    """The command is answered with `reply`, and then the session ends."""

    def __init__(self, reply: Reply, text: str) -> None:
        super().__init__(text)
        self.reply = reply


async def _credentials(command: Command, ask: AskLine) -> Credentials:
    """What LOGIN or AUTHENTICATE says; LOGIN is logged as PLAIN, as Dovecot does."""
    said = command.arguments
    if command.name == "LOGIN":
        return Credentials(name_of(said.name), said.password)
    return await credentials(said.mechanism, said.initial, in_base64(ask))


def preamble_of(journal: Journal, tag: bytes, octets_out: int) -> Preamble:
    """Plain values, fit for JSON, from which the session host's `resume` continues."""
    peer = journal.peer
    return {
        "tag": tag.decode("latin-1"), "session": journal.id, "method": journal.method,
        "address": peer.address, "port": peer.port,
        "local_address": peer.local_address, "local_port": peer.local_port,
        "is_tls": peer.is_tls, "is_secure": peer.is_secure,
        "octets_in": journal.octets_in, "octets_out": octets_out,
    }  # fmt: skip


def read_preamble(journal: Journal, preamble: Preamble) -> bytes:
    """The journal goes on where the front's ended; the tag that the login still owes."""
    journal.peer = Peer(
        preamble["address"], preamble["port"], preamble["local_address"], preamble["local_port"],
        preamble["is_tls"], preamble["is_secure"],
    )  # fmt: skip
    journal.id = preamble["session"]
    journal.method = preamble["method"]
    journal.octets_in = preamble["octets_in"]
    journal.octets_out = preamble["octets_out"]
    return str(preamble["tag"]).encode("latin-1")
