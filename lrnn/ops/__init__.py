"""The operators, one file each: schema, fake, autograd, autocast, dispatch. Only here are backends named."""

from lrnn.ops.libraries import backends, core_library
from lrnn.ops.scan import scan

__all__ = ["backends", "core_library", "scan"]
