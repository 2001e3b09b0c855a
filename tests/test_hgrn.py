"""lrnn.HGRN, its block and its stack: equations, laws, their place in other people's modules, errors."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lrnn import HGRN, HGRNBlock, HGRNBlockConfig, HGRNOptions, HGRNStack
from lrnn.nn import activation, from_fla
from lrnn.prune import OneShotSchedule, Pruner, prune_once
from lrnn.prune.weights import find_weights
from lrnn.quant import calibrate_model, prepare, strip

few = settings(max_examples=15, deadline=None)
AUTHORS = HGRNOptions("complex", norm="layer", bias=True, norm_eps=1e-5)
options = st.builds(
    HGRNOptions,
    recurrence=st.sampled_from(["real", "complex"]),
    norm=st.sampled_from(["rms", "layer"]),
    bias=st.booleans(),
)
kinds = pytest.mark.parametrize("kind", ["real", "complex"])
seeds = st.integers(0, 2**16)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def shaken(module: nn.Module) -> nn.Module:
    """No parameter where initialisation left it, so that none can be forgotten."""
    with torch.no_grad():
        for p in module.parameters():
            p += 0.3 * torch.randn_like(p)
    return module


def layer(seed: int, opts: HGRNOptions | None = None, relu: bool = False, dtype=torch.float64) -> HGRN:
    torch.manual_seed(seed)
    return shaken(HGRN(6, 4, relu, opts)).to(dtype)


def stack(seed: int = 0, relu: str = "none", kind: str = "real", dtype=torch.float64) -> HGRNStack:
    torch.manual_seed(seed)
    config = HGRNBlockConfig(d_model=6, d_state=4, d_hidden=10, relu=relu, hgrn=HGRNOptions(kind))
    return shaken(HGRNStack(config, 3)).to(dtype)


class Tagger(nn.Module):
    """What a user writes: a stack between layers of their own."""

    def __init__(self, kind: str = "real"):
        super().__init__()
        self.embed = nn.Linear(3, 6)
        self.stack = stack(0, kind=kind, dtype=torch.float32)
        self.head = nn.Linear(6, 2)

    def forward(self, x, state=None):
        y, state = self.stack(self.embed(x), state)
        return self.head(y), state


# The equations once more, in plain loops over numbers.


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def silu(z: float) -> float:
    return z * sigmoid(z)


def rms(v: list[float], weight, eps: float) -> list[float]:
    scale = 1 / math.sqrt(sum(x * x for x in v) / len(v) + eps)
    return [x * scale * w for x, w in zip(v, weight, strict=True)]


def layer_norm(v: list[float], weight, bias, eps: float) -> list[float]:
    mean = sum(v) / len(v)
    var = sum((x - mean) ** 2 for x in v) / len(v)
    return [(x - mean) / math.sqrt(var + eps) * w + b for x, w, b in zip(v, weight, bias, strict=True)]


def numbers(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: p.detach().double().numpy() for name, p in module.state_dict().items()}


def paper_hgru(p: dict[str, np.ndarray], x: np.ndarray, gamma: np.ndarray, eps: float):
    """The authors' token mixer over x (T, H): (y (T, H), the last state)."""

    def affine(name, v):
        return p[f"{name}.weight"] @ v + p[f"{name}.bias"]

    states = [0j] * len(gamma)
    out = []
    for v in x:
        c, gate = affine("i_proj", v), affine("g_proj", v)
        mu = [sigmoid(z) for z in affine("f_proj", v)]
        features = []
        for n, bound in enumerate(gamma):
            decay = bound + (1 - bound) * mu[n]
            turn = complex(math.cos(p["theta"][n]), math.sin(p["theta"][n]))
            written = complex(silu(c[2 * n]), silu(c[2 * n + 1]))
            states[n] = decay * turn * states[n] + (1 - decay) * written
            features += [states[n].real, states[n].imag]
        features = layer_norm(features, p["norm.weight"], p["norm.bias"], eps)
        out.append(affine("o_proj", np.array([f * silu(g) for f, g in zip(features, gate, strict=True)])))
    return np.array(out), np.array(states)


