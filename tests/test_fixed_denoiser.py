"""The denoiser that ships, in fixed point: as good as in float, the same integers everywhere, and small."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from eval_cases import make_folder
from fixed_cases import HAS_CORE, ranges_of, trace

import lrnn
from lrnn.cli import main
from lrnn.data import audio
from lrnn.data.denoiser import Denoiser
from lrnn.data.metrics import si_snr
from lrnn.models import DEMO_CLEAN, DEMO_CLIP, DENOISER, DENOISER_FLOAT
from lrnn.program import Program, compile_fixed
from lrnn.program.fixed import nodes as fixed
from lrnn.program.program import tensors
from lrnn.quant import quantize_weight


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return Denoiser.load(DENOISER_FLOAT)


@pytest.fixture(scope="module")
def demo(denoiser) -> np.ndarray:
    """Frames of the demo's clip."""
    samples, rate = audio.read(DEMO_CLIP)
    return denoiser.features(samples, rate)


@pytest.fixture(scope="module")
def program(denoiser, demo) -> Program:
    return compile_fixed(denoiser.program, ranges_of(denoiser.program, demo))


def test_what_ships_is_this_network_in_fixed_point(denoiser):
    """The same matrices, rounded; W8A16."""
    shipped = lrnn.load(DENOISER)
    assert shipped.meta["scheme"]["name"] == "w8a16"
    floats = {node.name: node for node in denoiser.program.nodes if node.op == "linear"}
    matrices = [node for node in shipped.nodes if isinstance(node, fixed.Linear)]
    assert len(matrices) == len(floats)
    for node in matrices:
        expected, _ = quantize_weight(floats[node.name].weight, 8, "row")
        assert np.mean(expected == node.weight) > 0.999  # a folded norm may be scaled on the way


def test_every_executor_makes_the_same_integers(program, demo):
    trace(program, np.concatenate((demo[:150], -demo[:5], demo[:5] * 1e4, demo[:5] * 1e-38)))


def test_every_sum_is_proved_to_fit_32_bits(program):
    """But the product inside a recurrence."""
    for node in program.nodes:
        if isinstance(node, fixed.Rounded) and not isinstance(node, fixed.Quantize):
            assert node.accumulator_bits(tuple(program.formats[name] for name in node.inputs)) == 32, (
                node.name
            )


def test_sums_of_24_bits_where_the_scheme_asks_for_them(denoiser, demo):
    program = compile_fixed(denoiser.program, ranges_of(denoiser.program, demo), "loihi2")
    for node in program.nodes:
        if isinstance(node, fixed.Linear):
            assert program.formats[node.inputs[0]].bits == 11
            assert max(node.bounds(program.formats[node.inputs[0]])) < 1 << 23
    trace(program, demo[:40])


def test_the_demo_sounds_as_in_float(denoiser, program):
    (noisy, rate), (clean, _) = audio.read(DEMO_CLIP), audio.read(DEMO_CLEAN)
    import torch

    found = [d.denoise(noisy[:, 0], rate, "torch") for d in (denoiser, Denoiser(program))]
    before, after = (si_snr(torch.from_numpy(y), torch.from_numpy(clean[:, 0])).item() for y in found)
    assert before - after < 0.1


def test_the_file_is_small(program, tmp_path):
    """A bit for each element of a matrix, a byte for each weight kept, and 50 KB for all else."""
    program.save(tmp_path / "m.lrnn")
    matrices = [node.weight for node in program.nodes if isinstance(node, fixed.Linear)]
    packed = sum(w.size / 8 + (w != 0).sum() for w in matrices)
    size = os.path.getsize(tmp_path / "m.lrnn")
    assert size < packed + 50_000
    assert size < 0.55 * os.path.getsize(DENOISER_FLOAT)
    loaded = lrnn.load(tmp_path / "m.lrnn")
    for node, other in zip(loaded.nodes, program.nodes, strict=True):
        assert all(np.array_equal(v, tensors(other)[k]) for k, v in tensors(node).items())
    assert loaded.formats == program.formats


def test_every_engine_scores_the_same_to_the_last_digit(program, tmp_path, capsys):
    """Behind one front end: that of whole clips differs by float32's last bit, and integers show it."""
    program.save(tmp_path / "m.lrnn")
    make_folder(tmp_path / "data", clips=2)
    argv = ["eval", "denoise", "--data", str(tmp_path / "data"), "--model", str(tmp_path / "m.lrnn")]
    found = {}
    for engine in ("numpy", "torch", *(["native"] if HAS_CORE else [])):
        csv = tmp_path / f"{engine}.csv"
        assert main([*argv, "--engine", engine, "--json", "--csv", str(csv)]) == 0
        report = json.loads(capsys.readouterr().out)
        assert (report["engine"], report["clips"], report["failed"]) == (engine, 2, 0)
        rows = [line for line in csv.read_text().splitlines() if "fileid" in line]
        assert len(rows) == 2
        found[engine] = {"si_snr": report["si_snr"], "figures": report["figures"], "rows": rows}
    assert all(other == found["numpy"] for other in found.values())
    assert found["numpy"]["si_snr"] != report["noisy_si_snr"]


@pytest.mark.data
@pytest.mark.skipif("LRNN_DATA" not in os.environ, reason="LRNN_DATA names no corpus")
def test_the_corpus_loses_less_than_a_tenth_of_a_decibel(denoiser):
    """Ranges of training mixtures, mean SI-SNR of the whole validation set; single clips differ by 0.5 dB."""
    from lrnn.data.mix import Mixer
    from lrnn.data.ndns import NdnsFolder, find_validation
    from lrnn.data.sources import find_sources, read_sources

    data = os.path.join(os.environ["LRNN_DATA"], "ndns-mini")
    mix = Mixer(*read_sources(find_sources(data)), clip_seconds=4.0)
    frames = np.concatenate([denoiser.features(mix(9, i)[0], 16000) for i in range(8)])
    program = compile_fixed(denoiser.program, ranges_of(denoiser.program, frames))
    clips = NdnsFolder(find_validation(data))
    both = denoiser, Denoiser(program)
    scores = [[si_snr(d.offline(clip.noisy), clip.clean).item() for d in both] for clip in clips]
    before, after = np.mean(scores, 0)
    assert before - after < 0.1


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif("LRNN_DATA" not in os.environ, reason="LRNN_DATA names no corpus")
@pytest.mark.skipif(not HAS_CORE, reason="the native engine is not built here")
def test_every_frame_of_the_corpus_is_the_same_everywhere():
    """38,038 frames in the native engine and torch; the numpy executor, which takes minutes, on 200."""
    from lrnn.data.ndns import NdnsFolder, find_validation

    shipped = Denoiser.load()
    for clip in NdnsFolder(find_validation(os.environ["LRNN_DATA"])):
        frames = shipped.features(np.asarray(clip.noisy), 16000)
        native = shipped.program.stream("native").run(frames)
        assert np.array_equal(native, shipped.program.stream("torch").run(frames))
    assert np.array_equal(native[:200], shipped.program.stream("numpy").run(frames[:200]))
