"""SIGHUP: the log was rotated, so it is opened under its name again. Tables need no signal.

Where the roles have processes of their own, their supervisor does it (`rights.log_line`).
"""

from __future__ import annotations

import signal

from mailserver.maillog import FileLog, MailLog
from mailserver.rights.service_manager import ServiceManager


def reopen_log_on_hangup(log: MailLog, manager: ServiceManager) -> None:
    """From now on SIGHUP reopens the log, and nothing else happens. For the main thread."""

    def hang_up(*unused: object) -> None:
        manager.is_reloading()
        try:
            if isinstance(log, FileLog):
                log.reopen()
        except OSError as error:
            log.write("master", f"warning: reload: {error}: the old file is written on")
        manager.is_ready()

    signal.signal(signal.SIGHUP, hang_up)
