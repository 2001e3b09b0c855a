"""The level of a denoiser's output: SI-SNR does not see it, a listener does."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from lrnn.data.metrics import speech_gain
from lrnn.data.stft import Stft
from lrnn.nn import SequenceModel


@torch.no_grad()
def match_level(model: SequenceModel, stft: Stft, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Scale a denoiser so that speech leaves it as loud as it came.

    A network trained on SI-SNR alone settles at any gain (17 dB for the sparse k = 1 denoiser on ndns-mini,
    with a spread of 0.8 dB over clips). A constant gain g is part of the mask, hence of the decoder:
    g X (1 + M) = X (1 + M') with M' = g M + g - 1. SI-SNR stays as it is, zeros of the weight stay zeros.

    Args:
        model: in evaluation mode, its decoder a plain Linear with bias; changed in place.
        stft: the transform around it.
        batches: (noisy, clean) mixtures (B, N), training data.

    Returns:
        The gain taken out, in dB: the mean over clips of the gain that clean speech got.

    Raises:
        ValueError: no clip's estimate holds its speech.
    """
    gains = []
    for noisy, clean in batches:
        X = stft.analyse(noisy)
        estimate = stft.resynthesise(X, model(stft.read(X))[0], noisy.shape[-1])
        gains.append(speech_gain(estimate, clean))
    measured = torch.cat(gains) if gains else torch.zeros(0)
    measured = measured[measured.isfinite()]
    if not len(measured):
        raise ValueError("batches: no clip's estimate holds its speech, so that its level cannot be matched")
    gain_db = measured.mean().item()
    scale = math.pow(10.0, -gain_db / 20)
    model.decoder.weight.mul_(scale)
    model.decoder.bias.mul_(scale).add_(scale - 1)
    return gain_db
