"""`make install` and `make uninstall` on a machine with Debian's postfix, which is a copy of this one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.end_to_end.machine import Machine

pytestmark = pytest.mark.needs("root", "unshare", "postfix")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    started = Machine(tmp_path_factory.mktemp("machine"), "rm -rf /etc/mailserver /opt/mailserver")
    yield started
    started.stop()


MTA_FILES = "ls -l /usr/sbin/sendmail* /usr/lib/sendmail* /usr/bin/mailq* /usr/bin/newaliases*"


def test_install_and_uninstall(machine: Machine) -> None:
    """The names of an existing mail system are taken on demand only, and given back whole."""
    before = machine.run(MTA_FILES)
    said = machine.run("make -C /source install")
    assert "Postfix is installed and its commands keep their names" in said
    assert machine.run(MTA_FILES) == before
    assert machine.run("command -v postconf").strip() == "/usr/sbin/postconf"
    # Every user can run it, and find its manual.
    as_nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups"
    assert "mailserver" in machine.run(f"{as_nobody} mailserver --version")
    assert machine.run(f"{as_nobody} man -w mailserver-explain").startswith("/opt/mailserver/share/man")
    assert "/root" not in machine.run(
        "head -qn 1 /opt/mailserver/bin/twistd; readlink -f /opt/mailserver/bin/python"
    )
    unit = machine.run("cat /usr/local/lib/systemd/system/mailserver.service")
    assert "ExecStart=/opt/mailserver/bin/twistd" in unit
    machine.run("test -e /etc/logrotate.d/mailserver -a -e /etc/pam.d/mailserver && getent passwd mailserver")
    machine.run("echo 'postmaster: root' > /etc/aliases")
    machine.run(
        "mailserver init /etc/mailserver --hostname mail.example.org && ! test -e /etc/mailserver/aliases"
    )
    assert "alias_maps = hash:/etc/aliases" in machine.run("cat /etc/mailserver/main.cf")
    taken = machine.run("/source/etc/install mta")
    assert "sendmail, mailq and newaliases are ours now" in taken
    assert machine.run("readlink /usr/sbin/sendmail").strip() == "/opt/mailserver/bin/sendmail"
    assert machine.run("head -n 1 /usr/sbin/sendmail").strip() == "#!/opt/mailserver/bin/python -IS"
    drop = "/var/spool/mailserver/maildrop"
    machine.run(f"mkdir -p {drop} && printf 'Subject: hi\\n\\nhello\\n' | sendmail root@example.org")
    assert "Subject: hi" in machine.run(f"cat {drop}/* && rm -r {drop}")
    assert "221 2.0.0 Bye" in machine.run("newaliases && echo QUIT | sendmail -bs")
    assert "/usr/sbin/sendmail.distrib" in machine.run("dpkg-divert --list")
    assert machine.run("command -v postconf").strip() == "/usr/local/sbin/postconf"
    machine.run("make -C /source uninstall")
    assert machine.run(MTA_FILES) == before
    places = "/opt /usr/local /etc/systemd /etc/logrotate.d /etc/pam.d"
    left = f"find {places} -name '*mailserver*' -o -lname '/opt/mailserver*'"
    assert machine.run(left) == ""
    machine.run("test -e /etc/mailserver/main.cf && getent passwd mailserver")


def test_what_is_not_ours_stays(machine: Machine) -> None:
    """A file in the place of a command is kept, a directory in the place of PREFIX is refused."""
    machine.run("mkdir /opt/other && touch /opt/other/mine")
    assert "is not ours" in machine.run("! make -C /source install PREFIX=/opt/other")
    machine.run(
        "touch /usr/local/bin/mailserver && make -C /source uninstall && rm /usr/local/bin/mailserver"
    )
