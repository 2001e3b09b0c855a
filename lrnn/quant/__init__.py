"""Quantisation: schemes, the integers of weights, ranges of values, and training with all of them.

A model is prepared, trained or only calibrated, and converted: see lrnn.quant.prepare.
`lrnn.QuantizationAware` does it from Lightning.
"""

from lrnn.quant.exponent import (
    dequantize,
    exponent_for_range,
    largest_integer,
    quantize_decay,
    quantize_rotation,
    quantize_weight,
)
from lrnn.quant.fake import fake_round
from lrnn.quant.observer import Histogram
from lrnn.quant.prepare import calibrate_model, calibrated, convert, is_prepared, prepare, set_ranges, strip
from lrnn.quant.ranges import Observer, Range, Ranges
from lrnn.quant.scheme import SCHEMES, Rounding, Scheme, WeightScale, get_scheme

__all__ = [
    "SCHEMES",
    "Histogram",
    "Observer",
    "Range",
    "Ranges",
    "Rounding",
    "Scheme",
    "WeightScale",
    "calibrate_model",
    "calibrated",
    "convert",
    "dequantize",
    "exponent_for_range",
    "fake_round",
    "get_scheme",
    "is_prepared",
    "largest_integer",
    "prepare",
    "quantize_decay",
    "quantize_rotation",
    "quantize_weight",
    "set_ranges",
    "strip",
]
