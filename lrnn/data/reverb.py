"""Synthetic room impulse responses: a direct sound, a dozen early echoes, a tail of decaying noise.

No room is simulated: echoes and tail are noise under an exponential (Polack's model, 1988), thinned out in
its first 50 ms. It stands in where recordings of rooms are lacking.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

RESPONSE_SECONDS = 0.5
"""Length of a response; at a reverberation time of 0.6 s its end is 50 dB down."""
EARLY_SECONDS = 0.05
"""Echoes up to here help a listener: they stay in the target."""
FIRST_ECHO_SECONDS = 0.002
EARLY_ECHOES = 12


class Response(NamedTuple):
    """A room's response after the direct sound, which is sample 0 and of height 1."""

    delays: np.ndarray  # (EARLY_ECHOES,) of the early echoes, in samples
    heights: np.ndarray  # (EARLY_ECHOES,) float32
    late: np.ndarray  # (n,) float32, zeros before EARLY_SECONDS

    def add_early(self, dry: np.ndarray, start: int, length: int) -> np.ndarray:
        """Direct sound and early echoes of samples [start, start + length) of `dry`."""
        wet = dry[start : start + length].copy()
        for delay, height in zip(self.delays, self.heights, strict=True):
            wet += height * dry[start - delay : start - delay + length]
        return wet


def impulse_response(
    rng: np.random.Generator, rt60: float, direct_db: float, sample_rate: int = 16000
) -> Response:
    """A random response.

    Args:
        rng: draws echoes and tail.
        rt60: seconds in which the tail decays by 60 dB.
        direct_db: energy of the direct sound in dB above that of all the rest.
        sample_rate: in Hz.
    """
    n, early = round(RESPONSE_SECONDS * sample_rate), round(EARLY_SECONDS * sample_rate)
    decay = np.exp(np.arange(n, dtype=np.float32) * np.float32(-np.log(1000) / (rt60 * sample_rate)))
    first = round(FIRST_ECHO_SECONDS * sample_rate)
    delays = first + ((early - first) * np.sqrt(rng.random(EARLY_ECHOES))).astype(int)  # denser and denser
    heights = rng.standard_normal(EARLY_ECHOES, np.float32) * decay[delays]
    heights *= np.float32(np.sqrt(early / EARLY_ECHOES))  # as much energy as the tail would have here
    late = np.zeros(n, np.float32)
    late[early:] = rng.standard_normal(n - early, np.float32) * decay[early:]
    energy = np.dot(heights, heights) + np.dot(late, late)
    scale = np.float32(np.sqrt(10 ** (-direct_db / 10) / energy))
    return Response(delays, heights * scale, late * scale)
