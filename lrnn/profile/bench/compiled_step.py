"""A Program's step through PyTorch's compilers, for `lrnn bench stream`.

`torch.compile` checks guards and goes through Python at every call, which at k = 1 costs more than the
matrices do; AOTInductor compiles the same graph ahead of time into a shared library, PyTorch's fastest form.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from lrnn.program import Program, StepModule

Step = Callable[..., list[Tensor]]


class Stateful:
    """Carries the states of a compiled step from call to call.

    Args:
        step: frame and states to output and states.
        states: before the first frame.
    """

    def __init__(self, step: Step, states: list[Tensor]):
        self._step, self._states = step, states

    def __call__(self, frame: Tensor) -> Tensor:
        """The output of the next frame."""
        y, *self._states = self._step(frame, *self._states)
        return y


def compiled(program: Program) -> Stateful:
    """The step through torch.compile; it is compiled for one frame (input_width,) before this returns."""
    module = StepModule(program).eval()
    step = torch.compile(module, fullgraph=True, dynamic=False)
    with _quiet():
        step(torch.zeros(program.input_width), *module.zero_states())
    return Stateful(step, module.zero_states())


def ahead_of_time(program: Program, *, batched: bool = False) -> Callable[[tuple[int, ...]], Stateful]:
    """The step through torch.export and AOTInductor.

    Args:
        program: the network.
        batched: frames are (streams, input_width) with two streams or more, in place of (input_width,).

    Returns:
        a function from the shape of a frame without its width, () or (streams,), to a step at zero state.
    """
    module = StepModule(program).eval()
    shape = (8,) if batched else ()
    example = (torch.zeros(*shape, program.input_width), *module.zero_states(*shape))
    streams = {0: torch.export.Dim("streams", min=2, max=4096)} if batched else {}
    with tempfile.TemporaryDirectory() as folder, _quiet():
        graph = torch.export.export(
            module, example, dynamic_shapes=(streams, (streams,) * len(module.state_widths))
        )
        package = torch._inductor.aoti_compile_and_package(graph, package_path=str(Path(folder, "step.pt2")))
        loader = torch._inductor.aoti_load_package(package).loader
    # Calling the package itself sorts its arguments in Python for another 10 us.
    return lambda shape: Stateful(lambda *values: loader.boxed_run(list(values)), module.zero_states(*shape))


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compilers' own
        yield
