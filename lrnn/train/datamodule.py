"""Data for the denoiser: mixtures drawn on the fly to train on, a fixed set of mixed clips to validate on."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import asdict
from typing import Literal

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lrnn.data.augment import OFF, Augment
from lrnn.data.faults import FaultLog, Policy
from lrnn.data.index import REMEMBERED_FROM
from lrnn.data.mix import Mixer
from lrnn.data.ndns import NdnsFolder, find_training, find_validation
from lrnn.data.sources import MEMORY_LIMIT, Recordings, find_sources, read_sources
from lrnn.data.stream import Mixtures, ReadyMixtures
from lrnn.data.synthetic import synthetic_sources
from lrnn.train.stream_data import VALIDATION, StreamData


class DenoiseData(StreamData):
    """Training mixtures without end, see StreamData; validation clips come one by one: they differ in length.

    Args:
        root: folder with sources to mix (or ready mixtures) and a validation set, such as ndns-mini, N-DNS
            or the folder that holds it. None takes LRNN_DATA; without either a small synthetic corpus stands
            in, with a notice.
        batch_size: clips per training batch and process.
        batches_per_epoch: training batches of a process between validations.
        clip_seconds: length of a training clip.
        snr: least and greatest SNR of the mixtures in dB.
        level: least and greatest RMS of the mixtures in dBFS.
        seed: of the mixtures.
        num_workers: processes that mix; 0 mixes in the training process, which takes a few milliseconds per
            batch. `lrnn bench loading` measures it.
        augment: what else may happen to a training clip; off by default.
        source: "mix" draws mixtures from the sources; "ready" takes those of training_set, shuffled anew for
            each pass, a random stretch of each; `snr`, `level` and `augment` do not apply to them.
        faults: what is done about files that are missing, unreadable, truncated, silent or not finite:
            "error" stops and names the file, "skip" draws another in its place and reports the count when fit
            ends. Files of another sample rate are resampled.
        memory_limit: bytes of samples up to which the clean (and the noise) sources are held in memory; more
            are read from disk as they are drawn. The clips are the same.
        validation_root: folder with the validation set where it is not in `root`.
    """

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 16,
        batches_per_epoch: int = 250,
        clip_seconds: float = 2.0,
        snr: tuple[int, int] = (-5, 20),
        level: tuple[float, float] = (-35.0, -15.0),
        seed: int = 0,
        num_workers: int = 0,
        augment: Augment = OFF,
        source: Literal["mix", "ready"] = "mix",
        faults: Policy = "error",
        memory_limit: int = MEMORY_LIMIT,
        validation_root: str | None = None,
    ):
        super().__init__(batch_size, batches_per_epoch, num_workers, validation_batch_size=1)
        if source == "ready" and augment != OFF:
            raise ValueError(
                'augment is given with source "ready", expected source "mix": it needs the sources'
            )
        self.root = root if root is not None else os.environ.get("LRNN_DATA")
        self.clip_seconds, self.snr, self.level = clip_seconds, snr, level
        self.seed, self.augment = seed, augment
        self.source, self.faults, self.memory_limit = source, faults, memory_limit
        self.validation_root = validation_root
        self.mixer: Mixer | None = None  # where source is "mix"
        self.mixtures: NdnsFolder | None = None  # where it is "ready"

    def prepare_data(self) -> None:
        """Index the sources in one process of a node, so that the others find the headers remembered."""
        alone = self.trainer is None or self.trainer.world_size == 1
        if not alone and self.root is not None and self.source == "mix":
            read_sources(find_sources(self.root), faults=self.faults, memory_limit=0)

    def setup(self, stage: str) -> None:
        """Find and read the recordings, once."""
        if self.validation is not None:
            return
        if self.root is None:
            self._set_up_synthetic()
            return
        if self.source == "ready":
            self.mixtures = NdnsFolder(find_training(self.root), faults=self.faults)
        else:
            sources = find_sources(self.root)
            options = {"faults": self.faults, "memory_limit": self.memory_limit, "progress": _said}
            self.mixer = self._mixer(*read_sources(sources, **options))
        validation = find_validation(self.validation_root or self.root)
        self.validation = NdnsFolder(validation, faults=self.faults)

    def _set_up_synthetic(self) -> None:
        if self.source == "ready":
            raise ValueError(
                'no data: source "ready" needs a folder with training_set, named by root or LRNN_DATA'
            )
        rank_zero_warn(
            "no data: training on synthetic sounds, which teaches nothing about speech; "
            "name a corpus with --data.root or LRNN_DATA"
        )
        self.mixer = self._mixer(*synthetic_sources(self.seed))
        held_out = Mixer(*synthetic_sources(self.seed + 1), self.clip_seconds, self.snr, self.level)
        self.validation = Mixtures(held_out, self.seed, VALIDATION, self.batch_size)

    def _mixer(self, clean: Recordings, noise: Recordings) -> Mixer:
        return Mixer(clean, noise, self.clip_seconds, self.snr, self.level, self.augment)

    def items(self, stream: int, count: int) -> Mixtures | ReadyMixtures:
        """Noisy and clean clips of a stream; of ready mixtures calibration sees the files, cut elsewhere."""
        if self.mixtures is not None:
            return ReadyMixtures(self.mixtures, self.clip_seconds, self.seed, stream, count)
        return Mixtures(self.mixer, self.seed, stream, count)

    @staticmethod
    def collate_validation(items: list) -> tuple[Tensor, Tensor]:
        """Noisy and clean, (1, N) each, of the one clip of a batch."""
        noisy, clean = (torch.as_tensor(x)[None] for x in items[0][:2])
        return noisy, clean

    def teardown(self, stage: str) -> None:
        """Say which files were skipped."""
        for name, log in self._logs().items():
            if report := log.report():
                warnings.warn(f"{name}: {report}")

    def _logs(self) -> dict[str, FaultLog]:
        held = {"mixtures": self.mixtures, "validation": self.validation}
        if self.mixer is not None:
            held |= {"clean": self.mixer.clean, "noise": self.mixer.noise}
        return {name: log for name, h in held.items() if (log := getattr(h, "log", None)) is not None}

    @property
    def card(self) -> dict:
        """What a model card says of the data: plain values, no paths of this machine."""
        return {
            "corpus": _corpus(self.root, self.source),
            "batch_size": self.batch_size,
            "clip_seconds": self.clip_seconds,
            "snr_db": list(self.snr),
            "level_dbfs": list(self.level),
            "seed": self.seed,
            "source": self.source,
            "augment": {k: v for k, v in asdict(self.augment).items() if v != getattr(OFF, k)},
        }


def _corpus(root: str | None, source: str) -> str:
    """The name of the folder that holds the training data, or "synthetic"."""
    if root is None:
        return "synthetic"
    if source == "ready":
        return find_training(root).resolve().parent.name
    sources = find_sources(root).resolve()
    below = {"train": 2, "datasets": 1, "datasets_fullband": 1}.get(sources.name, 0)  # of the corpus
    return sources.parts[-1 - below]


def _said(items: Iterable, total: int, label: str) -> Iterable:
    """Say so before a long reading starts: there is no bar below Lightning's."""
    if total >= REMEMBERED_FROM:
        rank_zero_info(f"data: reading {total:,} {label}; headers are remembered, see lrnn.data.index")
    return items
