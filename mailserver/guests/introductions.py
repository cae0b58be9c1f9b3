"""How a user's session host comes to another's: the helper knows who asks, and who shares with whom.

Over a channel that tells the helper the asker's uid (`rights.user_service`):

    {"ask": "owners"}                   -> {"owners": [NAME, …]}, those that share something with the asker
    {"ask": "visit", "owner": NAME}     -> {"attached": true} and a stream to that owner's session host

or {"error": "nothing"} where that account shares nothing with the asker, or there is none; {"error": "now"}
where it cannot be told, or too much was asked. The owner's host hears of the asker's name and groups from the
zygote: nothing that the asker says of itself counts. An account is a user's own where it has the user's name
and uid.
"""

from __future__ import annotations

import pwd
import socket
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from mailserver.accounts.account import Account, AccountDirectory, TemporaryAccountFailure
from mailserver.accounts.codec import account_message
from mailserver.guests.sharers import Sharers
from mailserver.maillog import MailLog
from mailserver.rights import messages
from mailserver.rights.listeners import connect_channel
from mailserver.rights.messages import BadMessage, Message
from mailserver.rights.service import Answer
from mailserver.store.acl import Person
from mailserver.store.contract import NoSuchMailbox, StoreFailure

MOST_OF_A_USER: Final = 8  # connections to the helper at once
MOST_CONNECTIONS: Final = 128
MOST_VISITS: Final = 600  # of a user, within _MINUTE
_MINUTE: Final = 60.0
_PATIENCE: Final = 20.0
_PAUSES: Final = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds, between tries
_NOTHING: Final = Answer({"error": "nothing"})
_NOT_NOW: Final = Answer({"error": "now"})
# (owner, stream, guest): the stream is with the owner's session host. Raises OSError.
Attach = Callable[[Message, int, Message], Any]


class Introductions:
    """Answers users of the system. Safe in threads; *blocking*.

    `nobodys` are the uids that own no account. `anybody_may`: the administrator's global ACLs may share
    what owners do not, so that any account may be asked.
    """

    def __init__(
        self,
        accounts: AccountDirectory,
        groups_of: Callable[[Account], frozenset[str]],
        sharers: Sharers,
        attach: Attach,
        nobodys: Collection[int],
        log: MailLog,
        anybody_may: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._accounts = accounts
        self._groups_of = groups_of
        self._sharers = sharers
        self._attach = attach
        self._nobodys = frozenset((0, *nobodys))
        self._log = log
        self._anybody_may = anybody_may
        self._clock = clock
        self._guard = threading.Lock()
        self._visits: dict[int, list[float]] = {}

    def handle(self, uid: int, question: Message) -> Answer:
        """The answer to one question of the user with that uid. Raises ValueError where it is none."""
        try:
            account = self._own(uid)
            if account is None:
                return _NOTHING
            guest = Person(account.name, self._groups_of(account))
            if question.get("ask") == "owners":
                return Answer({"owners": list(self._sharers.owners_for(guest))})
            if question.get("ask") == "visit":
                return self._visit(uid, guest, question.get("owner"))
        except (TemporaryAccountFailure, OSError) as error:
            self._log.write("auth", f"Error: shared mailboxes of uid {uid}: {error}")
            return _NOT_NOW
        raise ValueError("unknown question")

    def _own(self, uid: int) -> Account | None:
        """The account of the user."""
        if uid in self._nobodys:
            return None
        try:
            user = pwd.getpwuid(uid).pw_name
        except KeyError:
            return None
        account = self._accounts.lookup(user)
        if account is None or not account.may_login or (account.name, account.uid) != (user.lower(), uid):
            return None
        return account

    def _visit(self, uid: int, guest: Person, name: object) -> Answer:
        if not isinstance(name, str):
            raise ValueError("no owner")
        if not self._has_room(uid):
            self._log.write("auth", f"Warning: {guest.name} asks for too many shared mailboxes at once")
            return _NOT_NOW
        if name == guest.name or not (self._anybody_may or name in self._sharers.owners_for(guest)):
            return _NOTHING
        owner = self._accounts.lookup(name)
        if owner is None or owner.name != name or not owner.may_login or owner.uid <= 0:
            return _NOTHING
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        about = {"name": guest.name, "groups": sorted(guest.groups)}
        with theirs:
            try:
                self._attach(account_message(owner), theirs.fileno(), about)
            except OSError:
                ours.close()
                raise
        return Answer({"attached": True}, (ours.detach(),))

    def _has_room(self, uid: int) -> bool:
        """Whether the user may be brought to another host now: each may be a new process."""
        now = self._clock()
        with self._guard:
            recent = [then for then in self._visits.get(uid, ()) if then > now - _MINUTE]
            has_room = len(recent) < MOST_VISITS
            self._visits[uid] = [*recent, now] if has_room else recent
            if len(self._visits) > 10_000:
                self._visits = {each: some for each, some in self._visits.items() if some[-1] > now - _MINUTE}
        return has_room


class Introducer:
    """The asker's side. *Blocking.* Raises StoreFailure."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._turns = threading.BoundedSemaphore(MOST_OF_A_USER // 2)  # another generation's host may ask too

    def owners(self) -> Sequence[str]:
        """Who may share something with this process's user."""
        answer, _ = self._ask({"ask": "owners"})
        found = answer.get("owners", ())
        return [name for name in found if isinstance(name, str) and name.isprintable() and "/" not in name]

    def visit(self, owner: str) -> socket.socket:
        """A stream to the owner's session host. Raises NoSuchMailbox where nothing is shared."""
        answer, descriptors = self._ask({"ask": "visit", "owner": owner})
        if answer.get("error") == "nothing":
            raise NoSuchMailbox("There is no such mailbox")
        if len(descriptors) != 1:
            messages.close_all(descriptors)
            raise _not_now()
        return socket.socket(fileno=descriptors[0])

    def _ask(self, question: Message) -> tuple[Message, list[int]]:
        for pause in _PAUSES:
            with self._turns:
                received = self._asked(question)
            if received is not None:
                answer, descriptors = received
                if answer.get("error") not in (None, "nothing"):
                    messages.close_all(descriptors)
                    raise _not_now()
                return answer, descriptors
            time.sleep(pause)  # too many ask at once
        raise _not_now()

    def _asked(self, question: Message) -> tuple[Message, list[int]] | None:
        """The answer; None where the helper has no time for us."""
        try:
            with connect_channel(self._path, _PATIENCE) as connection:
                messages.send(connection, question)
                return messages.receive(connection, large=True)
        except (BrokenPipeError, ConnectionResetError):
            return None
        except (BadMessage, OSError) as error:
            raise _not_now() from error


def _not_now() -> StoreFailure:
    return StoreFailure("Mailboxes of other users are not available for now")
