"""Who started the server learns when it is ready, and a daemon lets go of the terminal. sd_notify(3).

`NOTIFY_SOCKET` is systemd's; `postfix start` gives one of its own, with DETACH set.
"""

from __future__ import annotations

import os
from typing import Final

from mailserver.rights.service_manager import ServiceManager

DETACH: Final = "MAILSERVER_DETACH"


def announce() -> None:
    """Who started us knows that we are ready. Never raises."""
    ServiceManager(os.environ).is_ready()
    if os.environ.pop(DETACH, ""):
        os.environ.pop("NOTIFY_SOCKET", None)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.close(null)
