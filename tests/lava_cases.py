"""What the tests of the exporter share: random programs, and a plain simulation of what an export says."""

from __future__ import annotations

import sys

import numpy as np

from lrnn.export.lava.write import EXECUTOR
from lrnn.program import Program
from lrnn.program.fixed import nodes as fixed

sys.path.append(str(EXECUTOR))  # operations and export need no Lava
from lrnn_lava import export as lrnn_lava_export
from lrnn_lava.operations import OPERATIONS, STATES

ROUNDINGS = ("nearest_even", "nearest_up", "floor")


def random_program(seed: int, length: int = 14) -> Program:
    """A chain of random nodes with branches, of every kind and rounding: rows without weights, empty
    matrices, values narrow and wide.
    """
    random = np.random.default_rng(seed)
    width = int(random.integers(2, 6)) * 2
    nodes = [fixed.Quantize("x", ("in",), exponent=int(random.integers(4, 10)), bits=16)]
    kinds = [*random.permutation(list(_MAKERS)), *random.choice(list(_MAKERS), 10 * length)]
    for kind in kinds:
        if len(nodes) == length:
            break
        program = Program("in", width, (*nodes, fixed.Dequantize("out", (nodes[-1].name,))), "out")
        maker = _MAKERS[kind]
        try:
            node = maker(
                random, f"{kind}.{len(nodes)}", program, nodes[-1].name, _other(random, program, nodes)
            )
            made = Program("in", width, (*nodes, node, fixed.Dequantize("out", (node.name,))), "out")
        except ValueError:
            continue  # it does not fit what it would read
        if all(form is None or form.bits <= 24 for form in made.formats.values()):
            nodes.append(node)
    return Program("in", width, (*nodes, fixed.Dequantize("out", (nodes[-1].name,))), "out")


def _other(random, program: Program, nodes: list) -> str:
    """An earlier value of the last one's width."""
    width = program.widths[nodes[-1].name]
    return str(random.choice([n.name for n in nodes if program.widths[n.name] == width]))


def _rounded(random, exponent: int) -> dict:
    bits = int(random.choice([8, 11, 16, 24]))
    return {"exponent": exponent, "bits": bits, "rounding": str(random.choice(ROUNDINGS))}


def _near(random, exponent: int) -> int:
    return exponent + int(random.integers(-3, 4))


def _linear(random, name, program, last, other):
    if program.formats[last].bits > 16:
        raise ValueError("in 24 bits the sums of its rows could pass 32")
    cols, rows = program.widths[last], int(random.integers(2, 8)) * 2
    weight = random.integers(-127, 128, (rows, cols)) * (random.random((rows, cols)) < 0.3)
    weight[int(random.integers(rows))] = 0
    if random.random() < 0.15:
        weight[:] = 0
    e = program.formats[last].exponent
    return fixed.Linear(
        name,
        (last,),
        weight=weight.astype(np.int8),
        weight_exponent=random.integers(4, 9, rows).astype(np.int8),
        bias=random.integers(-5000, 5000, rows).astype(np.int32),
        **_rounded(random, _near(random, e)),
    )


def _affine(random, name, program, last, other):
    n, e = program.widths[last], program.formats[last].exponent
    return fixed.Affine(
        name,
        (last,),
        scale=random.integers(-127, 128, n).astype(np.int8),
        scale_exponent=random.integers(4, 9, n).astype(np.int8),
        bias=random.integers(-5000, 5000, n).astype(np.int32),
        **_rounded(random, _near(random, e)),
    )


def _rescale(random, name, program, last, other):
    return fixed.Rescale(name, (last,), **_rounded(random, _near(random, program.formats[last].exponent)))


