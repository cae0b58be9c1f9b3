"""`sendmail`: hand a message to the mail system. sendmail(1), and Postfix's of the same name.

Mail is written to `maildrop` under queue_directory (`queue.drop_file`), where the server picks it
up at once, or when it is started next. The command needs no rights but to write there; who sends
is whom the file belongs to.

As mailq it lists the queue, as newaliases it indexes the aliases. Every failure of its own ends with
status 75, for the caller to try again; a bad address is no failure, it bounces.

Only what a plain message needs is imported at the start.
"""

import os
import sys

from mailserver.commands import light_config
from mailserver.commands.sendmail_options import HELP, Failure, Options, parse
from mailserver.queue import drop_file

TEMPORARY_FAILURE = 75
_WITHOUT_RECIPIENTS = {"d": "daemon", "i": "alias initialization", "p": "display queue"} | {
    "q": "flush queue",
    "s": "stand-alone",
}
_NO_RECIPIENTS = "{}({}): Recipient addresses must be specified on the command line or via the -t option"
_CHUNK = 1 << 16


def main(argv: "list[str] | None" = None) -> int:
    """Run the command; its exit status."""
    program = os.path.basename(sys.argv[0]) if argv is None else "sendmail"
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--help"]:
        return _help(program)
    try:
        options = parse(arguments)
        if program == "mailq":
            options.mode = "p"
        elif program == "newaliases":
            options.mode = "i"
        return _perform(options)
    except (Failure, light_config.CannotRead) as error:
        sys.stderr.write(f"{program}: fatal: {error}\n")
    except OSError as error:
        sys.stderr.write(f"{program}: fatal: {error.filename or 'cannot submit'}: {error.strerror}\n")
    except KeyboardInterrupt:
        sys.stderr.write(f"{program}: fatal: interrupted\n")
    return TEMPORARY_FAILURE


def _help(program: str) -> int:
    if program == "mailq":
        from mailserver.commands import postqueue

        return postqueue.main(["--help"])
    if program == "newaliases":
        from mailserver.commands import postalias

        return postalias.newaliases(["--help"])
    sys.stdout.write(HELP)
    return 0


# ---------------------------------------------------------------- what to do


def _perform(options: Options) -> int:
    if options.mode == "h":
        return 0
    if options.mode in _WITHOUT_RECIPIENTS and options.recipients:
        raise Failure(f"{_WITHOUT_RECIPIENTS[options.mode]} mode requires no recipient")
    directory = light_config.config_directory(options.config)
    values = light_config.read(directory)
    if options.mode in ("p", "q", "i", "d"):
        return _other_command(options)
    _check_user(directory, values["authorized_submit_users"])
    limit = int(values["message_size_limit"]) if values["message_size_limit"].isdecimal() else 0
    if options.mode == "s":
        from mailserver.commands.smtp_on_stdin import converse

        return converse(lambda fields, content: submit(values, fields, content), limit, _host_name(directory))
    if options.mode == "v":
        _require_plain(options)
    if not options.recipients and not options.extracts:
        raise Failure(_NO_RECIPIENTS.format(_user_name(), os.getuid()))
    content = _probe(options) if options.mode == "v" else None
    if content is None:
        content = read_content(sys.stdin.buffer, limit, options.dot_ends)
    submit(values, *compose(options, content))
    if options.mode == "v" or options.records:
        print(f"Mail Delivery Status Report will be mailed to <{os.fsdecode(_sender(options))}>.")
    return 0


def _other_command(options: Options) -> int:
    """What another command does under its own name."""
    where = ["-c", options.config] if options.config else []
    if options.mode in ("p", "q"):
        from mailserver.commands import postqueue

        return postqueue.main([*where, *(["-p"] if options.mode == "p" else _flush_choice(options.flush))])
    if options.mode == "i":
        from mailserver.commands.postalias import newaliases

        aliases = [f"-oA{options.alias_database}"] if options.alias_database else []
        return newaliases([*(["-C", *where[1:]] if where else []), *aliases])
    return _start(where)


def _require_plain(options: Options) -> None:
    """Raises Failure where an option has no meaning for mail that is not delivered."""
    names = {b"notify": "N", b"ret": "R"}
    bad = [names[name] for name, _ in options.fields if name in names]
    bad = (["t"] if options.extracts else []) + bad + (["v"] if options.records else [])
    if bad:
        raise Failure(f"-{bad[0]} option cannot be used with -bv")


def _start(where: "list[str]") -> int:
    """The mail system runs; one that runs already is what a boot script wanted, too."""
    from mailserver.commands import postfix
    from mailserver.config.read import ConfigError

    try:
        runs = bool(postfix.Script(light_config.config_directory(where[-1] if where else None)).pid)
    except ConfigError as error:
        raise Failure(str(error)) from error
    return 0 if runs else postfix.main([*where, "start"])


