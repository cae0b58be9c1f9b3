"""Each target of `make fuzz` for a moment: any octets, and mutations of seeds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
            | st.sampled_from(
                (b"", b"\n", b"\r\n", b"\0", b"\\", b'"', b"(", b")", b"{9}", b"=?", b"\xff", b"&")
            )
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
