"""How often the numbers of a Program's values are not zero: what a chip that sends events works on."""

from __future__ import annotations

import numpy as np

from lrnn.profile.count import observe
from lrnn.program.program import Program


def activity(program: Program, frames: np.ndarray) -> dict[str, np.ndarray]:
    """By name of a value, (width,) fractions of the frames in which each of its numbers is not zero.

    Args:
        program: what runs.
        frames: (T, input_width) inputs, in order: a recurrence starts from zeros and goes on over all.

    Raises:
        ValueError: the frames have another shape, or there are none.
    """
    return {name: seen.rates for name, seen in observe(program, frames).items()}
