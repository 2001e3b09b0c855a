"""What all benchmarks share: the machine's name, their timings by row, and a comparison with an older run.

A benchmark's result is plain JSON. Every dictionary under a key that begins with "seconds" and that holds
"median" and "minimum" is a timing; its row is called after the keys, and the "name" of dictionaries in
lists, on the way to it.
"""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

_NOISE = 0.05  # that is always allowed


def machine() -> str:
    """The processor by name, and how many of its cores there are."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if "model name" in fields:
        family = f", family {fields['cpu family']} model {fields['model']}" if "cpu family" in fields else ""
        name = fields["model name"] + family
    return f"{name}, {os.cpu_count()} cores"


def timings(result: dict) -> dict[str, dict[str, float]]:
    """{"median": seconds, "minimum": seconds} of every row of a result, by the row's name."""
    found: dict[str, dict[str, float]] = {}
    _collect(result, (), False, found)
    return found


def _collect(value, names: tuple[str, ...], timed: bool, found: dict) -> None:
    if isinstance(value, list):
        for item in value:
            if isinstance(item, dict) and "name" in item:
                _collect(item, (*names, str(item["name"])), timed, found)
    elif isinstance(value, dict):
        if timed and {"median", "minimum"} <= set(value):
            found[": ".join(names)] = {"median": value["median"], "minimum": value["minimum"]}
            return
        for key, item in value.items():
            if isinstance(item, list):
                _collect(item, names, timed, found)
            elif timed or key.startswith("seconds"):
                _collect(item, names if key == "seconds" else (*names, key), True, found)
            elif isinstance(item, dict):
                _collect(item, (*names, key), timed, found)


def read_result(path: str | os.PathLike, bench: str) -> dict:
    """An older result of this benchmark, as `--json` printed it.

    Raises:
        FileNotFoundError, or ValueError that names the file and what was found in it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file, expected what lrnn bench {bench} --json printed")
    try:
        result = json.loads(Path(path).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    found = result.get("bench") if isinstance(result, dict) else type(result).__name__
    if found != bench:
        raise ValueError(f"{path}: found bench {found!r}, expected {bench!r}")
    if not timings(result):
        raise ValueError(f"{path}: found no timings in it")
    return result


def compare(new: dict, old: dict) -> dict:
    """The new times over the old ones, row by row.

    A row is "slower" or "faster" where median and minimum both say so by more than the noise, which is the
    larger distance of a median from its minimum in the two runs, and at least 5 %.

    Returns:
        "rows": by name, "median" and "minimum" (ratios new / old), "noise" and "verdict"; "only_new" and
        "only_old": rows without a counterpart; "differs": what else is not the same in both runs.
    """
    mine, theirs = timings(new), timings(old)
    rows = {name: _row(mine[name], theirs[name]) for name in mine if name in theirs}
    return {
        "rows": rows,
        "only_new": [name for name in mine if name not in theirs],
        "only_old": [name for name in theirs if name not in mine],
        "differs": {
            key: [old.get(key), new.get(key)]
            for key in ("machine", "isa", "torch", "threads")
            if old.get(key) != new.get(key)
        },
    }


def _row(new: dict[str, float], old: dict[str, float]) -> dict:
    ratios = {which: new[which] / old[which] for which in ("median", "minimum")}
    noise = max(_NOISE, *(times["median"] / times["minimum"] - 1 for times in (new, old)))
    verdict = "same"
    if min(ratios.values()) > 1 + noise:
        verdict = "slower"
    elif max(ratios.values()) < 1 / (1 + noise):
        verdict = "faster"
    return {**ratios, "noise": noise, "verdict": verdict}


def comparison_table(comparison: dict) -> str:
    """The comparison for people: what changed, then every row."""
    lines = [
        f"not the same in both: {key}: {old} before, {new} now"
        for key, (old, new) in comparison["differs"].items()
    ]
    rows = comparison["rows"]
    counts = {v: sum(row["verdict"] == v for row in rows.values()) for v in ("slower", "faster", "same")}
    lines.append("new / old time: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.items()))
    wide = max((len(name) for name in rows), default=0)
    order = sorted(rows, key=lambda name: -rows[name]["median"])
    lines.append(f"{'':{wide}}{'median':>9}{'minimum':>9}{'noise':>8}")
    for name in order:
        row = rows[name]
        mark = "" if row["verdict"] == "same" else f"  {row['verdict']}"
        lines.append(
            f"{name:{wide}}{row['median']:>9.3f}{row['minimum']:>9.3f}{100 * row['noise']:>6.0f} %{mark}"
        )
    for key, what in (("only_new", "not in the old run"), ("only_old", "not in this run")):
        if comparison[key]:
            lines.append(f"{what}: " + "; ".join(comparison[key]))
    return "\n".join(lines)
