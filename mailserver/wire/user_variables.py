"""Dovecot's variables that stand for a user, in paths and arguments, as 2.3 and 2.4 spell them.

%u %n %d %h             name, its local part, its domain, home; %% is a percent sign
%Lu %Un                 in lower, in upper case
%{user} %{username} %{domain} %{home}
%{user | domain | lower}
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

_VARIABLE: Final = re.compile(r"%(?:\{\s*(\w+)((?:\s*\|\s*\w+)*)\s*\}|([LU]?)(.))", re.DOTALL)
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
        name = _LONG_NAMES.get(found[1], "") if found[1] else found[4]
        filters = [word.strip() for word in (found[2] or "").split("|")[1:]]
        filters += [_MODIFIERS[found[3]]] if found[3] else []
        if name not in values or not all(word in _FILTERS for word in filters):
            raise ValueError(f"unknown variable {found[0]}")
        answer = values[name]
        for word in filters:
            answer = _FILTERS[word](answer)
        return answer

    return _VARIABLE.sub(value, text)
