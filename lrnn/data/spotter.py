"""A Program with a front end before and a detector behind it: audio in, words out as they are said."""

from __future__ import annotations

from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lrnn.data.audio import Resampler, resample
from lrnn.data.detector import Decision, Detector, Keyword
from lrnn.data.frontend import FrontEnd
from lrnn.data.frontend_stream import StreamingFrames
from lrnn.data.keywords import SILENCE, UNKNOWN
from lrnn.models import KEYWORDS
from lrnn.program import Program, load

if TYPE_CHECKING:
    from torch import Tensor

    from lrnn.program.torch_executor import TorchExecutor


class KeywordSpotter:
    """A Program that scores words, with what its meta["keywords"] names: labels, front end, decision.

    Args:
        program: reads frames of the front end and gives a score for every label.

    Raises:
        ValueError: its meta has no keywords, labels without a word, or what does not fit the program.
    """

    def __init__(self, program: Program):
        meta = program.meta.get("keywords")
        if not isinstance(meta, dict) or "labels" not in meta or "frontend" not in meta:
            raise ValueError("program has no keywords in its meta, expected a keyword spotter's")
        self.program = program
        self.labels = tuple(meta["labels"])
        self.frontend = FrontEnd.from_meta(meta["frontend"])
        self.decision = Decision.from_meta(meta.get("decision", {}))
        if not self.words:
            raise ValueError(f"program has the labels {self.labels}, expected words among them")
        widths, expected = (
            (program.input_width, program.output_width),
            (self.frontend.width, len(self.labels)),
        )
        if widths != expected:
            raise ValueError(f"program has widths {widths}, expected {expected} for its frontend and labels")

    @classmethod
    def load(cls, path: str | PathLike | None = None) -> KeywordSpotter:
        """Read a program's file; None is the model that ships with the package."""
        path = Path(KEYWORDS if path is None else path)
        if path == KEYWORDS and not path.is_file():
            raise FileNotFoundError(
                f"{KEYWORDS}: this build of lrnn ships no keyword spotter; name one of your own"
            )
        return cls(load(path))

    @property
    def sample_rate(self) -> int:
        """Of the audio that the front end reads, in Hz."""
        return self.frontend.sample_rate

    @property
    def words(self) -> tuple[str, ...]:
        """The labels that are words."""
        return tuple(label for label in self.labels if label not in (UNKNOWN, SILENCE))

    def scores(self, audio: Tensor) -> Tensor:
        """Score whole clips with the torch executor: the mean over a clip's frames.

        Args:
            audio: torch (B, N) float at the spotter's sample rate, at least one step long.

        Returns:
            Tensor (B, labels), before the softmax.
        """
        import torch

        with torch.inference_mode():
            frames = self.frontend(audio)
            if not frames.shape[-2]:
                raise ValueError(
                    f"audio has {audio.shape[-1]} samples, expected {self.frontend.step} or more"
                )
            return self._executor(frames)[0].mean(1)

    def features(self, audio: np.ndarray, rate: int) -> np.ndarray:
        """What the program reads of a recording: (T, width) float32; channels are averaged.

        Args:
            audio: (n,) or (n, channels).
            rate: in Hz.
        """
        import torch

        audio = np.asarray(audio, np.float32)
        mono = resample(audio if audio.ndim == 1 else audio.mean(1), rate, self.sample_rate)
        return self.frontend(torch.from_numpy(np.ascontiguousarray(mono))).numpy()

    def stream(
        self, rate: int | None = None, engine: str = "native", decision: Decision | None = None
    ) -> SpotterStream:
        """A running instance.

        Args:
            rate: of its audio in Hz; None is the spotter's own.
            engine: "native", "numpy" or "torch".
            decision: when a word counts as said; None is the model's.
        """
        rate = self.sample_rate if rate is None else rate
        return SpotterStream(self, rate, engine, decision or self.decision)

    @cached_property
    def _executor(self) -> TorchExecutor:
        from lrnn.program.torch_executor import TorchExecutor

        return TorchExecutor(self.program)


class SpotterStream:
    """One channel, piece by piece; any cutting of the same samples finds the same words.

    Args:
        spotter: program and front end.
        rate: of the audio in Hz.
        engine: "native", "numpy" or "torch".
        decision: when a word counts as said.
    """

    def __init__(self, spotter: KeywordSpotter, rate: int, engine: str, decision: Decision):
        if rate < 1:
            raise ValueError(f"rate is {rate}, expected a positive number of Hz")
        self.frontend, self.rate = spotter.frontend, rate
        self._program = spotter.program.stream(engine)
        self._frames = StreamingFrames(spotter.frontend)
        self._detector = Detector(spotter.labels, spotter.frontend.step / spotter.sample_rate, decision)
        self.reset()

    def reset(self) -> None:
        """Start a new stream."""
        self._resampler = Resampler(self.rate, self.frontend.sample_rate)
        self._program.reset()
        self._frames.reset()
        self._detector.reset()

    def step(self, samples: np.ndarray) -> list[Keyword]:
        """Take any number of samples, (n,) float in -1..1; return the words that they decide.

        Raises:
            TypeError: not floats. ValueError: another shape, or NaN or infinity; the state is then as before.
        """
        samples = np.asarray(samples)
        if samples.ndim != 1:
            raise ValueError(f"samples has shape {samples.shape}, expected (n,)")
        if samples.dtype.kind != "f":
            raise TypeError(f"samples is {samples.dtype}, expected float in -1..1")
        if not np.isfinite(samples).all():
            raise ValueError("samples has NaN or infinity, expected finite numbers")
        return self._hear(self._resampler.push(samples.astype(np.float32, copy=False)))

    def flush(self) -> list[Keyword]:
        """End the stream: what the resampler held back decides its words, and a new stream starts."""
        found = self._hear(self._resampler.flush())
        self.reset()
        return found

    def _hear(self, samples: np.ndarray) -> list[Keyword]:
        return self._detector.push(self._program.run(self._frames.push(samples)))
