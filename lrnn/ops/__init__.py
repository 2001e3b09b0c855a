"""The operators, one file each: schema, fake, autograd, autocast, dispatch. Only here are backends named."""

from lrnn.ops.libraries import backends, core_library
from lrnn.ops.packed_matvec import PackedWeight, packed_matvec
from lrnn.ops.scan import scan
from lrnn.ops.sparse_linear import SparsePattern, SparseWeight, sparse_linear

__all__ = [
    "PackedWeight",
    "SparsePattern",
    "SparseWeight",
    "backends",
    "core_library",
    "packed_matvec",
    "scan",
    "sparse_linear",
]
