"""The grammar of dovecot.conf, of 2.3 and of 2.4; `dovecot_meaning` says what it means here.

`key = value`, `section name { … }`, `!include`, `!include_try`, `<file`, quotes, `\\` at the end of a line,
`$key` (2.4: `$SET:key`) for an earlier value. Files are read through `read`, so that the grammar itself
touches no disk.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from mailserver.config.dovecot_tree import Section
from mailserver.config.syntax import ConfigError, Setting

DEEPEST_INCLUDE: Final = 16

_LINE: Final = re.compile(r"([^\s={}]+)\s*=\s*(.*)", re.DOTALL)
_SECTION: Final = re.compile(r'(\S+)(?:\s++("[^"]*"|[^{]*+))?\s*+\{', re.DOTALL)

# The paths that a pattern of !include names, and a file's text; both raise OSError.
Glob = Callable[[str], Sequence[str]]
ReadText = Callable[[str], str]


class Parser:
    """Reads a dovecot.conf and what it includes into a tree of sections."""

    def __init__(self, read: ReadText, glob: Glob) -> None:
        self._read = read
        self._glob = glob
        self.top = Section("", "", "")
        self._open = [self.top]

    def parse(self, path: str, depth: int = 0) -> None:
        """The file's settings stand in `top`, behind those of the files before it. Raises ConfigError."""
        if depth > DEEPEST_INCLUDE:
            raise ConfigError(f"{path}: included from itself, or more than {DEEPEST_INCLUDE} deep")
        for where, line in _lines(self._read(path), path):
            self._line(line, where, os.path.dirname(path), depth)

    def finish(self) -> Section:
        """The top level. Raises ConfigError where a section was not closed."""
        if len(self._open) > 1:
            raise ConfigError(f"{self._open[-1].where}: section {self._open[-1].kind} has no closing brace")
        return self.top

    def _line(self, line: str, where: str, directory: str, depth: int) -> None:
        word, _, rest = line.partition(" ")
        if word in ("!include", "!include_try"):
            self._include(os.path.join(directory, rest.strip()), where, word == "!include", depth)
        elif line == "}":
            if len(self._open) == 1:
                raise ConfigError(f"{where}: a closing brace without a section: remove it")
            self._open.pop()
        elif "=" not in line.partition("{")[0] and (match := _SECTION.match(line)):
            self._enter(match, line, where)
        elif match := _LINE.fullmatch(line):
            self._open[-1].settings.append(Setting(match[1], self._value(match[2]), where))
        else:
            raise ConfigError(f'{where}: "{line}": write key = value')

    def _include(self, pattern: str, where: str, required: bool, depth: int) -> None:
        paths = self._glob(pattern)
        if not paths and required and not re.search(r"[*?\[]", pattern):
            raise ConfigError(f"{where}: {pattern}: No such file: remove the !include, or create the file")
        for path in paths:
            self.parse(path, depth + 1)

    def _enter(self, match: re.Match[str], line: str, where: str) -> None:
        section = Section(match[1], (match[2] or "").rstrip().strip('" '), where)
        self._open[-1].sections.append(section)
        rest = line[match.end() :].strip()
        if rest.endswith("}"):
            rest = rest[:-1].strip()
        else:
            self._open.append(section)
        if rest and (setting := _LINE.fullmatch(rest)):
            section.settings.append(Setting(setting[1], self._value(setting[2]), where))

    def _value(self, text: str) -> str:
        """Quotes and the `<` of a file removed, `$key` replaced by its earlier value."""
        text = text.strip()
        if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
            return re.sub(r"\\(.)", r"\1", text[1:-1])
        return re.sub(r"\$(?:SET:)?(\w+)", lambda match: self._earlier(match[1]), text).strip()

    def _earlier(self, name: str) -> str:
        for setting in reversed(self.top.settings):
            if setting.name == name:
                return setting.value
        return ""


def _lines(text: str, path: str) -> Iterator[tuple[str, str]]:
    """The lines with their places, comments and continuations dealt with."""
    pending, start = "", 0
    for number, raw in enumerate(text.split("\n"), 1):
        line = _without_comment(raw).strip()
        start = start if pending else number
        if line.endswith("\\"):
            pending += line[:-1].rstrip() + " "
            continue
        line, pending = (pending + line).strip(), ""
        if line:
            yield f"{path}:{start}", line


def _without_comment(line: str) -> str:
    quote = ""
    for position, character in enumerate(line):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == "#" and (position == 0 or line[position - 1].isspace()):
            return line[:position]
    return line
