"""SequenceModel, S5Block, norm and dropout: laws, configuration, files, and use by other people's code."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lrnn.nn import (
    BatchNorm,
    S5Block,
    S5BlockConfig,
    S5Options,
    SequenceModel,
    SequenceModelConfig,
    TimeDropout,
)

few = settings(max_examples=20, deadline=None)
small = SequenceModelConfig(d_in=3, d_out=2, d_model=6, d_state=8, blocks=2, n_layers=2)
configs = st.builds(
    replace,
    st.just(small),
    relu=st.sampled_from(["none", "parts", "pair"]),
    glu=st.sampled_from(["half1", "half2", "full", "none"]),
    norm=st.sampled_from(["batch", "frozen_batch", "layer"]),
    prenorm=st.booleans(),
    head=st.sampled_from(["regression", "classification"]),
    pooling=st.sampled_from(["mean", "last"]),
    input_exponent=st.sampled_from([None, 4]),
    ssm=st.builds(S5Options, conj_sym=st.booleans(), discretization=st.sampled_from(["zoh", "bilinear"])),
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def build(config: SequenceModelConfig = small, **changes) -> SequenceModel:
    """A float64 model in evaluation whose norms, biases and statistics are not the identity."""
    torch.manual_seed(0)
    model = SequenceModel(replace(config, **changes))
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith((".bias", ".norm.weight", "running_mean", "running_var")):
                tensor.copy_(torch.rand_like(tensor) + 0.5)
    return model.double().eval()


def frames(batch: int, time: int) -> torch.Tensor:
    return torch.randn(batch, time, 3, dtype=torch.float64)


class TestStreaming:
    @given(configs, st.integers(1, 6))
    @few
    def test_a_split_with_the_state_carried_is_the_whole(self, config, cut):
        model, x = build(config), frames(2, 7)
        whole, last = model(x)
        head, state = model(x[:, :cut])
        tail, state = model(x[:, cut:], state)
        joined = tail if config.head == "classification" else torch.cat([head, tail], 1)
        torch.testing.assert_close(joined, whole)
        torch.testing.assert_close(state, last)

    @given(configs)
    @few
    def test_steps_are_the_whole(self, config):
        model, x, state, steps = build(config), frames(2, 5), None, []
        for t in range(5):
            y, state = model(x[:, t : t + 1], state)
            steps.append(y)
        joined = steps[-1] if config.head == "classification" else torch.cat(steps, 1)
        torch.testing.assert_close(joined, model(x)[0])

    @given(configs)
    @few
    def test_packed_sequences_are_the_separate_ones(self, config):
        model, x = build(config), frames(1, 9)
        reset = torch.zeros(1, 9, dtype=torch.bool)
        reset[:, [4, 5]] = True
        parts = [model(part)[0] for part in x.split([4, 1, 4], dim=1)]
        expected = parts[-1] if config.head == "classification" else torch.cat(parts, 1)
        torch.testing.assert_close(model(x, reset=reset)[0], expected)

    @given(configs)
    @few
    def test_a_reset_forgets_the_state_given(self, config):
        model, x = build(config), frames(2, 4)
        state = model(frames(2, 3))[1]
        reset = torch.tensor([[True, False, False, False], [False, False, False, False]])
        y = model(x, state, reset)[0]
        torch.testing.assert_close(y[:1], model(x[:1])[0])
        torch.testing.assert_close(y[1:], model(x[1:], tuple(s[1:] for s in state))[0])

    def test_sequences_of_a_batch_do_not_meet(self):
        model, x = build(), frames(3, 7)
        torch.testing.assert_close(model(x)[0][1:2], model(x[1:2])[0])


class TestHeads:
    def test_regression_decodes_every_frame(self):
        y, state = build()(frames(2, 7))
        assert y.shape == (2, 7, 2)
        assert [tuple(s.shape) for s in state] == [(2, 4), (2, 4)]

    @pytest.mark.parametrize("pooling", ["mean", "last"])
    def test_classification_returns_log_probabilities(self, pooling):
        model, x = build(head="classification", pooling=pooling, d_out=5), frames(2, 7)
        y, _ = model(x)
        assert y.shape == (2, 5)
        torch.testing.assert_close(y.exp().sum(-1), torch.ones(2, dtype=torch.float64))
        changed = x.clone()
        changed[:, 0] += 1
        assert not torch.allclose(model(changed)[0], y)

    def test_input_exponent_rounds_the_input(self):
        coarse, fine = build(input_exponent=2), build()
        x = frames(2, 7)
        torch.testing.assert_close(coarse(x)[0], fine((x * 4).round() / 4)[0])


class TestBatchNorm:
    def test_training_normalises_over_batch_and_time(self):
        norm, x = BatchNorm(6), 3 * torch.randn(4, 50, 6) + 1
        y = norm(x)
        torch.testing.assert_close(y.mean((0, 1)), torch.zeros(6), atol=1e-5, rtol=0)
        torch.testing.assert_close(y.var((0, 1), correction=0), torch.ones(6), atol=1e-4, rtol=0)

    def test_running_statistics_move_by_the_momentum_and_are_biased(self):
        norm, x = BatchNorm(6, momentum=0.1), torch.randn(2, 3, 6)
        norm(x)
        torch.testing.assert_close(norm.running_mean, 0.1 * x.mean((0, 1)))
        torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * x.var((0, 1), correction=0))

    def test_evaluation_is_the_affine_map_it_states(self):
        norm = build().blocks[0].norm
        x = torch.randn(2, 5, 6, dtype=torch.float64)
        scale, shift = norm.scale_shift()
        before = norm.running_mean.clone()
        torch.testing.assert_close(norm(x), x * scale + shift)
        expected = nn.functional.batch_norm(
            x.mT, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        ).mT
        torch.testing.assert_close(norm(x), expected)
        assert torch.equal(norm.running_mean, before)

    def test_frozen_ignores_the_batch_in_training(self):
        norm, x = BatchNorm(6, frozen=True).train(), torch.randn(2, 5, 6)
        torch.testing.assert_close(norm(x), x / (1 + norm.eps) ** 0.5)
        assert torch.equal(norm.running_mean, torch.zeros(6))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_gradients_flow_through_the_batch_statistics(self, dtype):
        norm, plain = BatchNorm(6).to(dtype), nn.BatchNorm1d(6).to(dtype)
        x = torch.randn(4, 7, 6, dtype=dtype, requires_grad=True)
        w = torch.randn(4, 7, 6, dtype=dtype)
        ours = torch.autograd.grad((norm(x) * w).sum(), (x, norm.weight, norm.bias))
        theirs = torch.autograd.grad((plain(x.mT).mT * w).sum(), (x, plain.weight, plain.bias))
        torch.testing.assert_close(ours, theirs)


class TestDropout:
    def test_one_mask_per_sequence_shared_over_time(self):
        y = TimeDropout(0.5).train()(torch.ones(8, 11, 32))
        assert torch.equal(y, y[:, :1].expand_as(y))
        assert set(y.unique().tolist()) == {0.0, 2.0}
        assert not torch.equal(y[0], y[1])

    def test_masks_are_drawn_afresh(self):
        dropout, x = TimeDropout(0.5).train(), torch.ones(4, 5, 32)
        assert not torch.equal(dropout(x), dropout(x))

    def test_evaluation_keeps_everything(self):
        x = torch.randn(2, 5, 6)
        assert torch.equal(TimeDropout(0.5).eval()(x), x)

    def test_a_model_draws_two_masks_per_block(self):
        model, calls = build(dropout=0.5).train(), []
        model.blocks[0].dropout.register_forward_hook(lambda _, args, out: calls.append(out == 0))
        model(frames(2, 5))
        assert len(calls) == 2
        assert not torch.equal(*calls)


class TestConfig:
    # The parameter counts of the paper's code at these width factors.
    @pytest.mark.parametrize(("k", "parameters"), [(0.5, 152_801), (1.0, 508_097)])
    def test_size_rule(self, k, parameters):
        model = SequenceModel(SequenceModelConfig(d_in=257, d_out=257).scaled(k))
        assert sum(p.numel() for p in model.parameters()) == parameters

    def test_scaled_keeps_the_size_of_a_block(self):
        config = SequenceModelConfig(d_in=257, d_out=257)
        for k in (0.25, 0.75, 1.5, 3.0):
            scaled = config.scaled(k)
            assert (scaled.blocks, scaled.d_model, scaled.d_state) == (16 * k, 192 * k, 256 * k)
        with pytest.raises(ValueError, match=r"k is 0\.01"):
            config.scaled(0.01)

    @given(configs)
    @few
    def test_is_json(self, config):
        assert SequenceModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"relu": "gelu"}, "relu is 'gelu', expected"),
            ({"glu": "quarter"}, "glu is 'quarter', expected"),
            ({"norm": "rms"}, "norm is 'rms', expected"),
            ({"head": "retrieval"}, "head is 'retrieval', expected"),
            ({"pooling": "max"}, "pooling is 'max', expected"),
            ({"dropout": 1.0}, r"dropout is 1\.0, expected"),
            ({"n_layers": 0}, "n_layers is 0, expected"),
        ],
    )
    def test_names_what_is_wrong(self, change, message):
        with pytest.raises(ValueError, match=message):
            replace(small, **change)

    def test_an_unknown_field_is_named(self):
        with pytest.raises(ValueError, match="has no field 'd_modle'"):
            SequenceModelConfig.from_dict({**small.to_dict(), "d_modle": 3})


class TestFiles:
    @given(configs)
    @settings(max_examples=8, deadline=None)
    def test_a_loaded_model_is_the_saved_one(self, tmp_path_factory, config):
        path = tmp_path_factory.mktemp("model") / "m.safetensors"
        model, x = build(config).float(), frames(2, 5).float()
        model.save(path)
        loaded = SequenceModel.load(path)
        assert loaded.config == config
        assert torch.equal(loaded.eval()(x)[0], model(x)[0])

    def test_another_file_is_refused_by_name(self, tmp_path):
        path = tmp_path / "noise.safetensors"
        path.write_bytes(b"not a model")
        with pytest.raises(ValueError, match=r"noise\.safetensors"):
            SequenceModel.load(path)
        with pytest.raises(FileNotFoundError, match=r"missing\.safetensors"):
            SequenceModel.load(tmp_path / "missing.safetensors")

    def test_a_failed_save_leaves_what_was_there(self, tmp_path):
        path = tmp_path / "m.safetensors"
        model = build()
        model.save(path)
        before = path.read_bytes()
        with pytest.raises(TypeError):
            model.save(path, meta={"not JSON": object()})
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]

    def test_parametrizations_are_refused(self, tmp_path):
        model = build()
        nn.utils.parametrize.register_parametrization(model.decoder, "weight", nn.Identity())
        with pytest.raises(ValueError, match=r"decoder\.parametrizations\.weight"):
            model.save(tmp_path / "m.safetensors")


class TestUse:
    def test_trains_under_bfloat16_autocast(self):
        model = SequenceModel(replace(small, dropout=0.1)).train()
        x, target = torch.randn(8, 20, 3), torch.randn(8, 20, 1)
        target = torch.cat([x.cumsum(1)[..., :1] / 4, x[..., :1]], -1)
        optimizer, losses = torch.optim.AdamW(model.parameters(), 1e-2), []
        for _ in range(30):
            with torch.autocast("cpu", torch.bfloat16):
                loss = (model(x)[0] - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.7 * losses[0]
        assert all(b.dtype == torch.float32 and b.isfinite().all() for b in model.buffers())

    @pytest.mark.parametrize("training", [False, True])
    def test_compiles_as_one_graph(self, training):
        model, x = build().float().train(training), frames(2, 7).float()
        twin = copy.deepcopy(model)
        y, state = torch.compile(model, fullgraph=True, backend="aot_eager")(x)
        torch.testing.assert_close((y, state), twin(x))
        torch.testing.assert_close(dict(model.named_buffers()), dict(twin.named_buffers()))

    @pytest.mark.parametrize("head", ["regression", "classification"])
    def test_exports_with_any_batch_and_length(self, head):
        model = build(head=head).float()
        shapes = {"x": {0: torch.export.Dim("batch"), 1: torch.export.Dim("time")}}
        program = torch.export.export(model, (frames(2, 7).float(),), dynamic_shapes=shapes)
        x = frames(3, 11).float()
        torch.testing.assert_close(program.module()(x), model(x))

    def test_a_block_alone(self):
        block = S5Block(S5BlockConfig(d_model=6, d_state=8, blocks=2))
        y, state = block(torch.randn(2, 5, 6))
        assert y.shape == (2, 5, 6)
        assert state.shape == (2, 4)

    @pytest.mark.parametrize(
        ("x", "state", "message"),
        [
            (torch.zeros(2, 5, 4), None, r"x has shape \(2, 5, 4\), expected \(batch, time, 3\)"),
            (torch.zeros(5, 3), None, r"x has shape \(5, 3\)"),
            (torch.zeros(2, 5, 3), (None,), "state has 1 entries, expected 2"),
        ],
    )
    def test_errors_name_the_argument(self, x, state, message):
        with pytest.raises(ValueError, match=message):
            SequenceModel(small)(x, state)

    @pytest.mark.parametrize("module", [SequenceModel(small), S5Block(small)])
    def test_a_wrong_dtype_or_width_is_named(self, module):
        width = 3 if isinstance(module, SequenceModel) else 6
        with pytest.raises(TypeError, match=r"x has dtype torch\.int64"):
            module(torch.zeros(2, 5, width, dtype=torch.int64))
        with pytest.raises(ValueError, match=r"x has shape \(2, 5, 9\)"):
            module(torch.zeros(2, 5, 9))
