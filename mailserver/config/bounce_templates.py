"""bounce_template_file: the templates of delivery reports with the parameters that they mention."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from mailserver.config.config import Config
from mailserver.config.syntax import ConfigError, Expander, ExpansionError
from mailserver.message.bounce_template import Template, parse_templates

_TIME: Final = re.compile(r"(delay_warning_time|maximal_queue_lifetime)_(second|minute|hour|day|week)s")
_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}


def read_templates(path: str, warn: Callable[[str], None] = lambda text: None) -> dict[str, Template]:
    """The templates of the file, as they are written there; "" has the built-in ones. Raises ConfigError."""
    if not path:
        return parse_templates("")[0]
    try:
        with open(path, "rb") as file:
            text = file.read().decode("utf-8", "replace")
    except OSError as error:
        raise ConfigError(
            f"open {path}: {error.strerror}: write it, or leave bounce_template_file empty"
        ) from error
    found, warnings = parse_templates(text)
    for warning in warnings:
        warn(f"{path}, {warning}")
    return found


def expanded(template: Template, config: Config) -> Template:
    """The template with its `$name` expanded, but for `$retry_until`. Raises ConfigError."""
    expander = Expander(lambda name: _value(name, config))
    try:
        return replace(template, text=expander.expand(template.text))
    except ExpansionError as error:
        raise ConfigError(f"bounce_template_file: {error}") from error


def _value(name: str, config: Config) -> str | None:
    if name == "retry_until":
        return "$$retry_until"
    time = _TIME.fullmatch(name)
    if time is not None:
        return str(config.seconds(time[1]) // _SECONDS[time[2]])
    return config.string(name).replace("$", "$$") if config.is_known(name) else ""
