"""Manual pages, rendered from what the commands say of themselves.

    python -m mailserver.commands.manual DIR

A command's module docstring is its description, its --help the synopsis and the options; main.cf's
page is rendered from the parameters' declarations. `make install` writes them below
PREFIX/share/man; nothing is committed.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Final

from mailserver import __version__
from mailserver.commands import main as top
from mailserver.config.declaration import Kind, Parameter
from mailserver.config.defaults import COMPUTED
from mailserver.config.parameters import TOPICS

WIDTH: Final = 78
# Postfix's commands, all in section 1; mailq and newaliases are other names of their pages.
COMMANDS: Final = (
    "postalias", "postcat", "postconf", "postfix", "postlock", "postlog", "postmap", "postqueue", "postsuper",
    "sendmail",
)  # fmt: skip
_OTHER_NAMES: Final[Mapping[str, str]] = MappingProxyType({"mailq": "postqueue", "newaliases": "postalias"})
_PARAMETERS_HEAD: Final = (
    "Syntax and names are Postfix's, those of the retrieval half Dovecot's: `name = value`, continued on "
    "indented lines; $name is another parameter's value. Times take a unit (s m h d w), sizes are octets, "
    "booleans are yes or no. `mailserver check` names each parameter of a configuration that is not "
    "honoured; docs/PARAMETERS.md has those too."
)


def pages() -> Iterator[tuple[str, str]]:
    """The path below the man directory and the text of each page."""
    for name in COMMANDS:
        module = importlib.import_module(f"mailserver.commands.{name.replace('-', '_')}")
        yield f"man1/{name}.1", command_page(name, 1, module, help_text(module.main))
    for name, target in _OTHER_NAMES.items():
        yield f"man1/{name}.1", f".so man1/{target}.1\n"
    yield "man8/mailserver.8", command_page("mailserver", 8, top, help_text(top.main))
    for name in top.SUBCOMMANDS:
        module = importlib.import_module(f"mailserver.commands.{name.replace('-', '_')}")
        text = help_text(top.main, name)
        yield f"man8/mailserver-{name}.8", command_page(f"mailserver-{name}", 8, module, text)
    yield "man5/postconf.5", parameters_page()


def help_text(main: Callable[[list[str]], int], *words: str) -> str:
    """What the command prints with --help."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return out.getvalue()


def command_page(name: str, section: int, module: ModuleType, help_: str) -> str:
    """The page of a command."""
    summary, *rest = (module.__doc__ or name).strip().split("\n\n")
    synopsis, _, options = help_.removeprefix("usage: ").partition("\n\n")
    synopsis = re.sub(r"^ {7}", "", synopsis, flags=re.MULTILINE)  # the width of `usage: `
    out = [_title(name, section), _name(name, summary), ".SH SYNOPSIS\n", _verbatim(synopsis)]
    out += [".SH DESCRIPTION\n"] if rest else []
    out += [_block(paragraph) for paragraph in rest]
    out += [".SH OPTIONS\n", _verbatim(options)]
    out += [".SH SEE ALSO\n", "mailserver(8), postconf(5), postconf(1)\n"]
    return "".join(out)


def parameters_page() -> str:
    """The page of main.cf: every parameter that is honoured."""
    out = [_title("postconf", 5), _name("postconf", "the parameters of main.cf"), ".SH DESCRIPTION\n"]
    out.append(_paragraph(_PARAMETERS_HEAD))
    for title, parameters in TOPICS:
        used = [parameter for parameter in parameters if parameter.kind is Kind.HONOURED]
        if used:
            out.append(f'.SH "{_escaped(title.upper())}"\n')
            out += [_parameter(parameter) for parameter in used]
    out += [".SH SEE ALSO\n", "mailserver(8), postconf(1)\n"]
    return "".join(out)


def _title(name: str, section: int) -> str:
    return f'.TH {_escaped(name.upper())} {section} "" "mailserver {_escaped(__version__)}"\n'


def _name(name: str, summary: str) -> str:
    """The summary without the command's own name before it and the page's name behind it."""
    text = " ".join(summary.split()).rpartition("`: ")[2] or summary
    text = re.sub(r"\.(?: [a-z]+\(\d\)[^.]*)?\.?$", "", text)
    return f".SH NAME\n{_escaped(name)} \\- {_escaped(text)}\n"


def _parameter(parameter: Parameter) -> str:
    default = "computed" if parameter.name in COMPUTED else parameter.default or "empty"
    lines = textwrap.fill(parameter.documentation, WIDTH)
    head = f".TP\n.B {_escaped(parameter.name)} \\fR(default: {_escaped(default)})\n"
    choices = ", ".join(choice or "empty" for choice in parameter.choices)
    return head + _escaped(lines) + (f"\nOne of {_escaped(choices)}.\n" if choices else "\n")


def _block(paragraph: str) -> str:
    """A paragraph to fill, or one to keep as it is where its lines are indented."""
    return _verbatim(paragraph) if paragraph.startswith(" ") else _paragraph(paragraph)


def _paragraph(text: str) -> str:
    return f".PP\n{_escaped(textwrap.fill(' '.join(text.split()), WIDTH))}\n"


def _verbatim(text: str) -> str:
    return f".nf\n{_escaped(text.rstrip())}\n.fi\n" if text.strip() else ""


def _escaped(text: str) -> str:
    """The text as roff shows it unchanged: a `.` or `'` at the start of a line is no request."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga").replace("'", "\\(aq")
    return re.sub(r"^(?=\.)", r"\\&", text, flags=re.MULTILINE)


def main(argv: list[str]) -> int:
    """Write all pages below a directory."""
    os.environ["COLUMNS"] = str(WIDTH)
    directory = Path(argv[0])
    for name, text in pages():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
