"""What a parameter's declaration says, and short words to write one with.

`honoured` is used by this program. `refused` is not, and changes where mail goes, who may send
it, what is filtered or how it is protected: a configuration that sets it is refused, unless
`allow_unsupported` names it. `harmless` is not used and changes none of that: setting it gives a
warning. `inert` describes Postfix's or Dovecot's own installation or tuning: nobody needs to hear
of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Type(Enum):
    """How a value is read."""

    STRING = "string"
    BOOLEAN = "boolean"  # yes or no
    SECONDS = "time"  # a number with a unit: s m h d w
    OCTETS = "size in octets"
    INTEGER = "number"
    LIST = "list"  # separated by commas or white space
    RAW = "text, expanded when used"


class Kind(Enum):
    """What becomes of a value; see the module's head."""

    HONOURED = "honoured"
    HARMLESS = "harmless"
    REFUSED = "refused"
    INERT = "inert"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter. `default` may use `$name`; `source` is postfix, dovecot or ours.

    `unit` is the unit of a time without one. A value in `foreign` is what Postfix's own
    installation writes, and means the default here: two programs must not share it.
    """

    name: str
    kind: Kind
    type: Type
    default: str
    documentation: str
    source: str = "postfix"
    foreign: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """The unit of a time that names none: that of the default."""
        match = re.search(r"([smhdw])$", self.default)
        return match[1] if match and self.type is Type.SECONDS else "s"


Declare = Callable[..., Parameter]


def _of_kind(kind: Kind) -> Declare:
    """Declares `name, type, default, documentation` and perhaps source, foreign, choices."""

    def declare(name: str, *facts: Any, **more: Any) -> Parameter:
        return Parameter(name, kind, *facts, **more)

    return declare


honoured = _of_kind(Kind.HONOURED)
harmless = _of_kind(Kind.HARMLESS)
refused = _of_kind(Kind.REFUSED)
inert = _of_kind(Kind.INERT)


def group(kind: Kind, documentation: str, settings: str, source: str = "postfix") -> Iterator[Parameter]:
    """Parameters that share a kind and a reason, one `name = default` a line."""
    for line in settings.strip().splitlines():
        name, _, default = line.partition("=")
        yield Parameter(name.strip(), kind, type_of(default.strip()), default.strip(), documentation, source)


def type_of(default: str) -> Type:
    """The type that a default shows."""
    if default in ("yes", "no"):
        return Type.BOOLEAN
    if re.fullmatch(r"\d+[smhdw]", default):
        return Type.SECONDS
    return Type.INTEGER if re.fullmatch(r"\d+", default) else Type.STRING
