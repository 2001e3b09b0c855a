"""Streams of training clips: the same for any workers, ranks and resumption; faulty files on the way."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lrnn.data import audio
from lrnn.data.faults import Fault
from lrnn.data.ndns import NdnsFolder, find_training
from lrnn.data.stream import SILENT_PEAK, ReadyMixtures, StreamSampler
from lrnn.data.synthetic import write_synthetic_corpus

pytest.importorskip("soundfile")
L = pytest.importorskip("lightning")

from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402

from lrnn.data.augment import Augment  # noqa: E402
from lrnn.train import DenoiseData  # noqa: E402

COUNT = 7


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_synthetic_corpus(folder, training=COUNT, validation=2, clip_seconds=1.0, minutes=0.2)
    return folder


def ready(corpus, clip_seconds: float = 0.25, seed: int = 0, stream: int = 0, **options) -> ReadyMixtures:
    return ReadyMixtures(NdnsFolder(find_training(corpus), **options), clip_seconds, seed, stream, 100)


def bits(batches) -> list[bytes]:
    return [b"".join(x.numpy().tobytes() for x in batch) for batch in batches]


# Ready mixtures


def whole(corpus) -> list[tuple[np.ndarray, np.ndarray]]:
    folder = NdnsFolder(find_training(corpus))
    return [(folder[i].noisy.numpy(), folder[i].clean.numpy()) for i in range(COUNT)]


def origin(clip: tuple, files: list) -> tuple[int, int]:
    """File and sample that a clip begins with."""
    noisy, clean = (x.numpy() for x in clip)
    for index, (file_noisy, file_clean) in enumerate(files):
        windows = np.lib.stride_tricks.sliding_window_view(file_noisy, len(noisy))
        for start in np.flatnonzero(windows[:, 0] == noisy[0]):
            if np.array_equal(windows[start], noisy):
                assert np.array_equal(file_clean[start : start + len(clean)], clean)
                return index, int(start)
    raise AssertionError("the clip is in no file")


def test_each_pass_takes_every_mixture_once_in_another_order(corpus):
    clips, files = ready(corpus), whole(corpus)
    found = [origin(clips[n], files) for n in range(3 * COUNT)]
    passes = [[index for index, _ in found[i : i + COUNT]] for i in range(0, 3 * COUNT, COUNT)]
    assert all(sorted(p) == list(range(COUNT)) for p in passes)
    assert len({tuple(p) for p in passes}) == 3
    assert len({start for _, start in found}) > 15  # stretches begin anywhere


def test_ready_clips_follow_from_seed_stream_and_number(corpus):
    clips = [ready(corpus)[n] for n in (9, 2, 30)]
    again = ready(corpus)
    assert bits(again[n] for n in (30, 2, 9)) == bits(clips)[::-1]
    assert bits([ready(corpus, seed=1)[2]]) != bits([clips[1]]) != bits([ready(corpus, stream=1)[2]])


def test_a_clip_as_long_as_the_file_is_the_file_and_a_longer_one_is_padded(corpus):
    files = whole(corpus)
    for seconds in (1.0, 1.5):
        noisy, clean = ready(corpus, seconds)[0]
        n = round(16000 * seconds)
        assert noisy.shape == clean.shape == (n,)
        assert not noisy[16000:].any()
        assert any(np.array_equal(noisy[:16000], file) for file, _ in files)


def test_stretches_without_speech_are_drawn_again(tmp_path):
    for kind in ("noisy", "clean"):
        (tmp_path / kind).mkdir()
    rng = np.random.default_rng(0)
    clean = np.zeros(32000)
    clean[30000:30100] = 0.5
    audio.write(tmp_path / "noisy" / "a_fileid_3.wav", clean + rng.uniform(-0.1, 0.1, 32000), 16000)
    audio.write(tmp_path / "clean" / "clean_fileid_3.wav", clean, 16000)
    clips = ReadyMixtures(NdnsFolder(tmp_path), 0.25, 0, 0, 10)
    starts = set()
    for n in range(20):
        noisy, speech = clips[n]
        assert speech.abs().max() > SILENT_PEAK
        assert (noisy - speech).abs().max() < 0.11  # both are cut at the same place
        starts.add(noisy[0].item())
    assert len(starts) > 10


# Faulty mixtures


def break_mixture(folder, kind: str) -> None:
    """Make mixture 3 faulty."""
    clean = folder / "clean" / "clean_fileid_3.wav"
    (noisy,) = (folder / "noisy").glob("*fileid_3.wav")
    if kind == "missing":
        clean.unlink()
    elif kind == "unreadable":
        noisy.write_text("hello")
    elif kind == "truncated":
        noisy.write_bytes(noisy.read_bytes()[:5000])
    elif kind == "silent":
        audio.write(clean, np.zeros(16000), 16000)
    elif kind == "not finite":
        audio.write(noisy, np.full(16000, np.nan), 16000, "FLOAT")
    elif kind == "of unequal lengths":
        audio.write(clean, np.full(15000, 0.1), 16000)


KINDS = ["missing", "unreadable", "truncated", "silent", "not finite", "of unequal lengths"]


@pytest.fixture
def broken(request, tmp_path, corpus):
    shutil.copytree(corpus, tmp_path, dirs_exist_ok=True)
    break_mixture(tmp_path / "training_set", request.param)
    return tmp_path, request.param


@pytest.mark.parametrize("broken", KINDS, indirect=True)
def test_a_faulty_mixture_is_named_or_another_is_drawn(broken):
    corpus, kind = broken
    with pytest.raises((Fault, FileNotFoundError), match="fileid_3"):
        [ready(corpus)[n] for n in range(COUNT)]

    clips = ready(corpus, faults="skip")
    found = [clips[n] for n in range(12)]
    assert all(torch.isfinite(noisy).all() and clean.abs().max() > SILENT_PEAK for noisy, clean in found)
    report = clips.folder.log.report()
    assert report.startswith(f"skipped 1 of 7 files (1 {kind}): voice_3_")
    assert clips.folder.log.report() is None
    again = ready(corpus, faults="skip")
    assert bits(again[n] for n in reversed(range(12)))[::-1] == bits(found)


@pytest.mark.parametrize("broken", ["truncated"], indirect=True)
def test_validation_names_a_faulty_mixture_or_takes_the_next(broken):
    folder = find_training(broken[0])
    with pytest.raises(Fault, match="fileid_3"):
        NdnsFolder(folder)[3]
    lenient = NdnsFolder(folder, faults="skip")
    assert len(lenient) == COUNT
    assert torch.equal(lenient[3].noisy, lenient[4].noisy)
    assert len(lenient.log) == 1


@pytest.mark.parametrize("broken", ["truncated"], indirect=True)
def test_what_workers_skip_is_told_when_fit_ends(broken):
    data = module(broken[0], source="ready", faults="skip", num_workers=2, batch_size=2)
    list(data.train_dataloader())
    with pytest.warns(UserWarning, match=r"mixtures: skipped 1 of 7 files \(1 truncated\)"):
        data.teardown("fit")


@pytest.mark.parametrize("broken", ["not finite"], indirect=True)
def test_an_error_in_a_worker_names_the_file(broken):
    data = module(broken[0], source="ready", num_workers=1)
    with pytest.raises(Fault, match=r"^\S+fileid_3\.wav: NaN or infinite samples, expected finite numbers$"):
        list(data.train_dataloader())


# Loading


def module(corpus, rank: int = 0, world_size: int = 1, batches: int = 0, **options) -> DenoiseData:
    """A DenoiseData whose trainer has processed `batches`."""
    options = {"batch_size": 3, "batches_per_epoch": 4, "clip_seconds": 0.25, **options}
    data = DenoiseData(str(corpus), **options)
    progress = SimpleNamespace(total=SimpleNamespace(processed=batches))
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, fit_loop=loop)
    data.setup("fit")
    return data


OPTIONS = {
    "mix": {},
    "augmented": {"augment": Augment(0.5, filter=0.5, speed=0.5, two_noises=0.5, reverb=0.5)},
    "from-disk": {"memory_limit": 0},
    "ready": {"source": "ready"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_batches_do_not_depend_on_workers_nor_draw_from_global_generators(corpus, options):
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    found = []
    for workers in (0, 1, 2):
        data = module(corpus, num_workers=workers, **options)
        loader = data.train_dataloader()
        epochs = bits(loader)
        data.trainer.fit_loop.epoch_loop.batch_progress.total.processed = 4
        epochs += bits(loader)  # persistent workers go on
        found.append(epochs)
    assert found[0] == found[1] == found[2]
    assert len(set(found[0])) == 8
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


def test_ranks_take_turns_in_one_stream(corpus):
    single = module(corpus, batches=2, batch_size=1, batches_per_epoch=8)
    alone = [noisy[0] for noisy, _ in single.train_dataloader()]
    for rank in (0, 1):
        data = module(corpus, rank, world_size=2, batches=1, batch_size=1, batches_per_epoch=4)
        mine = [noisy[0] for noisy, _ in data.train_dataloader()]
        assert len(mine) == 4
        for clip, expected in zip(mine, alone[rank::2], strict=True):
            assert torch.equal(clip, expected)


def test_lightning_leaves_the_sampler_to_its_ranks(corpus):
    sampler = StreamSampler(5, lambda: 100, rank=1, world_size=3)
    assert list(sampler) == [101, 104, 107, 110, 113]
    sampler.set_epoch(4)
    assert list(sampler) == [101, 104, 107, 110, 113]
    assert isinstance(sampler, torch.utils.data.distributed.DistributedSampler)  # what it looks for


class Records(L.LightningModule):
    """Trains nothing to speak of, and keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen += bits([batch])
        return (self.gain * batch[0] - batch[1]).square().mean()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize(
    "options", [{"source": "ready"}, {"augment": Augment(reverb=0.5)}], ids=["ready", "mix"]
)
def test_a_run_resumed_in_mid_epoch_sees_what_it_would_have_seen(corpus, tmp_path, options):
    def run(checkpoint=None):
        saver = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=3)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = L.Trainer(max_steps=10, callbacks=[saver], accelerator="cpu", num_sanity_val_steps=0,
                            limit_val_batches=0, **quiet)  # fmt: skip
        data = DenoiseData(str(corpus), 3, 4, 0.25, num_workers=1, **options)
        trainer.fit(recorder := Records(), data, ckpt_path=checkpoint)
        return recorder.seen

    seen = run()
    assert len(set(seen)) == 10
    assert run(tmp_path / "step=6.ckpt") == seen[6:]


