"""Every type of table behind one interface, changed files, and what is an error rather than a miss."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mailserver.tables.index import LmdbTable, write_index
from mailserver.tables.open import TableOpener, open_table
from mailserver.tables.source import SourceLine, read_source
from mailserver.tables.table import Entry, TableError, version_of


class Now:
    """A clock that says what it is told."""

    def __init__(self) -> None:
        self.time = 2_000_000_000.0

    def __call__(self) -> float:
        return self.time


def put(path: Path, text: str, age: float = 100.0, clock: Now | None = None) -> Path:
    """The file with this text, last changed `age` seconds ago by the clock."""
    path.write_text(text)
    then = (clock.time if clock else time.time()) - age
    os.utime(path, (then, then))
    return path


def index(path: Path) -> None:
    """NAME.lmdb of the text, as postmap makes it."""
    write_index(f"{path}.lmdb", read_source(path.read_text()).lines.values())


def value(name: str, key: str) -> str | None:
    entry = open_table(name).find(key)
    return None if entry is None else entry.value


@pytest.mark.parametrize("kind", ["hash", "btree", "dbm", "texthash", "proxy:hash"])
def test_text_serves_where_there_is_no_index(tmp_path: Path, kind: str) -> None:
    """A .db of another machine need not be read. The source of an entry is its line."""
    path = put(tmp_path / "access", "# who\n10.1.1  OK\nExample.ORG  REJECT no\n")
    table = open_table(f"{kind}:{path}")
    assert table.find("example.org") == Entry("REJECT no", f"{path}:3")
    assert table.find("10.1.1") == Entry("OK", f"{path}:2")
    assert table.find("10.1.2") is None
    assert table.name == f"{kind}:{path}"
    assert [key for key, _ in table.entries()] == ["10.1.1", "example.org"]


def test_index(tmp_path: Path) -> None:
    """lmdb: and hash: read NAME.lmdb, and know the line of each entry."""
    path = put(tmp_path / "m", "b 2\n\na 1 one\n")
    index(path)
    for name in (f"lmdb:{path}", f"hash:{path}"):
        table = open_table(name)
        assert table.find("A") == Entry("1 one", f"{path}:3")
        assert [key for key, _ in table.entries()] == ["a", "b"]
        assert table.find("") is None
        assert table.find("x" * 600) is None


def test_index_without_its_text(tmp_path: Path) -> None:
    """The index alone is enough."""
    path = put(tmp_path / "m", "a 1\n")
    index(path)
    path.unlink()
    assert value(f"hash:{path}", "a") == "1"


def test_files_of_others(tmp_path: Path) -> None:
    """Keys and values with a NUL (Postfix), without (Python): both are read; the source is the file."""
    import lmdb

    for nul in (b"", b"\0"):
        path = tmp_path / f"m{len(nul)}"
        environment = lmdb.open(f"{path}.lmdb", subdir=False, lock=False)
        with environment.begin(write=True) as transaction:
            transaction.put(b"alice" + nul, b"OK" + nul)
        environment.close()
        assert open_table(f"lmdb:{path}").find("alice") == Entry("OK", f"{path}.lmdb")


def test_a_stale_index_gives_way_to_the_text(tmp_path: Path) -> None:
    """hash: reads the newer text, lmdb: its index; both warn, once per change."""
    clock, warnings = Now(), list[str]()
    path = put(tmp_path / "m", "a old\n", 300, clock)
    index(path)
    os.utime(f"{path}.lmdb", (clock.time - 200, clock.time - 200))
    opener = TableOpener(now=clock, warn=warnings.append)
    hashed, indexed = opener.table(f"hash:{path}"), opener.table(f"lmdb:{path}")
    assert hashed.find("a") == Entry("old", f"{path}:1")
    put(path, "a new\n", 100, clock)
    assert [hashed.find("a"), hashed.find("a")] == [Entry("new", f"{path}:1")] * 2
    entry = indexed.find("a")
    assert entry is not None and entry.value == "old"
    assert warnings == [f"database {path}.lmdb is older than source file {path}"] * 2


def test_half_written_texts_wait(tmp_path: Path) -> None:
    """A text that changed within a second may be half written: what was there before serves."""
    clock = Now()
    path = put(tmp_path / "m", "a 1\nb 2\n", 100, clock)
    table = TableOpener(now=clock).table(f"texthash:{path}")
    assert table.find("b") is not None
    put(path, "a 1\n", 0.2, clock)
    assert table.find("b") is not None
    clock.time += 2
    assert table.find("b") is None
    other = put(tmp_path / "new", "b 3\n", 0, clock)
    other.rename(path)
    assert table.find("b") == Entry("3", f"{path}:1")


def test_absent_and_unreadable_is_an_error(tmp_path: Path) -> None:
    """F57: 451, never "not found"."""
    for kind in ("hash", "lmdb", "texthash", "cidr", "regexp", "pcre"):
        with pytest.raises(TableError, match="No such file or directory"):
            open_table(f"{kind}:{tmp_path}/absent").find("a")
    path = put(tmp_path / "m", "a 1\n")
    table = open_table(f"hash:{path}")
    assert table.find("a") is not None
    path.unlink()
    with pytest.raises(TableError):
        table.find("a")
    path.mkdir()
    with pytest.raises(TableError):
        table.find("a")
    (tmp_path / "bad.lmdb").write_bytes(b"x" * 8192)
    with pytest.raises(TableError, match="postmap"):
        open_table(f"lmdb:{tmp_path}/bad").find("a")


def test_a_malformed_line_is_an_error_for_its_key(tmp_path: Path) -> None:
    """F57: nobody can say what it would have said; the other keys are served."""
    path = put(tmp_path / "aliases", "root: alice\nsales bob\n")
    table = TableOpener().aliases(f"hash:{path}")
    assert table.find("root") == Entry("alice", f"{path}:1")
    assert table.find("bob") is None
    with pytest.raises(TableError, match=rf"{path}:2: need name:value pair"):
        table.find("sales")


def test_aliases_from_text_and_index(tmp_path: Path) -> None:
    """alias_maps = hash:/etc/aliases works with and without postalias."""
    path = put(tmp_path / "aliases", '# comment\nPostmaster: root\n"John Doe": jd@x, "|cmd a"\n')
    table = TableOpener().aliases(f"hash:{path}")
    assert table.find("postmaster") == Entry("root", f"{path}:2")
    assert table.find("john doe") == Entry('jd@x, "|cmd a"', f"{path}:3")


def test_inline_static_union_pipe(tmp_path: Path) -> None:
    """The tables that are written in main.cf itself."""
    assert value("inline:{k=v, {m = x y}}", "M") == "x y"
    assert value("inline:{k=v, k=w}", "k") == "v"
    assert value("static:OK", "anything") == "OK"
    assert value("static:{REJECT go away}", "x") == "REJECT go away"
    assert value("unionmap:{inline:{a=1}, static:2, inline:{b=3}}", "a") == "1,2"
    assert value("pipemap:{inline:{a=b}, inline:{b=c}}", "a") == "c"
    assert value("pipemap:{inline:{a=b}, inline:{x=c}}", "a") is None
    assert value("unix:passwd.byname", "root") is not None
    assert value("unix:passwd.byname", "no such user") is None


def test_a_table_that_is_made_to_fail() -> None:
    """`fail:` never says "not found": what asks it defers."""
    table = open_table("fail:trial")
    with pytest.raises(TableError, match="table fail:trial: query error"):
        table.find("anything")
    with pytest.raises(TableError):
        next(iter(table.entries()))


@pytest.mark.parametrize(
    "name",
    [
        "mysql:/x",
        "cdb:/x",
        "inline:a=b",
        "inline:{a}",
        "inline:{}",
        "hash:",
        "unionmap:{}",
        "unix:shadow",
        "static:{a",
    ],
)
def test_unknown_types_and_bad_syntax(name: str) -> None:
    """Said when the table is opened, before any mail."""
    with pytest.raises(TableError):
        open_table(name)


def test_relative_names_lie_in_the_directory(tmp_path: Path) -> None:
    """As the caller says; an absolute name stays."""
    put(tmp_path / "m", "a 1\n")
    assert open_table("hash:m", str(tmp_path)).find("a") is not None


WRITER = """
import sys
from mailserver.tables.index import write_index
from mailserver.tables.source import SourceLine
lines = [SourceLine(f"key{number}", "v", number) for number in range(50)]
for _ in range(100):
    write_index(sys.argv[1], lines)