def fla_attention(p: dict[str, np.ndarray], prefix: str, x: np.ndarray, gamma: np.ndarray, eps: float):
    """flash-linear-attention's token mixer with its names, gates in logarithms: (T, H) -> (T, H)."""
    h = [0.0] * len(gamma)
    out = []
    for v in x:
        i, f, g = (p[f"{prefix}.{name}_proj.weight"] @ v for name in "ifg")
        for n, bound in enumerate(gamma):
            log_f = math.log(sigmoid(f[n]))
            if bound > 0:
                log_f = np.logaddexp(math.log(bound), math.log1p(-bound) + log_f)
            h[n] = math.exp(log_f) * h[n] + silu(i[n]) * (1 - math.exp(log_f))
        normed = rms(h, p[f"{prefix}.g_norm.weight"], eps)
        out.append(p[f"{prefix}.o_proj.weight"] @ [a * silu(b) for a, b in zip(normed, g, strict=True)])
    return np.array(out)


def fla_model(p: dict[str, np.ndarray], x: np.ndarray, layers: int, eps: float) -> np.ndarray:
    """flash-linear-attention's HGRNModel after its embeddings, with its names: (T, H) -> (T, H)."""
    e = np.exp(p["model.lower_bounds"])
    shares = e / e.sum(0)
    for k in range(layers):
        at = f"model.layers.{k}"
        gamma = shares[: k + 1].sum(0) - shares[0]
        normed = np.array([rms(v, p[f"{at}.attn_norm.weight"], eps) for v in x])
        x = x + fla_attention(p, f"{at}.attn", normed, gamma, eps)
        for t, v in enumerate([rms(v, p[f"{at}.mlp_norm.weight"], eps) for v in x]):
            gate, up = p[f"{at}.mlp.gate_proj.weight"] @ v, p[f"{at}.mlp.up_proj.weight"] @ v
            hidden = [silu(a) * b for a, b in zip(gate, up, strict=True)]
            x[t] = x[t] + p[f"{at}.mlp.down_proj.weight"] @ hidden
    return np.array([rms(v, p["model.norm.weight"], eps) for v in x])


def fla_checkpoint(layers: int = 3, width: int = 6, hidden: int = 10) -> dict[str, torch.Tensor]:
    """Random tensors with the names and shapes of an HGRNForCausalLM."""

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64)

    tensors = {
        "model.embeddings.weight": draw(11, width),
        "model.lower_bounds": draw(layers, width),
        "model.norm.weight": draw(width),
        "lm_head.weight": draw(11, width),
    }
    for k in range(layers):
        at = f"model.layers.{k}"
        for name in ("attn_norm", "attn.g_norm", "mlp_norm"):
            tensors[f"{at}.{name}.weight"] = draw(width)
        for name in ("i_proj", "f_proj", "g_proj", "o_proj"):
            tensors[f"{at}.attn.{name}.weight"] = draw(width, width)
        tensors[f"{at}.mlp.gate_proj.weight"] = draw(hidden, width)
        tensors[f"{at}.mlp.up_proj.weight"] = draw(hidden, width)
        tensors[f"{at}.mlp.down_proj.weight"] = draw(width, hidden)
    return tensors


