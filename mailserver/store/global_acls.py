"""The administrator's ACLs for everybody's mailboxes: Dovecot's `acl = vfile:/etc/dovecot/global-acls`.

One entry a line as in a `dovecot-acl` file (`store.acl`), behind a pattern of mailbox names as whoever
uses the mailbox sees them; `*` and `?` stand for anything, a `/` too:

    *               user=secretary lr
    Invoices        owner lr
    "Public/Old *"  anyone lr

Where a pattern fits, an entry that names somebody counts before all that the mailbox's own ACL says. The
file is read again when it changes; one that cannot be read or understood by then leaves the old entries.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Final

from mailserver.store.acl import Acl, BadAcl, parse_acl
from mailserver.store.uidlist import read_small_file

_LINE: Final = re.compile(r'(?:"((?:[^"\\]|\\.)*)"|(\S+))\s+(\S.*)')
_WILD: Final = {"*": ".*", "?": "."}
_Stamp = tuple[int, int, int]


class GlobalAcls:
    """The file at `path`; "" is none. Methods block, and may be called from any thread."""

    def __init__(self, path: str = "", warn: Callable[[str], None] = lambda text: None) -> None:
        """Raises BadAcl, OSError."""
        self._path = path
        self._warn = warn
        self._seen: _Stamp | None = self._stamp() if path else None
        self._rules = self._read() if path else ()

    def of(self, name: str) -> Acl:
        """What is said of the mailbox of that name, empty where nothing is."""
        found = Acl()
        for pattern, acl in self._current() if self._path else ():
            if pattern.fullmatch(name):
                found = acl.over(found)
        return found

    def _current(self) -> tuple[tuple[re.Pattern[str], Acl], ...]:
        try:
            seen = self._stamp()
            if seen != self._seen:
                self._seen = seen  # a bad file is told once
                self._rules = self._read()
        except (OSError, BadAcl) as error:
            self._warn(f"{self._path}: {error}: the entries that it had before count")
        return self._rules

    def _stamp(self) -> _Stamp:
        found = os.stat(self._path)
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> tuple[tuple[re.Pattern[str], Acl], ...]:
        try:
            text = read_small_file(self._path).decode("utf-8")
        except UnicodeError as error:
            raise BadAcl("not UTF-8") from error
        lines = ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1))
        return tuple(_rule(number, line) for number, line in lines if line and not line.startswith("#"))


def _rule(number: int, line: str) -> tuple[re.Pattern[str], Acl]:
    found = _LINE.fullmatch(line)
    if found is None:
        raise BadAcl(f"line {number}: write a pattern of mailbox names, an identifier and rights")
    quoted = found[1]
    wanted = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else found[2]
    try:
        acl = parse_acl(found[3])
    except BadAcl as error:
        raise BadAcl(f"line {number}: {str(error).partition(': ')[2]}") from error
    return re.compile("".join(_WILD.get(letter, re.escape(letter)) for letter in wanted), re.DOTALL), acl
