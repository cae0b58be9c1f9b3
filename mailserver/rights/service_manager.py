"""What the service manager is told of this process: sd_notify(3), by hand.

One datagram to the socket that NOTIFY_SOCKET names. Without it, nothing is said.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections.abc import Mapping


class ServiceManager:
    """Speaks to whom the environment names, if to anybody.

    `interval` is how often `is_alive` must be called, in seconds: half of the unit's WatchdogSec.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        microseconds = environment.get("WATCHDOG_USEC", "")
        is_for_us = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        has_watchdog = microseconds.isdecimal() and is_for_us
        self.interval = int(microseconds) / 2_000_000 if has_watchdog else math.inf

    def is_ready(self) -> None:
        """Every port is bound and mail is accepted; also said after a reload."""
        self._tell("READY=1")

    def is_alive(self) -> None:
        """The watchdog is content until the next interval."""
        if self.interval < math.inf:
            self._tell("WATCHDOG=1")

    def is_reloading(self) -> None:
        """What was asked for by SIGHUP has begun."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def is_stopping(self) -> None:
        """Nothing new is begun."""
        self._tell("STOPPING=1")

    def _tell(self, state: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        # A manager that does not listen stops no mail.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.settimeout(1.0)
            connection.sendto(state.encode(), address)
