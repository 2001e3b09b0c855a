"""lrnn.LanguageModel: laws, files, errors, and the paper's 370 million parameters."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import lrnn
from lrnn import HGRNBlockConfig, HGRNOptions, LanguageModel, LanguageModelConfig, S5BlockConfig
from lrnn.prune import prune_once
from lrnn.prune.weights import find_weights

HGRN_BLOCK = HGRNBlockConfig(d_model=6, d_state=4, d_hidden=10)
BLOCKS = {
    "hgrn": HGRN_BLOCK,
    "relu": HGRNBlockConfig(d_model=6, d_state=4, d_hidden=10, relu="all"),
    "complex": HGRNBlockConfig(d_model=6, d_state=4, d_hidden=10, hgrn=HGRNOptions("complex", norm="layer")),
    "s5": S5BlockConfig(d_model=6, d_state=8, blocks=2, norm="layer"),
}
kinds = pytest.mark.parametrize("kind", BLOCKS)
both = pytest.mark.parametrize("tied", [False, True])


def make(kind: str = "hgrn", tied: bool = False, dtype=torch.float64) -> LanguageModel:
    torch.manual_seed(0)
    model = LanguageModel(LanguageModelConfig(vocabulary=11, n_layers=2, block=BLOCKS[kind], tied=tied))
    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * torch.randn_like(p)
    return model.to(dtype).eval()


def text(batch: int = 2, time: int = 9) -> torch.Tensor:
    return torch.randint(11, (batch, time), generator=torch.Generator().manual_seed(1))


class TestLaws:
    @kinds
    @both
    def test_steps_are_the_whole(self, kind, tied):
        model, tokens, state, steps = make(kind, tied), text(), None, []
        for t in range(tokens.shape[1]):
            logits, state = model(tokens[:, t : t + 1], state)
            steps.append(logits)
        whole, last = model(tokens)
        assert whole.shape == (2, 9, 11)
        torch.testing.assert_close(torch.cat(steps, 1), whole)
        torch.testing.assert_close(state, last)

    @kinds
    @pytest.mark.parametrize("cut", [0, 1, 5, 9])
    def test_a_split_with_the_state_carried_is_the_whole(self, kind, cut):
        model, tokens = make(kind), text()
        head, state = model(tokens[:, :cut])
        tail, state = model(tokens[:, cut:], state)
        whole, last = model(tokens)
        torch.testing.assert_close(torch.cat([head, tail], 1), whole)
        torch.testing.assert_close(state, last)

    @kinds
    def test_packed_documents_are_the_separate_ones(self, kind):
        model, tokens = make(kind), text(1)
        reset = torch.zeros(1, 9, dtype=torch.bool)
        reset[:, [0, 4, 5]] = True
        _, stale = model(tokens)
        separate = torch.cat([model(part)[0] for part in tokens.split([4, 1, 4], dim=1)], 1)
        torch.testing.assert_close(model(tokens, stale, reset)[0], separate)

    @kinds
    def test_is_causal(self, kind):
        model, tokens = make(kind), text()
        later = tokens.clone()
        later[:, 5:] = (later[:, 5:] + 1) % 11
        assert torch.equal(model(tokens)[0][:, :5], model(later)[0][:, :5])

    @kinds
    @both
    def test_gradients_reach_all(self, kind, tied):
        model, tokens = make(kind, tied).train(), text()
        logits, _ = model(tokens[:, :-1])
        nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())

    def test_tied_is_the_embedding_transposed(self):
        model, tokens = make(tied=True), text()
        y, _ = model.stack(model.embedding.weight[tokens])
        torch.testing.assert_close(model(tokens)[0], y @ model.embedding.weight.T)
        assert "head.weight" not in dict(model.named_parameters())
        assert make().head.weight.shape == (11, 6)


class TestDropIn:
    @kinds
    def test_compiles_as_one_graph(self, kind):
        model, tokens = make(kind, dtype=torch.float32), text()
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(tokens), model(tokens))

    @kinds
    def test_learns_a_sequence_under_bfloat16_autocast(self, kind):
        model, tokens = make(kind, dtype=torch.float32).train(), torch.arange(41).remainder(11)[None]
        optimizer, losses = torch.optim.Adam(model.parameters(), 1e-2), []
        for _ in range(40):
            with torch.autocast("cpu", torch.bfloat16):
                logits, _ = model(tokens[:, :-1])
                loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), tokens[0, 1:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.5 * losses[0]

    @both
    def test_pruned_and_copied(self, tied):
        model = make(tied=tied)
        twin = copy.deepcopy(model)
        prune_once(model, 0.5, exclude=("embedding", *(() if tied else ("head",))))
        assert torch.equal(model.embedding.weight, twin.embedding.weight)
        assert (model.stack.blocks[0].glu.up_proj.weight == 0).double().mean() > 0.2


class TestFiles:
    @kinds
    @both
    def test_round_trip(self, kind, tied, tmp_path):
        model, path = make(kind, tied, torch.float32), tmp_path / "m.safetensors"
        model.save(path, {"note": 1})
        again = LanguageModel.load(path).eval()
        assert again.config == model.config
        assert torch.equal(again(text())[0], model(text())[0])

    def test_another_kind_of_model_is_named(self, tmp_path):
        make(dtype=torch.float32).save(tmp_path / "m.safetensors")
        with pytest.raises(
            ValueError, match=r"m\.safetensors: found a LanguageModel, expected a SequenceModel"
        ):
            lrnn.SequenceModel.load(tmp_path / "m.safetensors")

    @kinds
    def test_configuration(self, kind):
        config = LanguageModelConfig(vocabulary=7, block=BLOCKS[kind], tied=True)
        assert LanguageModelConfig.from_dict(config.to_dict()) == config
        assert LanguageModelConfig.from_dict({"vocabulary": 7}) == LanguageModelConfig(vocabulary=7)
        assert config.to_dict()["block"]["kind"] == ("s5" if kind == "s5" else "hgrn")


class TestErrors:
    @pytest.mark.parametrize(
        ("make", "error", "message"),
        [
            (lambda: LanguageModelConfig(vocabulary=0), ValueError, "vocabulary is 0, expected at least 1"),
            (lambda: LanguageModelConfig(n_layers=0), ValueError, "n_layers is 0, expected at least 1"),
            (lambda: LanguageModelConfig(block=None), TypeError, "block is a NoneType, expected an HGRNB"),
            (lambda: LanguageModelConfig.from_dict({"depth": 3}), ValueError, "has no field 'depth'"),
            (
                lambda: LanguageModelConfig.from_dict({"block": {"kind": "lstm"}}),
                ValueError,
                "block has kind 'lstm', expected 'hgrn' or 's5'",
            ),
        ],
    )
    def test_names_the_option(self, make, error, message):
        with pytest.raises(error, match=message):
            make()

    def test_names_the_argument(self):
        with pytest.raises(ValueError, match=r"tokens has shape \(3,\), expected \(batch, time\)"):
            make()(torch.zeros(3, dtype=torch.int64))
        with pytest.raises(TypeError, match=r"tokens has dtype torch\.float32, expected torch.int64"):
            make()(torch.zeros(1, 3))
        with pytest.raises(ValueError, match="state has 1 entries, expected 2"):
            make("s5")(text(), (None,))


def test_the_papers_370_million():
    """374 M parameters and 341, 187, 95 and 64 M MACs per token follow if the head is untied and dense.

    Pierro et al. give the figures, not the sizes: these are inferred from them.
    """
    block = HGRNBlockConfig(d_model=1024, d_state=1024, d_hidden=2816)
    with torch.device("meta"):
        model = LanguageModel(LanguageModelConfig(vocabulary=32_000, n_layers=24, block=block))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(374e6, abs=0.5e6)
    pruned = sum(w.dense.numel() for w in find_weights(model, exclude=("embedding", "head")))
    head = model.output_matrix.numel()
    for sparsity, macs in ((0, 341), (0.5, 187), (0.8, 95), (0.9, 64)):
        assert ((1 - sparsity) * pruned + head) / 1e6 == pytest.approx(macs, abs=1)
