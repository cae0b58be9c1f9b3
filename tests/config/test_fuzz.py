"""Whatever a configuration file holds, it is read or refused: nothing else happens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailserver.config.dovecot import Parser
from mailserver.config.dovecot_meaning import meaning
from mailserver.config.master import parse_master
from mailserver.config.syntax import ConfigError, parse_main

PIECES = """smtp inet unix - n y smtpd -o a=b { } = # \\ " ' $ < !include !include_try passdb userdb
protocols driver passwd-file args /x ssl yes no mail_driver mbox mail_path ~/m , : ? ${ $( ;"""
WORDS = st.sampled_from([*PIECES.split(), "\n", "\n ", " ", "\t"])
TEXTS = st.lists(WORDS, max_size=40).map("".join) | st.lists(WORDS, max_size=40).map(" ".join)


@given(TEXTS)
def test_main_and_master(text: str) -> None:
    """Every ConfigError names file and line."""
    for parse in (parse_main, parse_master):
        try:
            parse(text, "file")
        except ConfigError as error:
            assert str(error).startswith("file:")


@given(TEXTS)
def test_dovecot(text: str) -> None:
    """Blocks that do not match, quotes that do not close, files that include themselves."""
    parser = Parser(lambda path: text, lambda pattern: ["file"])
    try:
        parser.parse("file")
        meaning(parser.finish())
    except ConfigError as error:
        assert str(error).startswith("file")
