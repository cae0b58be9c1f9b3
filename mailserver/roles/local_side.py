"""What users and operators of this machine reach: the drop directory, and the socket for commands."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred

from mailserver.queue.directory import State
from mailserver.queue.pickup import Pickup
from mailserver.queue.runner import Runner
from mailserver.queue.taking import PickupRules, prepare
from mailserver.rights.listeners import CannotListen
from mailserver.roles.command_door import PLACE, CommandDoor, Permissions
from mailserver.roles.input_options import (
    NO_ADDRESS_MAPPINGS,
    NO_MILTERS,
    cleanup_rules,
    input_options,
    pickup_view,
)
from mailserver.roles.milters import milter_macros, milter_rules
from mailserver.roles.parts import Parts
from mailserver.roles.permission import allowed_users
from mailserver.threads import Threads

LISTS: Final = ("authorized_mailq_users", "authorized_flush_users", "authorized_submit_users")


class LocalSide:
    """To be made as the queue's owner. `is_shared`: several users submit mail. Raises ConfigError."""

    def __init__(self, parts: Parts, threads: Threads, reactor: Any, runner: Runner, is_shared: bool) -> None:
        config = parts.config
        pickup = pickup_view(config)
        options = input_options(pickup)
        may_list, may_flush, may_submit = (allowed_users(parts, name) for name in LISTS)
        rules = PickupRules(
            host=config.string("myhostname"),
            mail_name=config.string("mail_name"),
            completion=parts.completion,
            cleanup=cleanup_rules(parts.cleanup_rules, options),
            may_submit=may_submit,
            content_filter=pickup.string("content_filter"),
            adds_copies=NO_ADDRESS_MAPPINGS not in options,
            milters=() if NO_MILTERS in options else milter_rules(pickup, "non_smtpd_milters"),
            macros=milter_macros(pickup),
        )
        self._pickup = Pickup(reactor, threads, parts.queue, rules, runner.accept, parts.log)
        permissions = Permissions(may_list, may_flush, frozenset((0, os.geteuid())))
        self._make_door = partial(
            CommandDoor,
            reactor,
            threads,
            queue=parts.queue,
            runner=runner,
            permissions=permissions,
            log=parts.log,
        )
        self._door: CommandDoor | None = None
        self._config = config
        self._is_shared = is_shared

    def listen(self) -> None:
        """Commands are answered here, and no longer where they were. After the queue's directories are there.

        Raises ConfigError where the directories cannot be had.
        """
        path = self._config.string("queue_directory")
        try:
            prepare(f"{path}/{State.MAILDROP.value}", self._is_shared)
            listener = PLACE.listen(path)
        except (OSError, CannotListen) as error:
            raise self._config.error(
                "queue_directory", f"{error}: give it to the user of the server"
            ) from error
        self._door = self._make_door(listener=listener)

    def start(self) -> None:
        """What was dropped is taken from now on."""
        self._pickup.start()

    def stop(self) -> Deferred[None]:
        """Fires when nothing is being taken any more, and nobody is answered."""
        if self._door is not None:
            self._door.stop()
        return self._pickup.stop()