class TestEquations:
    def test_of_the_authors(self):
        hgrn, x = layer(0, AUTHORS), torch.randn(2, 7, 6, dtype=torch.float64)
        gamma = torch.rand(4, dtype=torch.float64)
        y, last = hgrn(x, lower_bound=gamma)
        for b in range(2):
            expected, states = paper_hgru(numbers(hgrn), x[b].numpy(), gamma.numpy(), 1e-5)
            np.testing.assert_allclose(y[b].detach().numpy(), expected, rtol=1e-10, atol=1e-12)
            np.testing.assert_allclose(last[b].detach().numpy(), states, rtol=1e-10, atol=1e-12)

    def test_of_flash_linear_attention_through_its_names(self):
        tensors, x = fla_checkpoint(), torch.randn(2, 9, 6, dtype=torch.float64)
        ours = HGRNStack(HGRNBlockConfig(d_model=6, d_state=6, d_hidden=10), 3).double()
        ours.load_state_dict(from_fla(tensors))
        y = ours(x)[0].detach().numpy()
        values = {name: t.numpy() for name, t in tensors.items()}
        for b in range(2):
            expected = fla_model(values, x[b].numpy().copy(), 3, 1e-6)
            np.testing.assert_allclose(y[b], expected, rtol=1e-9, atol=1e-11)

    @pytest.mark.parametrize(
        "name", ["model.layers.0.attn.i_conv1d.weight", "model.layers.1.attn.k_proj.weight"]
    )
    def test_a_foreign_name_without_counterpart(self, name):
        with pytest.raises(ValueError, match=f"{name} has no counterpart in an lrnn.HGRNStack"):
            from_fla({name: torch.zeros(1)})

    def test_the_gates_add_up_where_the_forget_gate_rounds_to_one(self):
        hgrn = layer(0, dtype=torch.float32)
        with torch.no_grad():
            hgrn.f_proj.weight.fill_(5.0)
        forget, write = hgrn.gates(torch.ones(1, 1, 6), torch.full((4,), 0.5))
        assert (forget == 1).all()
        torch.testing.assert_close(write, torch.full((1, 1, 4), 0.5 * math.exp(-30)), rtol=1e-5, atol=0)

    @kinds
    def test_a_lower_bound_bounds_the_forget_gate(self, kind):
        hgrn, bound = layer(1, HGRNOptions(kind)), torch.tensor([0.0, 0.2, 0.5, 0.9], dtype=torch.float64)
        forget, write = hgrn.gates(10 * torch.randn(2, 30, 6, dtype=torch.float64), bound)
        assert (forget >= bound).all()
        torch.testing.assert_close(forget + write, torch.ones_like(forget))

    def test_bounds_of_a_stack(self):
        deep = stack()
        gamma = deep.bounds().detach()
        shares = deep.lower_bounds.detach().softmax(0)
        assert (gamma[0] == 0).all()
        torch.testing.assert_close(gamma[1:], torch.stack([shares[1], shares[1] + shares[2]]))
        assert (gamma.diff(dim=0) > 0).all()
        assert (gamma < 1).all()
        assert HGRNStack(HGRNBlockConfig(d_model=6, d_state=4, d_hidden=4), 1).bounds().eq(0).all()

    def test_bounds_stay_below_one_where_their_sum_rounds(self):
        """A forget gate above one would make a state grow."""
        deep = HGRNStack(HGRNBlockConfig(d_model=6, d_state=500, d_hidden=4), 4)
        with torch.no_grad():
            deep.lower_bounds.normal_(std=2.0)
            deep.lower_bounds[0] = -20
        shares = deep.lower_bounds.detach().softmax(0)
        assert (shares[1:].sum(0) > 1).any()
        gamma = deep.bounds()
        assert (gamma < 1).all()
        assert (gamma[-1] > 1 - 1e-6).all()
        forget, write = deep.blocks[-1].mixer.gates(-50 * torch.ones(1, 1, 6), gamma[-1])
        assert (forget <= 1).all()
        assert (write >= 0).all()

    @pytest.mark.parametrize(
        ("relu", "sparse", "rectifiers"),
        [
            ("none", set(), 0),
            ("gates", {"mixer.o_proj", "glu.down_proj"}, 3),
            (
                "all",
                {*(f"mixer.{n}_proj" for n in "ifgo"), *(f"glu.{n}_proj" for n in ("gate", "up", "down"))},
                5,
            ),
        ],
    )
    def test_relu_makes_what_the_matrices_read_sparse(self, relu, sparse, rectifiers):
        block, zeros = stack(0, relu).blocks[1], {}

        def watch(name: str):
            return lambda _, args: zeros.update({name: (args[0] == 0).double().mean().item()})

        for name, part in block.named_modules():
            if isinstance(part, nn.Linear):
                part.register_forward_pre_hook(watch(name))
        block(torch.randn(2, 20, 6, dtype=torch.float64))
        assert len(zeros) == 7
        assert {name for name, share in zeros.items() if share > 0.1} == sparse
        assert len(activation.rectifiers(block)) == rectifiers


