"""A CSV of scores: what is read back is what was written, wherever the writing stopped."""

from __future__ import annotations

import math

import pytest

from lrnn.data.score_file import ScoreFile
from lrnn.data.summary import Score

FIGURES = ("si_snr", "pesq")
HEADER = {"lrnn": "eval denoise", "model": "abc", "metrics": ["si_snr", "pesq"], "clips": 4}
SCORES = [
    Score('a, "quoted"', -5.0, {"si_snr": 0.1, "pesq": 1.2}, {"si_snr": 1 / 3, "pesq": 2.0}, -0.25),
    Score("b", math.nan, problem="b.wav: not an audio file; truncated, probably"),
    Score("ü", 20.0, {"si_snr": 1.5, "pesq": math.nan}, {"si_snr": -7.0, "pesq": 1.0}, math.nan, "noisy: x"),
    Score("d", 0.0, {"si_snr": 1e-06, "pesq": 4.64}, {"si_snr": 12.0, "pesq": 4.0}, 0.0),
]


def write(path, scores=SCORES) -> ScoreFile:
    file = ScoreFile(path, HEADER, FIGURES)
    for score in scores[len(file.scores) :]:
        file.append(score)
    return file


def same(found, expected) -> bool:
    return [repr(s) for s in found] == [repr(s) for s in expected]  # NaN equals itself in print


def test_scores_read_back_as_they_were(tmp_path):
    assert same(write(tmp_path / "s.csv").scores, SCORES)
    assert same(ScoreFile(tmp_path / "s.csv", HEADER, FIGURES).scores, SCORES)


def test_a_spreadsheet_sees_a_row_for_each_clip(tmp_path):
    import csv

    write(tmp_path / "s.csv")
    with open(tmp_path / "s.csv", encoding="utf-8", newline="") as file:
        assert file.readline().startswith("# {")
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [s.name for s in SCORES]
    assert rows[0]["noisy_pesq"] == "1.2"
    assert rows[1]["si_snr"] == rows[1]["noisy_si_snr"] == ""
    assert rows[2]["pesq"] == "1.0"


def test_wherever_the_writing_stopped_it_goes_on_to_the_same_file(tmp_path):
    write(tmp_path / "s.csv")
    whole = (tmp_path / "s.csv").read_bytes()
    begin = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    for cut in range(begin, len(whole) + 1, 3):
        path = tmp_path / "cut.csv"
        path.write_bytes(whole[:cut])
        kept = ScoreFile(path, HEADER, FIGURES).scores
        assert same(kept, SCORES[: whole[begin:cut].count(b"\n")])
        write(path)
        assert path.read_bytes() == whole


def test_another_header_is_refused_by_name_unless_overwritten(tmp_path):
    path = tmp_path / "s.csv"
    write(path)
    before = path.read_bytes()
    with pytest.raises(
        ValueError, match=r's\.csv: holds scores with model "abc", expected "abd".*--overwrite'
    ):
        ScoreFile(path, {**HEADER, "model": "abd"}, FIGURES)
    with pytest.raises(ValueError, match=r"more null, expected 1"):
        ScoreFile(path, {**HEADER, "more": 1}, FIGURES)
    assert path.read_bytes() == before
    assert ScoreFile(path, {**HEADER, "model": "abd"}, FIGURES, overwrite=True).scores == []


@pytest.mark.parametrize("text", ["", "name,snr\n", "# {}\nname\n", "# 3\n", "# {broken\n", "\xff\n"])
def test_files_of_others_are_refused_and_left_alone(tmp_path, text):
    path = tmp_path / "s.csv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match="not a file of lrnn eval"):
        ScoreFile(path, HEADER, FIGURES)
    assert path.read_text(encoding="latin-1") == text


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "s.csv"
    write(path)
    lines = path.read_text().split("\n")
    for broken in ("a,b", lines[2].replace("0.1", "O.1"), lines[2] + ",", ""):
        path.write_text("\n".join([*lines[:2], broken, *lines[3:]]))
        with pytest.raises(ValueError, match="line 3 is no row"):
            ScoreFile(path, HEADER, FIGURES)
    path.write_text("\n".join([lines[0], lines[1] + ",more", *lines[2:]]))
    with pytest.raises(ValueError, match="line 2"):
        ScoreFile(path, HEADER, FIGURES)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        ScoreFile(tmp_path / "no" / "s.csv", HEADER, FIGURES)
