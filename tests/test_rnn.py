"""lrnn.LRNN: an nn.LSTM's shapes, and the laws of a recurrence."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

import lrnn

cells = pytest.mark.parametrize("cell", ["s5", "hgrn"])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def rnn(cell: str, **options) -> lrnn.LRNN:
    return lrnn.LRNN(3, 6, num_layers=2, cell=cell, **options).double().eval()


def frames(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@cells
@pytest.mark.parametrize("batch_first", [False, True])
def test_shapes_are_those_of_an_lstm(cell, batch_first):
    lstm = nn.LSTM(3, 6, 2, batch_first=batch_first).double()
    ours = lrnn.LRNN(3, 6, 2, batch_first=batch_first, cell=cell).double()
    for x in (frames(4, 5, 3), frames(7, 3)):
        y, (h, c) = ours(x)
        wanted, (h0, c0) = lstm(x)
        assert y.shape == wanted.shape
        assert h.shape == h0.shape
        assert c.shape == c0.shape
        again, _ = ours(x, (h, c))
        assert again.shape == y.shape
    x = frames(4, 5, 3)
    y, (h, _) = ours(x)
    assert torch.equal(h[-1], y[:, -1] if batch_first else y[-1])


@cells
def test_any_split_of_time_and_single_steps_equal_the_whole(cell):
    model, x = rnn(cell, batch_first=True), frames(2, 9, 3)
    whole, (h, c) = model(x)
    state, parts = None, []
    for part in x.split([4, 1, 1, 3], dim=1):
        y, state = model(part, state)
        parts.append(y)
    assert (torch.cat(parts, 1) - whole).abs().max() < 1e-12
    assert (state[0] - h).abs().max() < 1e-12
    assert (state[1] - c).abs().max() < 1e-12


@cells
@pytest.mark.parametrize("lengths", [[5, 2, 7, 2], [4], [3, 3], [1, 6]])
def test_packed_sequences_equal_separate_ones(cell, lengths):
    model = rnn(cell)
    sequences = [frames(n, 3) for n in lengths]
    start = frames(2, len(lengths), 6)
    packed, (h, c) = model(pack_sequence(sequences, enforce_sorted=False), (start, start))
    padded, found = pad_packed_sequence(packed, batch_first=True)
    assert found.tolist() == lengths
    for k, x in enumerate(sequences):
        y, (h1, c1) = model(x, (start[:, k], start[:, k]))
        assert (padded[k, : len(x)] - y).abs().max() < 1e-12
        assert (h[:, k] - h1).abs().max() < 1e-12
        assert (c[:, k] - c1).abs().max() < 1e-12


class Tagger(nn.Module):
    """What people have: an LSTM between an embedding and a head, padded batches packed."""

    def __init__(self, recurrent: type[nn.Module]):
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.rnn = recurrent(8, 16, num_layers=2, batch_first=True, dropout=0.1)
        self.head = nn.Linear(16, 5)

    def forward(self, tokens, lengths):
        self.rnn.flatten_parameters()
        packed = pack_padded_sequence(self.embed(tokens), lengths, batch_first=True, enforce_sorted=False)
        y, (h, _) = self.rnn(packed)
        y, _ = pad_packed_sequence(y, batch_first=True)
        return self.head(y), self.head(h[-1])


@pytest.mark.parametrize("recurrent", [nn.LSTM, lrnn.LRNN])
def test_it_learns_in_place_of_an_lstm(recurrent):
    model = Tagger(recurrent)
    tokens, lengths = torch.randint(20, (8, 12)), torch.tensor([12, 3, 7, 12, 1, 9, 5, 6])
    wanted = tokens.cumsum(1) % 5  # needs memory
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    inside = torch.arange(12) < lengths[:, None]
    losses = []
    for _ in range(60):
        y, last = model(tokens, lengths)
        assert last.shape == (8, 5)
        loss = nn.functional.cross_entropy(y[inside], wanted[inside])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@cells
def test_it_is_pruned_copied_and_loaded_like_any_module(cell, tmp_path):
    from safetensors.torch import load_file, save_file

    model = rnn(cell)
    sparsities = lrnn.prune.prune_once(model, 0.5)
    assert len(sparsities) >= 5
    twin, other = copy.deepcopy(model), rnn(cell)
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    other.load_state_dict(load_file(tmp_path / "m.safetensors"))
    x = frames(4, 2, 3)
    assert torch.equal(twin(x)[0], model(x)[0])
    assert torch.equal(other(x)[0], model(x)[0])


def test_errors():
    with pytest.raises(ValueError, match="bidirectional"):
        lrnn.LRNN(3, 6, bidirectional=True)
    with pytest.raises(ValueError, match="cell is 'gru'"):
        lrnn.LRNN(3, 6, cell="gru")
    with pytest.raises(ValueError, match="num_layers is 0"):
        lrnn.LRNN(3, 6, 0)
    model = rnn("s5")
    with pytest.raises(ValueError, match=r"expected \(time, batch, 3\)"):
        model(frames(4, 2, 5))
    with pytest.raises(ValueError, match=r"hx has c of shape \(2, 2, 5\), expected \(2, 2, 6\)"):
        model(frames(4, 2, 3), (None, frames(2, 2, 5)))
    with pytest.raises(ValueError, match=r"hx has c of shape \(2, 1, 6\), expected \(2, 6\)"):
        model(frames(4, 3), (None, frames(2, 1, 6)))


@pytest.mark.parametrize("batch_first", [False, True])
def test_no_step_at_all_is_refused(batch_first):
    for shape in ((2, 0, 3) if batch_first else (0, 2, 3), (0, 3)):
        with pytest.raises(ValueError, match=r"input has shape .*, of at least one step"):
            rnn("s5", batch_first=batch_first)(frames(*shape))
    assert (
        rnn("s5", batch_first=batch_first)(frames(*((0, 2, 3) if batch_first else (2, 0, 3))))[0].numel() == 0
    )


@pytest.mark.parametrize("sort", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_state_of_another_batch_is_refused_with_packed_sequences(batch, sort):
    """Too many are no more let through, the first of them taken, than too few."""
    packed = pack_sequence([frames(5, 3), frames(2, 3)], enforce_sorted=sort)
    state = frames(2, batch, 6)
    with pytest.raises(ValueError, match=rf"hx has c of shape \(2, {batch}, 6\), expected \(2, 2, 6\)"):
        rnn("s5")(packed, (state, state))
    with pytest.raises(ValueError, match=r"input has data of shape \(7, 4\), expected \(steps, 3\)"):
        rnn("s5")(pack_sequence([frames(5, 4), frames(2, 4)], enforce_sorted=sort))
