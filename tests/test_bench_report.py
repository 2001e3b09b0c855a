"""What all benchmarks share: rows found in a result, a comparison with an older one, pictures."""

from __future__ import annotations

import copy
import json

import pytest

from lrnn.cli import main
from lrnn.ops.libraries import core_library
from lrnn.profile.bench import report
from lrnn.profile.plot_bench import plot, plot_roofline

RESULT = {
    "bench": "scan",
    "torch": "2.13",
    "cases": [
        {"name": "constant forward", "seconds": {"lrnn": {"median": 2.0, "minimum": 1.9, "rounds": 3}}},
        {"name": "varying forward", "seconds": {"lrnn": {"median": 4.0, "minimum": 3.0}}},
    ],
    "seconds_per_frame": {"step": {"median": 1.0, "minimum": 1.0}},
    "ratios": {"no time": {"median": 3.0, "minimum": 3.0}},
}


def test_rows_are_found_wherever_they_stand():
    assert report.timings(RESULT) == {
        "constant forward: lrnn": {"median": 2.0, "minimum": 1.9},
        "varying forward: lrnn": {"median": 4.0, "minimum": 3.0},
        "seconds_per_frame: step": {"median": 1.0, "minimum": 1.0},
    }


def scaled(row: int, factor: float) -> dict:
    new = copy.deepcopy(RESULT)
    timing = new["cases"][row]["seconds"]["lrnn"]
    timing["median"] *= factor
    timing["minimum"] *= factor
    return new


def test_only_what_exceeds_the_noise_is_called_slower():
    verdicts = {}
    for factor in (0.8, 1.04, 1.2, 1.5):
        for row, name in enumerate(("constant forward: lrnn", "varying forward: lrnn")):
            found = report.compare(scaled(row, factor), RESULT)["rows"][name]
            verdicts[row, factor] = found["verdict"]
            assert found["median"] == pytest.approx(factor)
    assert [verdicts[0, f] for f in (0.8, 1.04, 1.2, 1.5)] == ["faster", "same", "slower", "slower"]
    assert [verdicts[1, f] for f in (0.8, 1.04, 1.2, 1.5)] == ["same", "same", "same", "slower"]  # noise 33 %


def test_a_comparison_names_what_is_missing_and_what_differs():
    new = scaled(0, 2.0)
    new["torch"] = "2.14"
    new["cases"][1]["name"] = "another"
    found = report.compare(new, RESULT)
    assert found["differs"] == {"torch": ["2.13", "2.14"]}
    assert (found["only_new"], found["only_old"]) == (["another: lrnn"], ["varying forward: lrnn"])
    text = report.comparison_table(found)
    assert "torch: 2.13 before, 2.14 now" in text
    assert "1 slower" in text
    assert "not in this run: varying forward: lrnn" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "old.json: not JSON"),
        ("[]", "found bench 'list', expected 'matvec'"),
        ('{"bench": "scan"}', "found bench 'scan', expected 'matvec'"),
        ('{"bench": "matvec"}', "old.json: found no timings"),
    ],
)
def test_an_older_result_that_is_none_stops_before_measuring(tmp_path, capsys, content, message):
    (tmp_path / "old.json").write_text(content)
    assert main(["bench", "matvec", "--compare", str(tmp_path / "old.json")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_picture_that_cannot_be_written_stops_before_measuring(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert main(["bench", "scan", "--plot", str(tmp_path / "p.xyz")]) == 2
    assert "found suffix 'xyz'" in capsys.readouterr().err
    assert main(["bench", "scan", "--plot", str(tmp_path / "none" / "p.png")]) == 2
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.skipif(core_library()[0] is None, reason=f"no core: {core_library()[1]}")
def test_the_command_draws_and_compares_with_itself(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    command = ["bench", "matvec", "--sizes", "24", "--sweep", "0.5", "0.9", "--rounds", "1"]
    pictures = [tmp_path / "p.png", tmp_path / "r.svg"]
    assert main([*command, "--json", "--plot", str(pictures[0]), "--roofline", str(pictures[1])]) == 0
    out = capsys.readouterr().out
    (tmp_path / "old.json").write_text(out)
    assert all(p.stat().st_size > 1000 for p in pictures)
    assert main([*command, "--compare", str(tmp_path / "old.json")]) == 0
    text = capsys.readouterr().out
    assert "new / old time" in text
    assert "24 w8a16 sparse: whole" in text
    assert json.loads(out)["machine"] == report.machine()


def test_results_without_a_sweep_are_drawn_as_times(tmp_path):
    pytest.importorskip("matplotlib")
    plot(RESULT, tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="no timings to draw"):
        plot({"bench": "scan"}, tmp_path / "q.png")
    with pytest.raises(ValueError, match="no rows to place"):
        plot_roofline(RESULT, tmp_path / "q.png")
