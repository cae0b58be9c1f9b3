"""sendmail(1): options, exit statuses, and what lands in the drop directory."""

from __future__ import annotations

import ast
import io
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.commands import light_config, sendmail
from mailserver.config.config import Config
from mailserver.config.syntax import parse_main
from mailserver.queue import drop_file

ME = pwd.getpwuid(os.getuid()).pw_name
NO_RECIPIENT = "Recipient addresses must be specified on the command line or via the -t option"
Fields = list[tuple[bytes, bytes]]
Run = Callable[..., int]


class Home:
    """A configuration with a drop directory."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.maildrop = base / "queue" / "maildrop"
        self.maildrop.mkdir(parents=True)
        (base / "main.cf").write_text("queue_directory = $config_directory/queue\n")
        (base / "master.cf").write_text("")

    def configure(self, text: str) -> None:
        with (self.base / "main.cf").open("a") as file:
            file.write(text + "\n")

    def taken(self) -> tuple[Fields, bytes]:
        """Fields and content of the one file that was dropped; it is gone then."""
        (path,) = self.maildrop.iterdir()
        data = path.read_bytes()
        path.unlink()
        line, _, rest = data.partition(b"\n")
        octets, _, _ = drop_file.decode_first_line(line + b"\n")
        return drop_file.decode_envelope(rest[:octets]), rest[octets:]

    def recipients(self) -> list[bytes]:
        return [value for name, value in self.taken()[0] if name == b"recipient"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("MAIL_CONFIG", str(tmp_path))
    monkeypatch.delenv("NAME", raising=False)
    return Home(tmp_path)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(*arguments: str, text: bytes = b"Subject: hi\n\nhello\n") -> int:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        return sendmail.main(list(arguments))

    return run


# The command lines of CLIENTS.md: sender ("" for who calls), whether the header counts, recipients, caller.
CALLS = [
    ("-i -t", "", True, "", "bsd-mailx"),
    ("-i -t -f x@y", "x@y", True, "", "bsd-mailx with a sender"),
    ("-i -- a@b c@d", "", False, "a@b c@d", "s-nail"),
    ("-i -f x@y -v -- a@b", "x@y", False, "a@b", "s-nail with a sender"),
    ("-oem -oi -- a@b", "", False, "a@b", "mutt"),
    ("-N failure,delay -R hdrs -B8BITMIME -- a@b", "", False, "a@b", "mutt with notices"),
    ("-FCronDaemon -i -B8BITMIME -oem alice", "", False, "alice", "cron"),
    ("-t -i -fx@y", "x@y", True, "", "php"),
    ("-f x@y -i a@b", "x@y", False, "a@b", "git send-email"),
    ("alice", "", False, "alice", "at"),
    ("-oi -f x@y -odb -oem -t", "x@y", True, "", "emacs"),
    ("-U -Am -om -m -n -L tag -O x=y -h 5 -X log -G a", "", False, "a", "what is ignored"),
    ("-r x@y -F Full -V id1 -bm a", "x@y", False, "a", "values in the next word"),
    ("-ti a", "", True, "a", "letters together"),
    ("a -f x@y -t", "", False, "a -f x@y -t", "options behind an operand"),
]


@pytest.mark.parametrize("call", CALLS, ids=[call[-1] for call in CALLS])
def test_command_lines(home: Home, run: Run, call: tuple[str, str, bool, str, str]) -> None:
    """Each is taken, with status 0, and means what it means to Postfix's sendmail."""
    words, sender, extracts, recipients, _ = call
    assert run(*words.split(), text=b"To: t@x\n\nhello\n") == 0
    fields, content = home.taken()
    assert content == b"To: t@x\n\nhello\n"
    assert [value.decode() for name, value in fields if name == b"recipient"] == recipients.split()
    assert dict(fields)[b"sender"].decode() == (sender or ME)
    assert ((b"extract", b"yes") in fields) is extracts


