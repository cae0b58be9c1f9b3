"""What users and operators of this machine reach: the drop directory, and the socket for commands."""

from __future__ import annotations

import os
from typing import Any

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


class LocalSide:
    """To be made as the queue's owner, after its directories. `is_shared`: several users submit mail.

    Raises ConfigError where the directories cannot be had.
    """

    def __init__(self, parts: Parts, threads: Threads, reactor: Any, runner: Runner, is_shared: bool) -> None:
        config, queue = parts.config, parts.queue
        may_list = allowed_users(parts, "authorized_mailq_users")
        may_flush = allowed_users(parts, "authorized_flush_users")
        pickup = pickup_view(config)
        options = input_options(pickup)
        rules = PickupRules(
            host=config.string("myhostname"),
            mail_name=config.string("mail_name"),
            my_origin=config.string("myorigin"),
            cleanup=cleanup_rules(parts.cleanup_rules, options),
            may_submit=allowed_users(parts, "authorized_submit_users"),
            content_filter=pickup.string("content_filter"),
            adds_copies=NO_ADDRESS_MAPPINGS not in options,
            milters=() if NO_MILTERS in options else milter_rules(pickup, "non_smtpd_milters"),
            macros=milter_macros(pickup),
        )
        try:
            prepare(f"{queue.path}/{State.MAILDROP.value}", is_shared)
            listener = PLACE.listen(queue.path)
        except (OSError, CannotListen) as error:
            raise config.error("queue_directory", f"{error}: give it to the user of the server") from error
        self._pickup = Pickup(reactor, threads, queue, rules, runner.accept, parts.log)
        permissions = Permissions(may_list, may_flush, frozenset((0, os.geteuid())))
        self._door = CommandDoor(reactor, threads, listener, queue, runner, permissions, parts.log)

    def start(self) -> None:
        """What was dropped is taken from now on. Commands are answered already."""
        self._pickup.start()

    def stop(self) -> Deferred[None]:
        """Fires when nothing is being taken any more, and nobody is answered."""
        self._door.stop()
        return self._pickup.stop()
