"""Runs `.net` files in stock lava-dl netx on Lava's CPU simulator. A script of the Lava environment, alone:

    python stock.py FILE.net X.npy Y.npy [FILE.net X.npy Y.npy ...]

X.npy is (T, inputs) integers, Y.npy becomes (2, T, outputs): the running sums of what the network sends, with
dense and with sparse synapses, without the steps that fill its pipeline. It needs lava-nc 0.10.0, lava-dl
0.6.0 and h5py, neither torch nor lrnn.

Stock netx is used as it is but for one process model: PySigmaDeltaModelFixed of lava-nc 0.10.0 throws away
the six bits that rounding takes off each difference, so that a receiver's sum drifts from the sender's value.
The one here sends the difference of the rounded values.
"""

import importlib.util
import sys
import types
from pathlib import Path


def stand_in_for_torch() -> None:
    """Give netx the names that it imports from torch and slayer and uses for RF neurons and tensors only."""
    neuron_params = types.ModuleType("lava.lib.dl.slayer.neuron.rf.neuron_params")
    for name in ("lava.lib.dl.slayer", "lava.lib.dl.slayer.neuron", "lava.lib.dl.slayer.neuron.rf"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["lava.lib.dl.slayer.neuron.rf"].neuron_params = neuron_params
    if importlib.util.find_spec("torch") is None:
        torch = types.ModuleType("torch")
        torch.Tensor = type("Tensor", (), {})
        torch.tensor = torch.from_numpy = None
        torch.is_tensor = lambda x: False
        sys.modules["torch"] = torch


stand_in_for_torch()
sys.path.append(str(Path(__file__).resolve().parents[1] / "lava" / "executor"))

import lrnn_lava  # noqa: E402, F401  corrects a module of Lava's on a Python that is newer than it
import numpy as np  # noqa: E402
from lava.lib.dl.netx import hdf5  # noqa: E402
from lava.magma.core.decorator import implements, requires, tag  # noqa: E402
from lava.magma.core.model.py.model import PyLoihiProcessModel  # noqa: E402
from lava.magma.core.model.py.ports import PyInPort, PyOutPort  # noqa: E402
from lava.magma.core.model.py.type import LavaPyType  # noqa: E402
from lava.magma.core.resources import CPU  # noqa: E402
from lava.magma.core.run_conditions import RunSteps  # noqa: E402
from lava.magma.core.run_configs import Loihi2SimCfg  # noqa: E402
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol  # noqa: E402
from lava.proc.io import sink, source  # noqa: E402
from lava.proc.sdn.process import Delta, SigmaDelta  # noqa: E402


@implements(proc=SigmaDelta, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class WithoutDrift(PyLoihiProcessModel):
    """y = max(sigma + bias, 0) >> state_exp; sends y[t] - y[t-1]. For a threshold of 0."""

    a_in = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    s_out = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    vth: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    sigma: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    act: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    residue: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    error: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    bias: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=16)
    spike_exp: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=3)
    state_exp: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=3)
    cum_error: np.ndarray = LavaPyType(np.ndarray, bool, precision=1)

    def run_spk(self) -> None:
        """One time step."""
        self.sigma = self.sigma + self.a_in.recv()
        y = np.right_shift(np.maximum(self.sigma + self.bias, 0), self.state_exp)
        self.s_out.send(y - self.act)
        self.act = y


def run(path: str, x: np.ndarray, sparse: bool) -> np.ndarray:
    """(T, inputs) -> (T, outputs) int64."""
    net = hdf5.Network(
        net_config=path,
        skip_layers=1,
        input_message_bits=24,
        input_shape=(x.shape[1],),
        sparse_fc_layer=sparse,
        spike_exp=0,
    )
    lag = len(net)
    steps = len(x) + lag
    padded = np.concatenate([x, np.repeat(x[-1:], lag, axis=0)])
    frames = source.RingBuffer(data=padded.T.astype(np.int32))
    encoder = Delta(shape=(x.shape[1],), vth=0, spike_exp=0, state_exp=0)
    out = sink.RingBuffer(shape=net.out.shape, buffer=steps)
    frames.s_out.connect(encoder.a_in)
    encoder.s_out.connect(net.inp)
    net.out.connect(out.a_in)
    config = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map={SigmaDelta: WithoutDrift})
    try:
        net.run(condition=RunSteps(num_steps=steps), run_cfg=config)
        sent = out.data.get().astype(np.int64)
    finally:
        net.stop()
    return np.cumsum(sent, axis=1).T[lag:]


def main(arguments: list[str]) -> None:
    """Read, run, write."""
    if not arguments or len(arguments) % 3:
        sys.exit(__doc__)
    for path, x, y in zip(*[iter(arguments)] * 3, strict=True):
        frames = np.load(x, allow_pickle=False)
        np.save(y, np.stack([run(path, frames, sparse) for sparse in (False, True)]))


if __name__ == "__main__":
    main(sys.argv[1:])
