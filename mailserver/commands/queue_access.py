"""How commands get at the queue: by asking the running server, else by reading the files.

An ordinary user may not read the queue's files; the server answers whoever authorized_mailq_users
names. While no server runs, only those who may read the files see anything.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
from collections.abc import Iterator
from typing import Any, Final

from mailserver.commands.errors import CommandError
from mailserver.config.config import Config
from mailserver.config.read import ConfigError, read_config, read_unchecked
from mailserver.maillog import ListLog
from mailserver.queue import listing
from mailserver.queue.directory import QueueDirectory
from mailserver.roles.command_door import PLACE
from mailserver.roles.parts import Parts
from mailserver.roles.permission import allowed_users

UNAVAILABLE: Final = 69  # EX_UNAVAILABLE, EX_NOPERM, EX_USAGE of sysexits(3)
NOT_PERMITTED: Final = 77


class QueueAccess:
    """The queue of one configuration. `warn` gets what is said on standard error."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._parts = Parts(config, ListLog())

    @property
    def queue(self) -> QueueDirectory:
        """The files themselves, for whoever may touch them."""
        return self._parts.queue

    def _ask(self, question: str, value: str = "") -> list[int]:
        answer, descriptors = PLACE.ask(self.queue.path, question, value)
        if "error" in answer:
            raise CommandError(str(answer["error"]), int(answer.get("status", 1)))
        return descriptors

    def entries(self) -> tuple[list[dict[str, Any]], bool]:
        """Every message (`queue.listing`), and whether the server was asked. Raises CommandError."""
        try:
            descriptors = self._ask("list")
        except OSError:
            return list(self._entries_of_files()), False
        with open(descriptors[0], encoding="ascii") as file:
            file.seek(0)
            return [json.loads(line) for line in file], True

    def _entries_of_files(self) -> Iterator[dict[str, Any]]:
        may_list = allowed_users(self._parts, "authorized_mailq_users")
        if not may_list(os.getuid()):
            raise CommandError(
                f"User {user_name()}({os.getuid()}) is not allowed to view the mail queue", NOT_PERMITTED
            )
        try:
            yield from listing.entries(self.queue)
        except OSError as error:
            raise CommandError("Queue report unavailable - mail system is down", UNAVAILABLE) from error

    def flush(self) -> None:
        """Delivery of every deferred message begins. Raises CommandError."""
        self._tell("flush")

    def flush_id(self, queue_id: str) -> None:
        """Delivery of that message begins. Raises CommandError."""
        self._tell("flush-id", queue_id)

    def flush_site(self, domain: str) -> None:
        """Delivery of every deferred message for that domain begins. Raises CommandError."""
        self._tell("flush-site", domain)

    def released(self, queue_id: str) -> None:
        """The running server, if there is one, looks at the message now instead of at its next scan."""
        with contextlib.suppress(OSError, CommandError):
            self._ask("released", queue_id)

    def _tell(self, question: str, value: str = "") -> None:
        try:
            self._ask(question, value)
        except OSError as error:
            raise CommandError("Cannot flush mail queue - mail system is down", UNAVAILABLE) from error


def open_queue(config_directory: str | None, checked: bool = False) -> QueueAccess:
    """The queue of that configuration. Raises CommandError."""
    try:
        read = read_config if checked else read_unchecked
        return QueueAccess(read(config_directory, os.environ))
    except ConfigError as error:
        raise CommandError(str(error)) from error


def user_name() -> str:
    """Who calls."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return "unknown"