class TestLaws:
    @given(seeds, options, st.booleans(), st.integers(0, 7))
    @few
    def test_a_split_with_the_state_carried_is_the_whole(self, seed, opts, relu, cut):
        hgrn, bound = layer(seed, opts, relu), torch.rand(4, dtype=torch.float64)
        x = torch.randn(2, 7, 6, dtype=torch.float64)
        whole, last = hgrn(x, lower_bound=bound)
        head, state = hgrn(x[:, :cut], lower_bound=bound)
        tail, state = hgrn(x[:, cut:], state, lower_bound=bound)
        torch.testing.assert_close(torch.cat([head, tail], 1), whole)
        torch.testing.assert_close(state, last)

    @kinds
    @pytest.mark.parametrize("relu", ["none", "gates", "all"])
    def test_steps_of_a_stack_are_the_whole(self, kind, relu):
        deep, state, steps = stack(1, relu, kind), None, []
        x = torch.randn(2, 5, 6, dtype=torch.float64)
        for t in range(5):
            y, state = deep(x[:, t : t + 1], state)
            steps.append(y)
        whole, last = deep(x)
        torch.testing.assert_close(torch.cat(steps, 1), whole)
        torch.testing.assert_close(state, last)

    @kinds
    def test_packed_sequences_are_the_separate_ones(self, kind):
        deep, x = stack(2, kind=kind), torch.randn(1, 9, 6, dtype=torch.float64)
        reset = torch.zeros(1, 9, dtype=torch.bool)
        reset[:, [0, 4, 5]] = True
        _, stale = deep(x)
        separate = torch.cat([deep(part)[0] for part in x.split([4, 1, 4], dim=1)], 1)
        torch.testing.assert_close(deep(x, stale, reset)[0], separate)

    def test_is_causal(self):
        deep, x = stack(3), torch.randn(1, 8, 6, dtype=torch.float64)
        later = x.clone()
        later[:, 5:] += 1
        assert torch.equal(deep(x)[0][:, :5], deep(later)[0][:, :5])

    def test_a_phase_of_zero_is_the_real_recurrence(self):
        turning, plain = layer(4, HGRNOptions("complex")), layer(5)
        with torch.no_grad():
            turning.theta.zero_()
            plain.f_proj.weight.copy_(turning.f_proj.weight)
            plain.i_proj.weight.copy_(turning.i_proj.weight[::2])
        x = torch.randn(2, 7, 6, dtype=torch.float64)
        torch.testing.assert_close(turning.states(x)[0].real, plain.states(x)[0])

    @pytest.mark.parametrize("opts", [HGRNOptions(), AUTHORS])
    def test_gradcheck(self, opts):
        hgrn = shaken(HGRN(2, 3, options=opts)).double()
        names, values = zip(*hgrn.named_parameters(), strict=True)
        x = torch.randn(1, 3, 2, dtype=torch.float64, requires_grad=True)
        bound = torch.rand(3, dtype=torch.float64, requires_grad=True)
        dtype = torch.complex128 if hgrn.is_complex else torch.float64
        state = torch.randn(1, 3, dtype=dtype, requires_grad=True)

        def run(x, state, bound, *values):
            args = (x, state, None, bound)
            return torch.func.functional_call(hgrn, dict(zip(names, values, strict=True)), args)

        assert torch.autograd.gradcheck(run, (x, state, bound, *values))

    def test_gradients_reach_all_of_a_stack(self):
        deep = stack(6, kind="complex")
        deep(torch.randn(2, 5, 6, dtype=torch.float64))[0].square().sum().backward()
        assert all(p.grad.isfinite().all() and p.grad.any() for p in deep.parameters())


