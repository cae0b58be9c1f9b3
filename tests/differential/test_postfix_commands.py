"""Our commands beside those of Debian's Postfix: the same words, files and exit statuses for the same calls.

Warnings are compared as a set: Postfix gives them in the order of a hash table.
"""

from __future__ import annotations

import io
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from mailserver.commands import postconf, postmap

pytestmark = [pytest.mark.needs("postfix")]

MAIN = """\
compatibility_level = 3.6
myhostname = mail.example.org
mydestination = $myhostname, localhost
own = bar
classes = check_client_access hash:/etc/x
smtpd_restriction_classes = classes
unused_too = $own and some
mynetworks = 127.0.0.0/8
    [::1]/128
relayhost = $nosuch
custom = $myhostname x
virtual_alias_maps = hash:$custom
"""
MASTER = """\
smtp      inet  n       -       y       -       -       smtpd
submission inet n       -       y       -       -       smtpd
  -o syslog_name=postfix/submission
  -o mua_client=permit
  -o smtpd_client_restrictions=$mua_client
  -o my_unused=3
pickup    unix  n       -       y       60      1       pickup
mine      unix  -       n       n       -       -       pipe
  flags=R user=nobody argv=/bin/cat ${nexthop} {a b}
twice inet n - n - - smtpd
  -o a=b -o c=d
  -o e={x y}
  foo=bar
"""
POSTCONF = """\
-n
-nh
-nH
-nx
own nosuch
-x relayhost custom
-h own
-o own=baz own
-o new=3 new
-o new=3 -n
-d own
-d relayhost
-n unused_too
mine_time_limit
-M
-M smtp
-M smtp/unix
-M */inet
-M smtp/inet/x
-Mf
-Mx
-Mfx twice submission
-F
-F smtp/inet/nofield
-F smtp/inet/*
-F nosuch
-P submission/inet/nosuch
-P nosuch
-P a/b/c/d
-Px submission/inet
-PH
-Ph
-FH smtp
-MFP
-T x
-C user
-C nosuch
-C builtin -n
-e
-X
-#
-e own
-X own=1
-eX own=1
-n -d
-dX own
-dM
-Hh own
-am
-at
-aX x
-d -o a=b own
-F smtp/inet/chroot=n
-F '*/*/chroot = -'
-F 'smtp/inet/command=smtpd -o x=y'
-F smtp/inet/nof=n
-F smtp/unix/chroot=n
-F smtp/inet=n
-F smtp/inet/private=x
-F smtp/inet/service=other
-P submission/inet/syslog_name=other
-P submission/inet/newone=other
-P 'submission/inet/newone=two words'
-P twice/inet/c=f
-Pe submission/inet/x
-PX submission/inet/syslog_name
-PX submission/inet/nosuch
-PX twice/inet/c
-P# submission/inet/syslog_name
-Me 'twice/inet=twice inet n - y - - smtpd -o x=y'
-Me 'new/inet=new inet n - y - - smtpd'
-Me 'new/*=new inet n - y - - smtpd'
-MX nosuch/inet
-MX 'twice/*'
-MX twice
-M# twice/inet
-M# ''
-X nosuch
-X own custom
-# own nosuch
-e own=1 bar=2 own=3
-e 'own =   a   b  '
-e 'a b=c'
-e '=c'
own=9
-n own=9
"""


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A configuration."""
    directory = tmp_path / "there"
    directory.mkdir()
    (directory / "main.cf").write_text(MAIN)
    (directory / "master.cf").write_text(MASTER)
    return directory


def theirs(command: str, arguments: Sequence[str], text: str = "") -> tuple[int, str, list[str]]:
    """What Postfix's command says, with the text on its standard input."""
    done = subprocess.run(
        [f"/usr/sbin/{command}", *arguments],
        capture_output=True, text=True, input=text, timeout=60, check=False,
    )  # fmt: skip
    lines = [line.removeprefix("/usr/sbin/") for line in done.stderr.splitlines()]
    return done.returncode, done.stdout, sorted(lines)


