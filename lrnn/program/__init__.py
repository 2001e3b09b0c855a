"""The Program, the one artefact that runs at inference: nodes, compiler, file, two plain executors.

A new kind of layer compiles once it has a rule: see `lowers`.
"""

from lrnn.program import (  # noqa: F401  the rules of lrnn.nn register themselves
    nodes,
    rules,
    rules_hgrn,
    rules_language,
    rules_s5,
)
from lrnn.program.calibrate import calibrate
from lrnn.program.compiler import Graph, compile, lowers
from lrnn.program.file import load
from lrnn.program.fixed.compiler import compile_fixed
from lrnn.program.program import Program
from lrnn.program.step_module import StepModule

__all__ = [
    "Graph",
    "Program",
    "StepModule",
    "calibrate",
    "compile",
    "compile_fixed",
    "load",
    "lowers",
    "nodes",
]
