"""From the declarations: the commented etc/main.cf and docs/PARAMETERS.md.

`python -m mailserver.config.render --write` writes both again; a test proves that what is
committed agrees. The rows of etc/master.cf are written by hand.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mailserver.config.declaration import Kind, Parameter, Type
from mailserver.config.defaults import COMPUTED
from mailserver.config.parameters import TOPICS, TRANSPORT_FAMILY

ROOT: Final = Path(__file__).resolve().parents[2]
FILES: Final = ("etc/main.cf", "docs/PARAMETERS.md")

_WIDTH: Final = 98
_SAMPLE_HEAD: Final = """\
# main.cf: the configuration of the mail server. Postfix's syntax and names; the retrieval half
# takes Dovecot's names. Everything here is commented out and shows the default.
#
# name = value, continued on indented lines; $name is another parameter's value; a `#` that
# does not begin a line is no comment. `postconf -n` shows what is set, `postconf -d` the defaults,
# docs/PARAMETERS.md has everything, the parameters that are refused too.
"""
_DOCUMENT_HEAD: Final = """\
# Parameters

Rendered from the declarations in `mailserver/config/declared`: change those, then run
`python -m mailserver.config.render --write`.

Syntax and names are Postfix's (postconf(5)), those of the retrieval half Dovecot's. Each parameter is one
of four kinds:

| kind | what becomes of it |
|---|---|
| honoured | it is used |
| harmless | it is not used, and mail goes where it would go with it; setting it gives a warning |
| refused | mail would go another way or be less protected: it stops the start, see `allow_unsupported` |
| inert | it describes Postfix's or Dovecot's own installation or processes; nothing is said |

Times take a unit (`s m h d w`); sizes are octets; booleans are `yes` or `no`. Every transport `T` has its
own limits `T_destination_concurrency_limit` and the like (listed at the end), and every `smtp_…`
parameter has an `lmtp_…` twin that is to LMTP what it is to SMTP.

Where Postfix's own installation writes a path or user of its own
(`queue_directory = /var/spool/postfix`), the default of this program counts: two programs must not share
one queue.
"""


def sample_main() -> str:
    """The text of etc/main.cf: the parameters that are honoured, with their defaults, commented out."""
    out = [_SAMPLE_HEAD]
    for title, parameters in TOPICS:
        used = [parameter for parameter in parameters if parameter.kind is Kind.HONOURED]
        if used:
            out.append(f"\n# ---- {title} ----\n")
            out += [_sample_entry(parameter) for parameter in used]
    return "".join(out)


def _sample_entry(parameter: Parameter) -> str:
    lines = textwrap.wrap(parameter.documentation, _WIDTH, initial_indent="# ", subsequent_indent="# ")
    setting = f"#{parameter.name} = {parameter.default}".rstrip()
    return "\n".join(["", *lines, setting, ""])


def document() -> str:
    """The text of docs/PARAMETERS.md."""
    out = [_DOCUMENT_HEAD]
    for title, parameters in TOPICS:
        out.append(f"\n## {title}\n\n")
        out += _rows(parameters)
    out.append("\n## Limits of each transport\n\n| parameter | default |\n|---|---|\n")
    out += [f"| *transport*`{ending}` | `{default}` |\n" for ending, default in TRANSPORT_FAMILY.items()]
    return "".join(out)


def _rows(parameters: tuple[Parameter, ...]) -> Iterator[str]:
    yield "| parameter | kind | type | default | what it says |\n|---|---|---|---|---|\n"
    for parameter in parameters:
        default = "*computed*" if parameter.name in COMPUTED else _code(parameter.default)
        kind_of = parameter.type.value if parameter.type is not Type.RAW else "text, expanded at use"
        notes = parameter.documentation
        if parameter.choices:
            notes += (
                " One of "
                + ", ".join(f"`{choice}`" if choice else "empty" for choice in parameter.choices)
                + "."
            )
        yield f"| `{parameter.name}` | {parameter.kind.value} | {kind_of} | {default} | {_cell(notes)} |\n"


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if text else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def rendered() -> dict[str, str]:
    """The texts of `FILES`."""
    return {"etc/main.cf": sample_main(), "docs/PARAMETERS.md": document()}


def main(argv: list[str]) -> int:
    """Write the files with --write; without it, say which differ (exit status 1)."""
    differing = [name for name, text in rendered().items() if _committed(name) != text]
    if "--write" in argv:
        for name in differing:
            (ROOT / name).parent.mkdir(exist_ok=True)
            (ROOT / name).write_text(rendered()[name], "utf-8")
            print(f"wrote {name}")
        return 0
    for name in differing:
        print(f"{name} differs: run python -m mailserver.config.render --write")
    return 1 if differing else 0


def _committed(name: str) -> str:
    path = ROOT / name
    return path.read_text("utf-8") if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
