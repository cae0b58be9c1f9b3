"""Dovecot's variables that stand for a user, in paths and arguments, as 2.3 and 2.4 spell them.

%u %n %d %h             name, its local part, its domain, home; %% is a percent sign
%Lu %Un                 in lower, in upper case
%1n %2.3n               the first character; three from the third on (counted from 0)
%{user} %{username} %{domain} %{home}
%{user | domain | lower} %{user | substr(0, 1)}
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

_FILTER: Final = r"\s*\|\s*\w+(?:\([\d, ]{1,20}\))?"
_VARIABLE: Final = re.compile(
    r"%(?:\{\s*(\w+)((?:" + _FILTER + r")*)\s*\}|([LU]?)(?:(?:(\d{1,4})\.)?(\d{1,4})([LU]?))?(.))", re.DOTALL
)
_SUBSTRING: Final = re.compile(r"substr\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)")
_LONG_NAMES: Final = {"user": "u", "username": "n", "domain": "d", "home": "h"}
_FILTERS: Final[Mapping[str, Callable[[str], str]]] = {
    "lower": str.lower,
    "upper": str.upper,
    "username": lambda text: text.partition("@")[0],
    "domain": lambda text: text.partition("@")[2],
}
_MODIFIERS: Final = {"L": "lower", "U": "upper"}


def expand(text: str, user: str, home: str | None = None) -> str:
    """The text with its variables replaced; there is none for a home that is None. Raises ValueError."""
    local, _, domain = user.partition("@")
    values = {"u": user, "n": local, "d": domain, "%": "%"} | ({} if home is None else {"h": home})

    def value(found: re.Match[str]) -> str:
        name = _LONG_NAMES.get(found[1], "") if found[1] else found[7]
        if name not in values:
            raise ValueError(f"unknown variable {found[0]}")
        answer = values[name]
        for word in _words(found):
            change = _change(word)
            if change is None:
                raise ValueError(f"unknown variable {found[0]}")
            answer = change(answer)
        return answer

    return _VARIABLE.sub(value, text)


def _words(found: re.Match[str]) -> list[str]:
    """What is done to the value, as 2.4 says it."""
    if found[1]:
        return [word.strip() for word in found[2].split("|")[1:]]
    words = [_MODIFIERS[letter] for letter in (found[3], found[6]) if letter]
    return [*words, f"substr({found[4] or 0},{found[5]})"] if found[5] else words


def _change(word: str) -> Callable[[str], str] | None:
    part = _SUBSTRING.fullmatch(word)
    if part is None:
        return _FILTERS.get(word)
    begin = int(part[1])
    end = None if part[2] is None else begin + int(part[2])
    return lambda text: text[begin:end]
