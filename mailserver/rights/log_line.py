"""A reopened log file in the hands of processes that may not open it.

Only root may open the log under its name after a rotation, and most roles are not root. So
whoever forks a process keeps a socket pair to it: over that goes the new descriptor, and then SIGHUP,
whose handler puts it in the old one's place. No name is passed and nothing is parsed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import ClassVar

from mailserver.maillog import FileLog, MailLog


class LogLine:
    """Made for one fork: the child calls `listen`; the parent `forked`, then `hand_over` and at last `close`.

    Where the log is no file there is nothing to hand over.
    """

    _of_this_process: ClassVar[LogLine | None] = None  # to the parent; a child that is forked has it, too

    def __init__(self, log: MailLog) -> None:
        self._log = log if isinstance(log, FileLog) else None
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ours.setblocking(False)
        self._theirs.setblocking(False)

    def forked(self, pid: int) -> None:
        """The child is that process."""
        self._pid = pid
        self._theirs.close()

    def hand_over(self) -> None:
        """The child writes into the file that the log has open here, in a moment."""
        if self._log is None:
            return
        with contextlib.suppress(OSError):  # it hangs, or is gone: no matter
            socket.send_fds(self._ours, [b"log"], [self._log.descriptor])
            os.kill(self._pid, signal.SIGHUP)

    def listen(self) -> None:
        """SIGHUP makes this process adopt what its parent hands over; what it already has is adopted now."""
        self._ours.close()
        if LogLine._of_this_process is not None:
            LogLine._of_this_process._theirs.close()
        LogLine._of_this_process = self
        signal.signal(signal.SIGHUP, self._adopt)
        self._adopt()

    def _adopt(self, *unused: object) -> None:
        while True:
            try:
                _, descriptors, _, _ = socket.recv_fds(self._theirs, 8, 1)
            except OSError:  # nothing (more) to adopt
                return
            for descriptor in descriptors:
                if self._log is not None:
                    self._log.adopt(descriptor)
                os.close(descriptor)

    def close(self) -> None:
        """The child has ended, or this is another child."""
        self._ours.close()
