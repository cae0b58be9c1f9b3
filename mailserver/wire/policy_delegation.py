"""The policy delegation protocol: `name=value` lines up to an empty one. SMTPD_POLICY_README.

Bytes and values only. What is asked has one line a value, whoever chose it; what is answered is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

LONGEST_ANSWER: Final = 1 << 16  # octets
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class PolicyAnswerError(Exception):
    """The server does not speak the protocol. The text says what is wrong."""


def encode_request(attributes: Mapping[str, str]) -> bytes:
    """The request, its empty line included."""
    lines = (f"{name}={_CONTROL.sub('?', value)}\n" for name, value in attributes.items())
    return "".join((*lines, "\n")).encode("utf-8", "surrogateescape")


def decode_answer(data: bytes) -> tuple[str, int] | None:
    """The action, and the answer's length in octets; None where more is to come. Raises PolicyAnswerError."""
    end = data.find(b"\n\n")
    if end < 0:
        if len(data) > LONGEST_ANSWER:
            raise PolicyAnswerError("its answer is too long")
        return None
    for line in data[:end].split(b"\n"):
        name, equals, value = line.partition(b"=")
        if equals and name.strip() == b"action" and value.strip():
            return _CONTROL.sub("?", value.strip().decode("utf-8", "replace")), end + 2
    raise PolicyAnswerError("its answer has no action")