def _host_name(directory: str) -> str:
    from mailserver.config.read import ConfigError, read_unchecked

    try:
        return read_unchecked(directory, os.environ).string("myhostname")
    except ConfigError as error:
        raise Failure(str(error)) from error


def _flush_choice(flush: str) -> list[str]:
    if not flush:
        return ["-f"]
    return ["-i" if flush[0] == "I" else "-s", flush[1:]]


def _check_user(directory: str, allowed: str) -> None:
    """The server checks it again, by the owner of the file; here it is said in time. Raises Failure."""
    if allowed == "static:anyone" or os.getuid() == 0:
        return
    from mailserver.config.read import ConfigError, read_config
    from mailserver.maillog import ListLog
    from mailserver.roles.parts import Parts
    from mailserver.roles.permission import allowed_users

    try:
        may_submit = allowed_users(
            Parts(read_config(directory, os.environ), ListLog()), "authorized_submit_users"
        )
    except ConfigError as error:
        raise Failure(str(error)) from error
    if not may_submit(os.getuid()):
        raise Failure(f"User {_user_name()}({os.getuid()}) is not allowed to submit mail")


def _user_name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        raise Failure(f"no login name found for user ID {os.getuid()}: give -f SENDER") from None


# ---------------------------------------------------------------- the message


def read_content(stream: "object", limit: int, dot_ends: bool) -> bytes:
    """The message on the stream, LF line ends, its end as -i says. Raises Failure where it is too big.

    A `From ` line at its start is left out.
    """
    read = stream.readline if dot_ends else stream.read1  # type: ignore[attr-defined]
    pieces: list[bytes] = []
    size = 0
    while True:
        piece = read(_CHUNK)
        if not piece or (dot_ends and piece in (b".\n", b".\r\n", b".") and _begins_line(pieces)):
            break
        pieces.append(piece)
        size += len(piece)
        if limit and size > limit:
            raise Failure(f"message file too big: message_size_limit is {limit} octets")
    content = b"".join(pieces)
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n")
    if content.lstrip(b">").startswith(b"From "):
        content = content.partition(b"\n")[2]
    return content


def _begins_line(pieces: "list[bytes]") -> bool:
    return not pieces or pieces[-1].endswith(b"\n")


def compose(options: Options, content: bytes) -> "tuple[list[tuple[bytes, bytes]], bytes]":
    """What goes into the drop file. Raises Failure."""
    fields = list(options.fields)
    fields.append((b"sender", _sender(options)))
    if options.mode == "v" or options.records:
        fields.append((b"trace", b"verify" if options.mode == "v" else b"record"))
    name = _full_name() if options.full_name is None else options.full_name
    if name:
        fields.append((b"full_name", name))
    if options.extracts:
        if not options.recipients and not names_recipients(content):
            raise Failure(f"{_user_name()}({os.getuid()}): No recipient addresses found in message header")
        fields.append((b"extract", b"yes"))
    fields += [(b"recipient", recipient) for recipient in options.recipients]
    return fields, content


def _sender(options: Options) -> bytes:
    """The envelope sender, "" for the null sender."""
    sender = os.fsencode(_user_name()) if options.sender is None else options.sender
    return b"" if sender.strip() == b"<>" else sender


def _probe(options: Options) -> bytes:
    """The message of -bv: nobody reads it but who gets the report."""
    to = b", ".join(options.recipients)
    return b"From: %s\nSubject: probe\nTo: %s\n" % (_sender(options), to)


def _full_name() -> bytes:
    """NAME in the environment, else what the account says."""
    name = os.environ.get("NAME", "")
    if name:
        return os.fsencode(name)
    import pwd

    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:
        return b""
    return os.fsencode(entry.pw_gecos.partition(",")[0].replace("&", entry.pw_name.capitalize()))


def names_recipients(content: bytes) -> bool:
    """Whether a field of the header names a recipient; the server reads them exactly."""
    name = b""
    for line in content.split(b"\n"):
        if not line:
            break
        if line[:1] in b" \t":
            value = line
        else:
            name, _, value = line.partition(b":")
            name = name.strip().lower().removeprefix(b"resent-")
        if name in (b"to", b"cc", b"bcc") and value.rpartition(b":")[2].strip(b"; ,\t"):
            return True
    return False


def submit(values: "dict[str, str]", fields: "list[tuple[bytes, bytes]]", content: bytes) -> None:
    """The message is the server's: durable, whether it runs or not. Raises Failure."""
    directory = f"{values['queue_directory']}/maildrop"
    try:
        data = drop_file.encode(fields, content)
    except ValueError as error:
        raise Failure(f"{error}: leave it out") from error
    try:
        drop_file.write(directory, data)
    except OSError as error:
        raise Failure(
            f"mail_queue_enter: create file {directory}: {error.strerror}: "
            "start the mail system once, so that it makes the directory, and check its mode"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
