"""Parity with the paper's quantised code, where that means something: its arithmetic, to the last bit.

The goldens are those of golden/README.md. What is not reproduced: fxp_half1_big_a16, on purpose (below); the
networks in AQT with an associative scan to the bit, as its partial products are rounded anew at every level
of a tree; and gradients through networks in AQT.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import golden_files
import numpy as np
import pytest
import torch

import lrnn
from lrnn.quant import aqt, paper

GOLDEN = Path(os.environ.get("LRNN_GOLDEN") or Path(__file__).parent / "golden")

pytestmark = pytest.mark.parity


def wanted(file: str) -> None:
    """Skip a test whose file is not in the subset that the repository holds."""
    if not (GOLDEN / file).is_file():
        pytest.skip(f"{GOLDEN} has no {file}; name the folder of all golden vectors in LRNN_GOLDEN")


@cache
def index() -> dict[str, dict]:
    return {entry["name"]: entry for entry in json.loads((GOLDEN / "golden_fxp" / "index.json").read_text())}


@cache
def arrays(file: str) -> dict[str, np.ndarray]:
    wanted(file)
    with np.load(GOLDEN / file, allow_pickle=False) as stored:
        return dict(stored)


def tree(flat: dict[str, np.ndarray], prefix: str) -> dict:
    """The arrays below a prefix, in levels."""
    root: dict = {}
    for key, value in flat.items():
        if key.startswith(f"{prefix}/"):
            *path, leaf = key.removeprefix(f"{prefix}/").split("/")
            level = root
            for name in path:
                level = level.setdefault(name, {})
            level[leaf] = value
    return root


# Fixed point


class Operations:
    """Of fxparray_ops.npz."""

    def __init__(self):
        self.flat = arrays("golden_fxp/fxparray_ops.npz")
        self.meta = index()["fxparray_ops"]["meta"]

    def __getitem__(self, name: str) -> paper.Fixed:
        bits, exponent, _ = self.meta[name]
        return paper.Fixed(self.flat[name].astype(np.int64), bits, exponent)


OPERATIONS = {
    "A_chexp_6_floor": lambda o: o["A"].at(6),
    "A_chexp_6_round": lambda o: o["A"].at(6, direction="round"),
    "A_chexp_6_ceil": lambda o: o["A"].at(6, direction="ceil"),
    "A_cfg_8_4": lambda o: o["A"].at(4, 8),
    "A_chexp_15_clip": lambda o: o["A"].at(15),
    "mul_e11": lambda o: paper.multiply(o["A"], o["B"], 11),
    "mul_best": lambda o: paper.multiply(o["A"], o["B"]),
    "add_e10": lambda o: paper.add(o["A"], o["B"], 10),
    "add_best": lambda o: paper.add(o["A"], o["B"]),
    "sub_e9": lambda o: paper.add(o["A"], -o["B"], 9),
    "matmul_e9_16": lambda o: paper.matmul(o["A"], o["W"], 9, 16),
    "matmul_e13_8clip": lambda o: paper.matmul(o["A"], o["W"], 9, 8),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name):
    operations = Operations()
    expected, got = operations[name], OPERATIONS[name](operations)
    np.testing.assert_array_equal(got.data, expected.data)
    assert (got.bits, got.exponent) == (expected.bits, expected.exponent)


@pytest.mark.parametrize("y_exponent", [6, 14])
@pytest.mark.parametrize("x_exponent", [3, 4, 5, 6])
def test_the_sigmoid_and_its_table(x_exponent, y_exponent):
    golden = tree(arrays("golden_fxp/sigmoid_lut.npz"), f"x{x_exponent}_y{y_exponent}")
    if not golden:
        pytest.skip("only x6_y14 is in the subset that the repository holds")
    np.testing.assert_array_equal(paper.sigmoid_table(y_exponent), golden["lut"])
    x = paper.Fixed(golden["x"], 16, x_exponent)
    np.testing.assert_array_equal(paper.sigmoid(x, x_exponent, y_exponent).data, golden["y"])


def run(name: str, own_shift: bool = False) -> tuple[dict[str, paper.Fixed], dict[str, np.ndarray], dict]:
    flat = arrays(f"golden_fxp/{name}.npz")
    entry = index()[name]
    bits, exponent, _ = entry["fxp_meta_bits_exp_signed"]["input"]
    x = paper.Fixed(flat["input"].astype(np.int64), bits, exponent)
    layers = entry["config"]["n_layers"]
    return paper.run(x, tree(flat, "params"), entry["export_qconfig"], layers, own_shift), flat, entry


@pytest.mark.parametrize("name", ["fxp_half1_a16", "fxp_half1_a16_sep", "fxp_half1_a8"])
def test_models_are_equal_to_the_bit(name):
    got, flat, entry = run(name)
    meta = entry["fxp_meta_bits_exp_signed"]
    for i in range(entry["config"]["n_layers"]):
        key = f"inter/encoder/layer_{i}_output"
        np.testing.assert_array_equal(got[f"layers_{i}"].data, flat[key])
        assert [got[f"layers_{i}"].bits, got[f"layers_{i}"].exponent] == meta[key][:2]
    np.testing.assert_array_equal(got["encoder"].data, flat["inter/encoder/encoder_output_relu"])
    np.testing.assert_array_equal(got["decoder"].data, flat["output"])


def test_states_are_equal_to_the_bit():
    flat, entry = arrays("golden_fxp/fxp_half1_a16.npz"), index()["fxp_half1_a16"]
    mixer = "encoder/layers_0"
    u = flat[f"inter/{mixer}/pre_s5"].astype(np.int64)
    bits, exponent, _ = entry["fxp_meta_bits_exp_signed"][f"inter/{mixer}/pre_s5"]
    weights = tree(flat, f"params/{mixer}")["mixer"]
    settings = entry["export_qconfig"]["encoder"]["layers_0"]["mixer"]
    y, states = paper.ssm(paper.Fixed(u, bits, exponent), weights, settings)
    for part in ("re", "im"):
        np.testing.assert_array_equal(states[part], flat[f"inter/{mixer}/mixer/xs.{part}"])
    np.testing.assert_array_equal(y.data, flat[f"inter/{mixer}/mixer/ys"])


def test_the_model_that_shows_two_faults_is_not_reproduced():
    """fxp_half1_big_a16 needs both: a state whose 32-bit products wrap around, and the wrong shift.

    The shift: A_re is just below 1 and has 14 bits after the point, A_im has 15, and its products are shifted
    by 14 and so count twice. |A| exceeds 1, the state grows out of 16 bits, and then out of the 32 of its
    products. The shift alone is in the other models of 16 bits, too, and reproduced there; right integers are
    not those.
    """
    got, flat, entry = run("fxp_half1_big_a16")
    mixers = [layer["mixer"] for key, layer in entry["export_qconfig"]["encoder"].items() if "layers" in key]
    assert any(m["A_real_exp"] != m["A_imag_exp"] for m in mixers)
    assert max(abs(flat[k]).max() for k in flat if ".re" in k and "/xs" in k) > 1 << 15
    assert (got["decoder"].data != flat["output"]).any()
    got, flat, _ = run("fxp_half1_big_a16", own_shift=True)
    assert (got["decoder"].data != flat["output"]).any()


@pytest.mark.parametrize("name", ["fxp_half1_a16", "fxp_half1_a16_sep", "fxp_half1_a8"])
def test_the_right_shift_is_that_of_the_others_where_exponents_agree(name):
    got, flat, entry = run(name, own_shift=True)
    mixers = [layer["mixer"] for key, layer in entry["export_qconfig"]["encoder"].items() if "layers" in key]
    alike = all(m["A_real_exp"] == m["A_imag_exp"] for m in mixers)
    assert np.array_equal(got["decoder"].data, flat["output"]) == alike
    assert alike == (name == "fxp_half1_a8")


# AQT


@pytest.mark.parametrize(("a_bits", "u_bits"), [(8, 16), (8, 8), (16, 16), (4, 4)])
def test_aqt_operators_and_gradients(a_bits, u_bits):
    flat = {k: torch.from_numpy(v) for k, v in arrays("golden_s5/aqt_ops.npz").items()}
    a, u, key = flat["a"].clone().requires_grad_(), flat["u"].clone().requires_grad_(), f"{a_bits}_{u_bits}"
    y = aqt.dot(a, u, a_bits, u_bits)
    torch.testing.assert_close(y, flat[f"dot_{key}"], rtol=1e-6, atol=1e-6)
    y.backward(torch.arange(5.0))
    torch.testing.assert_close(a.grad, flat[f"dot_{key}/ga"], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(u.grad, flat[f"dot_{key}/gu"], rtol=1e-6, atol=2e-6)
    product = aqt.quantize(u, a_bits) * aqt.quantize(u.flip(0), u_bits)
    torch.testing.assert_close(product, flat[f"had_{key}"], rtol=1e-6, atol=1e-6)


class AqtNetwork:
    """A half1 network as that code computes it: a scale for each sequence, or for each frame of an S5."""

    def __init__(self, model: lrnn.SequenceModel, weight_bits: int, bits: int):
        self.model, self.weight_bits, self.bits = model, weight_bits, bits

    def linear(self, layer: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
        weight = aqt.quantize(layer.weight, self.weight_bits)
        return torch.stack([aqt.quantize(sequence, self.bits) @ weight.T + layer.bias for sequence in x])

    def read(self, matrix: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return aqt.quantize(x, self.bits, axes=1) @ aqt.quantize(matrix, self.weight_bits).T

    def times(self, a: torch.Tensor, x: torch.Tensor, a_bits: int) -> torch.Tensor:
        return aqt.quantize(a, a_bits) * aqt.quantize(x, self.bits, axes=1)

    def ssm(self, layer: lrnn.S5, u: torch.Tensor) -> torch.Tensor:
        lambda_bar, gain = layer.discretize()
        B = gain[:, None] * torch.view_as_complex(layer.B)
        drive = torch.stack([self.read(B.real, u), self.read(B.imag, u)], -1)  # (B, T, P, 2)
        states, h = [], torch.zeros_like(drive[:, 0])
        for b in drive.unbind(1):
            re, im = (h[..., i] for i in (0, 1))
            re_re, re_im = (self.times(lambda_bar.real, part, 16) for part in (re, im))
            im_re, im_im = (self.times(lambda_bar.imag, part, 16) for part in (re, im))
            h = torch.stack([re_re - im_im, re_im + im_re], -1) + b
            states.append(h)
        re, im = layer.state_relu(torch.stack(states, 1)).unbind(-1)
        y = 2 * (self.read(layer.C[..., 0], re) - self.read(layer.C[..., 1], im))
        return y + self.times(layer.D, u, self.weight_bits)

    @torch.no_grad()
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        h = self.model.relu(self.linear(self.model.encoder, x))
        for block in self.model.blocks:
            x1 = block.activation(self.ssm(block.ssm, block.norm(h)))
            gate = torch.sigmoid(self.linear(block.out2, x1))
            pairs = zip(x1, gate, strict=True)
            gated = torch.stack([aqt.quantize(a, self.bits) * aqt.quantize(b, self.bits) for a, b in pairs])
            h = block.relu(h + gated)
        return self.linear(self.model.decoder, h)


@pytest.mark.parametrize(
    ("name", "bits", "tolerance"),
    [
        ("qat_w8a16_gelu_naive", 16, 2e-6),
        ("qat_w8a16", 16, 1e-3),  # rounded in a tree there, in sequence here
        ("qat_w8a8", 8, 0.04),
    ],
)
def test_networks_in_aqt(name, bits, tolerance):
    """Against a distance of 0.04 to 0.08 from the same network in float."""
    flat = {k: torch.from_numpy(v) for k, v in arrays(f"golden_s5/{name}.npz").items()}
    entries = json.loads((GOLDEN / "golden_s5" / "index3.json").read_text())
    entry = next(entry for entry in entries if entry["name"] == name)
    model = lrnn.SequenceModel(golden_files.model_config(entry["config"])).eval()
    model.load_state_dict(
        golden_files.named_tensors({k[7:]: v for k, v in flat.items() if k.startswith("params/")})
        | golden_files.named_tensors({k[12:]: v for k, v in flat.items() if k.startswith("batch_stats/")})
    )
    torch.testing.assert_close(model(flat["x"])[0], flat["y_float"], rtol=1e-5, atol=2e-6)
    got = AqtNetwork(model, 8, bits)(flat["x"])
    assert (flat["y"] - flat["y_float"]).abs().max() > 0.03
    torch.testing.assert_close(got, flat["y"], rtol=0, atol=tolerance)
