"""Programs in fixed point: integer nodes, their arithmetic, and the way there from a program in float.

format (what an integer value is), base, nodes, memory and functions (the nodes: what they hold, and the
proof that no sum overflows), arithmetic (rounding, saturation, tables, roots: normative), numpy_nodes and
torch_nodes (what each node computes), tables (sigmoid, SiLU, GELU), exponents (which scale a value gets),
weights (their integers), rules (from each kind of node in float), lowering and compiler (all of it).
"""
