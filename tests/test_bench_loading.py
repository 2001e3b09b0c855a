"""The loading benchmark's figures hang together; how large they are is no test's business."""

from __future__ import annotations

import json

import pytest

from lrnn.cli import main
from lrnn.data.synthetic import write_synthetic_corpus
from lrnn.profile.bench import loading

pytest.importorskip("soundfile")


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_synthetic_corpus(folder, training=1, validation=1, clip_seconds=0.5, minutes=0.2)
    return loading.run(str(folder), 1, batch=2, clip_seconds=0.2, rounds=2, budget=0.1)


def test_rows_are_mixing_with_and_without_augmentation_from_memory_and_disk(result):
    names = [f"{kind}, {place}" for place in ("in memory", "from disk") for kind in ("plain", "augmented")]
    assert list(result["rows"]) == list(result["workers"]["rows"]) == names
    json.dumps(result)
    assert all(name in loading.table(result) for name in names)


def test_figures_hang_together(result):
    step = result["step"]["seconds"]["median"]
    for row in result["rows"].values():
        batch = 2 * row["seconds_per_clip"]["median"]
        assert row["seconds_per_clip"]["minimum"] <= row["seconds_per_clip"]["median"]
        assert row["clips_per_second"] == pytest.approx(2 / batch)
        assert row["times_real_time"] == pytest.approx(0.4 / batch)
        assert row["batches_per_second"] == pytest.approx(1 / batch)
        assert row["times_training"] == pytest.approx(step / batch)
        assert 0 <= row["workers_needed"] - batch / step < 1


def test_the_command_prints_one_object(monkeypatch, capsys):
    monkeypatch.setattr(loading, "run", lambda data, workers, progress: {"data": data, "workers": workers})
    monkeypatch.delenv("LRNN_DATA", raising=False)
    assert main(["bench", "loading", "--workers", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.pop("machine")
    assert found == {"data": None, "workers": 3}


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="workers, batch are -1"):
        loading.run(workers=-1)
    with pytest.raises(FileNotFoundError, match="nowhere: no sources"):
        loading.run("nowhere")
