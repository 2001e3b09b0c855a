"""Data for keyword spotting: clips augmented on the fly to train on, the clips of a split to validate on."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

from lrnn.data.keyword_mix import KeywordAugment, KeywordMixer, KeywordStream, LabelledClips
from lrnn.data.keywords import KeywordClips, KeywordFolder, find_keywords, hold_out
from lrnn.data.sources import MEMORY_LIMIT, Recordings, find_sources, read_recordings, source_folders
from lrnn.train.stream_data import StreamData

_BATCH = 64  # of validation
_BACKGROUND = "_background_noise_"


class KeywordData(StreamData):
    """Training clips without end, see StreamData. What is told apart, the labels, belongs to the module.

    Args:
        root: folder with keywords, such as kws-mini, Speech Commands or the folder that holds one. None takes
            LRNN_DATA.
        noise: folder with recordings of noise. None takes `_background_noise_` of the corpus, or else the
            noise of ndns-mini below `root`; without one nothing is mixed in.
        speech: folder with recordings of speech to learn "_unknown_" from. None takes the speech of ndns-mini
            below `root`, if it is there.
        speech_files: glob of the files in `speech` that are used.
        batch_size: clips per training batch and process.
        batches_per_epoch: training batches of a process between validations.
        augment: what happens to a training clip.
        held_out: share of the training speakers, chosen by a hash of their names, that are validated on and
            not trained on. 0 trains on all and validates on the validation split.
        seed: of the augmentation.
        num_workers: processes that augment; 0 does it in the training process.
        memory_limit: bytes of samples up to which the keywords (and noise, and speech) are held in memory.
    """

    def __init__(
        self,
        root: str | None = None,
        noise: str | None = None,
        speech: str | None = None,
        speech_files: str = "*",
        batch_size: int = 64,
        batches_per_epoch: int = 100,
        augment: KeywordAugment = KeywordAugment(),  # noqa: B008  frozen
        held_out: float = 0.0,
        seed: int = 0,
        num_workers: int = 0,
        memory_limit: int = MEMORY_LIMIT,
    ):
        super().__init__(batch_size, batches_per_epoch, num_workers, validation_batch_size=_BATCH)
        if not 0 <= held_out < 1:
            raise ValueError(f"held_out is {held_out}, expected 0 <= held_out < 1")
        self.root = root if root is not None else os.environ.get("LRNN_DATA")
        self.noise, self.speech, self.speech_files = noise, speech, speech_files
        self.augment, self.held_out, self.seed = augment, held_out, seed
        self.memory_limit = memory_limit
        self.mixer: KeywordMixer | None = None

    def setup(self, stage: str) -> None:
        """Find and read the recordings, once."""
        if self.validation is None:
            self.read(self.trainer.lightning_module.labels)

    def read(self, labels: tuple[str, ...]) -> None:
        """Find and read the recordings for a network that tells `labels` apart."""
        if self.root is None:
            raise ValueError("no data: name a folder with keywords by root or LRNN_DATA")
        folder = find_keywords(self.root)
        kept, held_out = hold_out(folder.split("training"), self.held_out)
        noise, speech = self._noise(folder), self._speech()
        self.mixer = KeywordMixer(self._clips(folder, kept), labels, noise, speech, self.augment)
        validation = held_out if self.held_out else folder.split("validation")
        self.validation = LabelledClips(self._clips(folder, validation), labels)

    def _clips(self, folder: KeywordFolder, clips) -> KeywordClips:
        return KeywordClips(folder, clips, self.memory_limit)

    def _noise(self, folder: KeywordFolder) -> Recordings | None:
        place = self.noise
        if place is None:
            background = folder.folder / _BACKGROUND
            place = background if background.is_dir() else self._sources()[1]
        return None if place is None else read_recordings(place, memory_limit=self.memory_limit)

    def _speech(self) -> Recordings | None:
        place = self.speech if self.speech is not None else self._sources()[0]
        if place is None:
            return None
        return read_recordings(place, memory_limit=self.memory_limit, files=self.speech_files)

    def _sources(self) -> tuple[Path | None, Path | None]:
        """The folders with speech and with noise of ndns-mini, or of a DNS corpus."""
        try:
            return source_folders(find_sources(self.root))
        except FileNotFoundError:
            return None, None

    def items(self, stream: int, count: int) -> KeywordStream:
        """Clips of a stream and what is said in them."""
        return KeywordStream(self.mixer, self.seed, stream, count)

    @property
    def card(self) -> dict:
        """What a model card says of the data: plain values, no paths of this machine."""
        return {
            "corpus": None if self.root is None else find_keywords(self.root).folder.resolve().name,
            "batch_size": self.batch_size,
            "held_out": self.held_out,
            "seed": self.seed,
            "augment": asdict(self.augment),
        }
