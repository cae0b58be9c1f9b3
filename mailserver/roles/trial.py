"""A configuration tried out in a process of its own: what a role would find wrong is found before one starts.

The child makes everything that front and queue make of it, serves nobody, and ends. The process
that asks needs none of the modules for that, and keeps nothing of it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import traceback
from typing import Any, Final, cast

from mailserver.config.config import Config
from mailserver.config.listeners import listeners
from mailserver.config.syntax import ConfigError
from mailserver.maillog import MailLog
from mailserver.rights.supervisor import fork_child
from mailserver.roles.listening import Ports, StartFailed, smtp_ports
from mailserver.roles.local_side import LISTS
from mailserver.roles.parts import Parts
from mailserver.roles.permission import allowed_users
from mailserver.threads import Inline
from mailserver.tls import CertificateError

_SECONDS: Final = 60.0


def try_out(config: Config, log: MailLog) -> None:
    """Returns where the configuration can be served. Raises StartFailed, with `path:line`. *Blocking.*"""
    reading, writing = os.pipe2(os.O_CLOEXEC)

    def main() -> None:
        try:
            _make_all(Parts(config, log))
        except (ConfigError, StartFailed, CertificateError) as error:
            os.write(writing, str(error).encode("utf-8", "surrogateescape")[: select.PIPE_BUF])
        except Exception as error:
            traceback.print_exc()
            os.write(
                writing, f"{config.directory}: {type(error).__name__}: {error}".encode()[: select.PIPE_BUF]
            )

    pid = fork_child(main, lambda: os.close(reading))
    os.close(writing)
    try:
        in_time, _, _ = select.select([reading], [], [], _SECONDS)
        problem = os.read(reading, select.PIPE_BUF).decode("utf-8", "surrogateescape") if in_time else ""
    finally:
        os.close(reading)
        if not in_time:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if not in_time:
        raise StartFailed(
            f"{config.directory}: trying it out takes more than {_SECONDS:.0f} s: is a name server down?"
        )
    if problem:
        raise StartFailed(problem)


def _make_all(parts: Parts) -> None:
    """Everything that the roles make of the configuration. Raises ConfigError and its like."""
    from twisted.internet.task import Clock

    from mailserver.roles.logins import judge
    from mailserver.roles.queueing import local_agents, make_runner
    from mailserver.roles.retrieval import RetrievalListeners, behind_acls, make_registry
    from mailserver.roles.smtp import SmtpListeners

    config, clock, nobody, threads = parts.config, Clock(), cast(Any, None), Inline()
    found = listeners(config)
    smtp = SmtpListeners(parts, threads, clock, nobody, nobody, lambda message: None)
    Ports(parts, clock).make(found, smtp, RetrievalListeners(parts, threads, clock, None, None))
    make_runner(parts, threads, clock, nobody, nobody, lambda path: None, smtp_ports(found), False)
    registry, _ = make_registry(parts, threads, clock)
    behind_acls(parts, registry)
    local_agents(parts)
    judge(parts)
    _ = parts.default_privs
    for name in LISTS:
        allowed_users(parts, name)
