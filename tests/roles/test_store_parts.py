r"""From main.cf to the rules of the store: in which namespaces each user has a \Seen of his own."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.config.read import read_config
from mailserver.config.syntax import ConfigError
from mailserver.maillog import ListLog
from mailserver.roles.parts import Parts

PUBLIC = "public_namespaces = Public/=maildir:/srv/public, { Our news/=maildir:/srv/news:INDEXPVT=~/news }\n"


def private_seen(directory: Path, text: str) -> set[str]:
    (directory / "main.cf").write_text(text)
    return set(Parts(read_config(str(directory), {}), ListLog()).store.namespace_rules.private_seen)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", set()),
        (PUBLIC, {"Our news/"}),
        (PUBLIC + "private_seen = Public/\n", {"Public/", "Our news/"}),
        (PUBLIC + "private_seen = shared/%u/ { Our news/ }\n", {"shared/%u/", "Our news/"}),
        (PUBLIC + "private_seen = all\n", {"shared/%u/", "Public/", "Our news/"}),
        (PUBLIC + "mail_index_private_path = ~/private\n", {"shared/%u/", "Public/", "Our news/"}),
        ("shared_namespace =\nprivate_seen = all\n", set()),
    ],
)
def test_namespaces_with_a_seen_of_ones_own(tmp_path: Path, text: str, expected: set[str]) -> None:
    """By our parameter, by Dovecot's, and by INDEXPVT= in a location."""
    assert private_seen(tmp_path, text) == expected


def test_a_prefix_that_is_none(tmp_path: Path) -> None:
    """It is told with its line, and with those that there are."""
    with pytest.raises(
        ConfigError, match=r"Team/ is no namespace's prefix: write Public/, shared/%u/ or all"
    ):
        private_seen(tmp_path, "public_namespaces = Public/=maildir:/srv/public\nprivate_seen = Team/\n")