def _diagonal(random, name, program, last, other):
    pairs, e = program.widths[last] // 2, program.formats[last].exponent
    s = random.integers(8, 16, pairs)
    radius, angle = 1 - 10 ** random.uniform(-4, -0.5, pairs), random.uniform(-2, 2, pairs)
    decay = np.stack((1 - radius * np.cos(angle), -radius * np.sin(angle)), 1) * 2.0 ** s[:, None]
    return fixed.Diagonal(
        name,
        (last,),
        decay=np.rint(decay).astype(np.int32),
        decay_exponent=s.astype(np.int8),
        state_exponent=_near(random, e),
        state_bits=24,
        **_rounded(random, _near(random, e)),
    )


def _relu(random, name, program, last, other):
    return fixed.Relu(name, (last,))


def _pair_relu(random, name, program, last, other):
    return fixed.PairRelu(name, (last,))


def _table(random, name, program, last, other):
    m = int(random.integers(3, 9))
    table = np.sort(random.integers(-32767, 32768, (1 << m) + 1)).astype(np.int16)
    return fixed.Table(name, (last,), table=table, function="none", max_error=0.0, exponent=15, bits=16)


def _norm(random, name, program, last, other):
    n = program.widths[last]
    return fixed.Norm(
        name,
        (last,),
        scale=random.integers(1, 128, n).astype(np.int8),
        scale_exponent=np.full(n, 6, np.int8),
        bias=random.integers(-5000, 5000, n).astype(np.int32),
        eps=int(random.integers(1, 1000)),
        centred=bool(random.random() < 0.5),
        **_rounded(random, 10),
    )


def _add(random, name, program, last, other):
    return fixed.Add(name, (last, other), **_rounded(random, _near(random, program.formats[last].exponent)))


def _product(random, name, program, last, other):
    e = program.formats[last].exponent + program.formats[other].exponent
    return fixed.Product(name, (last, other), **_rounded(random, e - int(random.integers(6, 14))))


def _mean_pool(random, name, program, last, other):
    return fixed.MeanPool(name, (last,), size=program.widths[last])


_MAKERS = {
    "linear": _linear,
    "affine": _affine,
    "rescale": _rescale,
    "diagonal": _diagonal,
    "relu": _relu,
    "pair_relu": _pair_relu,
    "table": _table,
    "norm": _norm,
    "add": _add,
    "product": _product,
    "mean_pool": _mean_pool,
}


def simulate(folder) -> dict[str, np.ndarray]:
    """What an export's groups make on its golden input, step by step as Lava would: every synapse holds its
    messages back by one step and its delay. (T, width) by name.
    """
    export = lrnn_lava_export.Export.read(folder)
    vectors, program = export.vectors(), export.program
    source, steps = program["input"]["value"], program["steps"]
    sent = {name: [] for name in program["values"]}  # by value, from step 0 on
    found = {op["node"]: [] for group in program["groups"] for op in group["program"]}
    state = {}
    for t in range(steps + program["latency"]):
        sent[source].append(vectors.values[source][t] if t < steps else 0 * vectors.values[source][0])
        for group in program["groups"]:
            frame = t - group["latency"]
            values = {i: np.zeros(port["width"], np.int64) for i, port in enumerate(group["inputs"])}
            for s in program["synapses"]:
                at = t - 1 - s["delay"]
                if s["group"] == group["name"] and at >= 0:
                    message = sent[s["value"]][at].astype(np.int64)
                    values[s["port"]] = (
                        export.matrix(s["matrix"]).astype(np.int64) @ message
                        if s["kind"] == "matrix"
                        else message
                    )
            for op in group["program"]:
                name, kind = op["node"], op["op"]
                if kind in STATES and (name not in state or frame == 0 or frame in vectors.resets):
                    state[name] = [np.zeros(op["width"], np.int64) for _ in range(STATES[kind])]
                inputs = [values[i] for i in op["inputs"]]
                values[name] = OPERATIONS[kind](op, export.arrays(op), state.get(name), *inputs)
                if 0 <= frame < steps:
                    found[name].append(values[name])
            for port in group["outputs"]:
                sent[port["value"]].append(values[port["value"]])
    return {name: np.stack(values) for name, values in found.items()}
