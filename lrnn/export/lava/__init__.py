"""A fixed-point Program for Intel's Lava: as a folder, and run on Lava's simulator against its golden integers.

graph (groups of neurons, synapses, balanced delays), operations and lowering (the records and arrays of a
folder), checks (what is proved), vectors (golden integers), folder and export (writing), environment (a
Python that has Lava), verify (a run in it). executor/lrnn_lava is what runs there: a package of its own that
imports neither torch nor lrnn, and is shipped as data because it is for another interpreter.
"""

from lrnn.export.lava.export import export

__all__ = ["export"]
