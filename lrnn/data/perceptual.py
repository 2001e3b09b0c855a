"""Quality and intelligibility against clean speech, by the packages that implement the standards.

PESQ is ITU-T P.862.2 (package pesq), STOI Taal et al. 2011 and ESTOI Jensen and Taal 2016 (package pystoi).
Neither standard covers every clip; where one does not, `Undefined` says why.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import numpy as np

from lrnn.data.audio import resample

PESQ_RATE = 16000
SILENT_PEAK = 2.0**-16
"""Half a step of 16-bit audio: a clip that stays below it, its mean taken off, is silent."""


class Undefined(ValueError):
    """A clip has no such figure; the message says why."""


def is_silent(samples: np.ndarray) -> bool:
    """Whether (n,) samples hold nothing, or nothing but a constant."""
    return not len(samples) or float(np.abs(samples - samples.mean()).max()) < SILENT_PEAK


def pesq(estimate: np.ndarray, target: np.ndarray, rate: int) -> float:
    """Wide-band PESQ as MOS-LQO, 1.0 to 4.64.

    Args:
        estimate: (n,) float.
        target: (n,) float, clean speech.
        rate: in Hz; another rate than 16 kHz is resampled.

    Raises:
        Undefined: one side is silent, nothing in it is speech to PESQ, or it is shorter than 1/4 s.
    """
    _check(estimate, target)
    if is_silent(estimate):
        raise Undefined("pesq: the estimate is silent")
    package = require("pesq", "pesq")
    reference, degraded = (resample(x, rate, PESQ_RATE) for x in (target, estimate))
    try:
        return float(package.pesq(PESQ_RATE, reference, degraded, "wb"))
    except package.PesqError as error:
        text = error.args[0]
        raise Undefined(f"pesq: {text.decode() if isinstance(text, bytes) else text}") from None


def stoi(estimate: np.ndarray, target: np.ndarray, rate: int) -> tuple[float, float]:
    """Short-time objective intelligibility: STOI and ESTOI, about 0 to 1.

    Nothing of a silent estimate is intelligible: both are 0. (The correlations that make them do not exist.)

    Args:
        estimate: (n,) float.
        target: (n,) float, clean speech.
        rate: in Hz.

    Raises:
        Undefined: the target is silent, or fewer than 30 of its frames (384 ms) are speech.
    """
    _check(estimate, target)
    package = require("stoi", "pystoi")
    estimate, target = np.asarray(estimate, np.float64), np.asarray(target, np.float64)
    if len(target) / rate < 0.4:  # 30 frames of 25.6 ms at hops of 12.8 ms; shorter clips make pystoi raise
        raise Undefined("stoi: shorter than 0.4 s")
    if is_silent(estimate):
        return 0.0, 0.0
    with warnings.catch_warnings(), _seeded():
        warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
        try:
            return tuple(float(package.stoi(target, estimate, rate, extended)) for extended in (False, True))
        except RuntimeWarning:
            raise Undefined("stoi: less than 0.4 s of speech") from None


def require(metric: str, package: str):
    """Import what a metric needs; ImportError says how to install it."""
    try:
        return import_module(package)
    except ImportError as error:
        raise ImportError(
            f"the metric {metric} needs the package {package} ({error}): pip install 'lrnn[eval]'"
        ) from None


def _check(estimate: np.ndarray, target: np.ndarray) -> None:
    if estimate.shape != target.shape or estimate.ndim != 1:
        raise ValueError(
            f"estimate has shape {estimate.shape} and target {target.shape}, expected (n,) and the same"
        )
    if not (np.isfinite(estimate).all() and np.isfinite(target).all()):
        raise ValueError("estimate or target has NaN or infinite samples, expected finite numbers")
    if is_silent(target):
        raise Undefined("clean is silent")


@contextmanager
def _seeded() -> Iterator[None]:
    """ESTOI adds noise of 1e-16 from numpy's global generator; where the estimate is zero, it shows."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)
