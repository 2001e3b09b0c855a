"""Configuration of layers, blocks and models: frozen dataclasses, plain values only."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from lrnn.nn.sizes import Sizes, one_each, plain, several

if TYPE_CHECKING:
    from typing_extensions import Self

Relu = Literal["none", "parts", "pair"]


def _one_of(name: str, value: object, allowed: tuple) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(map(repr, allowed))}")


def _from_dict(kind: type, values: dict[str, Any], name: str, options: type) -> Any:
    """A config of `kind` from plain values, its field `name` from a dict of those of `options`."""
    inner = values.get(name, {})
    if not isinstance(inner, options):
        _check_fields(options, inner)
        inner = options(**inner)
    _check_fields(kind, values)
    return kind(**{**values, name: inner})


def _check_fields(kind: type, values: dict[str, Any]) -> None:
    unknown = set(values) - {f.name for f in fields(kind)}
    if unknown:
        raise ValueError(f"{kind.__name__} has no field {sorted(unknown)[0]!r}")


@dataclass(frozen=True)
class S5Options:
    """What rarely changes about a state-space model.

    Args:
        discretization: zero-order hold or bilinear.
        c_init: distribution of C; the names are those of the paper's code.
        dt_min, dt_max: time steps are drawn log-uniformly between them.
        conj_sym: store one of each pair of conjugate states and take twice the real part.
        clip_eigs: keep the real part of every eigenvalue at or below -1e-4.
        bidirectional: a second recurrence runs from the end of the sequence; such a layer cannot stream.
        step_rescale: multiplies every time step (2 for input at half the sampling rate).
    """

    discretization: Literal["zoh", "bilinear"] = "zoh"
    c_init: Literal["lecun_normal", "trunc_standard_normal", "complex_normal"] = "lecun_normal"
    dt_min: float = 1e-3
    dt_max: float = 0.1
    conj_sym: bool = True
    clip_eigs: bool = True
    bidirectional: bool = False
    step_rescale: float = 1.0

    def __post_init__(self):
        _one_of("discretization", self.discretization, ("zoh", "bilinear"))
        _one_of("c_init", self.c_init, ("lecun_normal", "trunc_standard_normal", "complex_normal"))
        if not 0 < self.dt_min <= self.dt_max:
            raise ValueError(
                f"dt_min, dt_max are {self.dt_min}, {self.dt_max}, expected 0 < dt_min <= dt_max"
            )


@dataclass(frozen=True, kw_only=True)
class S5BlockConfig:
    """One block: norm, S5, activation, gate, residual.

    Args:
        d_model: width H of the residual stream.
        d_state: real state size S; with conjugate symmetry S/2 complex states are kept. In a model several
            numbers, one per layer, where they differ (as after `lrnn.shrink`); each is then one block.
        blocks: J, HiPPO blocks on the diagonal of the state matrix.
        relu: "none" is GELU everywhere; "parts" is ReLU as activation, after the residual and on the real and
            imaginary part of the state; "pair" the same with the paper's rule on the state, which keeps or
            drops the whole complex number.
        glu: "half1" x1 * sigmoid(W2 x1), "half2" y * sigmoid(W2 x1), "full" W1 x1 * sigmoid(W2 x1), "none"
            x1, where y is the S5's output and x1 its activation.
        norm: "batch" (over batch and time), "frozen_batch" (running statistics even in training) or "layer".
        prenorm: normalise before the S5, else after the residual.
        dropout: probability; one mask per sequence, shared over time.
        norm_momentum: weight of the newest batch in the running statistics, as in PyTorch (1 - the paper's).
    """

    d_model: int = 192
    d_state: Sizes = 256
    blocks: int = 16
    relu: Relu = "parts"
    glu: Literal["half1", "half2", "full", "none"] = "half1"
    norm: Literal["batch", "frozen_batch", "layer"] = "batch"
    prenorm: bool = True
    dropout: float = 0.0
    norm_momentum: float = 0.05
    ssm: S5Options = field(default_factory=S5Options)

    def layer(self, index: int) -> Self:
        """The configuration of one layer, whose d_state is a number."""
        if isinstance(self.d_state, int):
            return self
        return replace(self, d_state=self.d_state[index], blocks=1)

    def __post_init__(self):
        object.__setattr__(self, "d_state", plain(self.d_state))
        _one_of("relu", self.relu, ("none", "parts", "pair"))
        _one_of("glu", self.glu, ("half1", "half2", "full", "none"))
        _one_of("norm", self.norm, ("batch", "frozen_batch", "layer"))
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}, expected 0 <= dropout < 1")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of to_dict; ValueError names a key that is not a field."""
        return _from_dict(cls, values, "ssm", S5Options)


@dataclass(frozen=True, kw_only=True)
class SequenceModelConfig(S5BlockConfig):
    """Encoder, `n_layers` blocks, decoder.

    Args:
        d_in, d_out: numbers per frame in and out (classes, for classification).
        n_layers: blocks.
        head: "regression" decodes every frame, "classification" pools over time and gives log-probabilities.
        pooling: "mean" over time, or the "last" frame.
        input_exponent: e rounds the input to multiples of 2^-e (the paper's quant_input); None leaves it.
    """

    d_in: int
    d_out: int
    n_layers: int = 3
    head: Literal["regression", "classification"] = "regression"
    pooling: Literal["mean", "last"] = "mean"
    input_exponent: int | None = None

    def __post_init__(self):
        super().__post_init__()
        _one_of("head", self.head, ("regression", "classification"))
        _one_of("pooling", self.pooling, ("mean", "last"))
        for name in ("d_in", "d_out", "n_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        one_each("d_state", self.d_state, self.n_layers)

    def scaled(self, k: float) -> SequenceModelConfig:
        """Width factor k of the paper: blocks of the same size, k times as many (its dim_scale)."""
        blocks = int(self.blocks * k)
        if blocks < 1:
            raise ValueError(f"k is {k}, expected at least 1/{self.blocks}, one block")
        return replace(
            self,
            blocks=blocks,
            d_model=int(blocks * self.d_model / self.blocks),
            d_state=plain(int(blocks * s / self.blocks) for s in several(self.d_state)),
        )


@dataclass(frozen=True)
class HGRNOptions:
    """Which HGRN it is: flash-linear-attention's by default; the authors' is
    HGRNOptions("complex", norm="layer", bias=True, norm_eps=1e-5).

    Args:
        recurrence: "real", or "complex" with a learned phase per state.
        norm: of the states before the output gate, root mean square or layer norm.
        bias: whether the projections have biases.
        norm_eps: added to the mean square or variance.
    """

    recurrence: Literal["real", "complex"] = "real"
    norm: Literal["rms", "layer"] = "rms"
    bias: bool = False
    norm_eps: float = 1e-6

    def __post_init__(self):
        _one_of("recurrence", self.recurrence, ("real", "complex"))
        _one_of("norm", self.norm, ("rms", "layer"))
        if not self.norm_eps > 0:
            raise ValueError(f"norm_eps is {self.norm_eps}, expected a positive number")


@dataclass(frozen=True, kw_only=True)
class HGRNBlockConfig:
    """One block: norm, HGRN, residual; norm, gated linear unit, residual.

    Args:
        d_model: width H of the residual stream.
        d_state: states N of the HGRN.
        d_hidden: width of the gated linear unit; in a stack several, one per layer, where they differ.
        relu: "none" leaves every SiLU; "gates" puts a ReLU in its place, so that both output matrices read
            zeros; "all" rectifies the norms too, so that every matrix does (stages 1 and 2 of Mirzadeh et
            al. 2023, "ReLU Strikes Back").
        hgrn: the rest, see HGRNOptions; `bias` and `norm_eps` hold for the whole block.
    """

    d_model: int = 256
    d_state: int = 256
    d_hidden: Sizes = 768
    relu: Literal["none", "gates", "all"] = "none"
    hgrn: HGRNOptions = field(default_factory=HGRNOptions)

    def layer(self, index: int) -> Self:
        """The configuration of one layer, whose d_hidden is a number."""
        return self if isinstance(self.d_hidden, int) else replace(self, d_hidden=self.d_hidden[index])

    def __post_init__(self):
        object.__setattr__(self, "d_hidden", plain(self.d_hidden))
        _one_of("relu", self.relu, ("none", "gates", "all"))
        for name in ("d_model", "d_state", "d_hidden"):
            if min(several(getattr(self, name))) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of to_dict; ValueError names a key that is not a field."""
        return _from_dict(cls, values, "hgrn", HGRNOptions)
