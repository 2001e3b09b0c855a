"""`lrnn bench spmm` on tiny sizes: what it times computes the product, and its figures hang together."""

from __future__ import annotations

import json

import pytest
import torch
from isas import Library

from lrnn.cli import main
from lrnn.ops import SparseWeight
from lrnn.ops.libraries import core_library
from lrnn.profile.bench import spmm, spmm_train

LIBRARY = Library(core_library()[0])
needs_core = pytest.mark.skipif(not LIBRARY.isas, reason="the core is not built here")


@pytest.fixture(scope="module")
def result():
    return spmm.run(((16, 24), (33, 20)), (7, 64), (0.9,), (0.5,), rounds=2)


@needs_core
def test_figures_hang_together(result):
    json.dumps(result)
    assert [(r["size"], r["columns"], r["sparsity"]) for r in result["rows"]] == [
        (size, T, s) for size in ([16, 24], [33, 20]) for T, s in ((7, 0.9), (64, 0.5), (64, 0.9))
    ]
    for row in result["rows"]:
        times = row["seconds"]
        assert all(0 < t["minimum"] <= t["median"] for t in times.values())
        ways = {"kernel", "sparse_linear"} | ({"without transposing"} if row["columns"] == 64 else set())
        assert set(row["times_faster"]) == ways
        for ours, ratios in row["times_faster"].items():
            medians = {name: t["median"] / times[ours]["median"] for name, t in times.items()}
            assert ratios == pytest.approx({name: medians[name] for name in ratios})
            assert {"F.linear", "XNNPACK-style", "torch CSR"} <= set(ratios)
        for ours, gflops in row["gflops"].items():
            seconds = times[ours]["median"]
            assert gflops == pytest.approx(2e-9 * row["nonzeros"] * row["columns"] / seconds)
            limits = result["limits_gflops"]
            assert row["of_limit"][ours] == pytest.approx({k: gflops / v for k, v in limits.items()})
    assert len(spmm.table(result).splitlines()) == 3 + len(result["rows"]) + 2
    assert [c["columns"] for c in result["crossover"]] == [64, 64]


def test_crossover_lies_between_the_sparsities_that_straddle_it():
    def row(sparsity, faster):
        return {
            "size": [4, 4],
            "columns": 8,
            "sparsity": sparsity,
            "times_faster": {spmm.OP: {spmm.DENSE: faster}},
        }

    rows = [row(0.9, 4.0), row(0.5, 0.5), row(0.7, 2.0)]
    assert spmm._crossovers(rows)[0]["sparsity"] == pytest.approx(0.6)
    assert spmm._crossovers(rows[::2])[0] == {"size": [4, 4], "columns": 8, "sparsity": None, "always": True}
    assert not spmm._crossovers([rows[1], row(0.2, 0.1)])[0]["always"]
    assert spmm._crossovers(rows[:1]) == []


@needs_core
@pytest.mark.parametrize("isa", LIBRARY.isas)
@pytest.mark.parametrize("shape", [(5, 7), (40, 410), (3, 1)])
@pytest.mark.parametrize(
    ("subject", "T"),
    [*[(name, T) for name in ("kernel", "xnnpack") for T in (1, 5, 36, 70, 128)], ("panels", 128)],
)
def test_timed_products_are_the_dense_one_on_every_isa(isa, subject, shape, T):
    from lrnn.engine.spmm import TimedProduct

    torch.manual_seed(0)
    dense = torch.randn(shape) * (torch.rand(shape) < 0.3)
    x = torch.randn(T, shape[1])
    product = TimedProduct(SparseWeight.from_dense(dense), x, subject)
    with LIBRARY.running(isa):
        assert product(2) > 0
    torch.testing.assert_close(product.y, x @ dense.T, rtol=1e-4, atol=1e-5)


@needs_core
def test_limits_are_rates_that_a_machine_can_have():
    from lrnn.engine.spmm import load_multiply_add_rate
    from lrnn.profile.bench.limits import multiply_add_rate

    for rate in (load_multiply_add_rate, multiply_add_rate):
        assert 1e8 < rate() < 1e12


@needs_core
def test_arguments_are_named():
    from lrnn.engine.spmm import TimedProduct

    w = SparseWeight.from_dense(torch.ones(3, 4))
    with pytest.raises(ValueError, match=r"x: shape is \(2, 3\), expected \(T, 4\)"):
        TimedProduct(w, torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"x: found 2 time steps, expected a multiple of 64"):
        TimedProduct(w, torch.ones(2, 4), "panels")
    with pytest.raises(TypeError, match=r"x: found torch.float64"):
        TimedProduct(w, torch.ones(2, 4).double())
    with pytest.raises(ValueError, match="subject is 'mkl'"):
        TimedProduct(w, torch.ones(2, 4), "mkl")
    with pytest.raises(ValueError, match=r"expected fewer than 2\^29"):
        TimedProduct(w, torch.empty(1, 4).expand(2**27, 4), "xnnpack")
    with pytest.raises(ValueError, match="sparsity is"):
        spmm.run(((4, 4),), (8,), (1.0,))
    with pytest.raises(ValueError, match="expected at least 1"):
        spmm.run(((0, 4),), (8,), (0.5,))
    with pytest.raises(ValueError, match="expected at least 1"):
        spmm_train.run((4,), (0,))


def test_training_ways_agree_and_are_timed():
    result = spmm_train.run((12,), (16,), 0.75, rounds=2)
    json.dumps(result)
    (row,) = result["rows"]
    assert set(row["seconds"]) == {"SparseLinear", "masked", "dense"}
    times = {name: t["median"] for name, t in row["seconds"].items()}
    assert row["times_faster"]["masked"] == pytest.approx(times["masked"] / times["SparseLinear"])
    assert "x masked" in spmm_train.table(result)


@needs_core
def test_the_command(capsys):
    sizes = ["--sizes", "8", "12x16", "--columns", "4", "--rounds", "1"]
    assert main(["bench", "spmm", *sizes, "--sparsity", "0.5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [r["size"] for r in found["rows"]] == [[8, 8], [12, 16]]
    assert main(["bench", "spmm", "--train", "--sizes", "8", "--columns", "4", "--rounds", "1"]) == 0
    assert "training step" in capsys.readouterr().out
    assert main(["bench", "spmm", "--train", *sizes]) == 2
    assert "--train: expected square sizes" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["bench", "spmm", "--sizes", "8xq"])
