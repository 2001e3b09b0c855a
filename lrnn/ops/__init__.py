"""The operators, one file each: schema, fake, autograd, autocast and dispatch. Only this package names backends."""

from lrnn.ops.libraries import backends, core_library
from lrnn.ops.scan import scan

__all__ = ["backends", "core_library", "scan"]
