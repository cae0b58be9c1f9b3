"""What a changed configuration changes: parameters as they take effect, rows of master.cf, files of lists.

Lookup tables, certificates and accounts are not among it: they are followed without a reload.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from mailserver.config.config import Config
from mailserver.config.declaration import Kind, Type
from mailserver.config.master import Row
from mailserver.config.parameters import PARAMETERS
from mailserver.config.syntax import ConfigError, Setting
from mailserver.tables.lists import files_of

Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Difference:
    """A parameter, or part of a row of master.cf, with its text before and after, "" for none.

    `where` is the new text's "path:line", or "default".
    """

    name: str
    old: str
    new: str
    where: str

    def __str__(self) -> str:
        return f"{self.name}: {self.old or '(empty)'} -> {self.new or '(empty)'} ({self.where})"


def differences(old: Config, new: Config) -> list[Difference]:
    """Every honoured or self-made parameter whose effective text differs, then the rows of master.cf."""
    names = sorted({*_EFFECTIVE, *_self_made(old), *_self_made(new)})
    texts = ((name, _text(old, name), _text(new, name)) for name in names)
    found = [Difference(name, was, now, new.where(name)) for name, was, now in texts if was != now]
    return found + list(_row_differences(_rows(old), _rows(new), f"{new.directory}/master.cf"))


_EFFECTIVE: Final = tuple(name for name, each in PARAMETERS.items() if each.kind is Kind.HONOURED)


def _self_made(config: Config) -> set[str]:
    """Names that only the files define: restriction classes, limits of a transport, words for `$name`."""
    return {name for name in config.settings if name not in PARAMETERS}


def _text(config: Config, name: str) -> str:
    try:
        return config.string(name) if config.is_known(name) else ""
    except ConfigError:
        return config.raw(name)


def _rows(config: Config) -> dict[str, Row]:
    return {f"{row.service}/{row.type}": row for row in config.services}


def _row_differences(old: Mapping[str, Row], new: Mapping[str, Row], master: str) -> Iterator[Difference]:
    for key, was in old.items():
        if key not in new:
            yield Difference(f"master.cf {key}", _row_text(was), "", master)
    for key, now in new.items():
        if key not in old:
            yield Difference(f"master.cf {key}", "", _row_text(now), now.where)
            continue
        was = old[key]
        if _row_text(was) != _row_text(now):
            yield Difference(f"master.cf {key}", _row_text(was), _row_text(now), now.where)
        for name in sorted({*was.overrides, *now.overrides}):
            texts = was.overrides.get(name, ""), now.overrides.get(name, "")
            if texts[0] != texts[1]:
                yield Difference(f"master.cf {key} -o {name}", *texts, now.where)


def _row_text(row: Row) -> str:
    """The row without its `-o` settings, which are compared one by one."""
    fields = (row.private, row.unprivileged, row.chroot, row.wakeup, row.process_limit, row.command)
    words = iter(row.arguments)
    others = [word for word in words if word != "-o" or next(words, None) is None]
    return " ".join((*fields, *others))


def pinned(config: Config, values: Mapping[str, str]) -> Config:
    """The configuration with those parameters as they are given, whatever the files say."""
    settings = {
        name: Setting(name, text.replace("$", "$$"), config.where(name)) for name, text in values.items()
    }
    return Config(
        config.directory,
        {**config.settings, **settings},
        config.services,
        config.warnings,
        config.host,
        config.dovecot_path,
    )


def list_files(config: Config) -> dict[str, Stamp | None]:
    """Each file whose lines are items of a list (`mynetworks = /path`): how it is now, None without it."""
    views = [config, *(config.with_overrides(row) for row in config.services if row.overrides)]
    paths = {path for view in views for path in _list_paths(view)}
    return {path: _stamp(path) for path in sorted(paths)}


def _list_paths(config: Config) -> Iterator[str]:
    for name in _EFFECTIVE:
        if PARAMETERS[name].type is Type.LIST and "/" in config.raw(name):
            try:
                yield from files_of(config.words(name))
            except ConfigError:
                continue


def _stamp(path: str) -> Stamp | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