@pytest.mark.parametrize("line", POSTCONF.splitlines())
def test_postconf(there: Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    """What is shown, what is edited, what is refused."""
    arguments = ["-c", str(there), *shlex.split(line)]
    wanted = theirs("postconf", arguments)
    edited = [(there / name).read_text() for name in ("main.cf", "master.cf")]
    shutil.rmtree(there)
    there.mkdir()
    (there / "main.cf").write_text(MAIN)
    (there / "master.cf").write_text(MASTER)
    status = postconf.main(arguments)
    captured = capsys.readouterr()
    assert (status, captured.out, sorted(captured.err.splitlines())) == wanted
    assert [(there / name).read_text() for name in ("main.cf", "master.cf")] == edited


RULES = "10.0.0.0/8 ten\n!1.2.3.0/24 else\n"
CHECKS = r"/^([^:]*)$/ body $1" + "\n/^(.*)$/m header $1\n"
MESSAGE = """\
From: a@b
Subject: hello
 folded
Content-Type: multipart/mixed; boundary="x"

preamble
--x
Content-Type: text/plain
X-Inner: yes

part body
--x
Content-Type: message/rfc822

Subject: nested

nested body
--x--
"""
POSTMAP = """\
-q 10.1.2.3 cidr:rules
-q 5.5.5.5 cidr:rules
-q name cidr:rules
-q a 'inline:{a=b, {c = d e}}'
-q c 'inline:{a=b, {c = d e}}'
-q x 'inline:{a}'
-q x 'inline:{}'
-q x 'static:{a b}'
-q x static:
-q x 'randmap:{a}'
-q x 'randmap:{{a b}}'
-q x 'randmap:{}'
-s 'randmap:{a}'
-q a 'unionmap:{inline:{a=1},inline:{b=2},static:x}'
-q a 'unionmap:{}'
-q a 'unionmap:{name}'
-q a 'pipemap:{inline:{a=b},inline:{b=c}}'
-q 10.0.0.1 'cidr:{{10.0.0.0/8 x y}, {11.0.0.0/8 z}}'
-q abc 'regexp:{{/b/ x}, {/c/ y}}'
-q a texthash:absent/nothing
-q a -d b 'inline:{a=b}'
-q a -s 'inline:{a=b}'
-s -d a texthash:rules
-d a 'inline:{a=b}'
-r cidr:rules
-q
-h x
-b -h -m
-q - regexp:checks
-h -q - regexp:checks
-b -q - regexp:checks
-hb -q - regexp:checks
-hm -q - regexp:checks
-m -q - regexp:checks
"""


@pytest.mark.parametrize("line", POSTMAP.splitlines())
def test_postmap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """Lookups in all kinds of tables, and keys of a message."""
    monkeypatch.chdir(tmp_path)
    Path("rules").write_text(RULES)
    Path("checks").write_text(CHECKS)
    arguments = shlex.split(line)
    wanted = theirs("postmap", arguments, MESSAGE)
    monkeypatch.setattr(sys, "stdin", io.StringIO(MESSAGE))
    status = postmap.main(arguments)
    captured = capsys.readouterr()
    assert (status, captured.out) == wanted[:2]
    said = " ".join(captured.err.splitlines()).replace("open absent", "open database absent")
    assert all(re.sub(r"usage:.*", "usage:", each) in said for each in wanted[2])


@pytest.mark.parametrize("option", ["-b", "-t"])
def test_bounce_templates(there: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    """Postfix's own templates are shown, and expanded, as by Postfix; a missing file is named."""
    templates = there / "bounce.cf"
    templates.write_text(theirs("postconf", ["-c", str(there), "-t"])[1])
    (there / "main.cf").write_text(
        f"{MAIN}bounce_template_file = {templates}\ndelay_warning_time = 90m\nmydomain = x.test\n"
    )
    for arguments in (["-c", str(there), option], ["-c", str(there), option, str(templates)]):
        assert postconf.main(arguments) == 0
        assert capsys.readouterr().out == theirs("postconf", arguments)[1]
    assert postconf.main(["-c", str(there), option, "/absent"]) == 1
    assert capsys.readouterr().err.startswith("postconf: fatal: open /absent: No such file or directory")
