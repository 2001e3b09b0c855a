"""Programs in the forms of other systems: Lava (lava), lava-dl's netx (netx), PyTorch and ONNX (step)."""

from lrnn.export.step import save_step

__all__ = ["save_step"]
