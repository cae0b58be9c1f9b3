"""Each target of `make fuzz` for a moment: any octets, and mutations of seeds."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mailserver
from mailserver.wire import imap_commands
from tests.fuzz.targets import SEEDS, TARGETS, Target

_PIECES = (b"", b"\n", b"\r\n", b"\0", b"\\", b'"', b"(", b")", b"{9}", b"=?", b"\xff", b"&")


@st.composite
def mutated(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """One of the seeds with a few places cut out, written over, doubled or filled from another seed."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)))
        other = draw(st.sampled_from(seeds))
        put = draw(
            st.binary(max_size=4)
            | st.sampled_from(_PIECES)
            | st.just(data[start:end] * 2)
            | st.just(other[: end - start])
        )
        data = data[:start] + put + data[end:]
    return data


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds(name: str) -> None:
    """Whatever the octets are, what the target states holds, and only named errors are raised."""
    target: Target = TARGETS[name]

    @given(mutated(SEEDS[target]) | st.binary(max_size=200))
    def holds(data: bytes) -> None:
        target(data)

    holds()


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_are_fit(name: str) -> None:
    """A seed holds by itself."""
    for seed in SEEDS[TARGETS[name]]:
        TARGETS[name](seed)


# They write what we say, and read nothing.
WRITERS = {"wire/imap_responses.py", "wire/imap_results.py", "message/report.py"}


def test_every_grammar_has_a_target() -> None:
    """Each module of wire and message does something while the targets are fed their seeds."""
    root = Path(mailserver.__file__).parent
    used: set[str] = set()

    def look(frame: FrameType, event: str, argument: object) -> None:
        used.add(frame.f_code.co_filename)

    imap_commands._known.clear()  # what was read before is not read again
    sys.setprofile(look)
    try:
        for target, seeds in SEEDS.items():
            for seed in seeds:
                target(seed)
    finally:
        sys.setprofile(None)
    modules = {
        path
        for part in ("wire", "message")
        for path in (root / part).glob("*.py")
        if path.name != "__init__.py"
    }
    idle = {str(path.relative_to(root)) for path in modules if str(path) not in used}
    assert idle <= WRITERS
