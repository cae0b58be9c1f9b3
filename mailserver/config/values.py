"""From a parameter's expanded text to a value: yes and no, times, sizes, numbers, choices."""

from __future__ import annotations

import re
from typing import Final

from mailserver.config.declaration import Parameter, Type

SECONDS_IN: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class ValueProblem(ValueError):
    """A text that is no value of its type. The text says why, and what to write."""


def boolean(text: str) -> bool:
    """yes or no, in any case."""
    lower = text.strip().lower()
    if lower not in ("yes", "no"):
        raise ValueProblem(f'bad boolean value "{text}": write yes or no')
    return lower == "yes"


def integer(text: str) -> int:
    """A number that is not negative."""
    if not re.fullmatch(r"\d{1,18}", text.strip()):
        raise ValueProblem(f'bad numerical value "{text}": write digits only')
    return int(text)


def seconds(text: str, unit: str = "s") -> int:
    """A number with a unit (s m h d w), `unit` where it has none, in seconds."""
    match = re.fullmatch(
        r"(\d{1,12})\s*([smhdwSMHDW]?)(?:in|ins|ecs?|ours?|ays?|eeks?|econds?|inutes?)?", text.strip()
    )
    if match is None:
        raise ValueProblem(f'bad time value "{text}": write a number and s, m, h, d or w')
    return int(match[1]) * SECONDS_IN[match[2].lower() or unit]


def check(parameter: Parameter, text: str) -> None:
    """Raises ValueProblem where the expanded text is no value of this parameter."""
    if parameter.choices and text.lower() not in {choice.lower() for choice in parameter.choices}:
        raise ValueProblem(
            f'bad value "{text}": write {", ".join(c or "nothing" for c in parameter.choices)}'
        )
    if parameter.type is Type.BOOLEAN:
        boolean(text)
    elif parameter.type in (Type.INTEGER, Type.OCTETS):
        integer(text)
    elif parameter.type is Type.SECONDS:
        seconds(text, parameter.unit)
