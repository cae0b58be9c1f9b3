"""One server for most of the hostile tests, with a mail log of its own and 127.0.0.1 as the only friend."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.end_to_end.server import Server, running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("hostile")
    lines = ("mynetworks = 127.0.0.1/32", "smtpd_peername_lookup = no")
    with running(directory / "home", "mbox", f"maillog_file = {directory}/mail.log", *lines) as started:
        started.log = directory / "mail.log"
        yield started
