"""`lrnn eval denoise`: how good a model is on a set of recordings."""

from __future__ import annotations

import json
import os
from itertools import pairwise

from lrnn.cli.console import progress, table
from lrnn.engine import ENGINES

SNR_EDGES = (-5, 0, 5, 10, 15, 20)


def add(commands) -> None:
    """Declare the command and its tasks."""
    parser = commands.add_parser("eval", help="measure a model on a set of recordings")
    tasks = parser.add_subparsers(dest="task", metavar="TASK", required=True)
    _add_denoise(tasks)


def _add_denoise(tasks) -> None:
    parser = tasks.add_parser(
        "denoise", help="SI-SNR and its improvement over a folder of mixtures (N-DNS layout)"
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        default=os.environ.get("LRNN_DATA"),
        help="holds noisy/ and clean/, or validation_set/ or ndns-mini/ with them; default: $LRNN_DATA",
    )
    parser.add_argument("--model", metavar="M", help="a denoiser's program (.lrnn); default: the shipped one")
    parser.add_argument(
        "--engine", choices=ENGINES, default="torch", help="torch: whole clips (default); others: streaming"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run_denoise)


def run_denoise(args) -> int:
    """Measure every clip; print means, or one JSON object with si_snr, si_snri, clips and more."""
    from lrnn.data.denoiser import Denoiser
    from lrnn.data.ndns import NdnsFolder, find_validation

    if args.data is None:
        raise ValueError("no data: expected --data DIR or LRNN_DATA in the environment")
    denoiser = Denoiser.load(args.model)
    clips = NdnsFolder(find_validation(args.data), sample_rate=denoiser.sample_rate)
    scores = [
        (clip.info.snr, *_score(denoiser, clip, args.engine))
        for clip in progress((clips[i] for i in range(len(clips))), len(clips), "eval")
    ]
    summary = _summary(scores)
    if args.json:
        print(json.dumps({"task": "denoise", "engine": args.engine, **summary, "by_snr": _by_snr(scores)}))
        return 0
    print(
        f"{summary['clips']} clips: SI-SNR {summary['noisy_si_snr']:.2f} dB -> {summary['si_snr']:.2f} dB, "
        f"SI-SNRi {summary['si_snri']:+.2f} dB; {summary['worse']} made worse\n"
    )
    rows = [
        [b["snr"], str(b["clips"]), f"{b['si_snr']:.2f}", f"{b['si_snri']:+.2f}"] for b in _by_snr(scores)
    ]
    print(table(rows, ["mixed at (dB)", "clips", "SI-SNR (dB)", "SI-SNRi (dB)"]))
    return 0


def _score(denoiser, clip, engine: str) -> tuple[float, float]:
    """SI-SNR of the noisy and of the denoised clip in dB."""
    import torch

    from lrnn.data.metrics import si_snr

    if engine == "torch":
        estimate = denoiser.offline(clip.noisy)
    else:
        estimate = torch.from_numpy(denoiser.denoise(clip.noisy.numpy(), denoiser.sample_rate, engine))
    return si_snr(clip.noisy, clip.clean).item(), si_snr(estimate, clip.clean).item()


def _summary(scores: list[tuple[float, float, float]]) -> dict:
    """Means over clips of (mixing SNR, SI-SNR before, SI-SNR after)."""
    n = len(scores)
    noisy, cleaned = sum(s[1] for s in scores) / n, sum(s[2] for s in scores) / n
    worse = sum(s[2] < s[1] for s in scores)
    return {"clips": n, "si_snr": cleaned, "si_snri": cleaned - noisy, "noisy_si_snr": noisy, "worse": worse}


def _by_snr(scores: list[tuple[float, float, float]]) -> list[dict]:
    """The summary by bins of mixing SNR; clips whose name does not tell it, and empty bins, are left out."""
    bins = []
    for low, high in pairwise(SNR_EDGES):
        last = high == SNR_EDGES[-1]
        inside = [s for s in scores if low <= s[0] < high or (last and s[0] == high)]
        if inside:
            bins.append({"snr": f"{low} to {high}", **_summary(inside)})
    return bins
