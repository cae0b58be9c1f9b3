"""What the pattern tables share: rules in the order of the file, `if … endif`, and `!`.

A rule is a line; the first one that matches gives the result. `if PATTERN` skips the rules up
to its `endif` where the pattern does not match. A rule that cannot be read is an error for
every key that reaches it: what it would have said is unknown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from mailserver.tables.table import Entry, TableError
from mailserver.tables.watch import WatchedFile
from mailserver.tables.words import BraceError, LogicalLine, logical_lines, split_words, unbrace

DEEPEST_IF: Final = 64


class BadRule(ValueError):
    """A rule that cannot be read. The text says why."""


class Pattern(Protocol):
    """The left side of a rule."""

    def result(self, key: object, value: str) -> str | None:
        """The rule's result for this key, or None where it does not match."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line. `after_endif` is set on an `if`: the index of the rule behind its endif."""

    line: int
    pattern: Pattern | None = None
    value: str = ""
    problem: str = ""
    after_endif: int = 0


# A grammar turns a line without `if` into its pattern and result; raises BadRule.
RuleGrammar = Callable[[str], tuple[Pattern, str]]


def read_rules(text: str, grammar: RuleGrammar) -> list[Rule]:
    """The rules of a pattern table, in order; what is wrong stands in `Rule.problem`."""
    rules: list[Rule] = []
    open_ifs: list[int] = []
    for line in logical_lines(text, keeps_indent=True):
        word, _, rest = line.text.partition(" ")
        if word.lower() == "endif":
            _close(rules, open_ifs, line)
        elif word.lower() == "if":
            open_ifs.append(len(rules))
            rules.append(_read(line.number, rest.strip(), grammar, condition=True))
        else:
            rules.append(_read(line.number, line.text, grammar, condition=False))
        if len(open_ifs) > DEEPEST_IF:
            raise TableError(f"line {line.number}: more than {DEEPEST_IF} nested ifs")
    for index in open_ifs:
        rules[index] = Rule(rules[index].line, problem="if without endif", after_endif=len(rules))
    return rules


def _close(rules: list[Rule], open_ifs: list[int], line: LogicalLine) -> None:
    if not open_ifs:
        rules.append(Rule(line.number, problem="endif without if"))
        return
    index = open_ifs.pop()
    condition = rules[index]
    rules[index] = Rule(condition.line, condition.pattern, "", condition.problem, len(rules))


def _read(number: int, text: str, grammar: RuleGrammar, condition: bool) -> Rule:
    try:
        pattern, value = grammar(text)
    except BadRule as error:
        return Rule(number, problem=str(error))
    if condition and value:
        return Rule(number, problem=f"text after the pattern of an if: {value}")
    if not condition and not value:
        return Rule(number, problem="missing result after the pattern")
    return Rule(number, pattern, value)


class RulesInBraces:
    """`{ { rule }, { rule } }` in the place of a file's name: what `WatchedFile` is for a file."""

    def __init__(self, text: str, grammar: RuleGrammar) -> None:
        """Raises BraceError."""
        self._text = text
        self._rules = read_rules("\n".join(unbrace(word) for word in split_words(unbrace(text))), grammar)

    def current(self) -> list[Rule]:
        """The rules."""
        return self._rules

    def version(self) -> object:
        """See `table.version_of`: it never changes."""
        return self._text


def _rules_of(
    name: str, path: str, grammar: RuleGrammar, now: Callable[[], float]
) -> WatchedFile[list[Rule]] | RulesInBraces:
    if not path.startswith("{"):
        return WatchedFile(path, lambda text: read_rules(text, grammar), now)
    try:
        return RulesInBraces(path, grammar)
    except BraceError as error:
        raise TableError(f'bad syntax: "{name}": {error}: write {{{{ pattern result }}}}') from error


class PatternTable:
    """Rules of a file, or in braces in the place of its name, asked with whole keys.

    Subclasses say how a key and a rule are read.
    """

    whole_key = True

    def __init__(
        self, name: str, path: str, grammar: RuleGrammar, now: Callable[[], float] = time.time
    ) -> None:
        self.name = name
        self.path = path
        self._source = _rules_of(name, path, grammar, now)

    def subject(self, key: str) -> object | None:
        """The key as the patterns want it, or None where no pattern can match it."""
        return key

    def find(self, key: str) -> Entry | None:
        """See `Table.find`: the result of the first rule that matches."""
        rules = self._source.current()
        subject = self.subject(key)
        if subject is None:
            return None
        index = 0
        while index < len(rules):
            rule = rules[index]
            if rule.pattern is None:
                raise TableError(f"{self.path}:{rule.line}: {rule.problem}: mend this line of {self.name}")
            result = rule.pattern.result(subject, rule.value)
            if rule.after_endif:
                index = index + 1 if result is not None else rule.after_endif
            elif result is not None:
                return Entry(result, f"{self.path}:{rule.line}")
            else:
                index += 1
        return None

    def version(self) -> object:
        """See `table.version_of`."""
        return self._source.version()

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Patterns are no keys, so a pattern table cannot be listed."""
        raise TableError(f"table {self.name}: sequence operation is not supported")

    def warnings(self) -> list[str]:
        """What is wrong with the rules, one line each."""
        where = f"{self.name.partition(':')[0]} map {self.path}"
        return [
            f"{where}, line {rule.line}: {rule.problem}" for rule in self._source.current() if rule.problem
        ]
