"""Dense layers with ReLU as lava-dl's `.net` files: what stock netx can carry of a program, exactly.

stack (what netx computes, and its bounds), segments (which nodes it can carry, and why not the others), lower
(a whole chain of dense layers as netx computes it), file (HDF5), stock (a script for the Lava environment).
manifest (all segments of a program), verify (stock netx against the integers).
"""

from lrnn.export.netx.file import read_net, write_net
from lrnn.export.netx.lower import SCHEME, compile_netx
from lrnn.export.netx.manifest import layer_rows, write_segments
from lrnn.export.netx.segments import Segments, find_segments, whole_stack
from lrnn.export.netx.stack import Layer, Stack
from lrnn.export.netx.verify import program_integers, verify_nets, verify_segments

__all__ = [
    "SCHEME",
    "Layer",
    "Segments",
    "Stack",
    "compile_netx",
    "find_segments",
    "layer_rows",
    "program_integers",
    "read_net",
    "verify_nets",
    "verify_segments",
    "whole_stack",
    "write_net",
    "write_segments",
]
