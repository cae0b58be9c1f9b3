"""The texts that indexes are made from. postmap(1), aliases(5)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailserver.tables.source import alias_lines, read_source
from mailserver.tables.words import LogicalLine, logical_lines, split_words, unbrace


def test_map_lines() -> None:
    """Continuation, comments inside, quotes kept, keys folded, the first of two wins."""
    source = read_source('A x\nb\nA y\n"q r"@d z\nc  d\n  e\n# c\n  f\n\n  g\n')
    assert {key: (line.value, line.line) for key, line in source.lines.items()} == {
        "a": ("x", 1),
        '"q r"@d': ("z", 4),
        "c": ("d  e  f  g", 5),
    }
    assert [(item.line, item.key) for item in source.malformed] == [(2, "b")]
    assert source.duplicates == ["a"]


def test_alias_lines() -> None:
    """Names quoted or not, folded; values as they are; what is no alias is named."""
    text = 'Root: alice,\n  bob\nc d\n"foo bar": x\nempty:\nf : "|prog a b", :include:/x\n'
    text += "foo@bar: x\nowner-l: me\n"
    source = read_source(text, alias_lines)
    assert {key: line.value for key, line in source.lines.items()} == {
        "root": "alice,  bob",
        "foo bar": "x",
        "f": '"|prog a b", :include:/x',
        "owner-l": "me",
    }
    assert [(item.line, item.problem, item.key) for item in source.malformed] == [
        (3, "need name:value pair", "c"),
        (5, "need name:value pair", "empty"),
        (7, "name must be local", "foo@bar"),
    ]


def test_logical_lines_count_from_where_they_begin() -> None:
    """Line numbers are those an editor shows."""
    assert list(logical_lines("\n# a\nb\n\n c\nd\n")) == [LogicalLine(3, "b c"), LogicalLine(6, "d")]
    (line,) = logical_lines("a  \n   b    c \n\td\n", keeps_indent=True)
    assert line.text == "a   b    c\td"
    assert list(logical_lines(" a\nb")) == [LogicalLine(1, "a", True), LogicalLine(2, "b")]


def test_words() -> None:
    """Commas, white space, and groups in braces that stay together."""
    assert split_words(" a,, b\tc {d, e {f}} inline:{g=h, {i = j}}\n") == (
        "a",
        "b",
        "c",
        "{d, e {f}}",
        "inline:{g=h, {i = j}}",
    )
    assert unbrace("{ a b }") == "a b"


@given(
    st.lists(st.text(alphabet="abc:/!.*", min_size=1), max_size=8), st.sampled_from([",", " ", ", ", "\t"])
)
def test_words_come_back(words: list[str], separator: str) -> None:
    """Joined and split again."""
    assert split_words(separator.join(words)) == tuple(words)


@given(st.text(max_size=80))
def test_any_text_is_read(text: str) -> None:
    """Nothing in a text makes its reading fail."""
    read_source(text)
    read_source(text, alias_lines)
    split_words(text)


@given(st.dictionaries(st.text(alphabet="abcxyz.@-", min_size=1), st.text(alphabet="abc, |/:", min_size=1)))
def test_what_is_written_is_read(entries: dict[str, str]) -> None:
    """Round trip of plain keys and values."""
    wanted = {key: value.strip() for key, value in entries.items() if value.strip()}
    source = read_source("".join(f"{key}\t{value}\n" for key, value in wanted.items()))
    assert {key: " ".join(line.value.split()) for key, line in source.lines.items()} == {
        key: " ".join(value.split()) for key, value in wanted.items()
    }
