"""HGRN programs on Lava: gated recurrences, real and complex, and tokens that come in as embeddings."""

from __future__ import annotations

import numpy as np
import pytest
from fixed_cases import ranges_of
from lava_cases import simulate
from test_fixed_hgrn import stack, tokens
from test_fixed_program import noise

import lrnn
from lrnn.export.lava import export
from lrnn.export.lava.graph import make_graph
from lrnn.export.lava.vectors import generated_frames
from lrnn.export.lava.verify import verify
from lrnn.program import Program, compile_fixed

CASES = ["real", "complex", "tokens"]


def fixed_program(case: str, scheme: str = "w8a16") -> tuple[Program, np.ndarray]:
    """A program and frames, some of them beyond its calibrated ranges."""
    if case == "tokens":
        program = tokens(density=0.5)
        seen = frames = np.random.default_rng(2).integers(0, 11, (40, 1)).astype(np.float32)
    else:
        program = lrnn.compile(stack(case, density=0.5))
        seen = noise(40, 12)
        frames = np.concatenate((seen[:20], noise(10, 12, 30, seed=1), 0 * seen[:10]))
    return compile_fixed(program, ranges_of(program, seen), scheme), frames


@pytest.mark.parametrize("scheme", ["w8a16", "loihi2"])
@pytest.mark.parametrize("case", CASES)
def test_groups_make_the_normative_integers(case, scheme, tmp_path):
    program, frames = fixed_program(case, scheme)
    export(program, tmp_path / "out", frames, resets=[9, 30])
    found = simulate(tmp_path / "out")
    assert set(found) == {n.name for n in program.nodes[1:-1]}
    with np.load(tmp_path / "out" / "vectors.npz") as golden:
        for name, value in found.items():
            assert np.array_equal(value, golden[f"values/{name}"]), name


@pytest.mark.lava
@pytest.mark.usefixtures("lava")
@pytest.mark.parametrize("case", CASES)
def test_lava_makes_the_same_integers(case, tmp_path):
    program, frames = fixed_program(case)
    export(program, tmp_path / "out", frames, resets=[9, 30])
    found = verify(tmp_path / "out", 240)
    assert found["equal"], found["first"]
    assert found["values"] == len(program.nodes) - 1


def test_gates_and_candidates_share_their_neurons():
    """What meets in a gated recurrence is made side by side, from one message."""
    program, _ = fixed_program("real")
    home = {n.name: g for g in make_graph(program).groups for n in g.nodes}
    state = home["blocks.0.mixer.state"]
    assert sum(n.op == "fixed_linear" for n in state.nodes) >= 2


def test_generated_tokens_are_known_ones():
    program, _ = fixed_program("tokens")
    frames = generated_frames(program, 50)
    assert set(np.unique(frames)) <= set(range(11))
    program.stream("numpy").run(frames)
