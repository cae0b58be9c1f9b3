"""postconf -e and its like change what they were asked to, and nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailserver.config import edit
from mailserver.config.syntax import ConfigError, parse_main

TEXT = "# head\na = 1\n  continued\n# inside\n  more\n\n# b says\nb = 2\na = again\n"


def test_set() -> None:
    """In its first place, a second one removed, comments kept; new names at the end."""
    assert edit.set_values(TEXT, {"a": "x y", "c": ""}) == (
        "# head\na = x y\n# inside\n\n# b says\nb = 2\nc =\n"
    )


def test_remove_and_comment_out() -> None:
    """With the continuation lines."""
    assert edit.remove(TEXT, frozenset({"a"})) == "# head\n# inside\n\n# b says\nb = 2\n"
    assert edit.comment_out(TEXT, frozenset({"a"})) == (
        "# head\n#a = 1\n#  continued\n# inside\n#  more\n\n# b says\nb = 2\n#a = again\n"
    )


@given(st.text(alphabet="ab =#\n\t1", max_size=60))
def test_an_edit_of_nothing_changes_nothing(text: str) -> None:
    """Whatever the file looks like."""
    text = text.rstrip("\n") + "\n" if text.strip("\n") else ""
    assert edit.remove(text, frozenset()) == text
    assert edit.set_values(text, {}) == text


@given(st.text(alphabet="ab =#\n\t1", max_size=60), st.sampled_from(["a", "b", "zz"]))
def test_what_was_set_is_read(text: str, name: str) -> None:
    """After an edit the name has the value, and the others theirs."""
    try:
        before, _ = parse_main(text, "x")
    except ConfigError:
        return
    after, _ = parse_main(edit.set_values(text, {name: "new"}), "x")
    wanted = {setting.name: setting.value for setting in before} | {name: "new"}
    assert {setting.name: setting.value for setting in after} == wanted


def test_rows() -> None:
    """master.cf: set in place, commented out, removed."""
    text = "# head\nsmtp inet n - n - - smtpd\n  -o a=b\nrelay unix - - n - - smtp\n"
    new = "smtp inet n - n - 5 smtpd"
    assert edit.set_row(text, "smtp", "inet", new) == f"# head\n{new}\nrelay unix - - n - - smtp\n"
    assert edit.set_row(text, "imap", "inet", new).endswith(f"smtp\n{new}\n")
    assert edit.comment_out_rows(text, lambda key: key == "smtp/inet").startswith("# head\n#smtp inet")
    assert edit.remove_rows(text, lambda key: key == "smtp/inet") == "# head\nrelay unix - - n - - smtp\n"
