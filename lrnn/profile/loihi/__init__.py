"""Loihi 2: where a Program would go on the chip, and bounds on what it would cost. Nothing is measured."""

from lrnn.profile.loihi.activity import activity
from lrnn.profile.loihi.report import placement_report

__all__ = ["activity", "placement_report"]