class TestDropIn:
    @kinds
    def test_trains_under_bfloat16_autocast(self, kind):
        model, x = Tagger(kind), torch.randn(4, 20, 3)
        target = (x.cumsum(1)[..., 0] > 0).long()
        optimizer, losses = torch.optim.Adam(model.parameters(), 1e-2), []
        for _ in range(25):
            with torch.autocast("cpu", torch.bfloat16):
                logits, state = model(x)
                loss = nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        # What is carried is not rounded.
        assert state[0].dtype == (torch.complex64 if kind == "complex" else torch.float32)
        assert all(p.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())
        assert losses[-1] < 0.8 * losses[0]

    @kinds
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
    def test_keeps_the_dtype_of_its_input(self, kind, dtype):
        hgrn = layer(7, HGRNOptions(kind), dtype=dtype)
        y, state = hgrn(torch.randn(2, 5, 6, dtype=dtype))
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        assert y.dtype == dtype
        assert state.dtype == (wide.to_complex() if kind == "complex" else wide)

    @kinds
    def test_compiles_as_one_graph(self, kind):
        model, x = Tagger(kind), torch.randn(2, 7, 3)
        y, state = torch.compile(model, fullgraph=True, backend="aot_eager")(x)
        y.square().mean().backward()
        grads = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        expected, last = model(x)
        expected.square().mean().backward()
        torch.testing.assert_close((y, state), (expected, last))
        torch.testing.assert_close(grads, [p.grad for p in model.parameters()])

    @kinds
    def test_autocast_is_near_float32(self, kind):
        hgrn, x = layer(0, HGRNOptions(kind), dtype=torch.float32), torch.randn(2, 50, 6)
        with torch.autocast("cpu", torch.bfloat16):
            half = hgrn(x)[0].float()
        torch.testing.assert_close(half, hgrn(x)[0], atol=0.05, rtol=0.05)

    def test_exports_with_any_batch_and_length(self):
        model = stack(kind="real", dtype=torch.float32).eval()
        batch, time = torch.export.Dim("batch"), torch.export.Dim("time")
        state = tuple(h.detach() for h in model(torch.randn(2, 5, 6))[1])
        shapes = {"x": {0: batch, 1: time}, "state": ({0: batch},) * 3}
        program = torch.export.export(model, (torch.randn(2, 7, 6), state), dynamic_shapes=shapes)
        x, state = torch.randn(3, 11, 6), tuple(torch.randn(3, 4) for _ in range(3))
        torch.testing.assert_close(program.module()(x, state), model(x, state))

    def test_deep_copy_and_state_dict(self):
        model, x = Tagger(), torch.randn(2, 7, 3)
        twin, other = copy.deepcopy(model), Tagger()
        shaken(other).load_state_dict(model.state_dict())
        for same in (twin, other):
            assert torch.equal(same(x)[0], model(x)[0])
        with torch.no_grad():
            twin.stack.lower_bounds[1] += 1
        assert not torch.equal(twin(x)[0], model(x)[0])

    @kinds
    def test_vanishing_stretches(self, kind):
        hgrn = layer(8, HGRNOptions(kind))
        state = hgrn(torch.randn(2, 3, 6, dtype=torch.float64))[1]
        y, after = hgrn(torch.zeros(2, 0, 6, dtype=torch.float64), state)
        assert y.shape == (2, 0, 6)
        assert torch.equal(after, state)
        assert hgrn(torch.zeros(0, 5, 6, dtype=torch.float64))[0].shape == (0, 5, 6)

    def test_sizes(self):
        assert HGRN(8).d_state == 8
        shapes = {name: tuple(p.shape) for name, p in HGRN(6, 4, options=AUTHORS).named_parameters()}
        assert shapes == {
            **{f"{n}_proj.weight": (8, 6) for n in "ig"},
            **{f"{n}_proj.bias": (8,) for n in "ig"},
            "f_proj.weight": (4, 6),
            "f_proj.bias": (4,),
            "o_proj.weight": (6, 8),
            "o_proj.bias": (6,),
            "norm.weight": (8,),
            "norm.bias": (8,),
            "theta": (4,),
        }
        assert HGRN(6, 4, options=AUTHORS).theta.tolist() == pytest.approx([1, 1e-2, 1e-4, 1e-6])