"""


def test_a_lookup_never_misses_while_the_index_is_made_again(tmp_path: Path) -> None:
    """F56: another process renames the new file over the old one; each lookup finds one or the other."""
    path = str(tmp_path / "m.lmdb")
    write_index(path, [SourceLine("key7", "v", 7)])
    table = LmdbTable("lmdb:m", path, "m")
    asked = 0
    with subprocess.Popen([sys.executable, "-c", WRITER, path]) as writer:
        while writer.poll() is None:
            assert table.find("key7") == Entry("v", "m:7")
            asked += 1
    assert writer.returncode == 0 and asked > 10
    assert sorted(os.listdir(tmp_path)) == ["m.lmdb"]


def test_one_index_under_two_names(tmp_path: Path) -> None:
    """A process may open a file once; two names of it share that."""
    path = put(tmp_path / "m", "a 1\n")
    index(path)
    os.link(f"{path}.lmdb", tmp_path / "n.lmdb")
    assert value(f"lmdb:{path}", "a") == "1"
    assert value(f"lmdb:{tmp_path}/n", "a") == "1"
    index(path)
    assert value(f"lmdb:{path}", "a") == "1"
    assert value(f"lmdb:{tmp_path}/n", "a") == "1"


def test_an_index_is_usable_after_fork(tmp_path: Path) -> None:
    """LMDB forbids an environment across fork(2): the child opens its own."""
    path = put(tmp_path / "m", "a 1\n")
    index(path)
    table = open_table(f"lmdb:{path}")
    assert table.find("a") is not None
    child = os.fork()
    if child == 0:
        found = table.find("a")
        os._exit(0 if found is not None and found.value == "1" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_failed_write_leaves_the_old_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk loses nothing and leaves nothing behind."""
    path = put(tmp_path / "m", "a 1\n")
    index(path)

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_index(f"{path}.lmdb", [SourceLine("a", "2", 1)])
    assert value(f"lmdb:{path}", "a") == "1"
    assert sorted(os.listdir(tmp_path)) == ["m", "m.lmdb"]


