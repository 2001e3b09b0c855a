"""LRNN: linear recurrent layers with the constructor, the call and the shapes of nn.LSTM."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lrnn.nn.block import S5Block, linear
from lrnn.nn.config import HGRNBlockConfig, HGRNOptions, S5BlockConfig
from lrnn.nn.hgrn_stack import HGRNStack

State = tuple[Tensor, Tensor]


class LRNN(nn.Module):
    """Stands where an nn.LSTM or nn.GRU stood: a projection, then residual S5 or HGRN blocks, then a norm.

        rnn = lrnn.LRNN(40, 128, num_layers=2, batch_first=True)
        y, (h, c) = rnn(x)
        y, (h, c) = rnn(more, (h, c))

    Each frame is normalised by itself (layer or root mean square norm), so that neither padding nor the rest
    of the batch has an effect, and training is as fast in time as the scan. Where it differs from nn.LSTM:
    only `c` is carried on; `h`, the output of every layer at its last step, is there to be read, and what is
    given as `h` is not. There is one direction.

    Args:
        input_size: numbers per frame.
        hidden_size: width of the output.
        num_layers: blocks.
        bias: of the projection and of an HGRN's matrices.
        batch_first: x and y are (B, T, ...), else (T, B, ...).
        dropout: probability, between the layers.
        bidirectional: must be False, a causal layer has no second direction.
        cell: what the blocks are made of.
        state_size: real numbers that each layer carries, for "s5" an even number; None is hidden_size,
            rounded up to one.

    Raises:
        ValueError: bidirectional, or a size that cannot be.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        cell: Literal["s5", "hgrn"] = "s5",
        state_size: int | None = None,
    ):
        super().__init__()
        if bidirectional:
            raise ValueError("bidirectional is True, expected False: run a second LRNN on the reversed input")
        if cell not in ("s5", "hgrn"):
            raise ValueError(f"cell is {cell!r}, expected 's5' or 'hgrn'")
        if state_size is None:
            state_size = hidden_size + hidden_size % 2 if cell == "s5" else hidden_size
        for name, value in (
            ("input_size", input_size),
            ("hidden_size", hidden_size),
            ("num_layers", num_layers),
            ("state_size", state_size),
        ):
            if value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.bidirectional = bias, batch_first, bidirectional
        self.cell, self.state_size = cell, state_size
        self.proj = linear(input_size, hidden_size, bias)
        self.dropout = nn.Dropout(dropout)
        if cell == "s5":
            s5 = S5BlockConfig(d_model=hidden_size, d_state=state_size, blocks=1, relu="none", norm="layer")
            self.layers = nn.ModuleList(S5Block(s5) for _ in range(num_layers))
            self.norm: nn.Module = nn.LayerNorm(hidden_size)
        else:
            hgrn = HGRNBlockConfig(
                d_model=hidden_size,
                d_state=state_size,
                d_hidden=3 * hidden_size,
                hgrn=HGRNOptions(bias=bias),
            )
            self.stack = HGRNStack(hgrn, num_layers)

    def forward(
        self, input: Tensor | PackedSequence, hx: State | None = None
    ) -> tuple[Tensor | PackedSequence, State]:
        """Run over a stretch of time.

        Args:
            input: (B, T, input_size) if batch_first else (T, B, input_size); (T, input_size) without a batch;
                or a PackedSequence.
            hx: (h, c) as returned for the stretch before; None is zeros.

        Returns:
            y, in the form of the input, and (h, c): h (num_layers, B, hidden_size), the output of each layer
            at the last step of each sequence, and c (num_layers, B, state_size); without B as the input.

        Raises:
            ValueError: the input or c has another shape, or there is no step.
        """
        carried = None if hx is None else hx[1]
        if isinstance(input, PackedSequence):
            self._check_packed(input, carried)
            return self._packed(input, carried)
        self._check(input, carried)
        if input.ndim == 2:
            y, (h, c) = self._run(input[None], None if carried is None else carried[:, None])
            return y[0], (h[:, 0], c[:, 0])
        if self.batch_first:
            return self._run(input, carried)
        y, state = self._run(input.transpose(0, 1), carried)
        return y.transpose(0, 1), state

    def _check(self, x: Tensor, carried: Tensor | None) -> None:
        time = self.batch_first if x.ndim == 3 else 0  # its axis
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size or not x.shape[time]:
            expected = "(batch, time, " if self.batch_first else "(time, batch, "
            raise ValueError(
                f"input has shape {tuple(x.shape)}, expected {expected}{self.input_size}) or "
                f"(time, {self.input_size}), of at least one step"
            )
        self._check_carried(carried, () if x.ndim == 2 else (x.shape[1 - time],))

    def _check_packed(self, packed: PackedSequence, carried: Tensor | None) -> None:
        if packed.data.ndim != 2 or packed.data.shape[-1] != self.input_size:
            raise ValueError(
                f"input has data of shape {tuple(packed.data.shape)}, expected (steps, {self.input_size})"
            )
        self._check_carried(carried, (int(packed.batch_sizes[0]),))

    def _check_carried(self, carried: Tensor | None, batch: tuple[int, ...]) -> None:
        expected = (self.num_layers, *batch, self.state_size)
        if carried is not None and carried.shape != expected:
            raise ValueError(f"hx has c of shape {tuple(carried.shape)}, expected {expected}")

    def flatten_parameters(self) -> None:
        """Nothing: for models that call it on their nn.LSTM."""

    def _run(self, x: Tensor, carried: Tensor | None) -> tuple[Tensor, State]:
        """x (B, T, input_size), carried (L, B, S) -> y (B, T, hidden_size) and (h, c)."""
        bounds = self.stack.bounds() if self.cell == "hgrn" else (None,) * self.num_layers
        x, last, after = self.proj(x), [], []
        for k in range(self.num_layers):
            x = self.dropout(x) if k else x
            x, c = self._layer(k, x, None if carried is None else carried[k], bounds[k])
            last.append(x[:, -1])
            after.append(c)
        y = (self.norm if self.cell == "s5" else self.stack.norm)(x)
        last[-1] = y[:, -1]
        return y, (torch.stack(last), torch.stack(after))

    def _layer(
        self, k: int, x: Tensor, carried: Tensor | None, lower_bound: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if self.cell == "hgrn":
            return self.stack.blocks[k](x, carried, None, lower_bound)
        if carried is not None:
            carried = torch.view_as_complex(carried.unflatten(-1, (-1, 2)).contiguous())
        x, state = self.layers[k](x, carried)
        return x, torch.view_as_real(state).flatten(-2)

    def _packed(self, packed: PackedSequence, carried: Tensor | None) -> tuple[PackedSequence, State]:
        """Stretches of time in which no sequence ends, one after the other, the state carried over."""
        if carried is not None and packed.sorted_indices is not None:
            carried = carried.index_select(1, packed.sorted_indices)
        outputs: list[Tensor] = []
        ended: list[State] = []
        start, sizes = 0, packed.batch_sizes.tolist()
        first = 0
        while first < len(sizes):
            batch = sizes[first]
            steps = sizes[first:].count(batch)
            x = packed.data[start : start + steps * batch].unflatten(0, (steps, batch)).transpose(0, 1)
            y, (h, c) = self._run(x, carried)
            outputs.append(y.transpose(0, 1).flatten(0, 1))
            first, start = first + steps, start + steps * batch
            going_on = sizes[first] if first < len(sizes) else 0
            ended.append((h[:, going_on:], c[:, going_on:]))
            carried = c[:, :going_on]
        # Sequences are sorted by length: those that ended last are the first ones.
        h, c = (torch.cat(parts[::-1], dim=1) for parts in zip(*ended, strict=True))
        if packed.unsorted_indices is not None:
            h, c = (t.index_select(1, packed.unsorted_indices) for t in (h, c))
        order = packed.sorted_indices, packed.unsorted_indices
        return PackedSequence(torch.cat(outputs), packed.batch_sizes, *order), (h, c)

    def extra_repr(self) -> str:
        """Sizes and choices, as nn.LSTM shows them."""
        sizes = f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}"
        return f"{sizes}, batch_first={self.batch_first}, cell={self.cell!r}, state_size={self.state_size}"
