"""lrnn.S5: laws of the layer, its place in other people's modules, its initialisation and its errors."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lrnn.nn import S5, S5Options, init
from lrnn.ops import scan

few = settings(max_examples=20, deadline=None)
options = st.builds(
    S5Options,
    discretization=st.sampled_from(["zoh", "bilinear"]),
    c_init=st.sampled_from(["lecun_normal", "trunc_standard_normal", "complex_normal"]),
    conj_sym=st.booleans(),
    clip_eigs=st.booleans(),
    step_rescale=st.sampled_from([0.5, 1.0, 2.0]),
)
relus = st.sampled_from(["none", "parts", "pair"])
seeds = st.integers(0, 2**16)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def layer(seed: int, relu: str = "parts", opts: S5Options | None = None, dtype=torch.float64) -> S5:
    torch.manual_seed(seed)
    return S5(6, 8, blocks=2, relu=relu, options=opts).to(dtype)


def both_ways(relu: str) -> S5:
    return layer(0, relu, S5Options(bidirectional=True))


class Tagger(nn.Module):
    """What a user writes: an S5 between layers of their own."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 6)
        self.s5 = S5(6, 8, blocks=2, relu="parts")
        self.head = nn.Linear(6, 2)

    def forward(self, x, state=None):
        y, state = self.s5(self.embed(x), state)
        return self.head(y), state


class TestForward:
    def test_is_the_equation(self):
        s5 = layer(0, "none")
        x = torch.randn(2, 5, 6, dtype=torch.float64)
        a, gain = s5.discretize()
        B, C = gain[:, None] * torch.view_as_complex(s5.B), torch.view_as_complex(s5.C)
        y, last = s5(x)
        h = torch.zeros(2, 4, dtype=torch.complex128)
        for t in range(5):
            h = a * h + x[:, t].to(B.dtype) @ B.mT
            torch.testing.assert_close(y[:, t], 2 * (h @ C.mT).real + s5.D * x[:, t])
        torch.testing.assert_close(last, h)

    def test_relu_of_the_state(self):
        x = torch.randn(2, 9, 6, dtype=torch.float64)
        plain = layer(1, "none").states(x)[0]
        parts, pair = layer(1, "parts").states(x)[0], layer(1, "pair").states(x)[0]
        assert torch.equal(parts, plain.clamp(min=0))
        assert torch.equal(pair, plain * (plain[..., :1] > 0))
        zero = torch.tensor([[0.0, 1.0], [0.0, -1.0], [-0.0, 2.0]])
        assert layer(1, "pair").state_relu(zero).tolist() == [[0, 1], [0, 0], [0, 2]]

    @given(seeds, relus, options, st.integers(0, 7))
    @few
    def test_a_split_with_the_state_carried_is_the_whole(self, seed, relu, opts, cut):
        s5 = layer(seed, relu, opts)
        x = torch.randn(2, 7, 6, dtype=torch.float64)
        whole, last = s5(x)
        head, state = s5(x[:, :cut])
        tail, state = s5(x[:, cut:], state)
        torch.testing.assert_close(torch.cat([head, tail], 1), whole)
        torch.testing.assert_close(state, last)

    @given(seeds, relus, options)
    @few
    def test_steps_are_the_whole(self, seed, relu, opts):
        s5, state, steps = layer(seed, relu, opts), None, []
        x = torch.randn(2, 5, 6, dtype=torch.float64)
        for t in range(5):
            y, state = s5(x[:, t : t + 1], state)
            steps.append(y)
        torch.testing.assert_close(torch.cat(steps, 1), s5(x)[0])

    @pytest.mark.parametrize("bidirectional", [False, True])
    def test_packed_sequences_are_the_separate_ones(self, bidirectional):
        s5 = layer(2, "parts", S5Options(bidirectional=bidirectional))
        x = torch.randn(1, 9, 6, dtype=torch.float64)
        reset = torch.zeros(1, 9, dtype=torch.bool)
        reset[:, [0, 4, 5]] = True
        separate = torch.cat([s5(part)[0] for part in x.split([4, 1, 4], dim=1)], 1)
        torch.testing.assert_close(s5(x, reset=reset)[0], separate)

    def test_is_causal(self):
        s5, x = layer(3), torch.randn(1, 8, 6, dtype=torch.float64)
        later = x.clone()
        later[:, 5:] += 1
        assert torch.equal(s5(x)[0][:, :5], s5(later)[0][:, :5])

    def test_both_ways_is_symmetric_in_time(self):
        s5, x = both_ways("parts"), torch.randn(2, 7, 6, dtype=torch.float64)
        mirrored = copy.deepcopy(s5)
        with torch.no_grad():
            mirrored.C.copy_(s5.C.roll(4, dims=1))  # the halves of C change places
        torch.testing.assert_close(mirrored(x.flip(1))[0].flip(1), s5(x)[0])

    def test_both_ways_with_the_paper_rule_rectifies_the_forward_states_only(self):
        s5, x = both_ways("pair"), torch.randn(2, 7, 6, dtype=torch.float64)
        a, gain = s5.discretize()
        Bx = x.to(a.dtype) @ (gain[:, None] * torch.view_as_complex(s5.B)).mT
        forward, backward = torch.view_as_complex(s5.states(x)[0]).split(4, dim=-1)
        assert (forward == 0).any()
        torch.testing.assert_close(backward, scan(a, Bx, reverse=True)[0])

    def test_step_rescale_scales_the_time_steps(self):
        s5, twice = layer(4), layer(4, opts=S5Options(step_rescale=2.0))
        with torch.no_grad():
            s5.log_step += math.log(2)
        for a, b in zip(s5.discretize(), twice.discretize(), strict=True):
            torch.testing.assert_close(a, b)

    def test_discretisations_agree_to_second_order(self):
        fine = {"dt_min": 1e-4, "dt_max": 1e-4}
        pairs = (layer(5, opts=S5Options(discretization=kind, **fine)) for kind in ("zoh", "bilinear"))
        for zoh, bilinear in zip(*(s5.discretize() for s5 in pairs), strict=True):
            torch.testing.assert_close(zoh, bilinear, rtol=1e-3, atol=0)


