"""The cells of the ablation grid: a network in a format, scored, counted, weighed and timed."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from post_training import training_frames

import lrnn
from lrnn.data.denoiser import Denoiser
from lrnn.data.evaluate import scores
from lrnn.data.ndns import NdnsFolder, find_validation
from lrnn.data.summary import summary
from lrnn.files import written_whole
from lrnn.ops.libraries import core_library
from lrnn.profile import count
from lrnn.profile.bench.timing import interleaved, torch_threads
from lrnn.program import Program, calibrate, compile_fixed
from lrnn.program.rounded import rounded
from lrnn.quant import Ranges, get_scheme
from lrnn.train.checkpoint import load_checkpoint

BLOCK = 32  # frames of one timed call: the loop around it costs nothing then
ROUNDS, BUDGET = 41, 90.0


def observer(scheme: str) -> str:
    """minmax, but where so few bits are left that clipping what is rare pays."""
    return "mse" if get_scheme(scheme).activation_bits <= 8 else "minmax"


class Bench:
    """Measures cells, each once: results are kept in `root`/cells and read again.

    Args:
        root: of the trainings.
        data: folder with sources and validation set.
        clips: training clips to calibrate on, a multiple of 8.
    """

    def __init__(self, root: Path, data: str, clips: int):
        self.folder, self.data, self.clips = root / "cells", data, clips
        self.folder.mkdir(parents=True, exist_ok=True)
        self._mixtures: list | None = None
        self._ranges = lru_cache(maxsize=2)(self._calibrated)  # of the network in hand

    @cached_property
    def validation(self) -> list:
        """Clips to score on."""
        folder = NdnsFolder(find_validation(self.data))
        return [folder[i] for i in range(len(folder))]

    def cell(self, model: Path, name: str, form: str) -> dict:
        """The figures of a network in a format."""
        path = self.folder / f"{name}.{form}.json"
        known = {"model": _hash(model), "calibration_clips": self.clips}
        found = _read(path)
        if all(found.get(key) == value for key, value in known.items()):
            return found
        made = {**known, **self._measure(model, form, self.program(model, name, form))}
        _write(path, made)
        return made

    def program(self, model: Path, name: str, form: str) -> Path:
        """The file that runs: the network's own in float, one that its cell has written in fixed point."""
        return model if form == "float32" else self.folder / f"{name}.{form}.lrnn"

    def _measure(self, model: Path, form: str, out: Path) -> dict:
        """Score and count a network in float, rounded, and in fixed point, which is written to `out`."""
        program = _load(model)
        if form == "float32":
            size = model.stat().st_size
            return {"simulated": self._quality(program), "file_bytes": size, **self._work(program)}
        plain, scheme = _without_training(program), get_scheme(form)
        if scheme.float_weights is not None:
            simulated = rounded(plain, scheme)
            return {"simulated": self._quality(simulated), **self._work(simulated)}
        ranges = self._ranges(model, observer(form), scheme.activation_bits)
        simulated, made = rounded(plain, scheme, ranges), {}
        if scheme.message_bits is None:  # which the simulation does not know
            made["simulated"] = self._quality(simulated)
        try:
            fixed = compile_fixed(plain, ranges, scheme)
        except ValueError as error:
            return {**made, "refused": str(error)}
        fixed.save(out)
        engine = "torch" if core_library()[0] is None else "native"  # the same integers
        made |= {"fixed": self._quality(fixed, engine), "file_bytes": out.stat().st_size}
        return {**made, **self._work(fixed)}

    def _calibrated(self, model: Path, observer: str, bits: int) -> Ranges:
        program = _load(model)
        trained = program.meta.get("quantization")
        known = Ranges.from_json(trained["ranges"]) if trained and trained["ranges"] else None
        return calibrate(_without_training(program), self._frames(program), observer, bits, known=known)

    def _frames(self, program: Program) -> list:
        """What a denoiser reads of training mixtures; all here read the same."""
        if self._mixtures is None:
            self._mixtures = training_frames(Denoiser(program), self.data, self.clips)
        return self._mixtures

    def _quality(self, program: Program, engine: str = "torch") -> dict:
        """SI-SNR in dB, its mean over the clips with a 95 % bootstrap interval, and its improvement."""
        found = list(scores(Denoiser(program), self.validation, engine))
        figures = summary(found)["figures"]["si_snr"]
        return {
            "si_snr": [round(figures["denoised"][key], 4) for key in ("mean", "low", "high")],
            "si_snri": round(figures["improvement"]["mean"], 4),
            "after": [round(s.denoised["si_snr"], 4) for s in found],
        }

    def _work(self, program: Program) -> dict:
        """Multiply-accumulates per frame on the validation clips."""
        denoiser = Denoiser(program)
        inputs = [denoiser.features(c.noisy.numpy(), denoiser.sample_rate) for c in self.validation]
        counts = [count(program, frames) for frames in inputs]  # clip by clip: all values at once are large
        effective = [sum(node.macs_effective for node in nodes) for nodes in counts]
        return {
            "macs": sum(node.macs for node in counts[0]),
            "macs_weights": sum(node.macs_weights for node in counts[0]),
            "macs_effective": round(float(np.average(effective, weights=[len(x) for x in inputs]))),
        }

    def times(self, programs: dict[str, Path], keep: bool) -> dict:
        """Microseconds per frame of `NativeStream.step`, median and minimum, by the name of the program.

        All programs take turns in one process, on one pinned thread and frames of the validation clips. They
        are timed anew where one of them is another; with `keep`, or without a native engine, never: then
        those that have changed have no time.
        """
        path = self.folder / "times.json"
        found, known = _read(path), {name: _hash(file) for name, file in programs.items()}
        if keep or core_library()[0] is None or found.get("programs") == known:
            timed = found.get("programs", {})
            return {name: found["microseconds"][name] for name in known if timed.get(name) == known[name]}
        made = {"programs": known, "microseconds": self._timed(programs)}
        _write(path, made)
        return made["microseconds"]

    def _timed(self, programs: dict[str, Path]) -> dict:
        streams = {name: lrnn.load(file).stream() for name, file in programs.items()}
        denoiser = Denoiser(next(iter(streams.values())).program)
        clip = self.validation[0]
        frames = denoiser.features(clip.noisy.numpy(), denoiser.sample_rate)
        block = list(frames[len(frames) // 2 :][:BLOCK])
        subjects = {name: _steps(stream, block) for name, stream in streams.items()}
        with torch_threads(1, pin=True):
            times = interleaved(subjects, rounds=ROUNDS, budget=BUDGET, chunk=0.001)
        unit = 1e6 / len(block)
        return {name: [round(unit * t, 3) for t in (x.median, x.minimum)] for name, x in times.items()}


def _steps(stream, block: list) -> Callable[[], list]:
    return lambda: [stream.step(frame) for frame in block]


def _load(model: Path) -> Program:
    """A program in float, of its file or of a checkpoint."""
    return lrnn.load(model) if model.suffix == ".lrnn" else lrnn.compile(*load_checkpoint(model))


def _without_training(program: Program) -> Program:
    """A program without the note that it was trained quantised, which makes fixed point of it."""
    return replace(program, meta={k: v for k, v in program.meta.items() if k != "quantization"})


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _read(path: Path) -> dict:
    return json.loads(path.read_text()) if path.is_file() else {}


def _write(path: Path, values: dict) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n")
