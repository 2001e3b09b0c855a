"""Quantisation: schemes, the integers of weights, and the ranges that calibration finds."""

from lrnn.quant.exponent import dequantize, exponent_for_range, largest_integer, quantize_weight
from lrnn.quant.ranges import Observer, Range, Ranges
from lrnn.quant.scheme import SCHEMES, Rounding, Scheme, WeightScale, get_scheme

__all__ = [
    "SCHEMES",
    "Observer",
    "Range",
    "Ranges",
    "Rounding",
    "Scheme",
    "WeightScale",
    "dequantize",
    "exponent_for_range",
    "get_scheme",
    "largest_integer",
    "quantize_weight",
]
