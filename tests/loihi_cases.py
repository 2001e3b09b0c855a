"""What the tests of Loihi 2 share: coefficients, a small network, the shipped denoiser."""

from __future__ import annotations

import numpy as np

import lrnn
from lrnn.models import DENOISER
from lrnn.profile.loihi import coefficients as known
from lrnn.profile.loihi.network import INPUT, Connection, Group, Network

POLICIES = ("packed", "halved")


KNOWN = known.coefficients()
ENDS = {"packed": KNOWN.favourable, "halved": KNOWN.unfavourable}
SHIPPED = lrnn.load(DENOISER)


def chain(density: float, width: int = 300, seed: int = 0) -> Network:
    """Two matrices in a row, whose masks grow with the density."""
    random = np.random.default_rng(seed)
    masks = [random.random((width, width)) < density for _ in range(2)]
    first = Group("a", width, ("a",), (Connection("a", INPUT, "x", masks[0]),), (4.0,))
    copy = Connection("b.copy", INPUT, "x", None, shared=True, delay=1)
    second = Group(
        "b", width, ("b",), (Connection("b", "a", "a", masks[1]), copy), (4.0,), level=2, is_output=True
    )
    return Network(width, (first, second))


def tight(values: dict, **limits) -> dict:
    return {**values, **limits}
