"""SIGHUP: the log was rotated, so it is opened under its name again. Tables need no signal."""

from __future__ import annotations

import signal
from typing import Any

from mailserver.maillog import FileLog, MailLog


def reopen_log_on_hangup(log: MailLog, reactor: Any) -> None:
    """From now on SIGHUP reopens the log; the process goes on. For the main thread."""
    signal.signal(signal.SIGHUP, lambda *unused: reactor.callFromThread(_reopen, log))


def _reopen(log: MailLog) -> None:
    if isinstance(log, FileLog):
        try:
            log.reopen()
        except OSError as error:
            log.write("master", f"warning: reopen the log: {error.strerror}: the old file is written on")
    log.write("master", "reload")
