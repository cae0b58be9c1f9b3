"""Every regular expression of the program takes time in proportion to its input: RELIABILITY B18.

Two looks at each: its shape (under a repetition each character can be matched in one way only, so nested
quantifiers and alternatives that begin alike are out unless something tells them apart), and its cost
for long hostile subjects, processor time for one length and for twice as much.
"""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import pytest

import mailserver

ROOT = Path(mailserver.__file__).parent
FUNCTIONS = {"compile", "match", "fullmatch", "search", "sub", "subn", "split", "findall", "finditer"}
MANY = 16  # a repetition that may go on longer than that counts as without bound
CATEGORIES = {
    sre.CATEGORY_DIGIT: r"\d",
    sre.CATEGORY_NOT_DIGIT: r"\D",
    sre.CATEGORY_SPACE: r"\s",
    sre.CATEGORY_NOT_SPACE: r"\S",
    sre.CATEGORY_WORD: r"\w",
    sre.CATEGORY_NOT_WORD: r"\W",
}
REPEATS = (sre.MAX_REPEAT, sre.MIN_REPEAT)
EVERYTHING = frozenset(range(256))

Expression = tuple[str, str | bytes, int]


def text_of(node: ast.expr, names: dict[str, Any]) -> str | bytes | None:
    """The value of a constant, of constants put together, or of a name that stands for one."""
    match node:
        case ast.Constant(value=str() | bytes() as value):
            return value
        case ast.Name(id=name):
            return names.get(name)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            one, other = text_of(left, names), text_of(right, names)
            return None if one is None or other is None else one + other  # type: ignore[operator]
    return None


def expressions() -> Iterator[Expression]:
    """Place, source and flags of every expression that stands in the program's text or in its modules."""
    import importlib

    found: dict[tuple[str | bytes, int], str] = {}
    for path in sorted(ROOT.rglob("*.py")):
        source = path.read_text()
        if "re." not in source:
            continue
        place = str(path.relative_to(ROOT.parent))
        module = importlib.import_module(
            ".".join(Path(place).with_suffix("").parts).removesuffix(".__init__")
        )
        for value in vars(module).values():
            if isinstance(value, re.Pattern):
                found.setdefault((value.pattern, value.flags), place)
        for node in ast.walk(ast.parse(source)):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="re"), attr=name), args=[first, *_]) if (
                    name in FUNCTIONS and (text := text_of(first, vars(module))) is not None
                ):
                    if not any(text == known for known, _ in found):
                        found[text, 0] = f"{place}:{node.lineno}"
    for (text, flags), place in found.items():
        yield place, text, flags & ~re.UNICODE if isinstance(text, bytes) else flags


EXPRESSIONS = list(expressions())
NAMES = [f"{place}-{number}" for number, (place, _, _) in enumerate(EXPRESSIONS)]


def members(items: Any) -> frozenset[int]:
    """The characters that a class takes, those beyond Latin-1 left out of what is negated."""
    taken: set[int] = set()
    negated = False
    for kind, value in items:
        if kind is sre.NEGATE:
            negated = True
        elif kind is sre.LITERAL:
            taken.add(value)
        elif kind is sre.RANGE:
            taken.update(range(value[0], min(value[1], 255) + 1))
        else:
            taken.update(octet for octet in range(256) if re.match(CATEGORIES[value], chr(octet)))
    return EVERYTHING - taken if negated else frozenset(taken)


