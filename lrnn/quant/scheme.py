"""How many bits everything gets: a Scheme, and the named ones.

All scales are powers of two: a quantised number is `integer * 2 ** -exponent`. Integers are symmetric,
-(2 ** (bits - 1) - 1) to 2 ** (bits - 1) - 1, so that a sign can always be turned.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

WeightScale = Literal["row", "tensor"]
Rounding = Literal["nearest_even", "nearest_up", "floor"]
FloatWeights = Literal["e4m3"]

_WIDTHS = {  # smallest and largest width of each field, in bits
    "a_bits": (2, 24),
    "b_bits": (2, 16),
    "c_bits": (2, 16),
    "d_bits": (2, 16),
    "weight_bits": (2, 16),
    "state_bits": (8, 32),
    "activation_bits": (2, 24),
    "message_bits": (2, 24),
    "accumulator_bits": (16, 64),
}
_CHOICES = {"weight_scale": WeightScale, "rounding": Rounding, "float_weights": FloatWeights}
_OPTIONAL = ("message_bits", "float_weights")


@dataclass(frozen=True)
class Scheme:
    """Widths, scales and rounding of a quantised model.

    Args:
        name: of the scheme; travels with what is made by it.
        a_bits: lambda_bar of an S5 and the rotation of a complex HGRN, real and imaginary part each; the
            gates of an HGRN, up to 16.
        b_bits: B_bar, as it runs: discretised.
        c_bits: C.
        d_bits: D, and any other diagonal map.
        weight_bits: all other matrices.
        state_bits: what a recurrence carries from frame to frame. In training the state is bounded to its
            range but not rounded.
        activation_bits: every other value.
        weight_scale: one exponent for each row of a matrix ("row") or one for all ("tensor").
        rounding: of every value once, after its sum: "nearest_even", "nearest_up" (halves go up, one add and
            one shift) or "floor".
        float_weights: "e4m3" rounds weights to that FP8 format and leaves all else in float; such a scheme
            has no integer form and its widths are without effect.
        message_bits: width of a value where a matrix reads it; None is activation_bits.
        accumulator_bits: width that every sum of products must provably fit.

    Raises:
        ValueError: a field is out of range; the message names it.
    """

    name: str
    a_bits: int = 16
    b_bits: int = 8
    c_bits: int = 8
    d_bits: int = 8
    weight_bits: int = 8
    state_bits: int = 24
    activation_bits: int = 16
    weight_scale: WeightScale = "row"
    rounding: Rounding = "nearest_even"
    float_weights: FloatWeights | None = None
    message_bits: int | None = None
    accumulator_bits: int = 64

    def __post_init__(self):
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"name is {self.name!r}, expected some text")
        for name, (low, high) in _WIDTHS.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"scheme {self.name!r}: {name} is {value!r}, expected {low} to {high}")
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in get_args(choices) and not (value is None and name in _OPTIONAL):
                listed = ", ".join(get_args(choices))
                raise ValueError(f"scheme {self.name!r}: {name} is {value!r}, expected one of {listed}")
        if self.message_bits is not None and self.message_bits > self.activation_bits:
            raise ValueError(
                f"scheme {self.name!r}: message_bits is {self.message_bits}, "
                f"expected at most activation_bits, {self.activation_bits}"
            )

    @property
    def matrix_input_bits(self) -> int:
        """Width of a value where a matrix reads it."""
        return self.activation_bits if self.message_bits is None else self.message_bits

    @property
    def gate_bits(self) -> int:
        """Width of an HGRN's gates and of what a bound multiplies them by: a gate is what lambda_bar is in an
        S5, and a table makes 16 bits at most.
        """
        return min(self.a_bits, 16)

    def to_json(self) -> dict:
        """Plain values, for a file's header."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict) -> Scheme:
        """The inverse of `to_json`; ValueError names a field that is unknown or missing."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"scheme: unknown field {unknown[0]!r}")
        if "name" not in values:
            raise ValueError("scheme: field 'name' is missing")
        return cls(**values)


def _integers(name: str, weights: int, activations: int) -> Scheme:
    return Scheme(
        name,
        b_bits=weights,
        c_bits=weights,
        d_bits=weights,
        weight_bits=weights,
        activation_bits=activations,
    )


SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        _integers("w8a16", 8, 16),
        _integers("w8a8", 8, 8),
        _integers("w4a16", 4, 16),
        _integers("w4a8", 4, 8),
        _integers("w2a8", 2, 8),
        _integers("w16a16", 16, 16),
        # 11 bits: what the longest rows of the 90 %-sparse denoiser leave of 24 (sum |w| is 6525 at 8 bits).
        Scheme("loihi2", message_bits=11, accumulator_bits=24),
        Scheme("fp8", float_weights="e4m3"),
    )
}


def get_scheme(scheme: str | Scheme) -> Scheme:
    """A scheme by name; a Scheme stays what it is. ValueError lists the names."""
    if isinstance(scheme, Scheme):
        return scheme
    if scheme not in SCHEMES:
        raise ValueError(f"scheme is {scheme!r}, expected one of {', '.join(SCHEMES)}")
    return SCHEMES[scheme]
