"""Training a keyword spotter: losses and chains, its data, `lrnn fit` to a Program, resumption."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from keyword_cases import LABELS, write_keywords, write_noise

import lrnn

L = pytest.importorskip("lightning")
pytest.importorskip("jsonargparse")
pytest.importorskip("soundfile")

from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402

from lrnn.data.evaluate_keywords import score_clips  # noqa: E402
from lrnn.data.frontend import LogMel, RawFrames  # noqa: E402
from lrnn.data.keyword_mix import KeywordAugment  # noqa: E402
from lrnn.data.keywords import KeywordClips, find_keywords  # noqa: E402
from lrnn.data.spec_augment import SpecAugment  # noqa: E402
from lrnn.data.spotter import KeywordSpotter  # noqa: E402
from lrnn.train import Prune, RecalibrateNorms, Resumable  # noqa: E402
from lrnn.train.checkpoint import load_checkpoint  # noqa: E402
from lrnn.train.cli import fit  # noqa: E402
from lrnn.train.keyword_data import KeywordData  # noqa: E402
from lrnn.train.keywords import KeywordModule  # noqa: E402

SMALL = lrnn.SequenceModelConfig(d_in=1, d_out=1, d_model=16, d_state=16, blocks=2, n_layers=2)
RECIPE = Path(__file__).parent.parent / "experiments" / "keywords-mini.yaml"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_keywords(folder / "kws-mini")
    write_noise(folder / "ndns-mini" / "sources" / "train" / "noise")
    write_noise(folder / "ndns-mini" / "sources" / "train" / "clean")
    return folder


def module(**options) -> KeywordModule:
    torch.manual_seed(0)
    defaults = {"labels": LABELS, "network": SMALL, "frontend": LogMel(n_mels=12)}
    return KeywordModule(**{**defaults, **options})


def batch(size: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    audio = 0.1 * torch.randn(size, 16000, generator=generator)
    return audio, torch.arange(size) % len(LABELS)


def loss(m: KeywordModule, x) -> torch.Tensor:
    m.log = lambda *_, **__: None
    return m.training_step(x, 0)


class TestModule:
    def test_loss_is_cross_entropy_of_the_mean_over_frames(self):
        m, (audio, labels) = module().eval(), batch()
        expected = F.cross_entropy(m.model(m.frontend(audio))[0].mean(1), labels)
        torch.testing.assert_close(loss(m, (audio, labels)), expected)
        smoothed = loss(module(label_smoothing=0.1).eval(), (audio, labels))
        scores = m(audio).log_softmax(-1)
        torch.testing.assert_close(smoothed, 0.9 * expected - 0.1 * scores.mean())

    def test_a_chain_s_second_clip_is_heard_after_its_first(self):
        m, (audio, _) = module(chain=2).eval(), batch()
        frames = m.frontend(audio.reshape(2, 32000))
        scores, _ = m.model(frames)
        expected = torch.stack([scores[0, :50], scores[0, 50:], scores[1, :50], scores[1, 50:]]).mean(1)
        torch.testing.assert_close(m._chained(audio), expected)
        alone = m(audio)
        torch.testing.assert_close(alone[::2], expected[::2])
        assert (alone[1::2] - expected[1::2]).abs().max() > 1e-3

    def test_a_batch_that_does_not_divide_is_not_chained(self):
        m, (audio, _) = module(chain=3).eval(), batch()
        torch.testing.assert_close(m._chained(audio), m(audio))

    def test_mixup_mixes_targets_as_it_mixes_sounds(self):
        m, (audio, labels) = module(mixup=0.4), batch()
        targets = F.one_hot(labels, 4).float()
        torch.manual_seed(0)
        mixed, mixed_targets = m._mixed(audio, targets)
        torch.testing.assert_close(mixed_targets.sum(1), torch.ones(4))
        rebuilt = torch.linalg.lstsq(audio.T, mixed.T).solution.T  # shares of each clip in each mixture
        torch.testing.assert_close(rebuilt @ targets, mixed_targets, atol=1e-4, rtol=0)
        assert (rebuilt.diagonal() >= 0.5 - 1e-4).all()

    def test_accuracy_is_among_words(self):
        m = module()
        logged = {}
        m.log = lambda name, value, **_: logged.update({name: float(value)})
        m._trainer = type("T", (), {"world_size": 1, "barebones": False})()
        scores = torch.tensor([[1.0, 2, 9, 9], [2, 1, 9, 9], [0, 1, 9, 9], [0, 0, 9, 0]])
        m.forward = lambda audio: scores
        m.validation_step((torch.zeros(4, 16000), torch.tensor([1, 1, 1, 2])), 0)
        assert logged["val_accuracy"] == pytest.approx(2 / 3)

    def test_raw_frames_fit_too(self):
        m = module(frontend=RawFrames(hop=160)).eval()
        assert m.model.config.d_in == 160
        assert m(batch()[0]).shape == (4, 4)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"labels": ["high"]}, "labels is"),
            ({"labels": ["high", "high"]}, "labels is"),
            ({"labels": ["_unknown_", "_silence_"]}, "labels is"),
            ({"lr": 0.0}, "lr, ssm_lr_factor"),
            ({"mixup": -1.0}, "mixup"),
            ({"chain": 0}, "chain is 0"),
            ({"frontend": LogMel(hop=150, window=300)}, "steps of 300 samples"),
            ({"frontend": RawFrames(8000, hop=80)}, "sample_rate 8000, expected 16000"),
        ],
    )
    def test_bad_values_are_named(self, options, message):
        with pytest.raises(ValueError, match=message):
            module(**options)

    def test_starts_from_a_model_of_the_same_labels_only(self, tmp_path):
        source = module()
        source.model.save(tmp_path / "m.safetensors", source.meta)
        started = module(init_from=str(tmp_path / "m.safetensors"))
        assert all(torch.equal(a, b) for a, b in zip(source.parameters(), started.parameters(), strict=True))
        with pytest.raises(ValueError, match="was trained for"):
            module(
                labels=("low", "high", "_unknown_", "_silence_"), init_from=str(tmp_path / "m.safetensors")
            )


class TestData:
    def test_held_out_speakers_are_validated_on_and_not_trained_on(self, corpus):
        data = KeywordData(str(corpus), held_out=0.5, augment=KeywordAugment(unknown=0.1))
        data.read(LABELS)
        training = {c.speaker for c in data.mixer.clips.clips}
        validation = {c.speaker for c in data.validation.clips.clips}
        assert training
        assert validation
        assert not training & validation
        assert len(training | validation) == 4

    def test_calibration_is_the_same_each_time_and_no_training_clip(self, corpus):
        data = KeywordData(str(corpus), batch_size=3)
        data.read(LABELS)
        first, again = (list(data.calibration_batches(2)) for _ in range(2))
        assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
        assert first[0][0].shape == (3, 16000)
        assert first[0][0].dtype == torch.float32

    def test_the_corpus_s_own_noise_comes_first(self, tmp_path):
        folder = write_keywords(tmp_path / "kws-mini")
        quiet = KeywordAugment(noise=0.0, unknown=0.0, silence=0.0)
        data = KeywordData(str(tmp_path), augment=quiet)
        data.read(LABELS)
        assert data.mixer.noise is None
        write_noise(folder / "_background_noise_")
        data.read(LABELS)
        assert len(data.mixer.noise) == 2

    def test_noise_of_a_fullband_corpus_is_found(self, tmp_path):
        write_keywords(tmp_path / "kws-mini")
        for kind in ("noise", "clean"):
            write_noise(tmp_path / "datasets_fullband" / f"{kind}_fullband")
        data = KeywordData(str(tmp_path))
        data.read(LABELS)
        assert len(data.mixer.noise) == len(data.mixer.speech) == 2

    def test_what_is_missing_is_named(self, monkeypatch, tmp_path, corpus):
        monkeypatch.delenv("LRNN_DATA", raising=False)
        with pytest.raises(ValueError, match="no data"):
            KeywordData().read(LABELS)
        with pytest.raises(FileNotFoundError, match="no keywords"):
            KeywordData(str(tmp_path)).read(LABELS)
        with pytest.raises(FileNotFoundError, match="no audio files named 'x_"):
            KeywordData(str(corpus), speech_files="x_*").read(LABELS)
        with pytest.raises(ValueError, match="held_out is 1"):
            KeywordData(held_out=1.0)


def run(corpus: Path, *options: str) -> None:
    small = [
        "--model.k=0.0625",
        "--model.network.n_layers=1",
        "--model.labels=[high,low,_unknown_,_silence_]",
    ]
    small += [f"--data.root={corpus}", "--data.speech_files=*", "--data.batch_size=8"]
    small += ["--data.batches_per_epoch=4", "--trainer.accelerator=cpu", "--trainer.max_steps=8"]
    assert fit(["-c", str(RECIPE), *small, *options]) == 0


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(corpus)
    return folder / "runs" / "keywords-mini" / "version_0"


def test_the_mini_recipe_makes_a_spotter(corpus, trained):
    """Eight steps of it at a small size: masks, norms, files; what they hold computes what the model does."""
    spotter = KeywordSpotter.load(trained / "model.lrnn")
    assert spotter.labels == LABELS
    card = spotter.program.meta["card"]
    assert card["steps"] == 8
    assert card["sparsity"] > 0.8
    assert card["data"]["corpus"] == "kws-mini"
    model, meta = load_checkpoint(trained / "model.safetensors")
    assert meta["keywords"]["labels"] == list(LABELS)
    folder = find_keywords(corpus)
    clips = KeywordClips(folder, folder.split("validation"))
    audio = torch.from_numpy(np.stack([clips[i] for i in range(len(clips))]).astype(np.float32) / 32768)
    with torch.no_grad():
        expected = model.eval()(spotter.frontend(audio))[0].mean(1)
    torch.testing.assert_close(spotter.scores(audio), expected, atol=1e-4, rtol=0)
    assert score_clips(spotter, clips).report()["accuracy"] == pytest.approx(
        card["metrics"]["val_accuracy"], abs=1e-3
    )


def test_a_resumed_run_equals_one_that_was_not_stopped(corpus, tmp_path):
    """Augmentation, masks over frames, mixed clips, dropout, pruning and the schedule all go on."""

    def run(checkpoint: Path | None = None) -> dict:
        L.seed_everything(0, verbose=False)
        saver = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=5)
        callbacks = [Resumable(), Prune(0.5, start=1, end=7, every=2), RecalibrateNorms(2), saver]
        trainer = L.Trainer(
            accelerator="cpu",
            max_steps=10,
            callbacks=callbacks,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        m = module(
            network=replace(SMALL, dropout=0.2), mixup=0.3, chain=2, spec_augment=SpecAugment(1, 10, 1, 4)
        )
        trainer.fit(m, KeywordData(str(corpus), batch_size=4, batches_per_epoch=4), ckpt_path=checkpoint)
        return m.state_dict()

    whole = run()
    resumed = run(tmp_path / "step=5.ckpt")
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name


def test_training_learns_to_tell_tones_apart(corpus):
    torch.manual_seed(0)
    quiet = KeywordAugment(noise=0.3, unknown=0.2, silence=0.1)
    data = KeywordData(str(corpus), batch_size=16, augment=quiet)
    data.read(LABELS)
    m = module(lr=1e-2)
    m.log = lambda *_, **__: None
    optimizer = torch.optim.Adam(m.parameters(), lr=1e-2)
    batches = list(data.calibration_batches(12))
    losses = []
    for x in batches * 4:
        optimizer.zero_grad()
        value = m.training_step(x, 0)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert np.mean(losses[-8:]) < 0.5 * np.mean(losses[:8])


def test_frontend_and_network_are_plain_copies(corpus):
    m = module()
    twin = copy.deepcopy(m)
    x = batch()[0]
    torch.testing.assert_close(m.eval()(x), twin.eval()(x))
    assert replace(m.model.config, d_in=1, d_out=1) == SMALL