class Positions:
    """Which character of an expression may stand behind which: the automaton of Glushkov.

    Where a character can be followed by two that take the same, a matching can be had in two ways; under a
    repetition that makes as many ways as there are turns, raised to a power or worse. What is kept for good
    (`(?>...)`, `*+`) goes on within itself as long as it can, so it does not compete with what follows.
    """

    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.takes: list[frozenset[int]] = []
        self.follow: list[list[frozenset[int]]] = []
        self.hidden: list[frozenset[int]] = []  # what later followers cannot take
        self.inner: list[str] = []

    def single(self, kind: Any, value: Any) -> frozenset[int]:
        """What a node of one character takes."""
        if kind is sre.LITERAL:
            taken = frozenset({value})
        elif kind is sre.NOT_LITERAL:
            taken = EVERYTHING - {value}
        elif kind is sre.IN:
            taken = members(value)
        else:  # any character, or a group's text again
            is_all = kind is not sre.ANY or self.flags & re.DOTALL
            taken = EVERYTHING if is_all else EVERYTHING - {10}
        if self.flags & re.IGNORECASE:
            taken |= {ord(letter) for one in taken if one < 128 for letter in chr(one).swapcase()}
        return taken

    def link(self, last: set[int], first: set[int]) -> None:
        """The first ones may come behind the last ones."""
        for before in last:
            hidden = self.hidden[before]
            self.follow[before] += [self.takes[after] - hidden for after in sorted(first)]

    def walk(self, nodes: Any) -> tuple[bool, set[int], set[int]]:
        """Whether the nodes match nothing too, and where a match of them begins and ends."""
        empty, first, last = True, set[int](), set[int]()
        for kind, value in nodes:
            node_empty, node_first, node_last = self.node(kind, value)
            self.link(last, node_first)
            if kind in (sre.ATOMIC_GROUP, sre.POSSESSIVE_REPEAT):
                for before in last:
                    self.hidden[before] |= frozenset().union(*(self.takes[each] for each in node_first))
            first |= node_first if empty else set()
            last = node_last | (last if node_empty else set())
            empty = empty and node_empty
        return empty, first, last

    def node(self, kind: Any, value: Any) -> tuple[bool, set[int], set[int]]:
        """As `walk`, for one node."""
        if kind in (sre.AT, sre.ASSERT, sre.ASSERT_NOT):
            return True, set(), set()
        if kind is sre.SUBPATTERN:
            return self.walk(value[3])
        if kind is sre.ATOMIC_GROUP:
            return self.atom(value)
        if kind is sre.BRANCH:
            found = [self.walk(branch) for branch in value[1]]
            empty = any(each[0] for each in found)
            return empty, set().union(*(each[1] for each in found)), set().union(*(each[2] for each in found))
        if kind in (*REPEATS, sre.POSSESSIVE_REPEAT):
            least, most, body = value
            empty, first, last = self.walk(body)
            if most > 1 and least != most:
                self.link(last, first)
            whole = (empty or least == 0, first, last)
            return self.kept(whole) if kind is sre.POSSESSIVE_REPEAT else whole
        position = self.add(self.single(kind, value))
        return False, {position}, {position}

    def atom(self, nodes: Any) -> tuple[bool, set[int], set[int]]:
        """Nobody looks for a second way through it: it stands as one character; `faults` sees the inside."""
        inside = Positions(self.flags)
        empty, first, _ = inside.walk(nodes)
        position = self.add(frozenset().union(*(inside.takes[each] for each in first)))
        self.inner += faults(nodes, self.flags)
        return empty, {position}, {position}

    def add(self, taken: frozenset[int]) -> int:
        """A new position."""
        self.takes.append(taken)
        self.follow.append([])
        self.hidden.append(frozenset())
        return len(self.takes) - 1

    def kept(self, whole: tuple[bool, set[int], set[int]]) -> tuple[bool, set[int], set[int]]:
        """What goes on within is not left for what comes behind."""
        for position in whole[2]:
            self.hidden[position] |= frozenset().union(*self.follow[position])
        return whole

    def ambiguities(self) -> Iterator[str]:
        """The positions behind which two others take the same character."""
        yield from self.inner
        for position, followers in enumerate(self.follow):
            seen: frozenset[int] = frozenset()
            for taken in followers:
                if taken & seen:
                    yield f"behind character {position} {chr(min(taken & seen))!r} fits twice"
                seen |= taken