class TestGradients:
    @pytest.mark.parametrize("relu", ["none", "parts"])
    def test_gradcheck(self, relu):
        s5 = S5(2, 4, relu=relu).double()
        names, values = zip(*s5.named_parameters(), strict=True)
        x = torch.randn(1, 3, 2, dtype=torch.float64, requires_grad=True)

        def run(x, *values):
            return torch.func.functional_call(s5, dict(zip(names, values, strict=True)), (x,))[0]

        assert torch.autograd.gradcheck(run, (x, *values))

    def test_a_clipped_eigenvalue_has_none(self):
        s5 = layer(6)
        with torch.no_grad():
            s5.Lambda_re[0] = 0.05
        assert s5.discretize()[0].abs().max() < 1
        s5(torch.randn(1, 5, 6, dtype=torch.float64))[0].square().mean().backward()
        assert s5.Lambda_re.grad[0] == 0
        assert (s5.Lambda_re.grad[1:] != 0).all()


class TestDropIn:
    def test_trains_under_bfloat16_autocast(self):
        torch.manual_seed(0)
        model, x = Tagger(), torch.randn(4, 20, 3)
        target = (x.cumsum(1)[..., 0] > 0).long()
        optimizer, losses = torch.optim.Adam(model.parameters(), 1e-2), []
        for _ in range(30):
            with torch.autocast("cpu", torch.bfloat16):
                logits, state = model(x)
                loss = nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert state.dtype == torch.complex64  # what is carried is not rounded
        assert all(p.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())
        assert losses[-1] < 0.8 * losses[0]

    def test_autocast_is_near_float32(self):
        model, x = Tagger(), torch.randn(2, 50, 3)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(x)[0].float()
        torch.testing.assert_close(half, model(x)[0], atol=0.05, rtol=0.05)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
    def test_keeps_the_dtype_of_its_input(self, dtype):
        s5 = layer(7, dtype=dtype)
        y, state = s5(torch.randn(2, 5, 6, dtype=dtype))
        assert y.dtype == dtype
        assert state.dtype == (torch.complex128 if dtype == torch.float64 else torch.complex64)

    def test_compiles_as_one_graph(self):
        model, x = Tagger(), torch.randn(2, 7, 3)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        y, state = compiled(x)
        y.square().mean().backward()
        grads = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        expected, last = model(x)
        expected.square().mean().backward()
        torch.testing.assert_close((y, state), (expected, last))
        torch.testing.assert_close(grads, [p.grad for p in model.parameters()])

    @pytest.mark.slow
    def test_compiles_with_inductor(self):
        model, x = Tagger(), torch.randn(2, 7, 3)
        torch.testing.assert_close(torch.compile(model, fullgraph=True)(x), model(x))

    def test_exports_with_any_batch_and_length(self):
        model = Tagger().eval()
        batch, time = torch.export.Dim("batch"), torch.export.Dim("time")
        state = model(torch.randn(2, 5, 3))[1].detach()
        shapes = {"x": {0: batch, 1: time}, "state": {0: batch}}
        program = torch.export.export(model, (torch.randn(2, 7, 3), state), dynamic_shapes=shapes)
        x, state = torch.randn(3, 11, 3), torch.randn(3, 4, dtype=torch.complex64)
        torch.testing.assert_close(program.module()(x, state), model(x, state))

    def test_deep_copy_and_state_dict(self):
        model, x = Tagger(), torch.randn(2, 7, 3)
        twin, other = copy.deepcopy(model), Tagger()
        other.load_state_dict(model.state_dict())
        for same in (twin, other):
            assert torch.equal(same(x)[0], model(x)[0])
        with torch.no_grad():
            twin.s5.D.add_(1)
        assert not torch.equal(twin(x)[0], model(x)[0])

    def test_vanishing_stretches(self):
        s5 = layer(8)
        state = torch.randn(2, 4, dtype=torch.complex128)
        y, after = s5(torch.zeros(2, 0, 6, dtype=torch.float64), state)
        assert y.shape == (2, 0, 6)
        assert torch.equal(after, state)
        assert s5(torch.zeros(0, 5, 6, dtype=torch.float64))[0].shape == (0, 5, 6)


