"""What a changed configuration changes, as an operator reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.config.config import Config
from mailserver.config.differences import differences, list_files, pinned
from mailserver.config.read import read_unchecked
from tests.config.hosts import KnownHost

MAIN = "myhostname = mail.example.org\nmynetworks = 127.0.0.0/8\n"
MASTER = "smtp inet n - n - - smtpd\nslow unix - - n - 1 smtp\n    -o smtp_helo_name=a\n"


def config(directory: Path, main: str = MAIN, master: str = MASTER) -> Config:
    (directory / "main.cf").write_text(main)
    (directory / "master.cf").write_text(master)
    return read_unchecked(str(directory), {}, KnownHost())


def lines(directory: Path, main: str = MAIN, master: str = MASTER) -> list[str]:
    before = config(directory)
    found = differences(before, config(directory, main, master))
    return [str(each).replace(f"{directory}/", "") for each in found]


@pytest.mark.parametrize(
    ("added", "wanted"),
    [
        ("", []),
        ("# a comment\nmaximal_queue_lifetime = 5d\n", []),  # the default, written in full
        ("in_flow_delay = 2s\n", []),  # nothing here depends on it
        (
            "maximal_queue_lifetime = 2d\n",
            ["maximal_queue_lifetime: 5d -> 2d (main.cf:3)"],
        ),
        (
            "greylist = permit\nsmtpd_restriction_classes = greylist\n",
            [
                "greylist: (empty) -> permit (main.cf:3)",
                "smtpd_restriction_classes: (empty) -> greylist (main.cf:4)",
            ],
        ),
    ],
)
def test_parameters_as_they_take_effect(tmp_path: Path, added: str, wanted: list[str]) -> None:
    """Expanded, derived ones too; what has no effect is no difference."""
    assert lines(tmp_path, MAIN + added) == wanted


def test_a_derived_value_is_shown(tmp_path: Path) -> None:
    """What is made of a changed one differs, too, and says that it is a default."""
    found = lines(tmp_path, MAIN.replace("mail.", "mx."))
    assert "myhostname: mail.example.org -> mx.example.org (main.cf:1)" in found
    assert "smtpd_banner: mail.example.org ESMTP Postfix -> mx.example.org ESMTP Postfix (default)" in found


def test_rows_of_master(tmp_path: Path) -> None:
    """A row that comes, one that goes, one that is changed, and its settings one by one."""
    master = (
        "smtp inet n - n - 5 smtpd\nslow unix - - n - 1 smtp\n    -o smtp_helo_name=b -o smtp_tcp_port=26\n"
    )
    assert lines(tmp_path, master=master) == [
        "master.cf smtp/inet: n - n - - smtpd -> n - n - 5 smtpd (master.cf:1)",
        "master.cf slow/unix -o smtp_helo_name: a -> b (master.cf:2)",
        "master.cf slow/unix -o smtp_tcp_port: (empty) -> 26 (master.cf:2)",
    ]
    assert lines(tmp_path, master=MASTER.replace("slow", "fast")) == [
        "master.cf slow/unix: - - n - 1 smtp -> (empty) (master.cf)",
        "master.cf fast/unix: (empty) -> - - n - 1 smtp (master.cf:2)",
    ]


def test_files_of_lists_and_what_they_name(tmp_path: Path) -> None:
    """`/file` in a list, and files within it; a table is no file of a list."""
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    outer.write_text(f"127.0.0.1\n{inner}\n")
    found = config(tmp_path, f"{MAIN}mynetworks = !{outer}, hash:/x\n")
    before = list_files(found)
    assert before == {str(inner): None, str(outer): before[str(outer)]}
    inner.write_text("192.0.2.1\n")
    assert list_files(found)[str(inner)] is not None


def test_a_pinned_parameter_stays(tmp_path: Path) -> None:
    """It and what is made of it, dollars and all."""
    found = pinned(config(tmp_path), {"myhostname": "a$b.example"})
    assert found.string("myhostname") == "a$b.example"
    assert found.string("smtp_helo_name") == "a$b.example"
