"""The ways out of the queue besides mailboxes: other servers (SMTP, LMTP), and the commands of master.cf."""

from __future__ import annotations

import os
from typing import Any, Final

from mailserver.config.config import Config
from mailserver.delivery.job import Agents
from mailserver.delivery.pipe import PipeRules, PipeTransport
from mailserver.delivery.remote import RemoteTransport
from mailserver.delivery.transport import Transports
from mailserver.dns import Resolver
from mailserver.roles.parts import Parts
from mailserver.roles.relays import Relays
from mailserver.roles.transports import pipes
from mailserver.threads import Threads, WorkerThreads

_PIPE_THREADS: Final = 50  # each command under way has one, and holds up nothing but commands


class WaysOut:
    """The transports of a process. `agents` act as others, or `are_this_process` and cannot."""

    def __init__(
        self,
        parts: Parts,
        threads: Threads,
        reactor: Any,
        resolver: Resolver,
        agents: Agents,
        are_this_process: bool,
        own_ports: frozenset[int],
    ) -> None:
        """`own_ports` are the ports that we listen on for SMTP. Raises ConfigError."""
        self._config = parts.config
        self._relays = Relays(parts, threads, reactor, resolver, own_ports)
        self._pipes = pipes(parts.config)
        self._pipe_threads = WorkerThreads(reactor, _PIPE_THREADS, "pipe")
        rules = PipeRules(
            split=parts.routing.split,
            environment=dict(exported_environment(parts.config)),
            refused_uids=frozenset({0, parts.mail_owner.uid}),
            own_uid=os.geteuid() if are_this_process else None,
        )
        self.transport = Transports(
            PipeTransport(self._pipes, agents, self._pipe_threads, rules),
            RemoteTransport(self._relays.find, threads, parts.log.write),
        )

    def recipient_limit(self, transport: str) -> int:
        """How many recipients one delivery has, 0 for no limit."""
        pipe = self._pipes.get(transport)
        if pipe is not None and pipe.attributes.is_for_one_recipient:
            return 1
        return self._config.integer(f"{transport}_destination_recipient_limit")

    def concurrency_limit(self, key: str) -> int:
        """How many deliveries to `transport:nexthop` run at once, 0 for no limit.

        Those to a command are no more than the processes of its row.
        """
        transport = key.partition(":")[0]
        limit = self._config.integer(f"{transport}_destination_concurrency_limit")
        processes = self._pipes[transport].processes if transport in self._pipes else 0
        return min(limit, processes) if limit and processes else limit or processes

    def close(self) -> None:
        """Idle sessions say QUIT. For when no delivery is under way any more."""
        self._relays.close()
        self._pipe_threads.stop()


def exported_environment(config: Config) -> tuple[tuple[str, str], ...]:
    """What commands find in their environment besides the message's own variables: export_environment."""
    found = []
    for word in config.words("export_environment"):
        name, equals, value = word.partition("=")
        if name == "MAIL_CONFIG" and not equals:
            found.append((name, config.directory))
        elif equals or name in os.environ:
            found.append((name, value if equals else os.environ[name]))
    return tuple(found)
