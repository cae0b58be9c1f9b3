"""How much an account stores, kept within its rules (`store.quota_rules`), and who is called when that ends.

The rules stand in the passwd-file as `userdb_quota_rule` or hold for all as `quota_rule`. What is counted is
what clients are told: octets with CRLF line ends. Expunged mail that can be brought back is not counted.
A move is always possible.

The commands of `quota_warning` are run with the rights of whoever stores, in a process of their own whose end
nobody waits for; where there are none, 80 and 95 % are logged.
"""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Final

from mailserver.store.contract import OverQuota, Quota
from mailserver.store.maildir_names import key_of
from mailserver.store.quota_rules import QuotaWarning, Rules, due
from mailserver.wire.user_variables import expand

WARNINGS: Final = (95, 80)  # per cent
Usage = Callable[[Rules], tuple[int, int]]
_SIZE: Final = re.compile(r",S=([0-9]{1,15})")
_PATIENCE: Final = 5.0  # seconds for a lock on state.db
_BY_ITSELF: Final = ("setsid", "--fork", "timeout", "60")


class QuotaKeeper:
    """Keeps an account's mail within its rules. `usage` gives octets and messages by them; it blocks.

    `user` and `home` are what the commands of `warnings` are told.
    """

    def __init__(
        self,
        rules: Rules,
        usage: Usage,
        warn: Callable[[str], None],
        warnings: Sequence[QuotaWarning] = (),
        user: str = "",
        home: str = "/",
    ) -> None:
        self.rules = rules
        self._usage = usage
        self._warn = warn
        self._warnings = warnings
        self._user = user
        self._home = home
        self._last: tuple[int, int] | None = None
        self._level = 0

    def check(self, octets: int, messages: int, mailbox: str = "INBOX") -> None:
        """There is room for so much more in that mailbox. Raises OverQuota. Says where a mark is passed."""
        if not self.rules or self.rules.ignores(mailbox):
            return
        used, count = self._usage(self.rules)
        if not self.rules.limits_in(mailbox).hold(used + octets, count + messages):
            raise OverQuota("Quota exceeded (mailbox for user is full)")
        self._tell((used, count), (used + octets, count + messages))

    def _tell(self, used: tuple[int, int], expected: tuple[int, int]) -> None:
        """What is used now, less than at the last time perhaps, and what will be."""
        before = self._last if self._last is not None else used
        self._last = expected
        if self._warnings:
            for start, end in ((before, used), (used, expected)):
                command = due(self._warnings, self.rules.limits, start, end)
                if command:
                    start_warning(command, self._user, self._home, self._warn)
            return
        self._tell_level(*expected)

    def _tell_level(self, octets: int, messages: int) -> None:
        limits = self.rules.limits
        parts = ((octets, limits.octets), (messages, limits.messages))
        percent = max((100 * used // limit for used, limit in parts if limit), default=0)
        level = next((level for level in WARNINGS if percent >= level), 0)
        if level > self._level:
            self._warn(f"quota: {percent} % of {limits.octets or limits.messages} used")
        self._level = level

    def quota(self) -> Quota | None:
        """The figures, None where there is no limit."""
        if not self.rules:
            return None
        used = self._usage(self.rules)
        self._tell(used, used)
        return Quota(*used, self.rules.limits.octets, self.rules.limits.messages)


def start_warning(command: Sequence[str], user: str, home: str, warn: Callable[[str], None]) -> None:
    """The command runs by itself, for a minute at most; or it is told why not. Never raises.

    Variables in it are replaced (`wire.user_variables`).
    """
    try:
        words = [expand(word, user, home) for word in command]
    except ValueError as error:
        warn(f"quota_warning: {error}")
        return
    if not os.access(words[0], os.X_OK):
        warn(f"quota_warning: {words[0]}: cannot be run: check its path and mode")
        return
    environment = {"PATH": os.defpath, "HOME": home, "USER": user, "LOGNAME": user}
    try:
        subprocess.run(
            [*_BY_ITSELF, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=environment,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        warn(f"quota_warning: {words[0]}: {error}")


def usage_at_delivery(directory: str, target: str, rules: Rules = Rules()) -> tuple[int, int]:  # noqa: B008
    """Octets and messages of an account, for a program that has no store open. Raises OSError.

    `directory` has its state.db, if it ever logged in; `target` is its INBOX. What came to INBOX since
    state.db last looked is counted too. Blocking; cheap where little came.
    """
    is_maildir = target.endswith("/")
    known = _known(os.path.join(directory, "state.db"), is_maildir, rules)
    if not is_maildir:
        return (known[0] if known else 0) + _file_size(target), known[1] if known else 0
    octets, messages, in_new = known or (0, 0, frozenset())
    unknown = _unknown_files(target + "new", in_new)
    if known is None:
        unknown += _unknown_files(target + "cur", frozenset())
    return octets + sum(unknown), messages + len(unknown)


def _known(path: str, with_inbox: bool, rules: Rules) -> tuple[int, int, frozenset[str]] | None:
    """Octets and messages that state.db knows, and the keys of those in INBOX's `new`; None without one."""
    if not os.path.exists(path):
        return None
    message = "message JOIN mailbox ON mailbox.id = message.mailbox"
    total = f"SELECT name, coalesce(sum(size), 0), count(*) FROM {message} GROUP BY name"
    new = f"SELECT key FROM {message} WHERE name='INBOX' AND place >= 'new/' AND place < 'new0'"
    try:
        with closing(sqlite3.connect(path, timeout=_PATIENCE)) as db:
            counted = [
                (octets, messages)
                for name, octets, messages in db.execute(total)
                if (with_inbox or name != "INBOX") and not rules.ignores(name)
            ]
            octets, messages = (sum(each) for each in zip((0, 0), *counted, strict=True))
            return octets, messages, frozenset(os.fsdecode(key) for (key,) in db.execute(new))
    except sqlite3.Error as error:
        raise OSError(f"state.db: {error}") from error


def _unknown_files(directory: str, known: frozenset[str]) -> list[int]:
    """The sizes of the files whose keys are not known."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return [_size_of(directory, name) for name in names if key_of(name) not in known]


def _size_of(directory: str, name: str) -> int:
    found = _SIZE.search(name)
    return int(found[1]) if found else _file_size(os.path.join(directory, name))


def _file_size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
