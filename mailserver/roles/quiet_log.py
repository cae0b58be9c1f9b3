"""Twisted's own log on a terminal: only what went wrong; the mail log says the rest."""

from __future__ import annotations

import sys
from typing import Any

from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

_has_begun = False


def observer() -> Any:
    """Writes warnings and worse to standard error. An `ILogObserver`."""
    to_stderr: Any = textFileLogObserver(sys.stderr)
    from_warnings_up: Any = LogLevelFilterPredicate(defaultLogLevel=LogLevel.warn)
    return FilteringLogObserver(to_stderr, [from_warnings_up])


def begin_logging() -> None:
    """Twisted's own log goes to `observer`; in a forked process it may already."""
    global _has_begun
    if not _has_begun:
        _has_begun = True
        globalLogBeginner.beginLoggingTo([observer()], redirectStandardIO=False, discardBuffer=True)