def test_notices(home: Home, run: Run) -> None:
    """DSN options, and the full name."""
    assert run("-N", "success, failure", "-R", "full", "-V", "e1", "-B", "7bit", "-F", "A B", "a") == 0
    fields = dict(home.taken()[0])
    assert fields[b"notify"] == b"SUCCESS,FAILURE" and fields[b"ret"] == b"FULL"
    assert fields[b"envid"] == b"e1" and fields[b"body"] == b"7BIT" and fields[b"full_name"] == b"A B"


def test_bad_notices_are_warned_about(home: Home, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """As Postfix: the message goes all the same."""
    assert run("-N", "sometimes", "-R", "half", "-V", "x" * 101, "a") == 0
    assert set(dict(home.taken()[0])) <= {b"sender", b"full_name", b"recipient"}
    assert capsys.readouterr().err.count("warning: bad -") == 3


def test_the_sender_is_who_calls(home: Home, run: Run) -> None:
    """Without -f; -f '' is the null sender."""
    assert run("a") == 0
    assert dict(home.taken()[0])[b"sender"] == ME.encode()
    assert run("-f", "", "a") == 0
    assert dict(home.taken()[0])[b"sender"] == b""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], NO_RECIPIENT),
        (["-i", "-f", "x@y"], NO_RECIPIENT),
        (["-Z"], "invalid option"),
        (["-f"], "needs a value"),
        (["-bx", "a"], "unsupported: -bx"),
        (["-qZ"], "not implemented"),
        (["-B", "9BIT", "a"], "-B option needs"),
        (["-t"], "No recipient addresses found in message header"),
        (["-C", "/nonexistent", "a"], "open /nonexistent/main.cf"),
    ],
)
def test_every_failure_is_75(
    home: Home, run: Run, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    """ECOSYSTEM §7: 75 for every failure of its own, and a line that says why."""
    assert run(*arguments) == 75
    error = capsys.readouterr().err
    assert error.startswith("sendmail: fatal: ") and text in error and error.count("\n") == 1
    assert list(home.maildrop.iterdir()) == []


def test_no_directory_to_drop_into(home: Home, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """The server was never started."""
    home.maildrop.rmdir()
    assert run("a") == 75
    assert f"create file {home.maildrop}: No such file or directory" in capsys.readouterr().err


def test_too_big(home: Home, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """message_size_limit is known before anything is written."""
    home.configure("message_size_limit = 1000")
    assert run("a", text=b"x" * 1001) == 75
    assert "too big" in capsys.readouterr().err and list(home.maildrop.iterdir()) == []


def test_who_may_not_submit(home: Home, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """authorized_submit_users is said at once, where the caller is not root."""
    home.configure("authorized_submit_users = !" + pwd.getpwuid(65534).pw_name + ", static:all")
    monkeypatch.setattr(os, "getuid", lambda: 65534)
    assert run("a") == 75
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert run("a") == 0


@pytest.mark.parametrize(
    ("options", "text", "content"),
    [
        (["-i"], b"a\n.\nb\n", b"a\n.\nb\n"),
        (["-oi"], b"a\n.\nb", b"a\n.\nb"),
        ([], b"a\n.\nb\n", b"a\n"),
        ([], b"a\r\n.\r\nb\r\n", b"a\n"),
        ([], b".\n", b""),
        ([], b"a.\n..\n .\n", b"a.\n..\n .\n"),
        (["-i"], b"a\r\nb\rc\r\n", b"a\nb\rc\n"),
        (["-i"], b"From x Tue Nov\nSubject: y\n\n", b"Subject: y\n\n"),
    ],
)
def test_how_a_message_ends(home: Home, run: Run, options: list[str], text: bytes, content: bytes) -> None:
    """A lone dot ends it unless -i; CRLF becomes LF; a line of a mailbox file is left out."""
    assert run(*options, "a", text=text) == 0
    assert home.taken()[1] == content


def test_a_line_longer_than_a_read_is_no_dot(home: Home, run: Run) -> None:
    """The dot must begin a line."""
    text = b"x" * (1 << 16) + b".\nmore\n"
    assert run("a", text=text) == 0
    assert home.taken()[1] == text


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"To: a@b\n", True),
        (b"to :x\n", True),
        (b"Subject: x\nBCC:\n\ta\n", True),
        (b"Resent-Cc: a\n", True),
        (b"To: undisclosed-recipients:;\n", False),
        (b"To: \nCc:,\n", False),
        (b"Subject: To: a\n\nTo: a\n", False),
    ],
)
def test_whether_the_header_names_somebody(header: bytes, expected: bool) -> None:
    """The cheap look at -t; the server reads addresses exactly."""
    assert sendmail.names_recipients(header + b"\nbody\n") is expected


def test_smtp_on_stdin(home: Home, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """-bs, as alpine uses it. Dots are unstuffed."""
    dialogue = (
        b"EHLO x\r\nRCPT TO:<a@b>\r\nMAIL FROM:<s@t> BODY=8BITMIME\r\nRCPT TO:<a@b>\r\nRCPT TO:<c>\r\n"
        b"DATA\r\nSubject: x\r\n\r\n..dot\r\n.\r\nNONSENSE\r\nRSET\r\nDATA\r\nQUIT\r\n"
    )
    home.configure("myhostname = mail.example.org")
    assert run("-bs", "-odb", "-oem", text=dialogue) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "220 mail.example.org ESMTP Postfix"
    codes = [line[:3] for line in lines if line[3] != "-"]
    assert codes == ["220", "250", "503", "250", "250", "250", "354", "250", "502", "250", "503", "221"]
    fields, content = home.taken()
    assert fields == [
        (b"sender", b"s@t"),
        (b"recipient", b"a@b"),
        (b"recipient", b"c"),
        (b"body", b"8BITMIME"),
    ]
    assert content == b"Subject: x\n\n.dot\n"


def test_smtp_on_stdin_cut_off(home: Home, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """A message without its dot is not sent."""
    assert run("-bs", text=b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nSubject: x\r\n") == 0
    assert "451 4.3.0" in capsys.readouterr().out and list(home.maildrop.iterdir()) == []


def test_hostile_environment_gains_nothing(home: Home) -> None:
    """B13: the command has no rights of its own, so -C, -oA and the environment only hurt the caller."""
    assert not os.stat(sendmail.__file__).st_mode & 0o6000


def test_other_names(home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As newaliases it indexes the aliases, as mailq it lists the queue."""
    (home.base / "aliases").write_text("a: b\n")
    home.configure("alias_database = hash:$config_directory/aliases")
    monkeypatch.setattr(sys, "argv", ["/usr/bin/newaliases"])
    assert sendmail.main() == 0 and (home.base / "aliases.lmdb").exists()
    for state in ("incoming", "deferred", "hold"):
        (home.base / "queue" / state).mkdir()
    monkeypatch.setattr(sys, "argv", ["/usr/bin/mailq"])
    assert sendmail.main() == 0
    assert "Mail queue is empty" in capsys.readouterr().out
    for name, mode in (("mailq", "display queue"), ("newaliases", "alias initialization")):
        monkeypatch.setattr(sys, "argv", [f"/usr/bin/{name}", "x"])
        assert sendmail.main() == 75
        assert capsys.readouterr().err == f"{name}: fatal: {mode} mode requires no recipient\n"
        monkeypatch.setattr(sys, "argv", [f"/usr/bin/{name}", "--help"])
        assert sendmail.main() == 0 and "example" in capsys.readouterr().out


def test_where_mail_would_go(home: Home, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """-bv and -v: a report will be mailed; -bv reads no message."""
    assert run("-bv", "-f", "me", "alice", "x@far.test", text=b"unread") == 0
    assert capsys.readouterr().out == "Mail Delivery Status Report will be mailed to <me>.\n"
    fields, content = home.taken()
    assert (b"trace", b"verify") in fields
    assert [value for name, value in fields if name == b"recipient"] == [b"alice", b"x@far.test"]
    assert content == b"From: me\nSubject: probe\nTo: alice, x@far.test\n"
    assert run("-v", "-f", "<>", "alice", text=b"read\n") == 0
    assert capsys.readouterr().out == "Mail Delivery Status Report will be mailed to <>.\n"
    fields, content = home.taken()
    assert (b"trace", b"record") in fields and (b"sender", b"") in fields and content == b"read\n"


@pytest.mark.parametrize("option", ["-t", "-v", "-N never", "-R hdrs"])
def test_what_has_no_meaning_for_a_probe(
    home: Home, run: Run, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    """Postfix's words, and 75."""
    assert run("-bv", *option.split(), "alice") == 75
    assert capsys.readouterr().err == f"sendmail: fatal: {option[:2]} option cannot be used with -bv\n"
    assert run("-bv") == 75 and NO_RECIPIENT in capsys.readouterr().err


@pytest.mark.parametrize("option", ["-q", "-qIA395322E2FF", "-qRexample.com"])
def test_flushing_while_the_server_is_down(
    home: Home, run: Run, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    """The -q family is postqueue's, with its words and its status, 69."""
    home.configure("relay_domains = example.com")
    assert run(option) == 69
    assert capsys.readouterr().err == "postqueue: fatal: Cannot flush mail queue - mail system is down\n"


@pytest.mark.parametrize("options", ["-q15m", "-bh", "-bH", "-bp -q15m", "-q1h -bh"])
def test_what_is_of_no_use_here_does_nothing(
    home: Home, run: Run, capsys: pytest.CaptureFixture[str], options: str
) -> None:
    """As Postfix: no mail is sent, though there are recipients and content. Status 0."""
    assert run(*options.split(), "a") == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err, list(home.maildrop.iterdir())) == ("", "", [])


@pytest.mark.parametrize(
    ("option", "mode"),
    [
        ("-q", "flush queue"),
        ("-bd", "daemon"),
        ("-bl", "daemon"),
        ("-bs", "stand-alone"),
        ("-bi", "alias initialization"),
        ("-I", "alias initialization"),
        ("-bp", "display queue"),
    ],
)
def test_modes_without_recipients(
    home: Home, run: Run, capsys: pytest.CaptureFixture[str], option: str, mode: str
) -> None:
    """A recipient there is a mistake: `sendmail -q alice` sends nothing."""
    assert run(option, "a") == 75
    assert capsys.readouterr().err == f"sendmail: fatal: {mode} mode requires no recipient\n"


def test_it_starts_light() -> None:
    """SPEED.md: no Twisted, no regular expressions, no dataclasses: what a plain message imports."""
    load = "import sys; sys.path.insert(0, sys.argv[1]); import mailserver.commands.sendmail"
    code = f"{load}; print(sorted(sys.modules))"
    root = str(Path(sendmail.__file__).parent.parent.parent)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, root], capture_output=True, text=True, check=True
    )
    loaded = set(ast.literal_eval(done.stdout))
    assert not loaded & {
        "re",
        "typing",
        "dataclasses",
        "collections",
        "argparse",
        "getopt",
        "twisted",
        "socket",
    }
    own = {name for name in loaded if name.startswith("mailserver")}
    assert own == {
        "mailserver",
        "mailserver.commands",
        "mailserver.commands.light_config",
        "mailserver.commands.sendmail",
        "mailserver.commands.sendmail_options",
        "mailserver.queue",
        "mailserver.queue.drop_file",
    }


LINES = st.lists(
    st.sampled_from(
        [
            "message_size_limit = 5",
            "message_size_limit=",
            " 7",
            "\t# comment",
            "# x",
            "",
            "other = y",
            "queue_directory = $config_directory/q",
            "queue_directory = $config_directory_x",
            "queue_directory = ${config_directory}/z",
            "queue_directory = /var/spool/postfix",
            "other = /o",
            "queue_directory = $other/q",
            "queue_directory =   ",
            " , /x",
        ]
    ),
    max_size=8,
)


@given(lines=LINES)
def test_the_light_reading_agrees_with_the_real_one(
    lines: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Continuations, comments, the last duplicate, Postfix's own queue directory, $config_directory."""
    directory = tmp_path_factory.mktemp("light")
    text = "\n".join(["first = 1", *lines])
    (directory / "main.cf").write_text(text)
    settings, _ = parse_main(text, "main.cf")
    real = Config(str(directory), {setting.name: setting for setting in settings})
    found = light_config.read(str(directory))
    assert found == {name: real.string(name) for name in found}
