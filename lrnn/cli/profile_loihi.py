"""`lrnn profile M --target loihi2`: where a program would go on the chip, and bounds on its cost."""

from __future__ import annotations

import json

import numpy as np

from lrnn.cli.console import table

_SHORT = {
    "fan-in (axons)": "fan-in",
    "fan-out (axons)": "fan-out",
    "recurrent states": "states",
    "synaptic memory": "weights",
    "neuron updates": "updates",
    "synaptic operations": "synops",
    "memory reads": "reads",
    "messages sent": "sent",
}
"""Words of the report as a column of the table of layers has room for them."""


def run(program, frames: np.ndarray | None, source: str, args) -> int:
    """Place, estimate, print.

    Args:
        program: what is placed.
        frames: its inputs, on which activity is measured; None is the worst case.
        source: what they are, in words.
        args: of `lrnn profile`.
    """
    from lrnn.profile.loihi import activity, placement_report
    from lrnn.profile.loihi.ndns import ndns_report
    from lrnn.profile.loihi.neurobench import neurobench_metrics

    if frames is None:
        report = placement_report(program)
    else:
        report = placement_report(program, activity(program, frames), f"{len(frames):,} frames of {source}")
    report["neurobench"] = neurobench_metrics(program, frames)
    report["ndns"] = ndns_report(program, report) if "frontend" in program.meta else None
    if args.plot:
        from lrnn.profile.loihi.plot import plot_placement

        plot_placement(report, args.plot)
    print(json.dumps(report) if args.json else text(report))
    return 0


def text(report: dict) -> str:
    """The report for people."""
    parts = [_head(report), _layers(report), _modes(report), _batch(report), _neurobench(report)]
    if report["ndns"]:
        parts.append(_ndns(report["ndns"]))
    return "\n\n".join(parts)


def _head(report: dict) -> str:
    lines = [f"Loihi 2: {report['title']}", "", *_wrapped(report["statement"])]
    lines += [f"Assumed: {note}." for note in report["assumptions"]]
    lines += [
        f"Activity: {report['activity']}.",
        "",
        f"{_span(report['cores'])} cores on {_span(report['chips'])} "
        f"chip{'s' * (report['chips'][1] > 1)}; {report['neurons']:,} neurons, "
        f"{report['synapses']:,} synapses, {report['synops']:,.0f} synaptic operations a frame.",
    ]
    return "\n".join(lines)


def _layers(report: dict) -> str:
    header = ["layer", "step", "neurons", "synapses", "synops", "cores", "% full", "of"]
    header += ["KiB", "bound us", "bound by"]
    rows = [
        [
            layer["name"],
            str(layer["level"]),
            f"{layer['neurons']:,}",
            f"{layer['synapses']:,}",
            f"{layer['synops']:,.0f}",
            _span(layer["cores"]),
            _span([100 * load for load in layer["load"]], ".0f"),
            _either([_SHORT.get(word, word) for word in layer["binds"]]),
            _span([size / 1024 for size in layer["memory_bytes"]], ".0f"),
            _span([ns / 1e3 for ns in layer["step_ns"]], ".1f"),
            _either([_SHORT.get(word, word) for word in layer["binds_time"]]),
        ]
        for layer in report["layers"]
    ]
    notes = (
        "synops: synaptic operations a frame. % full: of what the layer's fullest core uses most; fan-in\n"
        "and fan-out count axons, weights the memory of synapses. bound us: least time of a layer's step,\n"
        "that of neuron updates, synops, reads of weights, messages sent, the fullest link or the barrier."
    )
    return table(rows, header) + "\n\n" + notes


def _modes(report: dict) -> str:
    header = [report["title"], "cores", "latency us", "frames/s", "dynamic uJ a frame", "bound by"]
    placed = {"fewest cores": report}
    if report["spread"]:
        placed["fastest"] = report["spread"]
    rows = [
        [
            f"{mode.replace('_', '-')}, {name}",
            _span(placement["cores"]),
            _span(found["latency_us"], ",.1f"),
            _span(found["frames_per_second"], ",.0f"),
            _span(found["energy_uj"], ".2f"),
            _either(found["binds"]),
        ]
        for name, placement in placed.items()
        for mode, found in placement["modes"].items()
    ]
    notes = (
        "Latencies are lower bounds, rates upper bounds, of a placement: that of the fewest cores, or the\n"
        "one of least fall-through latency that was found on one chip. fall-through: one frame passes all\n"
        "layers before the next enters; pipelined: each layer has a frame of its own in every step."
    )
    return table(rows, header) + "\n\n" + notes


def _batch(report: dict) -> str:
    header = ["streams at once", "cores", "chips", "fall-through frames/s", "pipelined frames/s"]
    rows = [
        [
            str(row["streams"]),
            _span(row["cores"]),
            _span(row["chips"]),
            _span(row["fall_through_frames_per_second"], ",.0f"),
            _span(row["pipelined_frames_per_second"], ",.0f"),
        ]
        for row in report["batch"]
    ]
    notes = (
        "A batch is copies of the network, a stream each: it costs cores, and each frame as much as before."
    )
    return table(rows, header) + "\n\n" + notes


def _neurobench(report: dict) -> str:
    found = report["neurobench"]
    operations = found["synaptic_operations"]
    return (
        "NeuroBench's figures: "
        f"footprint {found['footprint']:,} B; connection sparsity {found['connection_sparsity']:.4f}; "
        f"activation sparsity {_measured(found['activation_sparsity'], '.4f')};\n"
        f"synaptic operations a frame: effective MACs {_measured(operations['Effective_MACs'], ',.0f')}, "
        f"effective ACs {_measured(operations['Effective_ACs'], ',.0f')}, dense {operations['Dense']:,}."
    )


def _ndns(found: dict) -> str:
    header = [
        "N-DNS track 1 (proxies, not power)",
        "SI-SNR",
        "latency ms",
        "M-Ops/s",
        "PDP M-Ops",
        "k params",
        "KB",
    ]
    mine = [
        "this program",
        "-",
        f"{found['latency_ms']:.2f}",
        f"{found['power_proxy_ops_per_second'] / 1e6:.2f}",
        f"{found['pdp_proxy_ops'] / 1e6:.2f}",
        f"{found['parameters_nonzero'] / 1e3:.0f}",
        f"{found['size_kb']:.0f}",
    ]
    rows = [mine] + [
        [
            row["entry"],
            f"{row['si_snr']:.2f}",
            f"{row['latency_ms']:.2f}",
            f"{row['power_proxy_mops']:.2f}",
            f"{row['pdp_proxy_mops']:.2f}",
            f"{row['parameters_k']:,}",
            f"{row['size_kb']:,}",
        ]
        for row in found["board"]
    ]
    notes = (
        f"Board: {found['board_source']}. This program's SI-SNR on that set\n"
        "was not measured; its parameters are those that are not zero, KB its file's. Its transforms took\n"
        f"{found['transforms_ms']:.3f} ms here."
    )
    return table(rows, header) + "\n\n" + notes


def _wrapped(words: str) -> list[str]:
    import textwrap

    return textwrap.wrap(words, 108)


def _span(ends: list, form: str = ",") -> str:
    low, high = (format(end, form) for end in ends)
    return low if low == high else f"{low} to {high}"


def _either(words: list[str]) -> str:
    return " / ".join(dict.fromkeys(words))


def _measured(x: float | None, form: str) -> str:
    return "unmeasured" if x is None else format(x, form)
