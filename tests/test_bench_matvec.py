"""`lrnn bench matvec`: every row measured, the crossover where the curve passes 1, the files it reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lrnn.engine.packed import PRECISIONS, PackedMatrix, aligned_bytes
from lrnn.ops.libraries import core_library
from lrnn.profile.bench import limits, matvec, matvec_sweep
from lrnn.profile.bench.matrices import pack, random_matrix, read_matrices
from lrnn.program import Program, nodes

pytestmark = pytest.mark.skipif(core_library()[0] is None, reason=f"no core: {core_library()[1]}")


@pytest.fixture(autouse=True)
def small_machine(monkeypatch):
    """Caches to be emptied that take no time: what is timed does not matter here."""
    monkeypatch.setattr(limits, "more_than_caches", lambda: aligned_bytes(1 << 16))
    monkeypatch.setattr(limits, "measure", lambda: dict.fromkeys(LIMITS, 1e11))


LIMITS = ("read L1", "read L2", "read L3", "read memory", "copy", "multiply-add", "byte product")


def test_every_row_is_measured():
    result = matvec.run((48,), 0.8, rounds=2, sweep=(0.5, 0.9), energy=True)
    rows = result["rows"]
    assert [(r["precision"], r["format"]) for r in rows] == [
        (p, f) for p in PRECISIONS for f in ("dense", "sparse")
    ]
    assert all(times["minimum"] > 0 for r in rows for times in r["seconds"].values())
    assert rows[0]["ratios"]["dense float32"] == 1.0
    assert {r["name"] for r in result["sweep"]} == {
        f"  48 {p} {s} %" for p in ("float32", "w8a16") for s in (50, 90)
    }
    text = matvec.table(result)
    assert "48 w8a8 sparse" in text
    assert "torch float32 (MKL)" in text
    assert "crossover" in text
    assert "energy: " in text


def test_arguments_out_of_range():
    with pytest.raises(ValueError, match=r"sparsity is 1.5, expected"):
        matvec.run(sparsity=1.5)
    with pytest.raises(ValueError, match="isa: found 'mmx', expected one of scalar"):
        matvec.run((4,), isa="mmx")


def test_another_instruction_set_for_the_while():
    before = PackedMatrix(np.ones((1, 1), np.float32)).isa
    assert matvec.run((8,), rounds=1, sweep=(), isa="scalar")["isa"] == "scalar"
    assert PackedMatrix(np.ones((1, 1), np.float32)).isa == before


def curve(*speedups):
    sparsities = (0.3, 0.5, 0.7, 0.9)
    return [
        {"size": 8, "precision": "float32", "sparsity": s, "speedup": {"warm": v, "cold": v}}
        for s, v in zip(sparsities, speedups, strict=True)
    ]


@pytest.mark.parametrize(
    ("speedups", "sparsity", "text"),
    [
        ((0.5, 0.9, 1.1, 3), 0.6, "60 %"),
        ((1.2, 1.5, 2, 3), 0.3, "< 30 %"),
        ((0.5, 0.6, 0.7, 0.8), None, "none"),
        ((1.1, 0.9, 1.1, 3), 0.6, "60 %"),  # noise below the crossover does not move it
    ],
)
def test_the_crossover_is_where_the_speedup_passes_one(speedups, sparsity, text):
    for found in matvec_sweep.crossovers(curve(*speedups)):
        assert found["sparsity"] == (None if sparsity is None else pytest.approx(sparsity))
        assert matvec_sweep.crossover_text(found) == text


def test_cold_products_are_slower_and_limits_are_sane(monkeypatch):
    monkeypatch.undo()
    packed, _ = pack(random_matrix(256, 256, 0.9), "float32", "sparse")
    other = limits.more_than_caches()
    assert min(packed.seconds_cold(other) for _ in range(5)) > min(packed.seconds(20) for _ in range(5))
    found = limits.measure()
    assert set(found) == set(LIMITS)
    assert all(1e8 < rate < 1e14 for name, rate in found.items() if name != "byte product")
    assert found["read memory"] < found["read L1"]


def test_matrices_of_files(tmp_path):
    weight = random_matrix(6, 9, 0.5)
    save_file(
        {"a": torch.from_numpy(weight), "bias": torch.ones(6), "order": torch.ones(2, 2, dtype=torch.int32)},
        tmp_path / "w.safetensors",
    )
    found = read_matrices(tmp_path / "w.safetensors")
    assert list(found) == ["a"]
    assert (found["a"] == weight).all()
    Program("x", 9, (nodes.Linear("y", ("x",), weight),), "y").save(tmp_path / "m.lrnn")
    (program_matrix,) = read_matrices(tmp_path / "m.lrnn").values()
    assert (program_matrix == weight).all()
    pytest.importorskip("scipy")
    from scipy.io import mmwrite
    from scipy.sparse import csr_array

    mmwrite(tmp_path / "m.mtx", csr_array(weight))
    assert np.abs(read_matrices(tmp_path / "m.mtx")["m"] - weight).max() < 1e-6
    result = matvec.run(rounds=1, weights=str(tmp_path / "m.mtx"))
    assert [r["name"] for r in result["rows"]] == ["m float32", "m w8a16"]
    assert "of random" in matvec.table(result)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.mtx", b"nonsense", "m.mtx: not a Matrix Market file"),
        ("m.mtx", b"%%MatrixMarket matrix coordinate real general\n2 2 1\n3 1 1.0\n", "m.mtx: not a Matrix"),
        ("m.safetensors", b"nonsense", "m.safetensors: not a safetensors file"),
    ],
)
def test_faulty_files_are_named(tmp_path, name, content, message):
    pytest.importorskip("scipy")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_matrices(tmp_path / name)


def test_files_without_matrices(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.mtx: no such file"):
        read_matrices(tmp_path / "none.mtx")
    save_file({"b": torch.ones(3)}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"b.safetensors: found no matrix"):
        read_matrices(tmp_path / "b.safetensors")
    save_file({"b": torch.full((3, 3), float("nan"))}, tmp_path / "n.safetensors")
    with pytest.raises(ValueError, match=r"n.safetensors: b has NaN"):
        read_matrices(tmp_path / "n.safetensors")
