"""What the neurons' Process does on a CPU, exactly."""

from __future__ import annotations

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from lrnn_lava.neurons.process import Neurons
from lrnn_lava.operations import OPERATIONS, STATES

IN = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
OUT = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)


@implements(proc=Neurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyNeurons(PyLoihiProcessModel):
    """Neurons in int64; messages are int32."""

    a_in_0: PyInPort = IN
    a_in_1: PyInPort = IN
    a_in_2: PyInPort = IN
    a_in_3: PyInPort = IN
    a_in_4: PyInPort = IN
    a_in_5: PyInPort = IN
    a_in_6: PyInPort = IN
    a_in_7: PyInPort = IN
    s_out_0: PyOutPort = OUT
    s_out_1: PyOutPort = OUT
    s_out_2: PyOutPort = OUT
    s_out_3: PyOutPort = OUT

    def __init__(self, proc_params):
        super().__init__(proc_params)
        self.group, self.arrays = proc_params["group"], proc_params["arrays"]
        self.resets, self.probes = proc_params["resets"], proc_params["probes"]
        self.state = {op["node"]: _zeros(op) for op in self.group["program"] if op["op"] in STATES}
        self.files = None

    def run_spk(self):
        """One step: read every port, run the program, send."""
        frame = self.time_step - 1 - self.group["latency"]
        ports = range(len(self.group["inputs"]))
        values = {i: getattr(self, f"a_in_{i}").recv().astype(np.int64) for i in ports}
        for op in self.group["program"]:
            name = op["node"]
            if name in self.state and frame in self.resets:
                self.state[name] = _zeros(op)
            inputs = [values[source] for source in op["inputs"]]
            compute = OPERATIONS[op["op"]]
            values[name] = compute(op, self.arrays[name], self.state.get(name), *inputs)
        for i, port in enumerate(self.group["outputs"]):
            getattr(self, f"s_out_{i}").send(values[port["value"]].astype(np.int32))
        self._record(frame, values)

    def _record(self, frame: int, values: dict) -> None:
        if self.files is None:  # opened here, in the operating system's process that writes
            open_file = np.lib.format.open_memmap
            self.files = {name: open_file(path, mode="r+") for name, path in self.probes.items()}
        for name, file in self.files.items():
            if 0 <= frame < len(file):
                file[frame] = values[name]


def _zeros(op: dict) -> list[np.ndarray]:
    return [np.zeros(op["width"], np.int64) for _ in range(STATES[op["op"]])]