def _changed(path: Path, text: str) -> None:
    put(path, text, age=50.0)


@pytest.mark.parametrize("kind", ["hash", "texthash", "regexp", "cidr", "lmdb"])
def test_a_version_changes_with_the_answers(tmp_path: Path, kind: str) -> None:
    """It stays as long as the file does, and is another one when the file is, be it one of several."""
    texts = {"regexp": ("/a/ 1\n", "/a/ 2\n"), "cidr": ("10.0.0.0/8 1\n", "10.0.0.0/8 2\n")}
    before, after = texts.get(kind, ("a 1\n", "a 2\n"))
    path = put(tmp_path / "m", before)
    tables = open_table("static:x"), open_table("inline:{a=b}"), open_table(f"{kind}:{path}")
    if kind == "lmdb":
        index(path)
    version = version_of(tables)
    assert version is not None and version == version_of(tables)
    _changed(path, after)
    if kind == "lmdb":
        index(path)
    assert version_of(tables) != version


def test_a_version_changes_when_an_index_comes_and_grows(tmp_path: Path) -> None:
    """hash: looks at NAME.lmdb from the moment on that it is there, and at each transaction in it."""
    path = put(tmp_path / "m", "a 1\n")
    table = open_table(f"hash:{path}")
    versions = [version_of((table,))]
    index(path)
    versions.append(version_of((table,)))
    program = f"import lmdb; e = lmdb.open({str(path)!r} + '.lmdb', subdir=False, lock=False); "
    program += "t = e.begin(write=True); t.put(b'a' + bytes(1), b'3' + bytes(1)); t.commit()"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert table.find("a") == Entry("3", f"{path}.lmdb")
    versions.append(version_of((table,)))
    assert None not in versions and len(set(versions)) == 3


def test_tables_without_a_version(tmp_path: Path) -> None:
    """One that cannot tell makes the answer None; one that cannot be read raises."""
    assert version_of((open_table("static:x"), open_table("unix:passwd.byname"))) is None
    assert version_of(()) == ()
    with pytest.raises(TableError):
        version_of((open_table(f"texthash:{tmp_path}/none"),))


def test_a_value_at_random() -> None:
    """randmap: each of them comes, for whatever key."""
    table = open_table("randmap:{a, b, {c}}")
    assert {found.value for found in (table.find("x") for _ in range(500)) if found} == {"a", "b", "{c}"}


def test_rules_in_the_place_of_a_file() -> None:
    """`regexp:{{ rule }, { rule }}`, as Postfix 3.7 has it."""
    table = open_table("regexp:{{/a/ OK x}, {if /b/}, {/c/ REJECT}, {endif}}")
    assert [found and found.value for found in map(table.find, ("a", "b", "bc", "c"))] == [
        "OK x", None, "REJECT", None,
    ]  # fmt: skip
    with pytest.raises(TableError, match="bad syntax"):
        open_table("cidr:{10.0.0.0/8 x}")