class TestInitialisation:
    def test_parameters(self):
        for opts, states, read in (
            (S5Options(), 4, 4),
            (S5Options(conj_sym=False), 8, 8),
            (S5Options(bidirectional=True), 4, 8),
        ):
            shapes = {name: tuple(p.shape) for name, p in S5(6, 8, 2, options=opts).named_parameters()}
            vectors = dict.fromkeys(("Lambda_re", "Lambda_im", "log_step"), (states,))
            assert shapes == {**vectors, "B": (states, 6, 2), "C": (6, read, 2), "D": (6,)}

    def test_eigenvalues_are_hippo_with_negative_imaginary_part(self):
        s5 = S5(6, 32, blocks=2)
        torch.testing.assert_close(s5.Lambda_re.detach(), torch.full((16,), -0.5))
        assert (s5.Lambda_im < 0).all()
        assert torch.equal(s5.Lambda_im[:8], s5.Lambda_im[8:])

    @pytest.mark.parametrize(
        ("kind", "std"),
        # Standard deviation of one part of C at width factor 1: sample of S = 256, projected to P = 128.
        [
            ("lecun_normal", 1 / math.sqrt(192 * 256)),
            ("trunc_standard_normal", 1 / math.sqrt(256)),
            ("complex_normal", math.sqrt(0.5)),
        ],
    )
    def test_spread_of_c(self, kind, std):
        torch.manual_seed(0)
        C = S5(192, 256, 16, options=S5Options(c_init=kind)).C.detach()
        assert C.std().item() == pytest.approx(std, rel=0.02)
        assert abs(C.mean().item()) < 0.02 * std

    def test_spread_of_the_rest(self):
        torch.manual_seed(0)
        s5 = S5(192, 256, 16)
        # B is a real sample of spread 1/sqrt(S) projected onto complex states: half the energy in each part.
        assert s5.B.std().item() == pytest.approx(1 / math.sqrt(2 * 256), rel=0.02)
        assert s5.D.std().item() == pytest.approx(1, rel=0.2)
        assert s5.log_step.exp().min() >= 1e-3
        assert s5.log_step.exp().max() <= 0.1
        middle = (math.log(1e-3) + math.log(0.1)) / 2
        assert s5.log_step.mean().item() == pytest.approx(middle, abs=0.5)

    def test_lecun_normal_is_cut_at_two_sigma(self):
        torch.manual_seed(0)
        sample = init.lecun_normal((200, 100), fan_in=25)
        assert sample.std().item() == pytest.approx(0.2, rel=0.02)
        assert sample.abs().max() <= 2 * 0.2 / 0.8796 + 1e-6

    def test_is_reproducible(self):
        a, b, c = (layer(seed).state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(a[name], b[name]) for name in a)
        assert not torch.equal(a["B"], c["B"])


class TestErrors:
    @pytest.mark.parametrize(
        ("x", "state", "error", "message"),
        [
            (torch.zeros(5, 6), None, ValueError, r"x has shape \(5, 6\), expected \(batch, time, 6\)"),
            (torch.zeros(2, 5, 7), None, ValueError, r"x has shape \(2, 5, 7\)"),
            (torch.zeros(2, 5, 6, dtype=torch.int64), None, TypeError, "x has dtype torch.int64"),
            (torch.zeros(2, 5, 6, dtype=torch.complex64), None, TypeError, "x has dtype torch.complex64"),
            (torch.zeros(2, 5, 6), torch.zeros(3, 4, dtype=torch.complex64), ValueError, "state has shape"),
            (torch.zeros(2, 5, 6), torch.zeros(2, 4), TypeError, "state has dtype torch.float32"),
        ],
    )
    def test_names_the_argument(self, x, state, error, message):
        with pytest.raises(error, match=message):
            layer(0, dtype=torch.float32)(x, state)

    def test_reset_of_another_shape(self):
        with pytest.raises(ValueError, match="reset"):
            layer(0, dtype=torch.float32)(torch.zeros(2, 5, 6), reset=torch.zeros(2, 4, dtype=torch.bool))

    def test_both_ways_cannot_carry_a_state(self):
        with pytest.raises(ValueError, match="state was given to a bidirectional S5"):
            both_ways("none")(torch.zeros(2, 5, 6).double(), torch.zeros(2, 4, dtype=torch.complex128))

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: S5(6, 9, blocks=2), "d_state is 9, expected a multiple of blocks = 2"),
            (lambda: S5(6, 6, blocks=2), "expected an even number with conj_sym"),
            (lambda: S5(6, 8, relu="gelu"), "relu is 'gelu', expected"),
            (lambda: S5Options(discretization="euler"), "discretization is 'euler', expected"),
            (lambda: S5Options(c_init="zeros"), "c_init is 'zeros', expected"),
            (lambda: S5Options(dt_min=0.2), "dt_min, dt_max are 0.2, 0.1"),
        ],
    )
    def test_names_the_option(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()
