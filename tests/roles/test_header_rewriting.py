"""Which domain incomplete addresses in headers get, as main.cf says it."""

from __future__ import annotations

import pytest

from mailserver.config.syntax import ConfigError
from mailserver.roles.smtp import _local_clients
from tests.roles.test_stock import DATA, parts_of

HEADER = b"From: alice\nTo: bob@host, carol@far.test\n"
BOTH = {"append_at_myorigin": "yes", "append_dot_mydomain": "yes"}


@pytest.mark.parametrize(
    ("settings", "local", "remote"),
    [
        (BOTH, b"From: alice@o.test\nTo: bob@host.d.test, carol@far.test\n", HEADER),
        (
            {"append_at_myorigin": "no", "append_dot_mydomain": "yes"},
            b"From: alice\nTo: bob@host.d.test, carol@far.test\n",
            HEADER,
        ),
        (
            {**BOTH, "remote_header_rewrite_domain": "domain.invalid"},
            b"From: alice@o.test\nTo: bob@host.d.test, carol@far.test\n",
            b"From: alice@domain.invalid\nTo: bob@host.domain.invalid, carol@far.test\n",
        ),
        (
            {"append_at_myorigin": "no", "append_dot_mydomain": "no", "remote_header_rewrite_domain": "d"},
            HEADER,
            HEADER,
        ),
        (
            {
                **BOTH,
                "remote_header_rewrite_domain": "r.test",
                "canonical_maps": "inline:{alice@r.test=a@c.test}",
            },
            b"From: alice@o.test\nTo: bob@host.d.test, carol@far.test\n",
            b"From: a@c.test\nTo: bob@host.r.test, carol@far.test\n",
        ),
    ],
)
def test_headers_of_local_and_of_other_mail(settings: dict[str, str], local: bytes, remote: bytes) -> None:
    """What Postfix 3.7 makes of the same with the same settings."""
    rules = parts_of(str(DATA / "debian12"), myorigin="o.test", mydomain="d.test", **settings).cleanup_rules
    found = [
        header if rewrite is None else rewrite(header)
        for rewrite, header in ((rules.rewrite, HEADER), (rules.rewrite_remote, HEADER))
    ]
    assert found == [local, remote]


def test_an_unknown_client_word_is_refused() -> None:
    """Nobody is local by a slip of the pen."""
    parts = parts_of(str(DATA / "debian12"), local_header_rewrite_clients="permit_everybody")
    with pytest.raises(ConfigError, match="unknown word permit_everybody"):
        _local_clients(parts, parts.config)
