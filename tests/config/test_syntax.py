"""main.cf's grammar and expansion, as postconf(5) has them and Postfix 3.7 was seen to read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.config.syntax import (
    ConfigError,
    Expander,
    ExpansionError,
    compare,
    parse_main,
    referenced_names,
)

NAMES = {
    "myhostname": "h.example.org",
    "empty": "",
    "level": "3.6",
    "nested": "<$myhostname>",
    "me": "x $me",
    "ping": "$pong",
    "pong": "$ping",
}


def expand(text: str) -> str:
    return Expander(NAMES.get).expand(text)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$myhostname", "h.example.org"),
        ("${myhostname}", "h.example.org"),
        ("$(myhostname)", "h.example.org"),
        ("${ myhostname }", "h.example.org"),
        ("$myhostname.foo $myhostname-x", "h.example.org.foo h.example.org-x"),
        ("$nested", "<h.example.org>"),
        ("${myhostname?yes}", "yes"),
        ("${myhostname?yes:no}", "yes:no"),
        ("${nope?yes}", ""),
        ("${nope:dflt}", "dflt"),
        ("${empty:isempty}", "isempty"),
        ("${nope: {x} }", "x"),
        ("${myhostname?{set}:{unset}}", "set"),
        ("${nope?{set}:{unset}}", "unset"),
        ("${nope?{set}:unset x}", "unset x"),
        ("${myhostname ? {y} : {n}}", "y"),
        ("$(myhostname?{y}:{n})", "y"),
        ("${myhostname?{a {b} c}:{d}}", "a {b} c"),
        ("${{$myhostname} == {h.example.org} ? {eq} : {ne}}", "eq"),
        ("${{$myhostname} != {h.example.org} ? {ne} : {eq}}", "eq"),
        ("${{3} < {10} ? {lt} : {ge}}", "lt"),
        ("${{3} >= {10} ? {ge} : {lt}}", "lt"),
        ("${{10} < {9a} ? {lt} : {ge}}", "lt"),
        ("${{3} < {10}}", "true"),
        ("${{3} > {10}}", ""),
        ("${{a}=={a}?{x}:{y}}", "x"),
        ("${{a} == {b}?x:y}", ""),
        ("${{$level} >=level {3.6} ? {new} : {old}}", "new"),
        ("${{3.10} >level {3.9} ? {new} : {old}}", "new"),
        ("${{a} == {a} ? {y}}z", "yz"),
        ("${nope:a}b}", "ab}"),
        ("a$$b", "a$b"),
        ("$nope/x", "/x"),
    ],
)
def test_expansion(text: str, result: str) -> None:
    """Every form of `$`, with the result that Postfix gives. postconf(5)."""
    assert expand(text) == result


@pytest.mark.parametrize(
    "text",
    [
        "a $ b",
        "$",
        "${myhostname",
        "${myhostname?{a}x",
        "${my host}",
        "${}",
        "${{a} ~ {b} ? {c}}",
        "${{a} == b ? {c}}",
        "${myhostname:{x}:{y}}",
        "${{x} <level {3.6} ? {a}}",
    ],
)
def test_malformed_expansion_is_an_error(text: str) -> None:
    """A `$` that means nothing is never passed on as text."""
    with pytest.raises(ExpansionError):
        expand(text)


@pytest.mark.parametrize("text", ["$me", "$ping", "${me?{$me}:{}}"])
def test_self_reference_ends(text: str) -> None:
    """A parameter that refers to itself is fatal, soon."""
    with pytest.raises(ExpansionError, match="unreasonable macro call nesting"):
        expand(text)


def test_undefined_names_are_remembered() -> None:
    """An undefined name expands to nothing, and can be warned of."""
    expander = Expander(NAMES.get)
    assert expander.expand("$nope ${other:x} $myhostname") == " x h.example.org"
    assert expander.undefined == {"nope", "other"}


@given(st.text(alphabet="${}()?:= <level abn1", max_size=40))
def test_any_text_expands_or_is_refused(text: str) -> None:
    """No text makes the expander fail in another way."""
    try:
        expand(text)
    except ExpansionError:
        pass


@given(st.text(alphabet=st.characters(exclude_characters="$"), max_size=40))
def test_text_without_a_dollar_stays(text: str) -> None:
    """Nothing but `$` is special, quotes and # least of all."""
    assert expand(text) == text


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_numbers_compare_as_numbers(one: int, other: int) -> None:
    """9 is less than 10."""
    assert compare(str(one), "<", str(other)) == (one < other)


def test_logical_lines() -> None:
    """Comments and empty lines do not end a continued value; pieces are joined by one space."""
    text = 'a = one\n  two\n# in the middle\n\n\tthree   \n#b = c\n b2 = "x"\nc=d # e\nempty =\n'
    settings, warnings = parse_main(text, "/etc/main.cf")
    assert [(setting.name, setting.value, setting.where) for setting in settings] == [
        ("a", 'one two three b2 = "x"', "/etc/main.cf:1"),
        ("c", "d # e", "/etc/main.cf:8"),
        ("empty", "", "/etc/main.cf:9"),
    ]
    assert warnings == []


def test_duplicates_warn_and_the_last_wins() -> None:
    """Both lines are named."""
    settings, warnings = parse_main("a = 1\nb = 2\na = 3\n", "main.cf")
    assert {setting.name: setting.value for setting in settings} == {"a": "3", "b": "2"}
    assert warnings == ["main.cf:3: overriding earlier entry: a of main.cf:1: remove one"]


def test_a_first_line_with_white_space_is_ignored() -> None:
    """It continues nothing: a warning, as Postfix gives."""
    settings, warnings = parse_main("  a = 1\nb = 2\n", "main.cf")
    assert [setting.name for setting in settings] == ["b"]
    assert warnings == ['main.cf:1: logical line must not start with whitespace: "a = 1"']


@pytest.mark.parametrize("line", ["nonsense", "a b = c", "= c"])
def test_a_line_that_is_no_setting_is_fatal(line: str) -> None:
    """The error names file and line."""
    with pytest.raises(ConfigError, match=r"^main\.cf:2: missing"):
        parse_main(f"x = 1\n{line}\n", "main.cf")


def test_referenced_names() -> None:
    """What a value mentions, whatever the form."""
    assert referenced_names("$a ${b} $(c) ${d?{$e}} $$f ${{$g} == {h}}") == {"a", "b", "c", "d", "e", "g"}
