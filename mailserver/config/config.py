"""The configuration as one value: every parameter by name, expanded and typed.

A parameter's text comes from a row's `-o` of master.cf, else the environment, else main.cf, else a
dovecot.conf, else its declared default. `$name` is expanded when the value is asked for, except
in raw parameters, whose `$` belong to delivery. Values never change; a reload makes a new
Config.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from mailserver.config import values
from mailserver.config.declaration import Type
from mailserver.config.defaults import COMPUTED
from mailserver.config.master import Row
from mailserver.config.parameters import PARAMETERS, find_parameter
from mailserver.config.syntax import ConfigError, Expander, ExpansionError, Setting
from mailserver.config.system import Host
from mailserver.tables.words import split_words

T = TypeVar("T")

DEFAULT: Final = "default"


class Config:
    """What a directory of configuration files says.

    `warnings` are lines for the log and for `mailserver check`, `path:line` first; `services` are
    the rows of master.cf.
    """

    def __init__(
        self,
        directory: str,
        settings: Mapping[str, Setting],
        services: tuple[Row, ...] = (),
        warnings: tuple[str, ...] = (),
        host: Host | None = None,
        dovecot_path: str = "",
    ) -> None:
        self.directory = directory
        self.services = services
        self.warnings = warnings
        self.settings = settings
        self.host = host or Host()
        self.dovecot_path = dovecot_path  # "" where there is no dovecot.conf
        self._expanded: dict[str, str] = {}
        self._computing: set[str] = set()

    def string(self, name: str) -> str:
        """The expanded text; that of a raw parameter as it is written. Raises ConfigError."""
        if name not in self._expanded:
            self._expanded[name] = self._expand(name)
        return self._expanded[name]

    def expanded(self, text: str) -> str:
        """The text with `$name` expanded. Raises ExpansionError."""
        return Expander(self._lookup).expand(text)

    def raw(self, name: str) -> str:
        """The text as it is written, `$` and all. Raises ConfigError for a name that nobody defines."""
        text = self._lookup(name)
        if text is None:
            raise ConfigError(f"{self.directory}/main.cf: {name}: no such parameter")
        return text

    def boolean(self, name: str) -> bool:
        """Whether it says yes. Raises ConfigError."""
        return self._typed(name, values.boolean)

    def seconds(self, name: str) -> int:
        """A time. Raises ConfigError."""
        parameter = find_parameter(name)
        unit = parameter.unit if parameter is not None else "s"
        return self._typed(name, lambda text: values.seconds(text, unit))

    def octets(self, name: str) -> int:
        """A size. Raises ConfigError."""
        return self._typed(name, values.integer)

    def integer(self, name: str) -> int:
        """A number. Raises ConfigError."""
        return self._typed(name, values.integer)

    def words(self, name: str) -> tuple[str, ...]:
        """The items of a list; a group in braces is one item, braces and all. Raises ConfigError."""
        return split_words(self.string(name))

    def where(self, name: str) -> str:
        """Where the text stands: "path:line", or "default"."""
        setting = self.settings.get(name)
        return setting.where if setting is not None else DEFAULT

    def is_set(self, name: str) -> bool:
        """Whether a file, a row or the environment sets it."""
        return name in self.settings

    def is_known(self, name: str) -> bool:
        """Whether it is declared, or a file defines it."""
        return name in self.settings or find_parameter(name) is not None

    def default(self, name: str) -> str:
        """The text that it has where nobody sets it, unexpanded. Raises ConfigError."""
        text = self._default(name)
        if text is None:
            raise ConfigError(f"{self.directory}/main.cf: {name}: no such parameter")
        return text

    def with_overrides(self, row: Row) -> Config:
        """This configuration as the row's service sees it: its `-o` settings first."""
        own = {name: Setting(name, value, row.where) for name, value in row.overrides.items()}
        named = Setting("service_name", row.service.replace("$", "$$"), row.where)
        return Config(
            self.directory,
            {**self.settings, "service_name": named, **own},
            self.services,
            self.warnings,
            self.host,
            self.dovecot_path,
        )

    def error(self, name: str, problem: str) -> ConfigError:
        """A ConfigError about this parameter, `path:line` first."""
        where = self.where(name)
        return ConfigError(f"{self.directory + '/main.cf' if where == DEFAULT else where}: {name}: {problem}")

    def undefined(self, name: str) -> frozenset[str]:
        """The names that the parameter's text mentions and nobody defines. Raises ConfigError."""
        expander = Expander(self._lookup)
        if not self._is_raw(name):
            self._run(expander, name)
        return frozenset(expander.undefined)

    def _typed(self, name: str, convert: Callable[[str], T]) -> T:
        try:
            return convert(self.string(name))
        except values.ValueProblem as error:
            raise self.error(name, str(error)) from error

    def _expand(self, name: str) -> str:
        if self._is_raw(name):
            return self.raw(name)
        text = self._run(Expander(self._lookup), name)
        return self._from_file(name, text) if name == "myorigin" and text.startswith("/") else text

    def _is_raw(self, name: str) -> bool:
        parameter = PARAMETERS.get(name)
        return parameter is not None and parameter.type is Type.RAW

    def _run(self, expander: Expander, name: str) -> str:
        try:
            return expander.expand(self.raw(name))
        except ExpansionError as error:
            raise self.error(name, str(error)) from error

    def _from_file(self, name: str, path: str) -> str:
        try:
            return self.host.first_line(path)
        except OSError as error:
            raise self.error(name, f"{path}: {error.strerror}: create it, or write the name") from error

    def _lookup(self, name: str) -> str | None:
        setting = self.settings.get(name)
        if setting is not None:
            parameter = PARAMETERS.get(name)
            if parameter is None or setting.value not in parameter.foreign:
                return setting.value
        return self._default(name)

    def _default(self, name: str) -> str | None:
        if name in COMPUTED:
            return self._compute(name)
        parameter = find_parameter(name)
        return parameter.default if parameter is not None else None

    def _compute(self, name: str) -> str:
        if name in self._computing:
            raise ExpansionError(
                f'unreasonable macro call nesting: "{name}": set it without other parameters'
            )
        self._computing.add(name)
        try:
            return COMPUTED[name](self)
        finally:
            self._computing.discard(name)
