"""The Lava Process of a group of neurons that run a small program.

On Loihi 2 such a program is microcode: it runs once in every step on each neuron's own numbers. Synapses are
Lava's own (lava.proc.sparse).
"""

from __future__ import annotations

from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess

from lrnn_lava.export import MOST_INPUTS, MOST_OUTPUTS


class Neurons(AbstractProcess):
    """A group of neurons.

    Args:
        group: its record in program.json: `program`, `inputs`, `outputs`, `latency`.
        arrays: of each operation with arrays, those by field, by the node's name.
        resets: frames, counted at the network's input, before which the state is set to zero.
        probes: of each value to record, the path of an .npy file (frames, width) of int64 that exists; frame
            t is written `latency` steps after it entered the network.
    """

    def __init__(self, group: dict, arrays: dict, resets: set, probes: dict, name: str):
        super().__init__(group=group, arrays=arrays, resets=resets, probes=probes, name=name)
        for count, prefix, kind, ports in (
            (MOST_INPUTS, "a_in", InPort, group["inputs"]),
            (MOST_OUTPUTS, "s_out", OutPort, group["outputs"]),
        ):
            for i in range(count):
                width = ports[i]["width"] if i < len(ports) else 1
                setattr(self, f"{prefix}_{i}", kind(shape=(width,)))
