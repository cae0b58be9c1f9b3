"""The restrictions about whose mail this is: relaying, unknown users, and who may send as whom.

The sender address never allows anything: who may relay is decided by the client's address and
its login alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mailserver.delivery.routing import AddressClass
from mailserver.envelope import Address
from mailserver.smtpd.lookups import Destinations
from mailserver.smtpd.verdict import Codes, Evaluation, Subject, Verdict
from mailserver.tables.access import first_entry
from mailserver.tables.table import Table
from mailserver.threads import Threads

_ROUTING_CHARACTERS: Final = frozenset("@%!")
MEMORY_SECONDS: Final = 1.0
_MEMORY_ENTRIES: Final = 1000


class RecipientDirectory:
    """Classes and existence of addresses, asked in threads.

    That somebody exists is remembered for a second, so that a stream of mail for one user costs one
    lookup; that somebody does not is asked again each time, since a table may just have been rebuilt.
    """

    def __init__(self, destinations: Destinations, threads: Threads, clock: Callable[[], float]) -> None:
        self._destinations = destinations
        self._threads = threads
        self._clock = clock
        self._known: dict[Address, tuple[float, AddressClass]] = {}

    async def look_up(self, address: Address) -> tuple[AddressClass, bool]:
        """The address's class, and whether somebody gets its mail (True where remote).

        Raises TableError, TemporaryAccountFailure.
        """
        now = self._clock()
        remembered = self._known.get(address)
        if remembered is not None and remembered[0] > now:
            return remembered[1], True
        kind, is_known = await self._threads.run(self._ask, address)
        if is_known and kind is not AddressClass.REMOTE:
            if len(self._known) >= _MEMORY_ENTRIES:
                self._known.clear()
            self._known[address] = (now + MEMORY_SECONDS, kind)
        return kind, is_known

    async def is_final(self, address: Address) -> bool:
        """Whether mail for the address's domain ends here. Raises TableError."""
        kind = await self._threads.run(self._destinations.classify, address)
        return kind not in (AddressClass.REMOTE, AddressClass.RELAY)

    async def relocated_to(self, address: Address) -> str | None:
        """Where the user went, says relocated_maps. Raises TableError."""
        return await self._threads.run(self._destinations.relocated_to, address)

    def _ask(self, address: Address) -> tuple[AddressClass, bool]:
        return self._destinations.classify(address), self._destinations.is_known(address)


class RelayChecks:
    """The `*_auth_destination` restrictions, and `reject_unlisted_{recipient,sender}`."""

    def __init__(
        self, directory: RecipientDirectory, allow_untrusted_routing: bool, shows_table_name: bool
    ) -> None:
        self._directory = directory
        self._allow_untrusted_routing = allow_untrusted_routing
        self._shows_table_name = shows_table_name

    async def _is_ours(self, address: Address) -> bool:
        """Whether the address ends here, or in a relay domain, without a route behind its local-part."""
        if not self._allow_untrusted_routing and not _ROUTING_CHARACTERS.isdisjoint(address.local):
            return False
        kind, _ = await self._directory.look_up(address)
        return kind is not AddressClass.REMOTE

    async def reject_unauth_destination(self, evaluation: Evaluation) -> Verdict | None:
        """Mail that would be relayed is refused."""
        return await self._relay(evaluation, evaluation.codes.relay_domains_reject_code, "5.7.1")

    async def defer_unauth_destination(self, evaluation: Evaluation) -> Verdict | None:
        """Mail that would be relayed is deferred, as Postfix's default does."""
        return await self._relay(evaluation, 454, "4.7.1")

    async def permit_auth_destination(self, evaluation: Evaluation) -> Verdict | None:
        """Mail for our own domains passes."""
        recipient = evaluation.request.recipient
        if recipient is not None and await self._is_ours(recipient):
            return evaluation.permit(f"{recipient.domain} is ours")
        return None

    async def _relay(self, evaluation: Evaluation, code: int, dsn: str) -> Verdict | None:
        recipient = evaluation.request.recipient
        if recipient is None or await self._is_ours(recipient):
            return None
        return evaluation.verdict(code, dsn, f"<{recipient}>: Relay access denied")

    async def reject_unlisted_recipient(self, evaluation: Evaluation) -> Verdict | None:
        """Mail for a user that we do not have is refused."""
        return await self._unlisted(evaluation, evaluation.request.recipient, Subject.RECIPIENT, "5.1.1")

    async def reject_unlisted_sender(self, evaluation: Evaluation) -> Verdict | None:
        """Mail from an address of ours that does not exist is refused."""
        return await self._unlisted(evaluation, evaluation.request.sender, Subject.SENDER, "5.1.0")

    async def _unlisted(
        self, evaluation: Evaluation, address: Address | None, subject: Subject, dsn: str
    ) -> Verdict | None:
        if address is None:
            return None
        kind, is_known = await self._directory.look_up(address)
        if is_known:
            return None
        new_address = await self._directory.relocated_to(address)
        if new_address is not None:
            code = evaluation.codes.unknown_local_recipient_reject_code
            return evaluation.refuse(code, "5.1.6", subject, f"User has moved to {new_address}")
        where = f" in {kind.value}" if self._shows_table_name else ""
        return evaluation.refuse(_unknown_code(evaluation.codes, kind), dsn, subject, f"User unknown{where}")


def _unknown_code(codes: Codes, kind: AddressClass) -> int:
    match kind:
        case AddressClass.VIRTUAL_ALIAS:
            return codes.unknown_virtual_alias_reject_code
        case AddressClass.VIRTUAL_MAILBOX:
            return codes.unknown_virtual_mailbox_reject_code
        case AddressClass.RELAY:
            return codes.unknown_relay_recipient_reject_code
    return codes.unknown_local_recipient_reject_code


class LoginChecks:
    """`reject_*sender_login_mismatch` over `smtpd_sender_login_maps`: address → the logins that own it."""

    def __init__(self, tables: tuple[Table, ...], threads: Threads) -> None:
        self._tables = tables
        self._threads = threads

    async def _owners(self, sender: Address | None) -> frozenset[str]:
        if sender is None:
            return frozenset()
        keys = (str(sender), f"@{sender.domain}") if sender.domain else (str(sender),)
        entry = await self._threads.run(first_entry, self._tables, keys)
        return frozenset(entry.value.lower().replace(",", " ").split()) if entry is not None else frozenset()

    async def reject_sender_login_mismatch(self, evaluation: Evaluation) -> Verdict | None:
        """The sender belongs to the login; an owned sender needs one."""
        return (await self.reject_authenticated_mismatch(evaluation)) or (
            await self.reject_unauthenticated_mismatch(evaluation)
        )

    async def reject_authenticated_mismatch(self, evaluation: Evaluation) -> Verdict | None:
        """Who logged in sends only as what they own."""
        request = evaluation.request
        if not request.login or request.sender is None or request.login in await self._owners(request.sender):
            return None
        return evaluation.refuse(553, "5.7.1", Subject.SENDER, f"not owned by user {request.login}")

    async def reject_known_mismatch(self, evaluation: Evaluation) -> Verdict | None:
        """As `reject_sender_login_mismatch`, for senders that somebody owns."""
        if not await self._owners(evaluation.request.sender):
            return None
        return await self.reject_sender_login_mismatch(evaluation)

    async def reject_unauthenticated_mismatch(self, evaluation: Evaluation) -> Verdict | None:
        """Without a login nobody sends as an owned address."""
        request = evaluation.request
        if request.login or not await self._owners(request.sender):
            return None
        return evaluation.refuse(553, "5.7.1", Subject.SENDER, "not logged in")
