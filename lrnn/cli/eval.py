"""`lrnn eval denoise`: how good a model is on a set of recordings."""

from __future__ import annotations

import json
import os

from lrnn.cli.console import progress, table
from lrnn.engine import ENGINES


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
    from lrnn.data.evaluate import by_snr, scores, summary
    from lrnn.data.ndns import NdnsFolder, find_validation

    if args.data is None:
        raise ValueError("no data: expected --data DIR or LRNN_DATA in the environment")
    folder = find_validation(args.data)
    denoiser = Denoiser.load(args.model)
    clips = NdnsFolder(folder, sample_rate=denoiser.sample_rate)
    running = scores(denoiser, (clips[i] for i in range(len(clips))), args.engine)
    found = list(progress(running, len(clips), "eval"))
    total, bins = summary(found), by_snr(found)
    if args.json:
        print(json.dumps({"task": "denoise", "engine": args.engine, **total, "by_snr": bins}))
        return 0
    print(
        f"{total['clips']} clips: SI-SNR {total['noisy_si_snr']:.2f} dB -> {total['si_snr']:.2f} dB, "
        f"SI-SNRi {total['si_snri']:+.2f} dB; {total['worse']} made worse"
    )
    if total["gain"] is not None:
        print(f"speech leaves {total['gain']:+.1f} dB louder, with a spread of {total['gain_spread']:.1f} dB")
    print()
    rows = [[b["snr"], str(b["clips"]), f"{b['si_snr']:.2f}", f"{b['si_snri']:+.2f}"] for b in bins]
    print(table(rows, ["mixed at (dB)", "clips", "SI-SNR (dB)", "SI-SNRi (dB)"]))
    return 0