# The data module's choices


def test_one_process_of_a_node_indexes_for_all(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("lrnn.data.index.REMEMBERED_FROM", 1)
    monkeypatch.setenv("LRNN_CACHE", str(tmp_path))
    data = DenoiseData(str(corpus))
    for world_size, remembered in ((1, 0), (2, 2)):
        data.trainer = SimpleNamespace(world_size=world_size)
        data.prepare_data()
        assert len(list(tmp_path.iterdir())) == remembered


def test_a_validation_set_elsewhere(corpus, tmp_path):
    (tmp_path / "datasets").symlink_to(corpus / "datasets")
    with pytest.raises(FileNotFoundError, match="no mixtures"):
        module(tmp_path)
    assert len(module(tmp_path, validation_root=str(corpus)).validation) == 2


def test_the_card_says_what_was_trained_on(corpus, monkeypatch):
    assert module(corpus, source="ready").card["source"] == "ready"
    card = module(corpus, augment=Augment(speed=0.5)).card
    assert card["augment"] == {"speed": 0.5}
    assert card["corpus"] == module(corpus, source="ready").card["corpus"] == corpus.name


def test_choices_that_do_not_go_together_are_named(corpus, monkeypatch):
    monkeypatch.delenv("LRNN_DATA", raising=False)
    with pytest.raises(ValueError, match="augment is given"):
        DenoiseData(str(corpus), source="ready", augment=Augment(gain=1))
    with pytest.raises(ValueError, match="training_set"):
        DenoiseData(source="ready").setup("fit")
    with pytest.raises(FileNotFoundError, match="training_set"):
        DenoiseData(str(corpus / "datasets"), source="ready").setup("fit")
    with pytest.raises(ValueError, match="clip_seconds"):
        ready(corpus, clip_seconds=0)
