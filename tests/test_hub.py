"""lrnn.HubMixin: a folder in the form of the Hugging Face hub, and back. No network."""

from __future__ import annotations

import json

import pytest
import torch

import lrnn

pytest.importorskip("huggingface_hub")


class Denoiser(lrnn.SequenceModel, lrnn.HubMixin):
    """What a user writes."""


def model() -> Denoiser:
    torch.manual_seed(0)
    sizes = {"d_in": 5, "d_out": 4, "d_model": 16, "d_state": 16, "blocks": 2, "n_layers": 2}
    return Denoiser(lrnn.SequenceModelConfig(**sizes, ssm=lrnn.S5Options(discretization="bilinear"))).eval()


def test_a_folder_and_back(tmp_path):
    saved = model()
    saved.save_pretrained(tmp_path / "m")
    assert {p.name for p in (tmp_path / "m").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    loaded = Denoiser.from_pretrained(tmp_path / "m")
    x = torch.randn(2, 6, 5)
    assert type(loaded) is Denoiser
    assert loaded.config == saved.config
    assert torch.equal(loaded(x)[0], saved(x)[0])
    loaded.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text()) == saved.config.to_dict()


class Language(lrnn.LanguageModel, lrnn.HubMixin):
    """The same with a language model."""


def test_a_language_model(tmp_path):
    block = lrnn.S5BlockConfig(d_model=8, d_state=8, blocks=1, norm="layer")
    saved = Language(lrnn.LanguageModelConfig(vocabulary=9, n_layers=1, block=block, tied=True)).eval()
    saved.save_pretrained(tmp_path)
    loaded, tokens = Language.from_pretrained(tmp_path), torch.tensor([[1, 8, 3]])
    assert loaded.config == saved.config
    assert torch.equal(loaded(tokens)[0], saved(tokens)[0])


def test_annotations_need_not_be_strings(tmp_path):
    def init(self, config):
        lrnn.SequenceModel.__init__(self, config)

    init.__annotations__ = {"config": lrnn.SequenceModelConfig}
    own = type("Own", (lrnn.SequenceModel, lrnn.HubMixin), {"__init__": init})
    saved = own(model().config)
    saved.save_pretrained(tmp_path)
    assert own.from_pretrained(tmp_path).config == saved.config
    assert own.from_pretrained(tmp_path, config=saved.config).config == saved.config


def test_sizes_that_shrank_are_saved(tmp_path):
    pytest.importorskip("torch_pruning")
    saved = model()
    with torch.no_grad():
        saved.blocks[1].ssm.B[:3] = 0
    lrnn.shrink(saved)
    saved.save_pretrained(tmp_path)
    loaded = Denoiser.from_pretrained(tmp_path)
    assert loaded.config.d_state == (16, 10)
    assert torch.equal(loaded(torch.ones(1, 3, 5))[0], saved(torch.ones(1, 3, 5))[0])


def test_errors(tmp_path):
    masked = model()
    lrnn.Pruner(masked, 0.5).attach()
    with pytest.raises(ValueError, match="bake"):
        masked.save_pretrained(tmp_path / "masked")
    model().save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text('{"d_in": 5, "depth": 3}')
    with pytest.raises(ValueError, match=r"m: config\.json does not fit a Denoiser: .* no field 'depth'"):
        Denoiser.from_pretrained(tmp_path / "m")
    (tmp_path / "m" / "config.json").unlink()
    with pytest.raises(ValueError, match="found no config"):
        Denoiser.from_pretrained(tmp_path / "m")
