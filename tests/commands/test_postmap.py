"""postmap(1): output, warnings and exit statuses as Postfix 3.7 gives them."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mailserver.commands.postmap import main

TEXT = 'A x\nb\nA y\n"q r" z\nc  d\n  e\n# c\n\n  f\n"x"@y v\n'


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source text in the current directory, and its name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "acc").write_text(TEXT)
    return tmp_path / "acc"


def type_in(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_create(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bad lines and duplicates are warned of, the exit status is 0, the first entry wins."""
    assert main(["hash:acc"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "postmap: warning: acc, line 2: expected format: key whitespace value\n"
        'postmap: warning: acc.lmdb: duplicate entry: "a"\n'
    )
    assert main(["-s", "lmdb:acc"]) == 0
    assert capsys.readouterr().out == '"q r"\tz\n"x"@y\tv\na\tx\nc\td  e  f\n'


def test_query(table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A value and 0, nothing and 1; keys from standard input as key, tab, value."""
    main(["acc"])
    capsys.readouterr()
    assert main(["-q", "A", "hash:acc"]) == 0
    assert capsys.readouterr().out == "x\n"
    assert main(["-q", "nosuch", "hash:acc"]) == 1
    assert capsys.readouterr().out == ""
    type_in(monkeypatch, "A\nzz\nc\n")
    assert main(["-q", "-", "hash:acc"]) == 0
    assert capsys.readouterr().out == "A\tx\nc\td  e  f\n"
    type_in(monkeypatch, "zz\n")
    assert main(["-q", "-", "hash:acc"]) == 1
    assert main(["-q", "k", "inline:{k=v}"]) == 0
    assert capsys.readouterr().out == "v\n"


def test_delete(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 where the key was there, 1 where not."""
    main(["acc"])
    assert main(["-d", "A", "lmdb:acc"]) == 0
    assert main(["-d", "A", "lmdb:acc"]) == 1
    capsys.readouterr()
    assert main(["-s", "lmdb:acc"]) == 0
    assert capsys.readouterr().out == '"q r"\tz\n"x"@y\tv\nc\td  e  f\n'


def test_incremental(
    table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """-i adds and warns of what is there; -r replaces it."""
    main(["acc"])
    capsys.readouterr()
    type_in(monkeypatch, "new 1\nc changed\n")
    assert main(["-i", "lmdb:acc"]) == 0
    assert capsys.readouterr().err == 'postmap: warning: acc.lmdb: duplicate entry: "c"\n'
    main(["-q", "c", "lmdb:acc"])
    assert capsys.readouterr().out == "d  e  f\n"
    type_in(monkeypatch, "c changed\n")
    assert main(["-ir", "lmdb:acc"]) == 0
    main(["-q", "c", "lmdb:acc"])
    main(["-q", "new", "lmdb:acc"])
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("changed\n1\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/absent"], "open /absent: No such file or directory"),
        (["-q", "a", "hash:/absent"], "open database /absent.lmdb: No such file or directory"),
        (["-q", "a", "cidr:/absent"], "open /absent: No such file or directory"),
        (["-q", "a", "foo:acc"], "unsupported dictionary type: foo"),
        (["regexp:acc"], "unsupported dictionary type: regexp does not support bulk-mode creation."),
        (["-s", "static:x"], "table static:x: sequence operation is not supported"),
        (["-Z"], "usage: postmap"),
        ([], "usage: postmap"),
    ],
)
def test_fatal(table: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    """`postmap: fatal: …` and 1."""
    assert main(arguments) == 1
    assert f"postmap: fatal: {message}" in capsys.readouterr().err


def test_options(table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """-f keeps case, -w is quiet, -n writes no NUL, -F stores files, -h and -b take a message."""
    table.write_text("Key v\nKey w\n")
    assert main(["-fw", "lmdb:acc"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["-f", "-q", "Key", "lmdb:acc"]) == 0
    assert main(["-f", "-q", "key", "lmdb:acc"]) == 1
    assert main(["-n", "-w", "lmdb:acc"]) == 0
    assert main(["-q", "KEY", "lmdb:acc"]) == 0
    (table.parent / "one").write_text("1")
    (table.parent / "two").write_text("2")
    table.write_text("k one, two\n")
    assert main(["-F", "lmdb:acc"]) == 0
    capsys.readouterr()
    assert main(["-F", "-q", "k", "lmdb:acc"]) == 0
    assert capsys.readouterr().out == "1\n2\n"
    (table.parent / "checks").write_text("/^subject: a.b/ HIT\n/^body/ BODY\n")
    type_in(monkeypatch, "From: x\nSubject: a\n b\n\nbody\n")
    assert main(["-h", "-q", "-", "regexp:checks"]) == 1
    type_in(monkeypatch, "From: x\nSubject: a\n\tb\n\nbody\n")
    (table.parent / "checks").write_text("/^subject: a..b/ HIT\n/^body/ BODY\n")
    assert main(["-bh", "-q", "-", "regexp:checks"]) == 0
    assert capsys.readouterr().out == "Subject: a\n\tb\tHIT\nbody\tBODY\n"


def test_mode_follows_the_source(table: Path) -> None:
    """A secret text makes a secret index; -p makes it 0644."""
    table.chmod(0o600)
    main(["acc"])
    assert (table.parent / "acc.lmdb").stat().st_mode & 0o777 == 0o600
    main(["-p", "acc"])
    assert (table.parent / "acc.lmdb").stat().st_mode & 0o777 == 0o644


def test_root_writes_as_the_owner_of_the_source(table: Path) -> None:
    """So that the owner of a directory cannot lead root to another file. Others write as themselves."""
    user = os.geteuid()
    owner = user or 65534
    os.chown(table.parent, owner, -1)
    os.chown(table, owner, -1)
    for directory in table.parents if user == 0 else ():
        if str(directory).startswith("/tmp/"):
            directory.chmod(0o755)
    main(["acc"])
    assert (table.parent / "acc.lmdb").stat().st_uid == owner
    assert os.geteuid() == user


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """With an example."""
    assert main(["--help"]) == 0
    assert "examples:\n  postmap hash:" in capsys.readouterr().out


def test_light_start() -> None:
    """No Twisted, no passlib: the command starts at once."""
    code = (
        "import sys\n"
        "from mailserver.commands import postalias, postconf, postmap\n"
        "print(sorted(set(sys.modules) & {'twisted', 'passlib', 'cryptography', 'asyncio', 'ssl'}))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"


def postfix(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def test_postfix_reads_ours_and_we_read_postfix(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same LMDB file serves both, where Debian's postmap is installed; else its bytes are compared."""
    main(["acc"])
    capsys.readouterr()
    program = shutil.which("postmap", path="/usr/sbin")
    if program is None:
        import lmdb

        environment = lmdb.open("acc.lmdb", subdir=False, readonly=True, lock=False)
        with environment.begin() as transaction:
            assert transaction.get(b"a\0") == b"x\x001"
        return
    (table.parent / "main.cf").write_text("compatibility_level = 3.6\n")
    here = str(table.parent)
    assert postfix(program, "-c", here, "-q", "a", "lmdb:acc").stdout == "x\n"
    assert postfix(program, "-c", here, "-s", "lmdb:acc").stdout == '"q r"\tz\n"x"@y\tv\na\tx\nc\td  e  f\n'
    (table.parent / "theirs").write_text("Alice OK then\n")
    postfix(program, "-c", here, "lmdb:theirs")
    assert main(["-q", "alice", "lmdb:theirs"]) == 0
    assert capsys.readouterr().out == "OK then\n"


def test_files_that_are_missing(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """-F: an entry whose file cannot be read is warned of and left out; the rest is there."""
    table.write_text("a /nonexistent\nb acc\n")
    assert main(["-F", "lmdb:acc"]) == 0
    warning = "acc, line 1: open /nonexistent: No such file or directory: skipping this entry"
    assert capsys.readouterr().err == f"postmap: warning: {warning}\n"
    assert main(["-F", "-q", "a", "lmdb:acc"]) == 1 and main(["-F", "-q", "b", "lmdb:acc"]) == 0


def test_options_for_messages_alone(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """-b, -h and -m make keys of a message on standard input."""
    for options in (["-h"], ["-b", "-q", "a"], ["-m", "-s"]):
        assert main([*options, "acc"]) == 1
        assert capsys.readouterr().err == 'postmap: fatal: specify -b -h or -m only with "-q -"\n'


def test_a_reader_that_has_seen_enough(table: Path) -> None:
    """`postmap -s | head -1`, `postconf | true`: no error and no traceback."""
    table.write_text("".join(f"key{number} value\n" for number in range(20_000)))
    assert main(["lmdb:acc"]) == 0
    for words in (["postmap", "-s", "lmdb:acc"], ["postconf", "-d"]):
        program = [sys.executable, "-m", f"mailserver.commands.{words[0]}", *words[1:]]
        command = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert command.stdout is not None and command.stderr is not None
        command.stdout.close()
        assert command.stderr.read() == b"" and command.wait(60) == 0
        command.stderr.close()
