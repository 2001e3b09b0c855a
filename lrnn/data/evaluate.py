"""How good a denoiser is on a folder of mixtures: every clip denoised and measured, by several processes,
resumable.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from lrnn.data.denoiser import Denoiser
from lrnn.data.dnsmos import model_files
from lrnn.data.figures import METRICS, Scorer, checked_metrics
from lrnn.data.metrics import speech_gain
from lrnn.data.ndns import Clip, NdnsFolder
from lrnn.data.score_file import ScoreFile
from lrnn.data.summary import Score
from lrnn.data.workers import in_order
from lrnn.models import DENOISER


def scores(denoiser: Denoiser, clips: Iterable[Clip], engine: str = "torch") -> Iterator[Score]:
    """SI-SNR of clips one after another; see `score_clip`."""
    scorer = Scorer(rate=denoiser.sample_rate)
    for clip in clips:
        yield score_clip(denoiser, clip, scorer, engine)


def score_clip(denoiser: Denoiser, clip: Clip, scorer: Scorer, engine: str = "torch") -> Score:
    """Denoise a clip, whole with engine "torch", as a stream with any other, and measure both sides.

    A program in fixed point always runs behind the stream's front end, which differs from that of whole clips
    by float32's last bit. Integers show such a bit, and their figures are to be the same for all engines.

    Raises:
        ValueError: no samples; NaN or infinity on one side or in what the denoiser makes of it; no figure.
    """
    if not len(clip.noisy):
        raise ValueError("the clip has no samples")
    if engine == "torch" and not denoiser.program.is_fixed:
        estimate = denoiser.offline(clip.noisy)
    else:
        estimate = torch.from_numpy(denoiser.denoise(clip.noisy.numpy(), denoiser.sample_rate, engine))
    sides = {"noisy": clip.noisy, "clean": clip.clean, "denoised": estimate}
    for name, samples in sides.items():
        if not torch.isfinite(samples).all():
            raise ValueError(f"{name} has NaN or infinite samples, expected finite numbers")
    clean = clip.clean.numpy()
    (noisy, before), (denoised, after) = (scorer(x.numpy(), clean) for x in (clip.noisy, estimate))
    problems = [
        *(f"noisy: {p}" for p in before if p not in after),
        *(p if p in before else f"denoised: {p}" for p in after),
    ]
    if all(map(math.isnan, (*noisy.values(), *denoised.values()))):
        raise ValueError("; ".join(problems))
    gain = round(speech_gain(estimate, clip.clean).item(), 6)
    return Score(clip.info.name, clip.info.snr, noisy, denoised, gain, "; ".join(problems))


@dataclass(frozen=True)
class Evaluation:
    """A denoiser, a folder and what to measure: enough for another process to do a share of it.

    Attributes:
        folder: of the mixtures, with noisy/ and clean/.
        model: the denoiser's file.
        engine: see `score_clip`.
        metrics: in the order of METRICS.
        dnsmos: folder of the DNSMOS models.
    """

    folder: Path
    model: Path = DENOISER
    engine: str = "torch"
    metrics: tuple[str, ...] = ("si_snr",)
    dnsmos: Path | None = None

    def __post_init__(self):
        object.__setattr__(self, "metrics", checked_metrics(self.metrics))

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures that the metrics make."""
        return tuple(figure for metric in self.metrics for figure in METRICS[metric])

    def run(self, processes: int = 0, file: ScoreFile | None = None) -> Iterator[Score]:
        """Score the clips in order of their ids; those that `file` holds are not scored again.

        A clip that cannot be read, denoised or measured is a Score without figures. The scores are the same
        whatever `processes` is and however often a run was broken off.

        Args:
            processes: see workers.in_order.
            file: where scores are kept; None keeps none.
        """
        clips = NdnsFolder(self.folder)
        names = [clips.info(i).name for i in range(len(clips))]
        found = file.scores[:] if file else []
        if [s.name for s in found] != names[: len(found)]:
            raise ValueError(f"{file.path}: its rows are not of the clips of {self.folder}")
        yield from found
        if len(found) == len(names):
            return
        self.check()
        for score in in_order(self, range(len(found), len(names)), processes):
            if file:
                file.append(score)
            yield score

    def check(self) -> None:
        """Raise here what would stop every worker: a model that is none, a package or models missing."""
        Scorer(self.metrics, Denoiser.load(self.model).sample_rate, self.dnsmos)

    def start(self) -> Callable[[int], Score]:
        """Load the denoiser and what the metrics need; the function returned scores clip i."""
        denoiser = Denoiser.load(self.model)
        clips = NdnsFolder(self.folder, sample_rate=denoiser.sample_rate)
        scorer = Scorer(self.metrics, denoiser.sample_rate, self.dnsmos)

        def score(index: int) -> Score:
            try:
                return score_clip(denoiser, clips[index], scorer, self.engine)
            except (ValueError, OSError, RuntimeError) as error:
                return Score.failed(clips.info(index), error)

        return score

    def crashed(self, index: int, reason: str) -> Score:
        """The score of a clip that a native library died on."""
        return Score.failed(NdnsFolder(self.folder).info(index), reason)

    def header(self) -> dict:
        """What scores depend on: for a ScoreFile."""
        clips = NdnsFolder(self.folder)
        packages = {"pesq": "pesq", "stoi": "pystoi", "dnsmos": "onnxruntime"}
        used = ["lrnn", *(packages[m] for m in self.metrics if m in packages)]
        networks = model_files(self.dnsmos) if self.dnsmos and "dnsmos" in self.metrics else ()
        return {
            "lrnn": "eval denoise",
            "model": _hash(self.model),
            "engine": self.engine,
            "metrics": list(self.metrics),
            "clips": len(clips),
            "data": _listing_hash(clips),
            "dnsmos": [_hash(path) for path in networks],
            "versions": {package: _version(package) for package in used},
        }


def _hash(path: Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def _listing_hash(clips: NdnsFolder) -> str:
    """Of names and sizes: what can be known of 60,000 recordings in a second."""
    listing = hashlib.sha256()
    for i in range(len(clips)):
        for path in clips.paths(i):
            listing.update(f"{path.parent.name}/{path.name} {os.path.getsize(path)}\n".encode())
    return listing.hexdigest()[:16]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
