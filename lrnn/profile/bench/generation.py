"""`lrnn bench stream --language H --generate`: what a byte of generated text costs, the draw included.

Every row draws from its own logits with the same kind of Sampler (temperature 0.8, top-p 0.95, as `lrnn
generate` by default) and feeds the byte back. The native rows are the loop of `lrnn generate` without its
output, lrnn.data.generate.Generator.tokens; PyTorch's call a step on a tensor of one byte and hand the logits
to the sampler as the array that they share memory with. Before it is timed, every row has to draw the bytes
that the numpy executor of its program draws; ONNX Runtime in int8 draws others, its weights being others. One
pinned thread, interleaved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from lrnn.data.generate import Generator, Sampler
from lrnn.engine.native import NativeEngine
from lrnn.profile.bench import stream_rows as make
from lrnn.profile.bench.compiled_step import ahead_of_time, compiled
from lrnn.profile.bench.eager_step import EagerStep
from lrnn.profile.bench.onnx_step import OnnxStep
from lrnn.profile.bench.stream import density
from lrnn.profile.bench.timing import torch_threads
from lrnn.program import Program

TEMPERATURE, TOP_P = 0.8, 0.95
_PROMPT = "\n"
_SUBJECTS = ("native", "W8A16")
_SAMPLER = "the sampler alone"
_ONNX, _INT8 = "ONNX Runtime", "ONNX Runtime int8"
_BASELINES = {
    "the better of eager and torch.compile": ("eager step", "torch.compile"),
    "AOTInductor": ("AOTInductor",),
    "ONNX Runtime, float32": (_ONNX,),
    "ONNX Runtime, the faster form": (_ONNX, _INT8),
    "our own engine in float32": ("native",),
}


def run(
    language: int,
    sparsity: float = 0.9,
    *,
    compilers: bool = True,
    rounds: int = 40,
    budget: float = 40.0,
    seed: int = 0,
    notify: Callable[[str], object] = lambda text: None,
) -> dict:
    """Measure and return the figures, ready for JSON.

    Args:
        language: width of a language model with random weights: six HGRN layers over bytes.
        sparsity: fraction of zeros over its weights, shared out by ERK; table and logits stay dense.
        compilers: also PyTorch's, which take up to a minute.
        rounds: most timed rounds.
        budget: seconds after which no round starts.
        seed: of the weights and the draws.
        notify: is told what goes on.

    Raises:
        ValueError: an argument is out of range.
        RuntimeError: the native engine is not built here, or a row draws the wrong bytes.
    """
    name, network, program = make.subject(1.0, sparsity, None, language, seed)
    program = _of_bytes(program)
    fixed = _of_bytes(make.in_fixed_point(program, make.frames_of(program, 256, seed)))
    with torch_threads(1, pin=True), torch.inference_mode():
        loops = {
            "model(x, state)": _torch_loop(_model_step(network), _sampler(seed)),
            "eager step": _torch_loop(EagerStep(program), _sampler(seed)),
        }
        others, left_out = make.made(_others(program, compilers, seed), notify)
        floats = {**loops, **others, "native": _native_loop(program, "native", seed)}
        integers = {"W8A16": _native_loop(fixed, "native", seed)}
        notify("measuring")
        _check(
            {key: loop for key, loop in floats.items() if key != _INT8},
            _native_loop(program, "numpy", seed)(),
        )
        _check(integers, _native_loop(fixed, "numpy", seed)())
        rows = {key: make.Row(loop, make.BLOCK) for key, loop in {**floats, **integers}.items()}
        rows[_SAMPLER] = make.Row(_draws(program, seed), make.BLOCK)
        per_byte = make.timed(rows, rounds, budget)
    return {
        "bench": "stream",
        "model": name,
        "density": density(program),
        "isa": NativeEngine.of(program).isa,
        "torch": torch.__version__,
        "seconds_per_frame": per_byte,
        "left_out": left_out,
        "ratios": _ratios(per_byte),
    }


def _of_bytes(program: Program) -> Program:
    return replace(program, meta={**program.meta, "text": {"tokenizer": None}})


def _sampler(seed: int) -> Sampler:
    return Sampler(TEMPERATURE, TOP_P, seed)


def _native_loop(program: Program, engine: str, seed: int) -> Callable[[], list[int]]:
    generator, sampler = Generator(program, engine), _sampler(seed)
    generator.read(_PROMPT)
    return lambda: list(generator.tokens(make.BLOCK, sampler))


def _torch_loop(step: Callable[[Tensor], Tensor], sampler: Sampler) -> Callable[[], list[int]]:
    """As a user of PyTorch would write it, on a step from a token (1,) float32 to logits (V,)."""
    logits = step(torch.tensor([float(ord(_PROMPT))]))

    def loop() -> list[int]:
        nonlocal logits
        drawn = []
        for _ in range(make.BLOCK):
            drawn.append(sampler(logits.numpy()))
            logits = step(torch.tensor([float(drawn[-1])]))
        return drawn

    return loop


def _model_step(network: nn.Module | None) -> Callable[[Tensor], Tensor]:
    """The module with T = 1, the state carried over."""
    assert network is not None  # of random weights there is one
    state = None

    def step(token: Tensor) -> Tensor:
        nonlocal state
        logits, state = network(token.long()[None], state)
        return logits[0, 0]

    return step


def _others(program: Program, compilers: bool, seed: int) -> dict[str, Callable[[], Callable]]:
    builders: dict[str, Callable[[], Callable]] = {}
    if compilers:
        builders["torch.compile"] = lambda: _torch_loop(compiled(program), _sampler(seed))
        builders["AOTInductor"] = lambda: _torch_loop(ahead_of_time(program)(()), _sampler(seed))

    builders[_ONNX] = lambda: _onnx_loop(program, seed, int8=False)
    builders[_INT8] = lambda: _onnx_loop(program, seed, int8=True)
    return builders


def _onnx_loop(program: Program, seed: int, *, int8: bool) -> Callable[[], list[int]]:
    step = OnnxStep(program, int8=int8)
    return _torch_loop(lambda token: torch.from_numpy(step(token.numpy())), _sampler(seed))


def _check(loops: dict[str, Callable[[], list[int]]], expected: list[int]) -> None:
    """Call every loop for the first time; all have to draw the same bytes."""
    for name, loop in loops.items():
        if (found := loop()) != expected:
            raise RuntimeError(f"{name} draws {bytes(found)!r}, expected {bytes(expected)!r}")


def _draws(program: Program, seed: int) -> Callable[[], list[int]]:
    """The sampler on logits that occur."""
    sampler = _sampler(seed)
    logits = list(program.stream().run(make.frames_of(program, make.BLOCK, seed)))
    return lambda: [sampler(row) for row in logits]


def _ratios(times: dict[str, dict[str, float]]) -> dict[str, dict[str, dict]]:
    """By baseline and subject: how many times more bytes a second, and than which row."""
    ratios: dict[str, dict[str, dict]] = {}
    for baseline, rows in _BASELINES.items():
        there = [row for row in rows if row in times]
        for subject in _SUBJECTS:
            if there and subject not in there:
                best = min(there, key=lambda row: times[row]["median"])
                found = {which: times[best][which] / times[subject][which] for which in ("median", "minimum")}
                ratios.setdefault(baseline, {})[subject] = {**found, "row": best}
    return ratios


def table(result: dict) -> str:
    """The figures as a table for people."""
    lines = [
        f"generation: {result['model']}; density {result['density']:.3f}; one pinned thread",
        f"torch {result['torch']}; native engine {result['isa']}; temperature {TEMPERATURE}, top-p {TOP_P}",
        "",
        f"{'us per byte':22}{'median':>10}{'minimum':>10}{'bytes/s':>10}",
    ]
    for name, times in result["seconds_per_frame"].items():
        us = [f"{times[which] * 1e6:.2f}" for which in ("median", "minimum")]
        rate = "" if name == _SAMPLER else f"{1 / times['median']:,.0f}"
        lines.append(f"{name:22}{us[0]:>10}{us[1]:>10}{rate:>10}")
    lines += [f"{name}: left out ({reason})" for name, reason in result["left_out"].items()]
    lines += ["", f"{'times faster than, by medians (minima)':40}" + "".join(f"{s:>16}" for s in _SUBJECTS)]
    for baseline, subjects in result["ratios"].items():
        cells = [_ratio(subjects.get(subject)) for subject in _SUBJECTS]
        lines.append(f"{baseline:40}" + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join(lines)


def _ratio(found: dict | None) -> str:
    return "" if found is None else f"{found['median']:.1f} ({found['minimum']:.1f})"
