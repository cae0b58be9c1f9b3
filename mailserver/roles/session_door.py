"""What `mailserver who`, `kick` and `penalty` ask of the running server: root and the mail_owner only.

    {"ask": "who"}                           -> {"ok": true}, and a memory file, a JSON object a line
    {"ask": "kick", "value": "ID ID …"}      -> the same, with those sessions that are ending
    {"ask": "penalty"}                       -> the same: place, penalty, last_penalty (POSIX seconds)
    {"ask": "forgive", "value": PLACE}       -> {"ok": true}; refused where nothing is held against it

See `door`. The socket is `private/sessions` under queue_directory; whoever has the clients' connections
opens it: the front, or the one process. Whoever was retired by a reload goes on answering for the sessions
that it still has, at `private/sessions.` and a name of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from typing import Any, Final

from mailserver.accounts.throttle import Penalties
from mailserver.rights.listeners import CannotListen
from mailserver.roles.door import Door, DoorRefusal, Place, in_memory
from mailserver.roles.parts import Parts
from mailserver.threads import Threads

NAME: Final = "sessions"
PLACE: Final = Place("private", NAME, 0o700, 0o600)


def places(queue_directory: str) -> list[Place]:
    """The place of the present door, then those of doors that stepped aside."""
    try:
        names = sorted(os.listdir(os.path.join(queue_directory, PLACE.directory)))
    except OSError:
        names = []
    return [PLACE, *(replace(PLACE, name=name) for name in names if name.startswith(f"{NAME}."))]


class SessionDoor:
    """Answers questions about sessions until `stop`. To be made as the queue's owner. Raises ConfigError."""

    def __init__(
        self,
        parts: Parts,
        threads: Threads,
        reactor: Any,
        penalties: Penalties,
    ) -> None:
        self._threads = threads
        self._logged_in = parts.logged_in
        self._penalties = penalties
        self._log = parts.log
        self._trusted = frozenset((0, os.geteuid()))
        try:
            listener = PLACE.listen(parts.queue.path)
        except (OSError, CannotListen) as error:
            raise parts.config.error(
                "queue_directory", f"{error}: give it to the user of the server"
            ) from error
        self._door = Door(reactor, listener, self._carry_out, self._trusted, parts.log)
        self._directory = os.path.join(parts.queue.path, PLACE.directory)
        self._aside = ""

    def step_aside(self) -> None:
        """The name is left to a successor; who asks them all is still answered."""
        path = os.path.join(self._directory, NAME)
        with contextlib.suppress(OSError):
            aside = f"{path}.{secrets.token_hex(4)}"
            os.link(path, aside)
            self._aside = aside

    def stop(self) -> None:
        """Nobody is answered any more."""
        self._door.stop()
        if self._aside:
            with contextlib.suppress(OSError):
                os.unlink(self._aside)

    async def _carry_out(self, uid: int, question: object, value: str) -> int | None:
        """What was asked is done; the descriptor of what there is to read."""
        if uid not in self._trusted:
            raise DoorRefusal("use of this command is reserved for the superuser and the mail_owner")
        if question == "who":
            return in_memory(self._who())
        if question == "kick":
            return in_memory(self._kick(value.split()))
        if question == "penalty":
            return in_memory(_penalty_lines(await self._threads.run(self._penalties.penalties)))
        if question == "forgive":
            if not await self._threads.run(self._penalties.forgive, value):
                raise DoorRefusal(f"nothing is held against {value}")
            self._log.write("auth", f"penalty of {value} cleared")
            return None
        raise DoorRefusal(f"unknown question: {question}")

    def _who(self) -> Iterator[str]:
        for login, since in self._logged_in.logins():
            yield _line({**asdict(login), "pid": login.pid or os.getpid(), "since": since})

    def _kick(self, sessions: list[str]) -> Iterator[str]:
        for login in self._logged_in.kick(frozenset(sessions)):
            self._log.write("master", f"kicked {login.service} session <{login.session}> of {login.user}")
            yield _line(asdict(login))


def _penalty_lines(found: Iterable[tuple[str, int, float]]) -> Iterator[str]:
    now = time.time()
    for place, guesses, age in found:
        yield _line({"place": place, "penalty": guesses, "last_penalty": now - age})


def _line(value: object) -> str:
    return json.dumps(value) + "\n"
