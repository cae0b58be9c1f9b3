"""Who started the server learns when it is ready, and a daemon lets go of the terminal. sd_notify(3).

`NOTIFY_SOCKET` is systemd's; `postfix start` gives one of its own, with DETACH set.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Final

DETACH: Final = "MAILSERVER_DETACH"


def announce(state: str = "READY=1") -> None:
    """The state was sent to whom NOTIFY_SOCKET names, if to anybody. Never raises."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.connect("\0" + address[1:] if address.startswith("@") else address)
            connection.sendall(state.encode())
    if os.environ.pop(DETACH, ""):
        os.environ.pop("NOTIFY_SOCKET", None)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.close(null)
