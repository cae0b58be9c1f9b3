"""The command line of postconf(1): its letters, and which of them exclude each other."""

from __future__ import annotations

import getopt
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

OPTIONS: Final = "aAbc:C:deEfFhHlmMno:pPtT:vxX#"
CLASSES: Final = ("builtin", "service", "user", "all")
_USAGE: Final = (
    "usage: postconf [-a (server SASL types)] [-A (client SASL types)] [-b (bounce templates)]"
    " [-c config_dir] [-C param_class] [-d (parameter defaults)] [-e (edit configuration)] [-f (fold lines)]"
    " [-F (master.cf fields)]"
    " [-h (no names)] [-H (no values)] [-l (lock types)] [-m (map types)] [-M (master.cf)]"
    " [-n (non-default parameters)]"
    " [-o name=value (override parameter value)] [-p (main.cf, default)] [-P (master.cf parameters)]"
    " [-t (bounce templates)] [-T compile-version|run-version|public-key-algorithms]"
    " [-v (verbose)] [-x (expand parameter values)] [-X (exclude)] [-# (comment-out)] [name...]"
)
# At most one of each group.
_ONE_OF: Final = ("aAbFlmMpPtT", "denX#", "deoX#", "efX#", "ehX#", "eHX#", "exX#", "hH")
# Letters, and what they do not go with.
_NOT_WITH: Final = {
    "aAblmtT": "defhHnoxX#",
    "F": "dnX#",
    "M": "dn",
    "P": "dn#",
}


class Fatal(Exception):
    """The command cannot go on; the text is what stands behind `fatal: `."""


@dataclass(slots=True)
class Options:
    """The command line: its letters, and what they take. `e` is there where a name has a value, too."""

    letters: frozenset[str] = frozenset()
    directory: str | None = None
    overrides: dict[str, str] = field(default_factory=dict)
    classes: frozenset[str] = frozenset()
    query: str = ""  # -T


def parse(arguments: list[str]) -> tuple[Options, list[str]]:
    """The options, and the names behind them. Raises Fatal."""
    try:
        pairs, names = getopt.getopt(arguments, OPTIONS)
    except getopt.GetoptError as error:
        problem = "option requires an argument" if "requires argument" in error.msg else "invalid option"
        print(f"postconf: {problem} -- '{error.opt}'", file=sys.stderr)
        raise Fatal(_USAGE) from error
    letters = {letter[1] for letter, _ in pairs}
    if any("=" in name for name in names):
        letters.add("e")
    options = Options(frozenset(letters))
    for letter, value in pairs:
        if letter == "-c":
            options.directory = value
        elif letter == "-o":
            name, text = assignment(value, "-o")
            options.overrides[name] = text
        elif letter == "-C":
            options.classes |= _classes(value)
        elif letter == "-T":
            options.query = value
    _check(options.letters)
    return options, names


def _check(letters: frozenset[str]) -> None:
    """Raises Fatal where letters exclude each other."""
    for group in _ONE_OF:
        found = [letter for letter in group if letter in letters]
        if len(found) > 1:
            raise Fatal("specify one of " + " ".join(f"-{letter}" for letter in sorted(found, key=_order)))
    for group, others in _NOT_WITH.items():
        for letter in group:
            bad = [other for other in others if letter in letters and other in letters]
            if bad:
                raise Fatal(f"with option -{letter}, do not specify {' '.join(f'-{other}' for other in bad)}")


def _order(letter: str) -> tuple[str, bool]:
    return ("~" if letter == "#" else letter.lower(), letter.isupper())


def _classes(text: str) -> frozenset[str]:
    words = text.replace(",", " ").split()
    for word in words:
        if word not in CLASSES:
            raise Fatal(f'unknown -C option value "{word}" in "{text}"')
    return frozenset(words)


def assignment(text: str, option: str = "-e") -> tuple[str, str]:
    """The two sides of `name = value`. Raises Fatal."""
    name, equals, value = text.partition("=")
    name, value = name.strip(), value.strip()
    if not equals or any(character.isspace() for character in name):
        raise Fatal(f"missing '=' after attribute name: \"{text}\"")
    if not name:
        raise Fatal(f'missing attribute name: "{text}"')
    if "\n" in value:
        raise Fatal(f"{option} accepts no multi-line input")
    return name, value


def assignments(texts: Sequence[str], warn: Callable[[str], None]) -> dict[str, str]:
    """Several; of two for one name the last counts. Raises Fatal."""
    found: dict[str, str] = {}
    for text in texts:
        name, value = assignment(text)
        if name in found:
            warn(f"ignoring earlier request: '{name} = {found[name]}'")
        found[name] = value
    return found
