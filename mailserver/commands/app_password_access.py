"""How `mailserver app-password` gets at the app passwords: in the data base, or by asking the server.

Root, and whoever owns the data base, uses it. With system accounts it is root's, and every other user
asks the server's helper, which sees who asks and does it for the user's own account.
"""

from __future__ import annotations

import os
from typing import Final, Protocol

from mailserver.accounts.app_password_admin import NOT_PERMITTED, Made
from mailserver.accounts.app_passwords import AppPassword
from mailserver.commands.errors import CommandError
from mailserver.commands.queue_access import UNAVAILABLE
from mailserver.config.config import Config
from mailserver.maillog import ListLog
from mailserver.rights import messages
from mailserver.rights.listeners import connect_channel
from mailserver.rights.messages import BadMessage, Message
from mailserver.roles.instance import app_password_channel
from mailserver.roles.logins import app_password_admin, become_database_owner
from mailserver.roles.parts import Parts, names_system_accounts

_PATIENCE: Final = 60.0  # seconds


class Access(Protocol):
    """What there is to do. See `AppPasswordAdmin`."""

    def add(self, name: str, device: str, protocols: tuple[str, ...], expires: int) -> Made:
        """See `AppPasswordAdmin.add`."""

    def find(self, name: str | None) -> list[AppPassword]:
        """See `AppPasswordAdmin.find`."""

    def revoke(self, name: str, device: str | None) -> tuple[str, int]:
        """See `AppPasswordAdmin.revoke`."""


class OwnAccess:
    """The user's own, by way of the running server. "" is the user's name. Raises CommandError."""

    def __init__(self, path: str) -> None:
        self._path = path

    def add(self, name: str, device: str, protocols: tuple[str, ...], expires: int) -> Made:
        """See `AppPasswordAdmin.add`."""
        asked = {"ask": "add", "name": name, "device": device, "protocols": protocols, "expires": expires}
        made = self._ask(asked)
        return Made(made["name"], made["password"], made["closed"])

    def find(self, name: str | None) -> list[AppPassword]:
        """See `AppPasswordAdmin.find`."""
        found = self._ask({"ask": "list", "name": name or ""})["found"]
        return [AppPassword(**{**each, "protocols": tuple(each["protocols"])}) for each in found]

    def revoke(self, name: str, device: str | None) -> tuple[str, int]:
        """See `AppPasswordAdmin.revoke`."""
        done = self._ask({"ask": "revoke", "name": name, "device": device})
        return done["name"], done["revoked"]

    def _ask(self, question: Message) -> Message:
        try:
            with connect_channel(self._path, _PATIENCE) as connection:
                messages.send(connection, question)
                received = messages.receive(connection, large=True)
        except BadMessage as error:
            raise CommandError(f"the mail system's answer cannot be read: {error}") from error
        except OSError as error:
            raise CommandError(
                "the mail system is down, or runs without system accounts: start it as root, or ask root",
                UNAVAILABLE,
            ) from error
        if received is None:
            raise CommandError("the mail system is busy: try again", UNAVAILABLE)
        answer, descriptors = received
        messages.close_all(descriptors)
        if "error" in answer:
            raise CommandError(str(answer["error"]), int(answer.get("status", 1)))
        return answer


def open_access(config: Config) -> Access:
    """The way for whoever calls. Raises CommandError, ConfigError, OSError."""
    parts = Parts(config, ListLog())
    if _is_anothers(config.string("state_directory")):
        if names_system_accounts(config):
            return OwnAccess(app_password_channel(config))
        owner = config.string("mail_owner")
        raise CommandError(
            f"the accounts of this server are no users of the system: only root and {owner} may do that",
            NOT_PERMITTED,
        )
    become_database_owner(parts)
    return app_password_admin(parts)


def _is_anothers(directory: str) -> bool:
    return os.geteuid() != 0 and os.path.isdir(directory) and not os.access(directory, os.W_OK)
