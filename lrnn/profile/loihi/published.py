"""Published networks on Loihi 2, to hold the placement against: how many cores they took there.

S4D of Meyer et al. (arXiv 2409.15022): 31 cores for 67 k parameters, 111 for 265 k. Their sizes were not
at hand; four layers with H = N = 64 and with H = N = 128 have 67.3 k and 266.0 k parameters
(`parameters`), and that is what is placed. Of a layer on the chip, as the paper says: no norm, no residual,
ReLU in place of the GLU; as lava-dl has it: a group of H N / 2 complex neurons, each input going to N / 2 of
them, a group that sums them, then the matrix.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lrnn.profile.loihi.coefficients import coefficients
from lrnn.profile.loihi.network import INPUT, Connection, Group, Network
from lrnn.profile.loihi.place import Policy, place

NOTES = (
    "sizes are inferred from the numbers of parameters",
    "a complex neuron holds its state, a, b, c and its input, two numbers each of 24 or 16 bits",
)
# Bytes of a complex neuron's variables: state 2 x 24 bits; a, b, c 2 x 16 bits each; a step size 16 bits.
_STATE = (3, 3, 2, 2, 2, 2, 2, 2, 2)


@dataclass(frozen=True)
class S4D:
    """One of the published networks.

    Attributes:
        name: of the task.
        channels: H. states: N, of which half are stored.
        inputs, outputs: of the network.
        layers: in a row.
        cores: published. parameters_k: published, in thousands.
    """

    name: str
    channels: int
    states: int
    inputs: int
    outputs: int
    cores: int
    parameters_k: int
    layers: int = 4

    @property
    def parameters(self) -> int:
        """Of the network as trained, with the GLU and without norms."""
        h, n = self.channels, self.states
        layer = 2 * h * n // 2 + 2 * h * n // 2 + 2 * h + h * 2 * h + 2 * h  # C, A, D and step, output, bias
        return self.layers * layer + (self.inputs + 1) * h + (h + 1) * self.outputs

    def network(self) -> Network:
        """Groups of the network on the chip."""
        h, half = self.channels, self.states // 2
        spread = np.kron(np.eye(h, dtype=bool), np.ones((half, 1), bool))  # (H N / 2, H)
        groups = [_group("encoder", 1, INPUT, np.ones((h, self.inputs), bool))]
        for i in range(self.layers):
            level = 3 * i + 2
            groups += [
                _group(f"{i}.states", level, groups[-1].name, spread, _STATE, states=1.0),
                _group(f"{i}.sums", level + 1, f"{i}.states", spread.T),
                _group(f"{i}.matrix", level + 2, f"{i}.sums", np.ones((h, h), bool), (4,)),
            ]
        last = 3 * self.layers + 2
        groups.append(_group("decoder", last, groups[-1].name, np.ones((self.outputs, h), bool), (4,)))
        return Network(self.inputs, tuple(groups), NOTES)


PUBLISHED = (
    S4D("sequential MNIST", channels=64, states=64, inputs=1, outputs=10, cores=31, parameters_k=67),
    S4D("sequential CIFAR", channels=128, states=128, inputs=3, outputs=10, cores=111, parameters_k=265),
)


def _group(name: str, level: int, source: str, mask: np.ndarray, variables=(), states=0.0) -> Group:
    connection = Connection(name, source, source, mask)
    return Group(name, len(mask), (name,), (connection,), variables, level=level, states=states)


def validate() -> list[dict]:
    """The placement held against the published numbers of cores.

    Returns:
        by network: cores published; `limits`, the interval from published limits alone; `cores`, that of the
        coefficients as they are, whose unfavourable states_per_core is drawn from the larger network; and
        `predicted`, with that one coefficient drawn from the other network only.
    """
    known = coefficients()
    unlimited = known["neurons_per_core"].favourable
    rows = []
    for s, other in zip(PUBLISHED, reversed(PUBLISHED), strict=True):
        rows.append(
            {
                "name": s.name,
                "published": s.cores,
                "limits": [
                    _cores(s, "packed", known.favourable),
                    _cores(s, "halved", {**known.unfavourable, "states_per_core": unlimited}),
                ],
                "cores": [
                    _cores(s, "packed", known.favourable),
                    _cores(s, "halved", known.unfavourable),
                ],
                "states_per_core": states_per_core(s),
                "predicted": _cores(
                    s, "packed", {**known.favourable, "states_per_core": states_per_core(other)}
                ),
            }
        )
    return rows


def states_per_core(s: S4D) -> int:
    """The states of a core with which the placement comes nearest to the published number of cores."""
    total = s.channels * s.states // 2
    values = coefficients().favourable

    def cores(parts: int) -> int:
        return _cores(s, "packed", {**values, "states_per_core": -(-total // parts)})

    parts = bisect.bisect_left(range(1, s.cores), s.cores, key=cores) + 1  # the first that are enough
    nearest = min((parts - 1, parts), key=lambda n: abs(cores(n) - s.cores) if n else s.cores)
    return -(-total // nearest)


def _cores(s: S4D, policy: Policy, values: Mapping[str, float]) -> int:
    return len(place(s.network(), policy, values).cores)
