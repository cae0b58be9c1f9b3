"""Writes docs/COMPLIANCE.md: which section of which RFC is held up by which test, and with what result.

A pytest plugin, loaded by `make compliance` only. A test cites a section in its docstring, or in the
comments of the transcript that it plays, as `RFC 5321 §4.5.4.1`; what the docstring of a module cites, all
of its tests hold up, in one row of the file's name. Tests with parameters make one row. Those that nothing
cites are left out of the run.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

PAGE: Final = Path(__file__).parent.parent / "docs" / "COMPLIANCE.md"
_CITATION: Final = re.compile(r"RFC (\d{3,5})((?:(?:,| and)? ?§[0-9A-Z]+(?:\.[0-9A-Z]+)*)*)")
_SECTION: Final = re.compile(r"§([0-9A-Z]+(?:\.[0-9A-Z]+)*)")

TITLES: Final = {
    822: "Internet text messages (1982)", 1123: "Requirements for hosts", 1321: "MD5",
    1870: "SMTP SIZE", 1939: "POP3", 2033: "LMTP",
    2034: "SMTP enhanced status codes", 2045: "MIME bodies", 2046: "MIME media types",
    2047: "MIME header words", 2177: "IMAP IDLE", 2180: "IMAP multi-accessed mailboxes",
    2183: "Content-Disposition", 2195: "CRAM-MD5", 2231: "MIME parameters", 2342: "IMAP NAMESPACE",
    2449: "POP3 extensions", 2595: "TLS with IMAP and POP3", 2920: "SMTP PIPELINING",
    2971: "IMAP ID", 3030: "SMTP CHUNKING", 3206: "POP3 AUTH-RESP-CODE", 3207: "SMTP STARTTLS",
    3339: "Timestamps", 3461: "SMTP DSN", 3463: "Enhanced status codes",
    3464: "Delivery status notifications",
    3501: "IMAP4rev1", 3502: "IMAP MULTIAPPEND", 3516: "IMAP BINARY", 3691: "IMAP UNSELECT",
    3834: "Automatic responses", 4013: "SASLprep", 4155: "The mbox format",
    4314: "IMAP ACL", 4315: "IMAP UIDPLUS", 4422: "SASL", 4469: "IMAP CATENATE", 4616: "SASL PLAIN",
    4731: "IMAP ESEARCH", 4954: "SMTP AUTH", 4959: "IMAP SASL-IR", 4978: "IMAP COMPRESS",
    5032: "IMAP WITHIN", 5034: "POP3 AUTH", 5092: "IMAP URLs", 5161: "IMAP ENABLE",
    5182: "IMAP SEARCHRES", 5255: "IMAP internationalisation", 5256: "IMAP SORT and THREAD",
    5258: "IMAP LIST-EXTENDED", 5267: "IMAP CONTEXT and ESORT", 5280: "X.509", 5321: "SMTP",
    5322: "Internet Message Format", 5464: "IMAP METADATA", 5465: "IMAP NOTIFY", 5466: "IMAP FILTERS",
    5530: "IMAP response codes",
    5550: "IMAP URL-PARTIAL", 5782: "DNS block lists",
    5802: "SCRAM", 5819: "IMAP LIST-STATUS", 5929: "TLS channel bindings",
    5957: "IMAP SORT=DISPLAY", 6125: "Names in certificates", 6152: "SMTP 8BITMIME",
    6154: "IMAP SPECIAL-USE", 6203: "IMAP SEARCH=FUZZY", 6409: "Message submission", 6531: "SMTPUTF8",
    6522: "multipart/report", 6532: "Internationalised headers", 6533: "Internationalised DSN",
    6851: "IMAP MOVE", 6855: "IMAP UTF8=ACCEPT",
    6856: "POP3 UTF8 and LANG", 6858: "Downgraded headers", 7103: "Malformed messages",
    7162: "IMAP CONDSTORE and QRESYNC", 7208: "SPF", 7377: "IMAP MULTISEARCH",
    7504: "SMTP 521 and 556", 7505: "Null MX", 7677: "SCRAM-SHA-256", 7888: "IMAP LITERAL+",
    7889: "IMAP APPENDLIMIT", 8314: "TLS for mail", 8437: "IMAP UNAUTHENTICATE", 8438: "IMAP STATUS=SIZE",
    8440: "IMAP LIST-MYRIGHTS", 8457: "IMAP $Important",
    8474: "IMAP OBJECTID", 8508: "IMAP REPLACE", 8514: "IMAP SAVEDATE", 8970: "IMAP PREVIEW",
    9051: "IMAP4rev2",
    8996: "TLS 1.0 and 1.1 deprecated", 9208: "IMAP QUOTA", 9266: "TLS exporter as channel binding",
    9394: "IMAP PARTIAL", 9585: "IMAP INPROGRESS", 9586: "IMAP UIDONLY", 9590: "IMAP LIST-METADATA",
    10022: "IMAP UIDBATCHES",
}  # fmt: skip


def citations(text: str) -> set[tuple[int, str]]:
    """(RFC, section) pairs that the text cites; "" where it names no section."""
    found: set[tuple[int, str]] = set()
    for number, sections in _CITATION.findall(" ".join(text.split())):
        found.update((int(number), section) for section in _SECTION.findall(sections) or [""])
    return found


def _cited_by(item: pytest.Item) -> str:
    """The docstring of a test, and the comments of the transcript that it plays."""
    text = getattr(getattr(item, "obj", None), "__doc__", None) or ""
    path = getattr(item, "callspec", None) and item.callspec.params.get("path")
    if isinstance(path, Path) and path.suffix == ".txt":
        text += "\n".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    return text


def _row(item: pytest.Item) -> str:
    """The test's name without its parameters, a transcript's with the file's."""
    name = item.nodeid.split("[")[0].removeprefix("tests/")
    path = getattr(item, "callspec", None) and item.callspec.params.get("path")
    return f"{name} ({path.stem})" if isinstance(path, Path) else name


