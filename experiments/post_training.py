"""What rounding a trained denoiser costs without training it again: presets, a scale per row or per tensor.

    python experiments/post_training.py [M.lrnn] --data DIR -o experiments/results/post-training

writes a table (.md) and the figures (.json). Rounding is simulated in float (lrnn.program.rounded): wide sums
and states are float32, nothing saturates. Ranges come from training mixtures, never from what is scored.
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import lrnn
from lrnn.cli.console import progress
from lrnn.data.bootstrap import intervals
from lrnn.data.denoiser import Denoiser
from lrnn.data.evaluate import scores
from lrnn.data.ndns import NdnsFolder, find_validation
from lrnn.data.summary import summary
from lrnn.files import written_whole
from lrnn.models import DENOISER_FLOAT
from lrnn.program.rounded import rounded
from lrnn.program.torch_executor import TorchExecutor
from lrnn.quant import dequantize, get_scheme, quantize_weight

PRESETS = ("w16a16", "w8a16", "w8a8", "w4a16", "w4a8", "w2a8", "fp8")
SCALES = ("row", "tensor")
CLIPS, SECONDS = 64, 4.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "model", nargs="?", default=DENOISER_FLOAT, metavar="M.lrnn", help="a denoiser in float"
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="training sources and a validation set")
    parser.add_argument("-o", "--out", required=True, metavar="PREFIX", help="of the .md and .json files")
    args = parser.parse_args()
    denoiser, folder = Denoiser.load(args.model), NdnsFolder(find_validation(args.data))
    clips = [folder[i] for i in range(len(folder))]
    frames = training_frames(denoiser, args.data)
    ranges = lrnn.calibrate(denoiser.program, progress(frames, len(frames), "calibrate"))
    schemes = [(name, scale) for name in PRESETS for scale in SCALES]
    rows = [{"scheme": "float", "scale": "", **measure(denoiser.program, clips)}]
    for name, scale in progress(schemes, len(schemes), "presets"):
        scheme = replace(get_scheme(name), weight_scale=scale)
        rows.append(
            {"scheme": name, "scale": scale, **measure(rounded(denoiser.program, scheme, ranges), clips)}
        )
    for row in rows[1:]:
        loss = np.array(row["after"]) - np.array(rows[0]["after"])
        row["to_float"] = intervals(loss[:, None])[0]
    result = {
        "command": f"python experiments/post_training.py --data DIR -o {args.out}",
        "presets": rows,
        "b_bar": list(b_bar_rows(denoiser.program, frames[0])),
    }
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(out.with_suffix(".json")) as path:
        path.write_text(json.dumps(result, indent=1) + "\n")
    with written_whole(out.with_suffix(".md")) as path:
        path.write_text(markdown(result))
    print(out.with_suffix(".md").read_text())


def training_frames(denoiser: Denoiser, data: str, clips: int = CLIPS) -> list[torch.Tensor]:
    """What the network reads of mixtures made as for training, (8, frames, width) each."""
    from lrnn.train import DenoiseData

    module = DenoiseData(data, batch_size=8, clip_seconds=SECONDS)
    module.setup("fit")
    batches = module.calibration_batches(clips // 8)
    return [denoiser.stft.read(denoiser.stft.analyse(noisy)) for noisy, _ in batches]


def measure(program: lrnn.Program, clips: list) -> dict:
    """SI-SNR of a program on clips."""
    found = list(scores(Denoiser(program), clips))
    figures = summary(found)
    after = [s.denoised["si_snr"] for s in found]
    return {
        "si_snr": figures["si_snr"],
        "si_snri": figures["si_snri"],
        "worse": figures["worse"],
        "after": after,
    }


def b_bar_rows(program: lrnn.Program, frames: torch.Tensor) -> Iterable[dict]:
    """Of each layer's B_bar: nonzero weights that become zero, and the signal to noise ratio of B_bar u."""
    values, _ = TorchExecutor(program).trace(frames)
    for node in program.nodes:
        if not node.name.endswith(".ssm.B"):
            continue
        u = values[node.inputs[0]].flatten(0, 1).double().numpy()
        exact = u @ node.weight.T.astype(np.float64)
        for bits in (8, 4):
            for scale in SCALES:
                integers, exponents = quantize_weight(node.weight, bits, scale)
                noise = u @ dequantize(integers, exponents).T - exact
                lost = (integers == 0) & (node.weight != 0)
                with np.errstate(divide="ignore", invalid="ignore"):
                    by_row = 10 * np.log10(np.square(exact).sum(0) / np.square(noise).sum(0))
                by_row = by_row[np.square(exact).sum(0) > 0]
                yield {
                    "layer": node.name,
                    "bits": bits,
                    "scale": scale,
                    "lost": float(lost.sum() / (node.weight != 0).sum()),
                    "empty_rows": int((~(integers != 0).any(1) & (node.weight != 0).any(1)).sum()),
                    "sqnr": float(10 * np.log10(np.square(exact).sum() / np.square(noise).sum())),
                    "sqnr_median_row": float(np.median(by_row)),
                }


def markdown(result: dict) -> str:
    rows = result["presets"]
    lines = [
        f"# Rounding the trained denoiser, {len(rows[0]['after'])} validation clips",
        "",
        f"`{result['command']}`",
        "",
        f"Simulated in float, ranges from {CLIPS} training mixtures of {SECONDS:g} s (minmax).",
        "SI-SNR and its improvement in dB; clips made worse; mean difference to float over the same clips in",
        "dB with its 95 % bootstrap interval. Diagonal maps have a scale for each entry either way; fp8",
        "rounds weights only.",
        "",
        "| scheme | scale | SI-SNR | SI-SNRi | worse | to float |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        loss = "{:+.3f} ({:+.3f} to {:+.3f})".format(*r["to_float"][:3]) if "to_float" in r else ""
        cells = [
            r["scheme"],
            r["scale"],
            f"**{r['si_snr']:.2f}**",
            f"{r['si_snri']:+.2f}",
            f"{r['worse']}",
            loss,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "B_bar alone, as it is compiled: nonzero weights that become zero, rows that become empty, and the",
        "signal to noise ratio of B_bar u on training frames, of all states and of the median state.",
        "",
        "| layer | bits | scale | lost | empty rows | SQNR, dB | median state, dB |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in result["b_bar"]:
        cells = [r["layer"], f"{r['bits']}", r["scale"], f"{100 * r['lost']:.1f} %", f"{r['empty_rows']}"]
        cells += [f"{r['sqnr']:.1f}", f"{r['sqnr_median_row']:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
