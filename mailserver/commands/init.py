"""`mailserver init DIR`: write a configuration, a spool and a certificate, once.

Nothing that exists is touched: a second run says so and exits with 1. With `--demo` the
directory holds everything (spool, queue, state, homes, two accounts, a little mail), so that
the server runs from it as an ordinary user. Every path in the files is written relative to
$config_directory there, so the directory may be moved.
"""

from __future__ import annotations

import argparse
import os
import pwd
import secrets
import socket
import string
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Final

from mailserver.accounts.hashing import hash_password
from mailserver.commands.errors import CommandError
from mailserver.durable import sync_directory
from mailserver.roles.python_home import unreachable_path
from mailserver.store import maildir, mbox
from mailserver.tls import KeyPair, self_signed

HOST_ALIASES: Final = "/etc/aliases"
DEMO_ACCOUNTS: Final = ("alice", "bob")
_EXAMPLES: Final = """\
examples:
  mailserver init /etc/mailserver               for this machine, as root
  mailserver init ./var --demo                  to play with, on ports above 1024
  mailserver init ./var --demo --format maildir
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `mailserver init`."""
    parser = subparsers.add_parser(
        "init",
        help="write a configuration, a spool and a certificate",
        description="Write main.cf, master.cf, aliases, access, an account file and a certificate into DIR.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", metavar="DIR")
    parser.add_argument(
        "--demo", action="store_true", help="accounts alice and bob, some mail, ports above 1024"
    )
    parser.add_argument(
        "--format", choices=("mbox", "maildir"), default="mbox", help="how mail is kept (default: mbox)"
    )
    parser.add_argument("--hostname", default="", help="the host name in main.cf (default: this machine's)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the home and say what comes next."""
    directory = Path(arguments.directory).absolute()
    if (directory / "main.cf").exists():
        raise CommandError(
            f"{directory}/main.cf exists: nothing was changed; choose another directory or edit it"
        )
    try:
        write_home(directory, arguments.demo, arguments.format, arguments.hostname or socket.getfqdn())
    except OSError as error:
        raise CommandError(
            f"{error.filename}: {error.strerror}: choose a directory you may write to"
        ) from error
    return 0


def write_home(directory: Path, demo: bool, mail_format: str, hostname: str) -> None:
    """The directory holds a whole configuration, durably; raises OSError."""
    hostname = "mail.example.org" if demo else _qualified(hostname)
    directory.mkdir(parents=True, exist_ok=True, mode=0o755)
    kind = "demo" if demo else "host"
    owner = demo_owner(directory) if demo else "mailserver"
    aliases = _alias_file(directory, demo)
    mail = _mail_lines(mail_format, demo)
    values = {"hostname": hostname, "mail": mail, "owner": owner, "aliases": aliases}
    _write(directory / "master.cf", _template(f"{kind}-master.cf"), 0o644)
    if aliases != HOST_ALIASES:
        _write(directory / "aliases", _template(f"{kind}-aliases"), 0o644)
    _write(directory / "access", _template("access"), 0o644)
    _write_pair(directory, self_signed([hostname], time.time()))
    if demo:
        _write_demo(directory, mail_format)
    else:
        _write(directory / "users", _template("host-users"), 0o640)
    # Last, since its presence says that the rest is there, after a power cut too.
    for each in (directory, *(path for path in directory.rglob("*") if path.is_dir())):
        sync_directory(str(each))
    _write(directory / "main.cf", _template(f"{kind}-main.cf").format_map(values), 0o644)
    sync_directory(str(directory))
    sync_directory(str(directory.parent))
    if demo and os.geteuid() == 0:
        _give_all_to(owner, directory)
    own = "" if aliases == HOST_ALIASES else "aliases, "
    print(f"Wrote {directory}/main.cf, master.cf, {own}access, users and a self-signed certificate.")
    if not own:
        print(f"Aliases are those that this host has, {HOST_ALIASES}.")
    if not demo:
        print(
            "Next: read main.cf, then\n"
            f"  mailserver -c {directory} check    says what is missing\n"
            f"  postfix -c {directory} start       starts it; `mailserver -c {directory} run` does so in view"
        )


def _qualified(hostname: str) -> str:
    return hostname if "." in hostname else f"{hostname}.localdomain"


def _alias_file(directory: Path, demo: bool) -> str:
    """As main.cf names it: for a configuration in /etc what the host has there, else one beside main.cf."""
    is_the_hosts = not demo and directory.is_relative_to("/etc") and os.path.exists(HOST_ALIASES)
    return HOST_ALIASES if is_the_hosts else "$config_directory/aliases"


def _mail_lines(mail_format: str, demo: bool) -> str:
    spool = "$config_directory/spool/mail" if demo else "/var/mail"
    if mail_format == "maildir":
        return f"mail_spool_directory = {spool}/\nmail_location = maildir:{spool}/%u"
    return f"mail_spool_directory = {spool}\nmail_location = mbox:~/mail:INBOX={spool}/%u"


def _template(name: str) -> str:
    return (resources.files("mailserver") / "data" / "init" / name).read_text("utf-8")


def _write(path: Path, text: str, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, mode)
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def _write_pair(directory: Path, pair: KeyPair) -> None:
    (directory / "tls").mkdir(exist_ok=True)
    _write(directory / "tls" / "certificate.pem", pair.chain.decode(), 0o644)
    _write(directory / "tls" / "key.pem", pair.key.decode(), 0o600)


def _password() -> str:
    """71 random bits in letters and digits, so that no shell or program takes it for an option."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(12))


def _write_demo(directory: Path, mail_format: str) -> None:
    """Accounts with random passwords, their homes, and a little mail."""
    passwords = {name: _password() for name in DEMO_ACCOUNTS}
    lines = ["# Dovecot's passwd-file: user:password:uid:gid:gecos:home:shell:extra"]
    for name, password in passwords.items():
        lines.append(f"{name}:{hash_password(password.encode())}::::::")
        (directory / "home" / name).mkdir(parents=True, mode=0o755)
    _write(directory / "users", "\n".join(lines) + "\n", 0o600)
    (directory / "spool" / "mail").mkdir(parents=True, mode=0o755)
    deposit_demo_mail(directory / "spool" / "mail" / "alice", mail_format)
    print("Accounts and their passwords, shown only now (`mailserver user passwd NAME` sets a new one):")
    for name, password in passwords.items():
        print(f"  {name}  {password}")


def deposit_demo_mail(inbox: Path, mail_format: str) -> None:
    """The messages that ship with the package are in the INBOX, in the order of their names."""
    for content in demo_messages():
        if mail_format == "maildir":
            maildir.deposit(str(inbox), [content], socket.gethostname())
        else:
            mbox.deposit(str(inbox), "bob@example.org", [content])


def demo_messages() -> Sequence[bytes]:
    """The messages that ship with the package, LF line ends."""
    folder = resources.files("mailserver") / "data" / "demo"
    return [entry.read_bytes() for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)]


def demo_owner(directory: Path) -> str:
    """Who a demo runs as: whoever makes it; for root `nobody`, where `nobody` can get at everything."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name
    return "root" if unreachable_path(directory) else "nobody"


def _give_all_to(owner: str, directory: Path) -> None:
    entry = pwd.getpwnam(owner)
    for path in (directory, *directory.rglob("*")):
        os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
