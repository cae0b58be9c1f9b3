"""DANE beside Debian's Postfix: the same servers and the same DNS for both. RFC 7671, RFC 7672."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.machine import ROOT

DEADLINE = 110  # seconds
NOT_SENT = {
    "another end entity",
    "digest of a root that is not sent",
    "expired below an anchor",
    "another name below an anchor",
    "no server's",
    "a leaf as anchor",
    "its own key as anchor",
    "a better digest that is wrong",
    "no answer",
    "no TLS",
}


@pytest.mark.needs("root", "unshare", "ip", "posttls-finger")
def test_servers_are_believed_as_postfix_believes_them(tmp_path: Path) -> None:
    """Verified, Trusted for an insecure MX, or neither; and mail goes where the records let it."""
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n")
    mounts = "".join(f"mount --bind {tmp_path}/{name} /etc/{name} && " for name in ("resolv.conf", "hosts"))
    script = f"ip link set lo up && {mounts} exec {sys.executable} -m tests.differential.dane_scene"
    done = subprocess.run(
        ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    cases = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(cases) == 31
    for name, ours, is_sent, theirs in cases:
        assert (name, ours) == (name, theirs)
        assert (name, is_sent) == (name, name not in NOT_SENT)
