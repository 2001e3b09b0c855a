"""Every check and figure of the GPU kernels in one command, which starts nothing new after 7 minutes.

    python experiments/gpu_bench.py                     # writes experiments/results/gpu.json
    python experiments/gpu_bench.py --dry-run -o X.json # the same code, tiny, in Triton's interpreter

First the results against float64, then a copy, then sparse products (beside cuBLAS in half precision,
torch's CSR and torch's 2:4), scans (beside a copy of as many bytes) and whole steps (beside torch, eager
and compiled); gpu_measure.py says how. The file is written anew after every part, so that a part that fails
costs only itself.

Exit status: 0; 1 where a result is wrong or a part failed; 2 where there is no CUDA device or no Triton.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

DEFAULT = Path(__file__).parent / "results" / "gpu.json"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help=f"default {DEFAULT}; none if dry")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--dry-run", action="store_true", help="tiny, interpreted, on the CPU: no figures")
    parser.add_argument("--seconds", type=float, default=420, help="start no row after these (default 420)")
    args = parser.parse_args(argv)
    if args.dry_run:
        os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
    from lrnn.ops.libraries import triton_problem

    if not args.dry_run and (problem := triton_problem()):
        print(
            f"gpu_bench needs a CUDA device and Triton: {problem} (--dry-run goes without)", file=sys.stderr
        )
        return 2
    out = args.out or (None if args.dry_run else DEFAULT)
    result = run(args.dry_run, args.seconds, out)
    if args.json:
        print(json.dumps(result))
    if sys.stderr.isatty():
        print(table(result), file=sys.stderr)
    wrong = [row["case"] for row in result["correctness"]["rows"] if not row["ok"]]
    for case in wrong:
        print(f"gpu_bench: {case} is wrong", file=sys.stderr)
    failed = [f"{part}: {result[part]['failed']}" for part in PARTS if "failed" in result[part]]
    for text in failed:
        print(f"gpu_bench: {text}", file=sys.stderr)
    return 1 if wrong or failed else 0


PARTS = ("correctness", "copy", "matvec", "scan", "step")


def run(dry: bool, seconds: float, out: Path | None) -> dict:
    """Measure part by part; the rows of a part that fails or runs out of time are kept."""
    import gpu_measure as measure
    import torch
    import triton

    plan, clock = (measure.TINY, measure.DryClock()) if dry else (measure.FULL, measure.Clock())
    device = "none: interpreted on the CPU" if dry else torch.cuda.get_device_name()
    result = {"bench": "gpu", "device": device, "dry_run": dry}
    result |= {"torch": torch.__version__, "triton": triton.__version__}
    torch.manual_seed(0)
    deadline = time.monotonic() + seconds
    for part in PARTS:
        arguments = (plan,) if part == "correctness" else (plan, clock)
        result[part] = _rows(getattr(measure, part)(*arguments), part, deadline)
        if not dry:
            result["goals"] = goals(result)
            rows = result.get("matvec", {}).get("rows", [])
            result["crossovers"] = {time: crossovers(rows, time) for time in ("cold", "warm")}
        if out is not None:
            _write(out, result)
    return result


def _rows(rows: Iterator[dict], part: str, deadline: float) -> dict:
    """The rows, how long they took, and what ended them early."""
    found, begin = {"rows": []}, time.monotonic()
    try:
        for row in rows:
            found["rows"].append(row)
            if sys.stderr.isatty():
                print(f"\r{part} {len(found['rows'])}", end="", file=sys.stderr, flush=True)
            if time.monotonic() > deadline:
                found["failed"] = "out of time, the rest of it is missing"
                break
    except Exception as error:
        found["failed"] = f"{type(error).__name__}: {error}"
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return {**found, "seconds": round(time.monotonic() - begin, 1)}


def goals(result: dict) -> dict[str, dict]:
    """What was aimed at on an H200, what came out (cold; None where not measured), and whether it is met."""
    rows = result.get("matvec", {}).get("rows", [])

    def ratios(sparsity: float, smallest: int) -> list[float]:
        chosen = [r for r in rows if r["sparsity"] == sparsity and r["size"] >= smallest and r["batch"] == 1]
        return [r["float16"]["x dense"]["cold"] for r in chosen]

    scans = [r["of a copy"]["cold"] for r in result.get("scan", {}).get("rows", [])]
    aims = {
        "scan: median share of a copy": (0.6, statistics.median(scans) if scans else None),
        "scan: least share of a copy": (0.6, min(scans, default=None)),
        "90 %, 4096 and larger, batch 1: least ratio to cuBLAS": (3.0, min(ratios(0.9, 4096), default=None)),
        "70 %, batch 1: least ratio to cuBLAS": (1.0, min(ratios(0.7, 0), default=None)),
    }
    return {
        name: {"goal": goal, "found": found, "met": None if found is None else found >= goal}
        for name, (goal, found) in aims.items()
    }


def crossovers(rows: list[dict], time: str) -> dict[str, float | None]:
    """The lowest measured sparsity from which on the packed product beats the dense one; None: not at any."""
    found = {}
    for n, b in dict.fromkeys((r["size"], r["batch"]) for r in rows):
        for format in ("float16", "int8"):
            line = sorted(
                (r["sparsity"], r[format]["x dense"][time] >= 1)
                for r in rows
                if (r["size"], r["batch"]) == (n, b) and time in r[format]["x dense"]
            )
            start = None
            for sparsity, faster in reversed(line):
                if not faster:
                    break
                start = sparsity
            found[f"{n} batch {b} {format}"] = start
    return found


def _write(out: Path, result: dict) -> None:
    from lrnn.files import written_whole

    with written_whole(out) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")


def table(result: dict) -> str:
    """The figures for people; microseconds, cold / warm."""
    head = f"{result['device']}, torch {result['torch']}, triton {result['triton']}"
    lines = [head if not result["dry_run"] else f"{head}: a dry run, its times mean nothing"]
    checked = result["correctness"]["rows"]
    lines.append(f"{sum(r['ok'] for r in checked)} of {len(checked)} results right")
    lines += [f"copy: {r['TB/s']['cold']:.2f} TB/s" for r in result["copy"]["rows"]]
    lines.append(
        f"{'product':>24} {'dense f16':>15} {'float16':>15} {'int8':>15} {'CSR f32':>15} {'2:4':>15}  x dense"
    )
    for r in result["matvec"]["rows"]:
        name = f"{r['size']} batch {r['batch']} {100 * r['sparsity']:g} %"
        cells = " ".join(
            f"{_us(r[k]):>15}" for k in ("dense float16", "float16", "int8", "CSR float32", "2:4")
        )
        lines.append(f"{name:>24} {cells}  {r['float16']['x dense'].get('cold', float('nan')):.2f}")
    for name, at in result.get("crossovers", {}).get("cold", {}).items():
        lines.append(f"{name}: {'nowhere faster' if at is None else f'faster from {100 * at:g} % on'}")
    for r in result["scan"]["rows"]:
        share = 100 * r["of a copy"]["cold"]
        lines.append(f"scan {r['shape']} {r['kind']} {r['pass']}: {_us(r)} us, {share:.0f} % of a copy")
    for r in result["step"]["rows"]:
        forms = ", ".join(f"{name} {_us(times)}" for name, times in r.items() if isinstance(times, dict))
        lines.append(f"step {r['width']} batch {r['batch']}: {forms} us")
    for name, goal in result.get("goals", {}).items():
        found = "not measured" if goal["found"] is None else f"{goal['found']:.2f}"
        lines.append(f"{name}: {found}, goal {goal['goal']:g}")
    return "\n".join(lines)


def _us(times: dict) -> str:
    if "cold" not in times:
        return "-"
    return f"{times['cold']:.1f} / {times['warm']:.1f}" if "warm" in times else f"{times['cold']:.1f}"


if __name__ == "__main__":
    sys.exit(main())
