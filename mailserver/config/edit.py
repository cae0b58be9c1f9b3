"""Edits of main.cf and master.cf as text: everything that is not edited stays as it is.

Comments, empty lines and the order of the rest are kept. Text in, text out: `replace_file` is what
puts the result on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from mailserver.tables.words import WHITE_SPACE


@dataclass(frozen=True, slots=True)
class Block:
    """A logical line as its physical lines, comments inside it included; `key` is "" for a comment."""

    key: str
    lines: tuple[str, ...]

    def comments(self) -> list[str]:
        """The comments and empty lines inside it, which outlive it."""
        return [line for line in self.lines if _is_comment(line)]


def set_values(text: str, values: Mapping[str, str]) -> str:
    """The text with `name = value` for each name: in its first place, else at the end."""
    left = dict(values)
    out: list[str] = []
    for block in _blocks(text, _main_key):
        if block.key not in values:
            out += block.lines
            continue
        if block.key in left:
            out.append(f"{block.key} = {left.pop(block.key)}".rstrip())
        out += block.comments()
    out += [f"{name} = {value}".rstrip() for name, value in left.items()]
    return _joined(out)


def remove(text: str, names: frozenset[str]) -> str:
    """The text without the settings of these names."""
    return _removed(text, _main_key, lambda key: key in names)


def comment_out(text: str, names: frozenset[str]) -> str:
    """The text with the settings of these names made comments."""
    return _commented(text, _main_key, lambda key: key in names)


def set_row(text: str, service: str, kind: str, row: str) -> str:
    """The master.cf with this row in the place of the one of that name and type, else at the end."""
    key, done = f"{service}/{kind}", False
    out: list[str] = []
    for block in _blocks(text, _row_key):
        if block.key != key:
            out += block.lines
            continue
        out += block.comments() if done else [*row.split("\n"), *block.comments()]
        done = True
    return _joined(out if done else out + row.split("\n"))


def remove_rows(text: str, matches: Callable[[str], bool]) -> str:
    """The master.cf without the rows whose `service/type` matches."""
    return _removed(text, _row_key, matches)


def comment_out_rows(text: str, matches: Callable[[str], bool]) -> str:
    """The master.cf with the rows whose `service/type` matches made comments."""
    return _commented(text, _row_key, matches)


def _removed(text: str, key_of: Callable[[str], str], matches: Callable[[str], bool]) -> str:
    out: list[str] = []
    for block in _blocks(text, key_of):
        out += block.comments() if block.key and matches(block.key) else block.lines
    return _joined(out)


def _commented(text: str, key_of: Callable[[str], str], matches: Callable[[str], bool]) -> str:
    out: list[str] = []
    for block in _blocks(text, key_of):
        hit = bool(block.key) and matches(block.key)
        out += [f"#{line}" if hit and not _is_comment(line) else line for line in block.lines]
    return _joined(out)


def _main_key(line: str) -> str:
    return line.partition("=")[0].strip(WHITE_SPACE)


def _row_key(line: str) -> str:
    return "/".join(line.split()[:2])


def _is_comment(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _blocks(text: str, key_of: Callable[[str], str]) -> Iterator[Block]:
    """The settings and the comments in their order."""
    setting: list[str] = []
    comments: list[str] = []  # behind the setting, unless it goes on after them
    for line in text.removesuffix("\n").split("\n") if text else ():
        if _is_comment(line):
            comments.append(line)
        elif line[0] in WHITE_SPACE and setting:
            setting += [*comments, line]
            comments = []
        else:
            yield from _finished(setting, comments, key_of)
            setting, comments = [line], []
    yield from _finished(setting, comments, key_of)


def _finished(setting: list[str], comments: list[str], key_of: Callable[[str], str]) -> Iterator[Block]:
    if setting:
        yield Block(key_of(setting[0]), tuple(setting))
    for line in comments:
        yield Block("", (line,))


def _joined(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