def _file(item: pytest.Item) -> str:
    """The test's file."""
    return item.nodeid.split("::")[0].removeprefix("tests/")


class Compliance:
    """What was cited and how it ended; with `--numprocesses` each process tells what it read."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, str], set[str]] = defaultdict(set)
        self._ended: dict[str, list[int]] = defaultdict(lambda: [0, 0])  # passed and failed runs of a test
        self._rows_of: dict[str, tuple[str, str]] = {}  # of a test and of its file

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        silent = []
        for item in items:
            self._rows_of[item.nodeid] = _row(item), _file(item)
            cited = citations(_cited_by(item))
            for citation in cited:
                self.rows[citation].add(_row(item))
            module = item.getparent(pytest.Module)
            cited_by_file = citations(getattr(module and module.obj, "__doc__", None) or "")
            for citation in cited_by_file:
                self.rows[citation].add(_file(item))
            if not cited and not cited_by_file:
                silent.append(item)
        config.hook.pytest_deselected(items=silent)
        gone = set(silent)
        items[:] = [item for item in items if item not in gone]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.failed:
            self._ended[report.nodeid][report.failed] += 1

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        told: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
        if told is None:
            PAGE.write_text(self.page())
        else:
            told["cited"] = [[*citation, sorted(rows)] for citation, rows in self.rows.items()]
            told["rows"] = [[test, *rows] for test, rows in self._rows_of.items()]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        told = getattr(node, "workeroutput", {})
        for number, section, rows in told.get("cited", ()):
            self.rows[number, section].update(rows)
        for test, row, file in told.get("rows", ()):
            self._rows_of[test] = row, file

    def outcomes(self) -> dict[str, list[int]]:
        """Passed and failed runs, by row."""
        found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for test, counts in self._ended.items():
            for row in self._rows_of[test]:
                found[row] = [old + new for old, new in zip(found[row], counts, strict=True)]
        return found

    def page(self) -> str:
        """The page, RFCs and sections in their order."""
        lines = [
            "# Compliance", "",
            "Written by `make compliance` from the tests: a row is a section of an RFC, a test that cites",
            "it, and how often it ran and ended well.", "",
        ]  # fmt: skip
        outcomes = self.outcomes()
        for number in sorted({number for number, _ in self.rows}):
            title = f": {TITLES[number]}" if number in TITLES else ""
            lines += [f"## RFC {number}{title}", "", "| § | test | result |", "|---|---|---|"]
            sections = [section for known, section in self.rows if known == number]
            for section in sorted(sections, key=_order):
                lines += [self._line(section, row, outcomes) for row in sorted(self.rows[number, section])]
            lines.append("")
        return "\n".join(lines)

    def _line(self, section: str, row: str, outcomes: Mapping[str, list[int]]) -> str:
        passed, failed = outcomes.get(row, (0, 0))
        result = f"**{failed} of {passed + failed} failed**" if failed else f"{passed} passed"
        return f"| {section} | {row} | {result if passed or failed else 'not run'} |"


def _order(section: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (10**6, part) for part in section.split(".") if part]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Compliance())
