"""`lrnn bench loading`: does mixing keep up with training? Clips per second of one process beside a step.

All but the workers' rows run in one process, interleaved: batches mixed as `DenoiseData` mixes them, from
sources in memory and (of a corpus) from disk, without augmentation and with all of it on every clip; and a
training step of the dense k = 1 denoiser on such a batch: STFT, network, inverse, SI-SNR, backward pass,
AdamW, matrix products in bfloat16. Mixing takes one thread, the step as many as torch is given.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch.utils.data import DataLoader

from lrnn.data.augment import OFF, Augment
from lrnn.data.index import Progress, unseen
from lrnn.data.metrics import si_snr
from lrnn.data.mix import Mixer
from lrnn.data.sources import Recordings, find_sources, read_sources
from lrnn.data.stft import Stft
from lrnn.data.stream import Mixtures
from lrnn.data.synthetic import synthetic_sources
from lrnn.memory import keep_freed_memory
from lrnn.nn import SequenceModel, SequenceModelConfig
from lrnn.profile.bench.timing import interleaved

ALL = Augment(gain=1, filter=1, speed=1, two_noises=1, reverb=1)
_KINDS = {"plain": OFF, "augmented": ALL}
_STEP = "training step"
_ENDLESS = 1 << 30


def run(
    data: str | None = None,
    workers: int = 0,
    batch: int = 16,
    clip_seconds: float = 2.0,
    *,
    rounds: int = 15,
    budget: float = 30.0,
    progress: Progress = unseen,
) -> dict:
    """Measure and return the figures, ready for JSON.

    Args:
        data: folder with sources, see `find_sources`; None takes synthetic ones, in memory only.
        workers: processes of a data loader that is measured as well; 0 measures none.
        batch: clips per batch.
        clip_seconds: length of a clip.
        rounds: most timed rounds.
        budget: seconds after which no round starts; a fifteenth of it measures the workers on each row.
        progress: shows how far the reading of the sources is.

    Raises:
        ValueError: an argument is out of range. FileNotFoundError: no sources.
    """
    if workers < 0 or batch < 1:
        raise ValueError(f"workers, batch are {workers}, {batch}, expected at least 0 and 1")
    keep_freed_memory()
    clips = {
        f"{kind}, {place}": Mixtures(Mixer(*sources, clip_seconds, augment=augment), 0, 0, _ENDLESS)
        for place, sources in _sources(data, progress).items()
        for kind, augment in _KINDS.items()
    }
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    subjects = {name: _mixing(mixtures, batch) for name, mixtures in clips.items()}
    subjects[_STEP] = _training(next(iter(clips.values())), batch, device)
    times = interleaved(subjects, rounds=rounds, budget=budget)
    step = times.pop(_STEP)
    return {
        "bench": "loading",
        "corpus": data or "synthetic",
        "batch": batch,
        "clip_seconds": clip_seconds,
        "step": {"device": str(device), "threads": torch.get_num_threads(), "seconds": step.to_dict()},
        "rows": {
            name: _figures(timing.median, timing.minimum, step.median, batch, clip_seconds)
            for name, timing in times.items()
        },
        "workers": _with_workers(clips, workers, batch, step.median, budget / 15) if workers else None,
    }


def _sources(data: str | None, progress: Progress) -> dict[str, tuple[Recordings, Recordings]]:
    if data is None:
        return {"in memory": synthetic_sources()}
    folder = find_sources(data)
    return {
        "in memory": read_sources(folder, progress=progress),
        "from disk": read_sources(folder, memory_limit=0, progress=progress),
    }


def _mixing(mixtures: Mixtures, batch: int) -> Callable[[], object]:
    """Mixes the next batch at each call."""
    first = 0

    def mix():
        nonlocal first
        first += batch
        clips = [mixtures[n] for n in range(first - batch, first)]
        return [torch.stack(sounds) for sounds in zip(*clips, strict=True)]

    return mix


def _training(mixtures: Mixtures, batch: int, device: torch.device) -> Callable[[], object]:
    """One step of the dense denoiser at k = 1, always on the same batch."""
    noisy, clean = (x.to(device) for x in _mixing(mixtures, batch)())
    torch.manual_seed(0)
    model, stft = SequenceModel(SequenceModelConfig(d_in=257, d_out=257)).to(device), Stft()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step():
        with torch.autocast(device.type, torch.bfloat16):
            X = stft.analyse(noisy)
            mask = model(stft.read(X))[0].float()
            estimate = stft.resynthesise(X, mask, noisy.shape[-1])
        loss = -si_snr(estimate, clean).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()  # waits for the device

    return step


def _figures(median: float, minimum: float, step: float, batch: int, clip_seconds: float) -> dict:
    """Figures of batches that take `median` seconds, at best `minimum`, beside a training step of `step`."""
    return {
        "seconds_per_clip": {"median": median / batch, "minimum": minimum / batch},
        "clips_per_second": batch / median,
        "times_real_time": batch * clip_seconds / median,
        "batches_per_second": 1 / median,
        "times_training": step / median,
        "workers_needed": math.ceil(median / step),
    }


def _with_workers(clips: dict[str, Mixtures], workers: int, batch: int, step: float, seconds: float) -> dict:
    """Batches per second that arrive from a loader's processes, after they have started."""
    rows = {}
    for name, mixtures in clips.items():
        loader = iter(DataLoader(mixtures, batch, num_workers=workers, generator=torch.Generator()))
        for _ in range(4 * workers):  # what was fetched ahead while they started
            next(loader)
        begun, count = time.perf_counter(), 0
        while count < 8 * workers or time.perf_counter() - begun < seconds:
            next(loader)
            count += 1
        rate = count / (time.perf_counter() - begun)
        rows[name] = {"batches_per_second": rate, "times_training": rate * step}
    return {"count": workers, "rows": rows}


def table(result: dict) -> str:
    """The figures as a table for people."""
    step, columns = result["step"], ("ms per clip (min)", "clips/s", "x real time", "batches/s", "x training")
    lines = [
        f"loading: {result['corpus']}, clips of {result['clip_seconds']:g} s, batches of {result['batch']}",
        f"training step, k = 1, {step['device']}, {step['threads']} thread(s): {_ms(step['seconds'])} ms, "
        f"{1 / step['seconds']['median']:.1f} batches/s",
        _line("one process", columns),
    ]
    for name, row in result["rows"].items():
        cells = (
            _ms(row["seconds_per_clip"]),
            f"{row['clips_per_second']:.0f}",
            f"{row['times_real_time']:.0f}",
            f"{row['batches_per_second']:.1f}",
            f"{row['times_training']:.1f}",
        )
        lines.append(_line(name, cells))
    if result["workers"] is not None:
        lines.append(f"{result['workers']['count']} worker(s) of a data loader")
    for name, row in (result["workers"] or {"rows": {}})["rows"].items():
        cells = ("", "", "", f"{row['batches_per_second']:.1f}", f"{row['times_training']:.1f}")
        lines.append(_line(name, cells))
    return "\n".join(lines)


def _ms(timing: dict) -> str:
    return f"{timing['median'] * 1e3:.2f} ({timing['minimum'] * 1e3:.2f})"


def _line(name: str, cells: tuple[str, ...]) -> str:
    widths = (20, 9, 13, 11, 12)
    return f"{name:22}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
