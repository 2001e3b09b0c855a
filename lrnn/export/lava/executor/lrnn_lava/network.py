"""The whole network in Lava, built from an export alone."""

from __future__ import annotations

import numpy as np
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.sparse.process import DelaySparse, Sparse
from lava.utils.weightutils import SignMode
from scipy.sparse import csr_matrix, identity

from lrnn_lava.export import Export
from lrnn_lava.neurons.process import Neurons

MESSAGE_BITS = 24


class Network:
    """Neurons and synapses, connected.

    A frame that enters in one step leaves `latency` steps later; a new one enters in every step.

    Args:
        export: what to build.
        resets: frames, counted at the input, before which all states are set to zero.
        probes: .npy files to record values in, by the values' names; see Neurons.

    Attributes:
        inputs: the ports to connect the input's integers to.
        out: the port that sends the output's integers.
    """

    def __init__(self, export: Export, resets=(), probes: dict | None = None):
        probes = probes or {}
        self.export, self.latency = export, export.program["latency"]
        self.groups = {}
        for group in export.program["groups"]:
            program = group["program"]
            arrays = {op["node"]: export.arrays(op) for op in program}
            mine = {op["node"]: probes[op["node"]] for op in program if op["node"] in probes}
            resets_here = {0, *map(int, resets)}
            self.groups[group["name"]] = Neurons(group, arrays, resets_here, mine, group["name"])
        self.ports = {
            port["value"]: getattr(self.groups[group["name"]], f"s_out_{i}")
            for group in export.program["groups"]
            for i, port in enumerate(group["outputs"])
        }
        self.inputs = []
        for record in export.program["synapses"]:
            self._connect(record)
        self.out = self.ports[export.program["output"]["value"]]

    def _connect(self, record: dict) -> None:
        """A synapse from the value it carries, or from the input, to its port."""
        synapse = make_synapse(self._weights(record), record["delay"], record["name"])
        if record["value"] == self.export.program["input"]["value"]:
            self.inputs.append(synapse.s_in)
        else:
            self.ports[record["value"]].connect(synapse.s_in)
        synapse.a_out.connect(getattr(self.groups[record["group"]], f"a_in_{record['port']}"))

    def _weights(self, record: dict) -> csr_matrix:
        if record["kind"] == "identity":
            return identity(record["width"], np.int8, "csr")
        return self.export.matrix(record["matrix"])

    def run(self, steps: int) -> None:
        """Run so many steps, on from where it stands."""
        any_group = next(iter(self.groups.values()))
        any_group.run(RunSteps(num_steps=steps), Loihi2SimCfg(select_tag="fixed_pt"))

    def stop(self) -> None:
        """End all Processes."""
        next(iter(self.groups.values())).stop()


def make_synapse(weights: csr_matrix, delay: int, name: str) -> Sparse:
    """Lava's own synapses of int8 weights: exact sums, one step and `delay` more late.

    Of a matrix with both signs Lava keeps even weights only, and halves their sums: w is stored as 2 w with
    the exponent -1. A matrix without weights keeps its synapse: Lava runs only what is connected.
    """
    doubled = weights.astype(np.int32) * 2
    options = {
        "weights": doubled,
        "weight_exp": -1,
        "num_weight_bits": 8,
        "sign_mode": SignMode.MIXED,
        "num_message_bits": MESSAGE_BITS,
        "name": f"synapse {name}",
    }
    if not delay:
        return Sparse(**options)
    delays = csr_matrix((np.full(doubled.nnz, delay), doubled.indices, doubled.indptr), doubled.shape)
    return DelaySparse(delays=delays, max_delay=delay, **options)
