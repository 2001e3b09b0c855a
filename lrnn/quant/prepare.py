"""Prepare a model for quantised training, calibrate it, convert it back to plain weights on their grids.

prepare(model, "w8a16")                        # weights are rounded from here on
calibrate_model(model, inputs)                 # and activations from here
...                                            # train, or evaluate
ranges = calibrated(model)                     # what was found, by value
convert(model)                                 # plain weights, on the grids they were trained on
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lrnn.nn import HGRN
from lrnn.prune.mask import unshare_class
from lrnn.quant.fake import (
    Columns,
    Deviations,
    Grid,
    QuantizedEigenvalue,
    QuantizedInput,
    QuantizedRotation,
    QuantizedWeight,
)
from lrnn.quant.found import Target
from lrnn.quant.observer import Histogram, check_observer
from lrnn.quant.ranges import Observer, Ranges
from lrnn.quant.scheme import Scheme, get_scheme
from lrnn.quant.sites import find
from lrnn.quant.tap import Tap, named_taps, taps

_RECURRENT = ("decay", "bounds", "rotation")  # of what a recurrence multiplies its state by
_QUANTIZERS = (QuantizedWeight, QuantizedInput, QuantizedEigenvalue)


def prepare(model: nn.Module, scheme: str | Scheme = "w8a16", exclude: Sequence[str] = ()) -> None:
    """Round weights from here on, and activations as soon as they are calibrated.

    SequenceModels, LanguageModels and HGRNStacks are quantised as `lrnn.compile` and fixed point see them; of
    other modules the blocks and layers of both kinds and Linear layers, with what they read. Parameters keep
    their identity and their floats, so that an optimiser made before goes on working; masks come first, so
    prune before. A batch norm that is folded is frozen: its scale is part of a rounded matrix, and a running
    average would move the grid at every step. Biases and the scales of other norms stay floats: fixed point
    gives them 32 and 16 bits.

    A recurrence's state is bounded to its range and not rounded, as rounding would make the scan non-linear;
    what a matrix reads of it is rounded. An HGRN's gates are rounded before the scan; its bounds and its
    rotations are constants at inference and lie on their grids. A scheme of float weights rounds no
    activation and leaves lambda_bar, bounds and rotations alone.

    Args:
        model: changed in place.
        scheme: a name of lrnn.quant.SCHEMES, or a Scheme.
        exclude: globs of names of parameters or modules to leave in float.

    Raises:
        ValueError: the model is prepared already, or holds weights of a kind that has no quantised form (an
            LSTM) and that are not excluded; names them.
    """
    scheme = get_scheme(scheme)
    if is_prepared(model):
        raise ValueError("model is prepared already; convert or strip it first")
    found = find(model, exclude)
    norms: dict[nn.Module, Columns] = {}
    for target in found.targets:
        if target.norm is not None and target.norm not in norms:
            norms[target.norm] = (Deviations if target.role == "scale" else Columns)(target.norm)
    for target in found.targets:
        if not (scheme.float_weights and target.role in _RECURRENT):
            _round(target, scheme, norms.get(target.norm))
    if scheme.float_weights:
        return
    narrows = scheme.matrix_input_bits < scheme.activation_bits
    for site in found.sites:
        if narrows or not site.again:
            Tap(site, scheme).attach(site.owner, site.side)


def _round(target: Target, scheme: Scheme, columns: Columns | None) -> None:
    """A weight is rounded from here on; of an HGRN the constants that come of it, not the parameters."""
    if target.role == "rotation":
        target.owner.rotation = QuantizedRotation(scheme.a_bits)
    elif target.role == "bounds":
        for block in target.owner.blocks:
            block.mixer.share = Grid(scheme.gate_bits, "row")
    else:
        unshare_class(target.owner)
        # unsafe: of a B in half precision a float32 comes back, which the layer computes with anyway.
        parametrize.register_parametrization(
            target.owner, target.attribute, _quantizer(target, scheme, columns), unsafe=True
        )


def _quantizer(target: Target, scheme: Scheme, columns: Columns | None) -> nn.Module:
    bits = {
        "matrix": scheme.weight_bits,
        "input": scheme.b_bits,
        "output": scheme.c_bits,
        "diagonal": scheme.d_bits,
        "scale": scheme.d_bits,
        "decay": scheme.a_bits,
    }[target.role]
    if target.role == "decay":
        return QuantizedEigenvalue(bits, target.owner, target.attribute)
    # A diagonal map has a scale for each entry: one for all would be a row's.
    scale = "row" if target.role in ("diagonal", "scale") else scheme.weight_scale
    grid = Grid(None if scheme.float_weights else bits, scale)
    if target.role == "input":
        return QuantizedInput(grid, target.owner, columns)
    return QuantizedWeight(grid, columns)


def is_prepared(model: nn.Module) -> bool:
    """Whether anything below the model is quantised."""
    return any(isinstance(m, (*_QUANTIZERS, Tap)) for m in model.modules())


@torch.no_grad()
def calibrate_model(
    model: nn.Module,
    inputs: Iterable[Tensor],
    observer: Observer = "minmax",
    percentile: float = 99.999,
) -> Ranges | None:
    """Run a prepared model in evaluation mode, find the range of every rounded activation, and fix its grid.

    Observers start empty: what was found before counts for nothing. A state's range is the largest magnitude
    seen, whatever the observer.

    Args:
        model: prepared; its modes are restored.
        inputs: what the model is called with, one tensor (clips, ...) after another.
        observer: "minmax", "percentile" or "mse"; see lrnn.quant.Histogram.range.
        percentile: for "percentile".

    Returns:
        As `calibrated`.

    Raises:
        ValueError: no inputs, NaN or infinity in a value, or one that is always zero, by its name.
    """
    check_observer(observer, percentile)
    if not is_prepared(model):
        raise ValueError("model is not prepared; call lrnn.quant.prepare first")
    found = [tap for _, tap in taps(model)]
    clips, modes = 0, {m: m.training for m in model.modules()}
    for tap in found:
        tap.watching = Histogram(tap.site_name)
    model.eval()
    try:
        for owner, tap in taps(model):
            if isinstance(owner, nn.Embedding):  # also the rows of tokens that the data lack
                tap.watching.see(owner.weight)
        for x in inputs:
            clips += len(x)
            model(x)
        if clips == 0:
            raise ValueError("inputs is empty: there is nothing to calibrate on")
        histograms = [tap.watching for tap in found]
    finally:
        for tap in found:
            tap.watching = None
        for m, mode in modes.items():
            m.training = mode
    for tap, histogram in zip(found, histograms, strict=True):
        kind = observer if tap.clips_range else "minmax"
        tap.calibrate(histogram.range(kind, tap.scheme.activation_bits, percentile), observer, clips)
    return calibrated(model)


def calibrated(model: nn.Module) -> Ranges | None:
    """The ranges that a prepared model rounds to, by value; None where it rounds no activation.

    Those of a SequenceModel itself bear the names of its Program's values: give them to `lrnn.calibrate` as
    `known`, and fixed point rounds as the model was trained.

    Raises:
        ValueError: an activation was not calibrated, by its name.
    """
    values, observer, clips = {}, "minmax", 0
    for name, tap in named_taps(model):
        if tap.calibration is None:
            raise ValueError(f"value {name!r} was not calibrated; call lrnn.quant.calibrate_model first")
        values[name], observer, clips = tap.calibration
    return Ranges(values, observer, clips) if values else None


def set_ranges(model: nn.Module, ranges: Ranges) -> None:
    """Fix the grid of every rounded activation of a prepared model; KeyError names a missing value."""
    for name, tap in named_taps(model):
        tap.calibrate(ranges[name], ranges.observer, ranges.clips)


def convert(model: nn.Module) -> None:
    """Write the rounded weights into the parameters and leave a plain model; masks stay.

    Compiled, its matrices lie on their grids to the precision of float32, and `quantize_weight` gives the
    integers that were trained.
    """
    _remove(model, write=True)


def strip(model: nn.Module) -> None:
    """Leave the model with its float weights, as if it had never been prepared."""
    _remove(model, write=False)


@contextmanager
def unfrozen(model: nn.Module) -> Iterator[None]:
    """Batch norms that `prepare` froze are as they were while the block runs."""
    stacks = [stack for m in model.modules() for stack in getattr(m, "parametrizations", {}).values()]
    columns = {c for stack in stacks for quantizer in stack for c in _columns(quantizer)}
    for norm_columns in columns:
        norm_columns.release()
    try:
        yield
    finally:
        for norm_columns in columns:
            norm_columns.norm.frozen = True


@torch.no_grad()
def _remove(model: nn.Module, write: bool) -> None:
    columns: list[Columns] = []
    for owner in list(model.modules()):
        if not parametrize.is_parametrized(owner):
            continue
        names = [n for n, stack in owner.parametrizations.items() if _index(stack) is not None]
        values = {name: getattr(owner, name).clone() for name in names}  # all, before any of them changes
        for name in names:
            stack = owner.parametrizations[name]
            columns += _columns(stack[_index(stack)])
            if write:
                stack.original.copy_(values[name])
            if len(stack) > 1:
                del stack[_index(stack)]
            else:
                unshare_class(owner)
                parametrize.remove_parametrizations(owner, name, leave_parametrized=False)
    for norm_columns in columns:
        norm_columns.release()
    for layer in model.modules():
        if isinstance(layer, HGRN):
            layer.share, layer.rotation = nn.Identity(), nn.Identity()
    for owner, tap in list(taps(model)):
        tap.detach(owner)


def _index(stack: nn.Module) -> int | None:
    return next((i for i, p in enumerate(stack) if isinstance(p, _QUANTIZERS)), None)


def _columns(quantizer: nn.Module) -> list[Columns]:
    found = getattr(quantizer, "columns", None)
    return [] if found is None else [found]
