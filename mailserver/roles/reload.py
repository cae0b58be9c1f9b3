"""A running server reads its configuration again: what it takes, what it refuses, and who hears of it.

A reload is whole or nothing: a configuration that cannot be served is refused, with `path:line`, and the
old one runs on untouched. A good one takes effect for what comes; what is under way ends as it
began. Only what FIXED names needs `stop` and `start`: it stays as it was, with Postfix's warning, and
the rest counts. Where nothing differs, nothing happens but that the log is opened anew.

What became of it is logged, and lies in `queue_directory`/pid/reload.json, one JSON object, for the
command that asked: {"began": monotonic seconds, "error": "" or why it is refused, "changes": [{"name",
"old", "new", "where"}], "ignored": the same, "files": paths, "opened": addresses, "closed": addresses}.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from mailserver.config.config import Config
from mailserver.config.differences import Difference, Stamp, differences, list_files, pinned
from mailserver.config.read import checked, read_unchecked
from mailserver.config.syntax import ConfigError
from mailserver.maillog import MailLog
from mailserver.roles.listening import StartFailed
from mailserver.roles.parts import mail_log, names_system_accounts
from mailserver.tls import CertificateError

# Where the queue, the state and the lock lie, and whose they are; a socket in another program's directory.
FIXED: Final = (
    "queue_directory",
    "state_directory",
    "mail_owner",
    "mail_uid",
    "virtual_uid_maps",
    "virtual_gid_maps",
    "auth_listener",
    "auth_listener_mode",
    "auth_listener_user",
    "auth_listener_group",
)
REFUSALS: Final = (ConfigError, StartFailed, CertificateError)
_LOG: Final = ("maillog_file", "syslog_name", "retrieval_syslog_name", "myhostname")


@dataclass(slots=True)
class Outcome:
    """What became of one reload; see the module's description."""

    began: float
    error: str = ""
    changes: list[Difference] = field(default_factory=list)
    ignored: list[Difference] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether nothing differs that could take effect."""
        return not (self.changes or self.files or self.opened or self.closed)

    def lines(self) -> Iterator[str]:
        """What an operator reads of it."""
        for each in self.ignored:
            yield (
                f"warning: ignoring {each.name} parameter value change: old value: {each.old!r}, "
                f"new value: {each.new!r} ({each.where}): to change it, stop and start the mail system"
            )
        if self.error:
            yield f"fatal: the new configuration is refused, the old one runs on: {self.error}"
            return
        yield from map(str, self.changes)
        for path in self.files:
            yield f"{path}: read again"
        for address in self.opened:
            yield f"listening on {address}"
        for address in self.closed:
            yield f"no longer listening on {address}"


class OutcomeFile:
    """The file that tells commands of the last reload; made by root, where root starts the server.

    A server that cannot have it runs without: the log says the same.
    """

    def __init__(self, queue_directory: str, uid: int, gid: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = -1
        with contextlib.suppress(OSError):
            self._descriptor = os.open(_path(queue_directory), flags, 0o600)
            if os.geteuid() == 0:
                os.fchown(self._descriptor, uid, gid)

    def write(self, outcome: Outcome) -> None:
        """Whoever waits for it reads this. Never raises."""
        content = json.dumps(asdict(outcome)).encode()
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, content, 0)

    def close(self) -> None:
        """The descriptor is closed, the file stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)


def read_outcome(queue_directory: str) -> Mapping[str, Any]:
    """What the file says now; empty where it says nothing (yet). Raises PermissionError."""
    try:
        found = json.loads(_path(queue_directory).read_bytes())
    except PermissionError:
        raise
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def outcome_of(found: Mapping[str, Any]) -> Outcome:
    """The value that was written. Raises TypeError, KeyError for what is none."""
    rows = {name: [Difference(**each) for each in found[name]] for name in ("changes", "ignored")}
    return Outcome(**{**found, **rows})


def _path(queue_directory: str) -> Path:
    return Path(queue_directory) / "pid" / "reload.json"


class Reloading:
    """Reads the configuration again and again, for a server that runs with `config`.

    `has_fixed_mode` says that root started it: then account_sources cannot bring or take system
    accounts, since the processes are others then.
    """

    def __init__(self, config: Config, log: MailLog, file: OutcomeFile, has_fixed_mode: bool) -> None:
        self.config = config
        self.log = log
        self._file = file
        self._has_fixed_mode = has_fixed_mode
        self._files: Mapping[str, Stamp | None] = list_files(config)
        self._next_files: Mapping[str, Stamp | None] = {}

    def begin(self) -> tuple[Outcome, Config, MailLog] | None:
        """What differs, and what to go on with; None where nothing does, or it is refused, which was told."""
        outcome = Outcome(time.monotonic())
        self.log.write("master", f"reload -- configuration {self.config.directory}")
        try:
            config = self._read(outcome)
            log = self._log_for(config)
        except Exception as error:  # whatever it is: the old configuration runs on
            self.refuse(outcome, error)
            return None
        outcome.changes = differences(self.config, config)
        self._next_files = list_files(config)
        outcome.files = [
            path for path, now in self._next_files.items() if path in self._files and self._files[path] != now
        ]
        if outcome.is_empty:
            self._tell(outcome)
            return None
        return outcome, config, log

    def _read(self, outcome: Outcome) -> Config:
        written = read_unchecked(self.config.directory, os.environ)
        names = [*FIXED, *(["account_sources"] if self._changes_mode(written) else [])]
        fixed = {name: self.config.string(name) for name in names}
        outcome.ignored = [
            Difference(name, value, written.string(name), written.where(name))
            for name, value in fixed.items()
            if written.string(name) != value
        ]
        config = checked(pinned(written, {each.name: each.old for each in outcome.ignored}))
        for warning in config.warnings:
            self.log.write("master", f"warning: {warning}")
        return config

    def _changes_mode(self, config: Config) -> bool:
        differs = names_system_accounts(self.config) != names_system_accounts(config)
        return self._has_fixed_mode and differs

    def _log_for(self, config: Config) -> MailLog:
        """The same log, where it is the same one. Raises ConfigError."""
        texts = [[each.string(name) for name in _LOG] for each in (self.config, config)]
        return self.log if texts[0] == texts[1] else mail_log(config)

    def refuse(self, outcome: Outcome, error: BaseException) -> None:
        """The old configuration runs on, and everybody is told why."""
        if not isinstance(error, REFUSALS):
            for line in "".join(traceback.format_exception(error)).splitlines():
                self.log.write("master", f"error: {line}")
        outcome.error = str(error) or type(error).__name__
        outcome.changes, outcome.opened, outcome.closed, outcome.files = [], [], [], []
        self._tell(outcome)

    def accept(self, outcome: Outcome, config: Config, log: MailLog) -> None:
        """The new configuration has taken effect, and everybody is told what it changed."""
        self.config, self.log, self._files = config, log, self._next_files
        self._tell(outcome)

    def _tell(self, outcome: Outcome) -> None:
        for line in outcome.lines():
            self.log.write("master", line if line.startswith("warning: ") else f"reload: {line}")
        self._file.write(outcome)


def addresses(names: Iterable[tuple[str, int]]) -> list[str]:
    """`address:port` of each, in order; IPv6 in brackets."""
    return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in sorted(names)]