class TestCompression:
    def test_pruning_finds_the_matrices_alone(self):
        names = {w.name for w in find_weights(stack(kind="complex"))}
        matrices = [f"mixer.{n}_proj.weight" for n in "ifgo"]
        matrices += [f"glu.{n}_proj.weight" for n in ("gate", "up", "down")]
        assert names == {f"blocks.{k}.{name}" for k in range(3) for name in matrices}

    def test_prune_once(self):
        deep = stack(9)
        before = deep.lower_bounds.detach().clone()
        sparsities = prune_once(deep, 0.5, "uniform")
        assert len(sparsities) == 21
        for name, sparsity in sparsities.items():
            weight = deep.get_parameter(name)
            assert sparsity == pytest.approx((weight == 0).double().mean().item())
            assert sparsity == pytest.approx(0.5, abs=0.05)
        assert torch.equal(deep.lower_bounds, before)
        assert deep(torch.randn(1, 4, 6, dtype=torch.float64))[0].isfinite().all()

    def test_what_is_masked_stays_zero_in_training(self):
        deep, x = stack(10, "gates"), torch.randn(2, 8, 6, dtype=torch.float64)
        pruner = Pruner(deep, 0.8, "uniform", schedule=OneShotSchedule()).attach()
        optimizer = torch.optim.Adam(deep.parameters(), 1e-2)
        pruner.step(0)
        masked = {w.name: w.effective == 0 for w in pruner.weights}
        for _ in range(3):
            optimizer.zero_grad()
            deep(x)[0].square().mean().backward()
            optimizer.step()
        pruner.finalize()
        assert all(torch.equal(deep.get_parameter(name) == 0, zero) for name, zero in masked.items())

    def test_quantisation_rounds_the_matrices_of_a_layer_and_leaves_its_recurrence(self):
        hgrn, x = layer(0, HGRNOptions("complex"), dtype=torch.float32), torch.randn(2, 9, 6)
        plain, _ = hgrn(x)
        prepare(hgrn, "w8a16")
        parametrized = {
            name for name, part in hgrn.named_modules() if nn.utils.parametrize.is_parametrized(part)
        }
        assert parametrized == {f"{n}_proj" for n in "ifgo"}
        calibrate_model(hgrn, [x])
        rounded, _ = hgrn(x)
        assert not torch.equal(rounded, plain)
        torch.testing.assert_close(rounded, plain, atol=0.05, rtol=0.05)
        strip(hgrn)
        assert torch.equal(hgrn(x)[0], plain)


class TestErrors:
    @pytest.mark.parametrize(
        ("x", "state", "error", "message"),
        [
            (torch.zeros(5, 6), None, ValueError, r"x has shape \(5, 6\), expected \(batch, time, 6\)"),
            (torch.zeros(2, 5, 7), None, ValueError, r"x has shape \(2, 5, 7\)"),
            (torch.zeros(2, 5, 6, dtype=torch.int64), None, TypeError, "x has dtype torch.int64"),
            (torch.zeros(2, 5, 6), torch.zeros(3, 4), ValueError, r"state has shape \(3, 4\), expected"),
            (
                torch.zeros(2, 5, 6),
                torch.zeros(2, 4, dtype=torch.complex64),
                TypeError,
                "state has dtype torch.complex64, expected a real floating-point type",
            ),
        ],
    )
    def test_names_the_argument(self, x, state, error, message):
        with pytest.raises(error, match=message):
            layer(0, dtype=torch.float32)(x, state)

    def test_a_complex_layer_wants_a_complex_state(self):
        with pytest.raises(TypeError, match=r"state has dtype torch\.float32, expected a complex type"):
            layer(0, AUTHORS, dtype=torch.float32)(torch.zeros(2, 5, 6), torch.zeros(2, 4))

    def test_others(self):
        hgrn, deep, x = layer(0, dtype=torch.float32), stack(dtype=torch.float32), torch.zeros(2, 5, 6)
        with pytest.raises(ValueError, match="reset"):
            hgrn(x, reset=torch.zeros(2, 4, dtype=torch.bool))
        with pytest.raises(ValueError, match=r"lower_bound has shape \(6,\), expected \(states,\) = \(4,\)"):
            hgrn(x, lower_bound=torch.zeros(6))
        with pytest.raises(ValueError, match="state has 2 entries, expected 3, one per block"):
            deep(x, (None, None))
        with pytest.raises(ValueError, match=r"x has shape \(2, 5, 7\)"):
            HGRNBlock(deep.config)(torch.zeros(2, 5, 7))

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: HGRN(6, 0), "d_state is 0, expected at least 1"),
            (lambda: HGRNOptions("quaternion"), "recurrence is 'quaternion', expected one of"),
            (lambda: HGRNOptions(norm="batch"), "norm is 'batch', expected one of"),
            (lambda: HGRNOptions(norm_eps=0.0), "norm_eps is 0.0, expected a positive number"),
            (lambda: HGRNBlockConfig(relu="pair"), "relu is 'pair', expected one of"),
            (lambda: HGRNBlockConfig(d_hidden=0), "d_hidden is 0, expected at least 1"),
            (lambda: HGRNStack(HGRNBlockConfig(), 0), "n_layers is 0, expected at least 1"),
        ],
    )
    def test_names_the_option(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()
