"""The policy servers that restrictions name, with the limits of smtpd_policy_service_*."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any, Final

from mailserver.config import values
from mailserver.config.config import Config
from mailserver.service_endpoint import parse_endpoint
from mailserver.smtpd.policy_service import PolicyRules, PolicyService
from mailserver.tables.words import split_words, unbrace

_TIMES: Final = ("max_idle", "max_ttl", "retry_delay", "timeout")
_NUMBERS: Final = ("request_limit", "try_limit")
_TEXTS: Final = ("default_action", "policy_context")


class PolicyServices:
    """Opens the policy servers of one listener, each once."""

    def __init__(self, config: Config, reactor: Any, warn: Callable[[str], None]) -> None:
        """Raises ConfigError."""
        self._directory = config.string("queue_directory")
        self._reactor = reactor
        self._warn = warn
        rules: dict[str, Any] = {}
        rules |= {name: config.seconds(f"smtpd_policy_service_{name}") for name in _TIMES}
        rules |= {name: config.integer(f"smtpd_policy_service_{name}") for name in _NUMBERS}
        rules |= {name: config.string(f"smtpd_policy_service_{name}") for name in _TEXTS}
        self._rules = PolicyRules(**rules)
        self._opened: dict[str, PolicyService] = {}

    def open(self, text: str) -> PolicyService:
        """`inet:host:port`, `unix:path`, or `{ inet:host:port, name=value … }`. Raises ValueError."""
        if text not in self._opened:
            self._opened[text] = self._open(text)
        return self._opened[text]

    def _open(self, text: str) -> PolicyService:
        words = _words(unbrace(text)) if text.startswith("{") else iter((text,))
        endpoint = parse_endpoint(next(words, ""), self._directory)
        rules = replace(self._rules, **dict(map(_setting, words)))
        return PolicyService(endpoint, rules, self._reactor, self._warn)


def _words(text: str) -> Iterator[str]:
    for word in split_words(text):
        yield unbrace(word) if word.startswith("{") else word


def _setting(word: str) -> tuple[str, Any]:
    """`timeout=10s`; a value with spaces stands in braces. Raises ValueError."""
    name, equals, value = (part.strip() for part in word.partition("="))
    if not equals or name not in {field.name for field in fields(PolicyRules)}:
        raise ValueError(f"{word}: write one of {', '.join((*_TIMES, *_NUMBERS, *_TEXTS))} = value")
    if name in _TEXTS:
        return name, value
    try:
        return name, values.seconds(value, "s") if name in _TIMES else values.integer(value)
    except values.ValueProblem as problem:
        raise ValueError(f"{word}: {problem}") from problem
