"""smtpd_milters and non_smtpd_milters from the configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from mailserver.config import values
from mailserver.config.config import Config
from mailserver.milter.rules import MilterRules
from mailserver.service_endpoint import parse_endpoint
from mailserver.tables.access import first_entry
from mailserver.tables.table import Table, TableError
from mailserver.tables.words import split_words, unbrace
from mailserver.wire.milter import VERSION

_TIMES: Final = ("connect_timeout", "command_timeout", "content_timeout")
_ACTIONS: Final = ("accept", "reject", "tempfail", "quarantine")
_VERSIONS: Final = (2, 3, 4, VERSION)
_STAGES: Final = ("connect", "helo", "mail", "rcpt", "data", "end_of_header", "end_of_data")


def milter_rules(config: Config, parameter: str) -> tuple[MilterRules, ...]:
    """The milters that the parameter lists, each with milter_* and its own settings. Raises ConfigError."""
    try:
        return tuple(_rules(config, word) for word in config.words(parameter))
    except ValueError as error:
        raise config.error(parameter, str(error)) from error


def milters_by_client(
    config: Config, tables: Sequence[Table], usual: Sequence[MilterRules]
) -> Callable[[str], Sequence[MilterRules]]:
    """The milters for a client's address: those of smtpd_milter_maps, else the usual ones.

    What is returned blocks, and raises TableError.
    """

    def find(address: str) -> Sequence[MilterRules]:
        entry = first_entry(tables, (address,))
        if entry is None:
            return usual
        if entry.value.strip().upper() == "DISABLE":
            return ()
        try:
            return tuple(_rules(config, word) for word in split_words(entry.value))
        except ValueError as error:
            raise TableError(f"{entry.source}: {error}") from error

    return find


def milter_macros(config: Config) -> dict[str, str]:
    """The macros that are the same in every session."""
    return {"v": config.string("milter_macro_v"), "daemon_name": config.string("milter_macro_daemon_name")}


def _rules(config: Config, word: str) -> MilterRules:
    words = iter(split_words(unbrace(word)) if word.startswith("{") else (word,))
    usual = MilterRules(
        endpoint=parse_endpoint(next(words, ""), config.string("queue_directory")),
        connect_timeout=config.seconds("milter_connect_timeout"),
        command_timeout=config.seconds("milter_command_timeout"),
        content_timeout=config.seconds("milter_content_timeout"),
        default_action=_action(config.string("milter_default_action")),
        protocol=_version(config.string("milter_protocol")),
        macros=dict(_macros(config)),
        macro_defaults=dict(_defaults(config)),
    )
    return replace(usual, **dict(map(_setting, words)))


def _macros(config: Config) -> Iterator[tuple[str, tuple[str, ...]]]:
    for stage in _STAGES:
        yield stage, config.words(f"milter_{stage}_macros")
    yield "unknown_command", config.words("milter_unknown_command_macros")


def _defaults(config: Config) -> Iterator[tuple[str, str]]:
    for word in config.words("milter_macro_defaults"):
        name, _, value = (unbrace(word) if word.startswith("{ ") else word).partition("=")
        yield name.strip(" {}"), value.strip()


def _setting(word: str) -> tuple[str, Any]:
    """`connect_timeout=10s`. Raises ValueError."""
    name, _, value = (
        part.strip() for part in (unbrace(word) if word.startswith("{") else word).partition("=")
    )
    try:
        if name in _TIMES:
            return name, values.seconds(value, "s")
    except values.ValueProblem as problem:
        raise ValueError(f"{word}: {problem}") from problem
    if name == "default_action":
        return name, _action(value)
    if name == "protocol":
        return name, _version(value)
    raise ValueError(f"{word}: write one of {', '.join((*_TIMES, 'default_action', 'protocol'))} = value")


def _action(text: str) -> str:
    if text not in _ACTIONS:
        raise ValueError(f"unknown action {text}: write {', '.join(_ACTIONS)}")
    return text


def _version(text: str) -> int:
    """The number first in milter_protocol; the words that Postfix allows behind it say nothing new."""
    number = text.split()[0] if text.split() else ""
    if not number.isdigit() or int(number) not in _VERSIONS:
        raise ValueError(f"milter_protocol {text}: write {', '.join(map(str, _VERSIONS))}")
    return int(number)
