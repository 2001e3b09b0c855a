"""A fixed-point Program for Intel's Lava: a folder, and a run on its simulator against golden integers.

graph (groups of neurons, synapses, balanced delays), operations and lowering (the records and arrays of a
folder), checks (what is proved), vectors (golden integers), folder and write (the files), environment (a
Python that has Lava), verify (a run in it). executor/lrnn_lava is what runs there: a package of its own that
imports neither torch nor lrnn, and is shipped as data because it is for another interpreter.
"""

from lrnn.export.lava.write import export

__all__ = ["export"]