def faults(nodes: Any, flags: int) -> Iterator[str]:
    """What is ambiguous in the outermost repetitions without bound, and in alternatives within them."""
    for kind, value in nodes:
        if kind in (*REPEATS, sre.POSSESSIVE_REPEAT) and value[1] > MANY:
            positions = Positions(flags)
            _, first, _ = positions.node(kind, value)
            yield from positions.ambiguities()
            start = [positions.takes[each] for each in sorted(first)]
            if sum(map(len, start)) > len(frozenset().union(*start)):
                yield "the repetition can begin in two ways"
        elif kind in (*REPEATS, sre.POSSESSIVE_REPEAT):
            yield from faults(value[2], flags)
        elif kind is sre.SUBPATTERN:
            yield from faults(value[3], flags)
        elif kind is sre.BRANCH:
            for branch in value[1]:
                yield from faults(branch, flags)
        elif kind is sre.ATOMIC_GROUP:
            yield from faults(value, flags)
        elif kind in (sre.ASSERT, sre.ASSERT_NOT):
            yield from faults(value[1], flags)


@pytest.mark.parametrize(("place", "text", "flags"), EXPRESSIONS, ids=NAMES)
def test_its_shape(place: str, text: str | bytes, flags: int) -> None:
    """No nested quantifier, and no ambiguous alternatives under one."""
    parsed = parser.parse(text, flags)
    assert not list(faults(parsed, flags)), f"{place}: {text!r}"


PIECES = ("a", "1", " ", "\t", "\\", '"', "(", "<", ",", "\n", "a ", "a=", "${", "a: ", "\n ", "=?", "a.")


def subjects(length: int) -> Iterator[str]:
    """Hostile subjects of that many characters: one piece over and over, and something that fits nowhere."""
    for piece in PIECES:
        repeated = (piece * length)[: length - 1]
        for head in ("", '"', "a"):
            yield head + repeated + "\x00"


def cost(work: Callable[[], object]) -> float:
    """Processor seconds of this thread, the least of three."""
    least = float("inf")
    for _ in range(3):
        start = time.thread_time()
        work()
        least = min(least, time.thread_time() - start)
        if least < 0.002:
            break
    return least


@pytest.mark.parametrize(("place", "text", "flags"), EXPRESSIONS, ids=NAMES)
def test_its_cost(place: str, text: str | bytes, flags: int) -> None:
    """Twice the subject costs no more than a matching of twice the length: never four times as much."""
    pattern: Any = re.compile(text, flags)
    for short, long in zip(subjects(5_000), subjects(10_000), strict=True):
        one: Any = short.encode("latin-1") if isinstance(text, bytes) else short
        two: Any = long.encode("latin-1") if isinstance(text, bytes) else long
        spent = cost(lambda two=two: pattern.match(two))  # type: ignore[misc]
        if spent < 0.002:
            continue  # 10 kB in 2 ms: nothing grows there
        before = cost(lambda one=one: pattern.match(one))  # type: ignore[misc]
        assert spent < 3.2 * before, f"{place}: {text!r} on {long[:20]!r}: {before:.4f} s, {spent:.4f} s"


@pytest.mark.parametrize(
    "text",
    [r"(a+)+$", r"(?:a|ab|b)*c", r"(?:\s*\w*)*;", r"([^,]*,?)*$", r"(b|bc|a)*$", r"(?:(?>(?:a+)+b)c)*"],
)
def test_the_lint_sees(text: str) -> None:
    """What is known to be slow is found."""
    assert list(faults(parser.parse(text), 0))


@pytest.mark.parametrize(
    "text", [r"(?:a[^b]*b)*", r"(?:[^,]*,)*x", r"(?:a++)*+x", r"(?:\\.|[^\\])*", r"(?:ab?)*"]
)
def test_the_lint_lets_pass(text: str) -> None:
    """What is linear is not reported."""
    assert not list(faults(parser.parse(text), 0))
