"""The interface of a running program, whatever engine runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import ArrayLike

from lrnn.program.node import Node
from lrnn.program.program import Program


class Stream(ABC):
    """A running instance of a Program, with its own state: frames go in one by one or many at a time.

    `step` and `run` may be mixed freely: any cutting of the same frames gives the same outputs. A stream
    belongs to one thread at a time; streams of the same program are independent of each other.

    Attributes:
        program: what is being run.
        frames_in: width of an input frame, `program.input_width`.
        frames_out: width of an output frame, `program.output_width`.
    """

    def __init__(self, program: Program):
        self.program = program
        self.frames_in = program.input_width
        self.frames_out = program.output_width

    @abstractmethod
    def step(self, frame: ArrayLike) -> np.ndarray:
        """One frame in, one frame out.

        Args:
            frame: (frames_in,) real numbers, a numpy array or a CPU tensor; converted to float32.

        Returns:
            (frames_out,) float32, a fresh array.

        Raises:
            TypeError: not real numbers.
            ValueError: another shape, or NaN, infinity or what is no token in the frame; the state is then as
                before the call.
        """

    @abstractmethod
    def run(self, frames: ArrayLike) -> np.ndarray:
        """A chunk of T >= 0 frames.

        Args:
            frames: (T, frames_in) real numbers, a numpy array or a CPU tensor; converted to float32.

        Returns:
            (T, frames_out) float32, a fresh array: what T steps would return.

        Raises:
            TypeError: not real numbers.
            ValueError: another shape, or NaN, infinity or what is no token anywhere; the state is then as
                before the call.
        """

    @abstractmethod
    def reset(self) -> None:
        """Back to the state before the first frame: zeros."""

    @property
    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """A copy to assign later: (state_width,) float32 by the name of each node that remembers; integers of
        `program.state_dtypes` in a fixed-point program.
        """

    @state.setter
    @abstractmethod
    def state(self, value: dict[str, np.ndarray]) -> None: ...


def real_array(value, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """`value` as a C-contiguous float32 array of `shape` (None is any length), or an error that names it.

    Raises:
        TypeError: `value` does not hold real numbers.
        ValueError: `value` has another shape.
    """
    if hasattr(value, "detach"):
        value = value.detach().numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} holds {array.dtype}, expected real numbers")
    if len(array.shape) != len(shape) or any(
        e is not None and f != e for f, e in zip(array.shape, shape, strict=True)
    ):
        expected = ", ".join("T" if e is None else str(e) for e in shape) + ("," if len(shape) == 1 else "")
        raise ValueError(f"{name} has shape {array.shape}, expected ({expected})")
    return np.ascontiguousarray(array, dtype=np.float32)


def checked_state(program: Program, value: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`value` as arrays of `program.state_dtypes`, one for every node that remembers, in the program's order.

    Raises:
        TypeError: an entry does not hold real numbers, or not integers where the program is in fixed point.
        ValueError: a name is missing or too many, a shape is wrong, or an entry holds NaN, infinity or an
            integer that no frame leaves behind.
    """
    program.check_state({name: np.shape(array) for name, array in value.items()})
    return {node.name: _checked_entry(node, value[node.name]) for node in program.nodes if node.state_width}


def _checked_entry(node: Node, value: np.ndarray) -> np.ndarray:
    name = f"state[{node.name!r}]"
    if node.state_dtype == "float32":
        array = real_array(value, name, (node.state_width,))
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has NaN or infinite values, expected finite ones")
        return array
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} holds {array.dtype}, expected {node.state_dtype}")
    low, high = node.state_limits
    wrong = np.flatnonzero((array < low) | (array > high))
    if len(wrong):
        i = int(wrong[0])
        raise ValueError(f"{name}[{i}] is {array[i]}, expected {low[i]} to {high[i]}")
    return array.astype(node.state_dtype)
