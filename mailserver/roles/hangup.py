"""SIGHUP: the log was rotated, so it is opened under its name again. Tables need no signal."""

from __future__ import annotations

import os
import signal

from mailserver.maillog import FileLog, MailLog


def reopen(log: MailLog, group: int = -1) -> None:
    """The log is open under its name. Raises OSError where it cannot be: the old file is written on.

    Where root opens it, roles of that `group` can do so as well.
    """
    if isinstance(log, FileLog):
        log.reopen()
        if os.geteuid() == 0 and group > 0:
            log.share(group)


def reopen_log_on_hangup(log: MailLog) -> None:
    """From now on SIGHUP reopens the log, and nothing else happens. For the main thread."""

    def hang_up(*unused: object) -> None:
        try:
            reopen(log)
        except OSError as error:
            log.write("master", f"warning: reload: {error}")

    signal.signal(signal.SIGHUP, hang_up)
