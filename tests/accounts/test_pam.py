"""PAM, with its real modules, in a mount namespace with accounts and services of its own."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mailserver.accounts.account import TemporaryAccountFailure
from mailserver.accounts.pam import Pam
from tests.end_to_end.root_server import PASSWORD, RootServer, interpreter

SHIPPED = Path(__file__).parent.parent.parent / "etc" / "pam.d" / "mailserver"
UNIX = ("auth required pam_unix.so", "account required pam_unix.so")
MODULE = """
case $1 in
    from) echo "$PAM_RHOST $PAM_USER" > from ;;
    hang) touch hung; sleep 300 ;;
    crash) kill -SEGV $PPID ;;
esac
"""
# Asks each question and prints yes, no, or why nobody can tell.
SCRIPT = """
import json, sys
from mailserver.accounts.account import TemporaryAccountFailure
from mailserver.accounts.pam import Pam
for service, name, password, seconds in json.load(sys.stdin):
    try:
        secret = None if password is None else password.encode("utf-8")
        print(json.dumps(Pam(service, seconds).admits(name, secret, "192.0.2.7")))
    except TemporaryAccountFailure as failure:
        print(json.dumps(str(failure)))
"""
Question = tuple[str, str, str | None]


@pytest.fixture(scope="module")
def machine() -> Iterator[RootServer]:
    """Accounts as tests/end_to_end/root_server.py has them; no server is started."""
    made = RootServer()
    script = made.directory / "module.sh"
    script.write_text(f"#!/bin/sh\ncd {made.directory}\n" + MODULE)
    script.chmod(0o755)
    (made.directory / "denied").write_text("ursula\n")
    listed = f"auth required pam_listfile.so item=user sense=deny file={made.directory}/denied onerr=fail"
    made.pam_service("mailserver", *SHIPPED.read_text().splitlines())
    made.pam_service("listed", listed, *UNIX)
    made.pam_service("deny", "auth required pam_deny.so", "account required pam_deny.so")
    made.pam_service("permit", "auth required pam_permit.so", "account required pam_permit.so")
    made.pam_service("closed", "auth required pam_permit.so", "account required pam_deny.so")
    made.pam_service("broken", "auth required pam_no_such_module.so", UNIX[1])
    made.pam_service("slow", "auth optional pam_faildelay.so delay=600000000", *UNIX)
    made.pam_service("hang", f"auth required pam_exec.so {script} hang", UNIX[1])
    made.pam_service("crash", f"auth required pam_exec.so {script} crash", UNIX[1])
    made.pam_service("from", f"auth required pam_exec.so {script} from", UNIX[1])
    yield made
    made.remove()


def answers(machine: RootServer, questions: Sequence[Question], seconds: float = 60.0) -> list[bool | str]:
    """What PAM says to each."""
    program, environment = interpreter()
    done = subprocess.run(
        machine.in_namespace(shlex.join([program, "-c", SCRIPT])),
        input=json.dumps([[*question, seconds] for question in questions]),
        env=dict(environment), capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.needs("root")
def test_pam_unix_with_the_shipped_service(machine: RootServer) -> None:
    """Every scheme of shadow; the account phase too: expired, stale and locked accounts are refused."""
    yes = [("mailserver", name, PASSWORD) for name in ("ursula", "viktor")]
    no = [
        ("mailserver", name, PASSWORD)
        for name in ("locked", "empty", "expired", "stale", "mustchange", "nobody-here")
    ]
    no += [("mailserver", "ursula", text) for text in ("", "wrong", PASSWORD + "x", "corr\0ect", "ä" * 300)]
    no.append(("mailserver", "empty", ""))
    assert answers(machine, [*yes, *no]) == [True] * len(yes) + [False] * len(no)


@pytest.mark.needs("root")
def test_other_modules_count(machine: RootServer) -> None:
    """Deny, permit, a list of users, an account that is closed though the password is right."""
    asked: list[Question] = [
        ("deny", "ursula", PASSWORD), ("permit", "ursula", "anything"), ("closed", "ursula", PASSWORD),
        ("listed", "ursula", PASSWORD), ("listed", "viktor", PASSWORD),
    ]  # fmt: skip
    assert answers(machine, asked) == [False, True, False, False, True]


@pytest.mark.needs("root")
def test_only_the_account_may_be_asked_about(machine: RootServer) -> None:
    """For app passwords: nothing is authenticated."""
    asked: list[Question] = [
        ("mailserver", "ursula", None), ("mailserver", "expired", None), ("deny", "ursula", None),
    ]  # fmt: skip
    assert answers(machine, asked) == [True, False, False]


@pytest.mark.needs("root")
def test_the_client_and_the_user_are_told_to_modules(machine: RootServer) -> None:
    """PAM_RHOST, for pam_access and pam_faillock."""
    assert answers(machine, [("from", "viktor", "x")]) == [True]
    assert (machine.directory / "from").read_text() == "192.0.2.7 viktor\n"


@pytest.mark.needs("root")
def test_the_delays_of_modules_are_not_waited_for(machine: RootServer) -> None:
    """Ten minutes here; penalties are ours."""
    assert answers(machine, [("slow", "ursula", "wrong")]) == [False]


@pytest.mark.needs("root")
def test_what_pam_cannot_tell_is_temporary(machine: RootServer) -> None:
    """P5: a missing module, one that crashes, one that hangs. None is a wrong password."""
    broken, crashed = answers(machine, [("broken", "ursula", PASSWORD), ("crash", "ursula", PASSWORD)])
    assert isinstance(broken, str) and "pam(broken): " in broken
    assert isinstance(crashed, str) and "pam(crash): " in crashed and PASSWORD not in crashed
    (hung,) = answers(machine, [("hang", "ursula", PASSWORD)], seconds=3)
    assert hung == "pam(hang): no answer within 3 s" and (machine.directory / "hung").exists()
    left = subprocess.run(["pgrep", "-f", f"{machine.directory}/module.sh"], capture_output=True, check=False)
    assert left.returncode == 1, "the module's own processes are gone too"


def test_without_such_a_library_it_is_temporary(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child says why on standard error."""
    monkeypatch.setattr("mailserver.accounts.pam._CHILD", "/no/such/file")
    with pytest.raises(TemporaryAccountFailure, match=r"pam\(x\): a module ended with status 2"):
        Pam("x").admits("alice", b"x", "")
    monkeypatch.setattr("sys.executable", "/no/such/python")
    with pytest.raises(TemporaryAccountFailure, match=r"pam\(x\): .*No such file"):
        Pam("x").admits("alice", b"x", "")
