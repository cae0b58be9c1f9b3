"""The lines of a mail log, ours or Postfix's, as values. A file may be compressed; `journal` is systemd's.

Nov 24 02:22:04 mx postfix/local[30530]: A909922E0CD: to=<a@example.org>, orig_to=<b@example.org>, …
2026-11-24T02:22:04+00:00 mx postfix/smtpd[1]: NOQUEUE: reject: RCPT from …
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mailserver.commands.errors import CommandError
from mailserver.config.config import Config
from mailserver.queue.identity import is_queue_id

USUAL: Final = ("/var/log/mail.log", "/var/log/maillog")
JOURNAL: Final = "journal"  # in place of a path
_JOURNALS: Final = ("/var/log/journal", "/run/log/journal")
_JOURNALCTL: Final = ("journalctl", "--quiet", "--no-pager", "--output=short-iso", "SYSLOG_FACILITY=2")
_LINE: Final = re.compile(
    r"(?P<when>[A-Z][a-z]{2} [ \d]\d [\d:]{8}|\d{4}-\S+) \S+ (?P<ident>[^\s\[:]+)(?:\[\d+\])?: (?P<text>.*)"
)
_FIELD: Final = re.compile(r"(to|orig_to|relay|dsn)=(<[^>]*>|[^,\s]+)")
_STATUS: Final = re.compile(r"status=(\w+) \((.*)\)$")


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `service` is the last part of its ident; `queue_id` is "" where it is about no message."""

    when: str
    service: str
    queue_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a recipient in one attempt. `original` is the address as it came."""

    recipient: str
    original: str
    service: str
    relay: str
    dsn: str
    status: str
    reason: str


def parse(text: str) -> Line | None:
    """The line; None for what is no line of a mail log."""
    match = _LINE.match(text)
    if match is None:
        return None
    first, _, rest = match["text"].partition(": ")
    service = match["ident"].rpartition("/")[2]
    if first == "NOQUEUE" or not is_queue_id(first):
        return Line(match["when"], service, "", match["text"])
    return Line(match["when"], service, first, rest)


def parse_result(line: Line) -> Result | None:
    """What a delivery's status line says; None for other lines."""
    status = _STATUS.search(line.text)
    if status is None or not line.text.startswith("to=<"):
        return None
    fields = {name: value.strip("<>") for name, value in _FIELD.findall(line.text[: status.start()])}
    recipient = fields.get("to", "")
    return Result(
        recipient,
        fields.get("orig_to", recipient),
        line.service,
        fields.get("relay", ""),
        fields.get("dsn", ""),
        status[1],
        status[2],
    )


def read(paths: Iterable[str], wanted: bytes = b"") -> Iterator[Line]:
    """The lines of the files in order, those with the `wanted` octets alone. Raises CommandError."""
    for path in paths:
        try:
            for octets in _journal(wanted) if path == JOURNAL else _file(path):
                if wanted in octets:
                    line = parse(octets.decode("utf-8", "replace").rstrip("\n"))
                    if line is not None:
                        yield line
        except (OSError, EOFError) as error:
            raise CommandError(f"{path}: {error}: name a mail log that can be read") from error


def _file(path: str) -> Iterator[bytes]:
    with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
        yield from file


def _journal(wanted: bytes) -> Iterator[bytes]:
    """What syslog's facility mail has in the journal. Raises CommandError, OSError."""
    pattern = [b"--grep=" + re.escape(wanted)] if wanted else []
    with subprocess.Popen(
        [*_JOURNALCTL, *pattern], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as journalctl:
        assert journalctl.stdout is not None and journalctl.stderr is not None
        yield from journalctl.stdout
        trouble = journalctl.stderr.read().decode("utf-8", "replace").strip()
    if trouble:
        raise CommandError(f"journalctl: {trouble}: read it as root, or name a mail log")


def usual_logs(config: Config) -> list[str]:
    """The mail log and its rotated predecessors, oldest first, or the journal; empty without either."""
    named = config.string("maillog_file")
    places = [named] if named and not named.startswith("/dev/") else list(USUAL)
    for place in map(Path, places):
        if place.exists():
            return [*map(str, _rotated(place)), str(place)]
    has_journal = not named and any(map(os.path.isdir, _JOURNALS)) and shutil.which(_JOURNALCTL[0])
    return [JOURNAL] if has_journal else []


def _rotated(log: Path) -> list[Path]:
    """mail.log.4.gz, …, mail.log.1; dated names too."""
    found = [path for path in log.parent.glob(f"{log.name}[.-]*") if path.suffix != ".tmp"]
    return sorted(found, key=lambda path: path.stat().st_mtime)
