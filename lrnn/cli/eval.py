"""`lrnn eval`: its tasks, and `lrnn eval denoise`: how good a model is on a set of recordings."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from lrnn.cli import eval_keywords, eval_text
from lrnn.cli.console import check_plot, progress, table
from lrnn.data.bootstrap import LEVEL
from lrnn.data.figures import FIGURES
from lrnn.engine import ENGINES

_FEW_CLIPS = 100
_INTERVAL = f"{100 * LEVEL:.0f} % interval"
_NAMED = 5  # clips without figures, on stderr


def add(commands) -> None:
    """Declare the command and its tasks."""
    parser = commands.add_parser("eval", help="measure a model on a set of recordings, or on text")
    tasks = parser.add_subparsers(dest="task", metavar="TASK", required=True)
    _add_denoise(tasks)
    eval_keywords.add(tasks)
    eval_text.add(tasks)


def _add_denoise(tasks) -> None:
    parser = tasks.add_parser(
        "denoise",
        help="SI-SNR, PESQ, STOI, DNSMOS and their improvement over a folder of mixtures (N-DNS layout)",
        description="Denoise every clip, measure it before and after. A clip that cannot be read, denoised "
        "or measured is named and left out of the means, and the exit status is 1.",
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        default=os.environ.get("LRNN_DATA"),
        help="holds noisy/ and clean/, or validation_set/ or ndns-mini/ with them; default: $LRNN_DATA",
    )
    parser.add_argument("--model", metavar="M", help="a denoiser's program (.lrnn); default: the shipped one")
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="torch",
        help="torch: whole clips (default); others: streaming. In fixed point all give the same figures",
    )
    parser.add_argument(
        "--metrics",
        metavar="LIST",
        default="si_snr",
        help="some of si_snr,pesq,stoi,dnsmos, or all (default: si_snr, which is always there and fast)",
    )
    parser.add_argument(
        "--dnsmos",
        metavar="DIR",
        default=os.environ.get("LRNN_DNSMOS"),
        help="holds DNSMOS's sig_bak_ovr.onnx and model_v8.onnx; default: $LRNN_DNSMOS",
    )
    parser.add_argument(
        "--jobs",
        metavar="N",
        type=int,
        help="processes of one thread each; 0: this one alone (default: the number of cores; 0 for the "
        f"SI-SNR of fewer than {_FEW_CLIPS} clips)",
    )
    parser.add_argument(
        "--csv",
        metavar="FILE",
        help="write a row for each clip as it is done; a run that was stopped goes on from the file",
    )
    parser.add_argument("--overwrite", action="store_true", help="start FILE anew")
    parser.add_argument("--plot", metavar="P.png", help="draw the improvements against the SNR of the clips")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run_denoise)


def run_denoise(args) -> int:
    """Measure every clip; print means, or one JSON object with si_snr, si_snri, clips and more."""
    from lrnn.data.ndns import NdnsFolder
    from lrnn.data.score_file import ScoreFile
    from lrnn.data.summary import by_snr, summary

    if args.plot:
        check_plot(args.plot)
    evaluation = _evaluation(args)
    evaluation.check()
    header = evaluation.header()
    file = ScoreFile(args.csv, header, evaluation.figures, args.overwrite) if args.csv else None
    clips = len(NdnsFolder(evaluation.folder))
    running = evaluation.run(_jobs(args.jobs, clips, evaluation), file)
    found = list(progress(running, clips, "eval", done=len(file.scores) if file else 0))
    problems = [s for s in found if s.problem]
    total, bands = summary(found), by_snr(found)
    if not total["clips"]:
        first = problems[0]
        raise ValueError(f"{evaluation.folder}: no clip could be scored; {first.name}: {first.problem}")
    _warn(problems)
    if args.json:
        named = [{"name": s.name, "problem": s.problem} for s in problems]
        report = {"task": "denoise", **header, **total, "by_snr": bands, "problems": named}
        print(json.dumps(report))
    else:
        print(_text(total, bands))
    if args.plot:
        from lrnn.profile.plot_scores import plot_scores

        plot_scores(found, bands, args.plot)
    return 1 if total["failed"] else 0


def _evaluation(args):
    """What the options ask for."""
    from lrnn.data.evaluate import Evaluation
    from lrnn.data.ndns import find_validation
    from lrnn.models import DENOISER

    if args.data is None:
        raise ValueError("no data: expected --data DIR or LRNN_DATA in the environment")
    if args.jobs is not None and args.jobs < 0:
        raise ValueError(f"--jobs is {args.jobs}, expected a number of processes, 0 or more")
    if args.overwrite and not args.csv:
        raise ValueError("--overwrite has no file to start anew: expected --csv FILE")
    metrics = tuple(name for name in args.metrics.split(",") if name)
    dnsmos = Path(args.dnsmos) if args.dnsmos else None
    return Evaluation(find_validation(args.data), Path(args.model or DENOISER), args.engine, metrics, dnsmos)


def _jobs(asked: int | None, clips: int, evaluation) -> int:
    """Starting a process takes two seconds, which the SI-SNR of a few clips does not pay back."""
    if asked is not None:
        return asked
    if clips < _FEW_CLIPS and evaluation.metrics == ("si_snr",):
        return 0
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _warn(problems: list) -> None:
    """Name the clips that lack figures, as many as one reads."""
    for score in problems[:_NAMED]:
        lost = "" if score.denoised else "not scored: "
        print(f"lrnn: warning: {score.name}: {lost}{score.problem}", file=sys.stderr)
    if len(problems) > _NAMED:
        print(f"lrnn: warning: {len(problems) - _NAMED} more clips lack figures", file=sys.stderr)


def _text(total: dict, bands: list[dict]) -> str:
    failed = f", {total['failed']} not scored" if total["failed"] else ""
    text = f"{total['clips']} clips{failed}"
    if total["si_snr"] is not None:
        text += f": SI-SNR {total['noisy_si_snr']:.2f} dB -> {total['si_snr']:.2f} dB, "
        text += f"SI-SNRi {total['si_snri']:+.2f} dB; {total['worse']} made worse"
    if total["gain"] is not None:
        text += (
            f"\nspeech leaves {total['gain']:+.1f} dB louder, with a spread of {total['gain_spread']:.1f} dB"
        )
    parts = [text, _means(total["figures"])]
    if bands:
        parts.append(_si_snr_bands(bands))
        if len(total["figures"]) > 1:
            parts.append(_other_bands(bands, [name for name in total["figures"] if name != "si_snr"]))
    return "\n\n".join(parts)


def _means(figures: dict) -> str:
    """Each figure before and after, with the interval of what it improved by."""
    rows = []
    for name, found in figures.items():
        label, unit, digits = FIGURES[name]
        sides = [found[side]["mean"] if found else None for side in ("noisy", "denoised", "improvement")]
        cells = [_cell(value, f"{sign}.{digits}f") for value, sign in zip(sides, ("", "", "+"), strict=True)]
        clips = str(found["clips"] if found else 0)
        rows.append([f"{label} ({unit})" if unit else label, clips, *cells, _interval(found, digits)])
    return table(rows, ["mean of clips", "clips", "noisy", "denoised", "improvement", _INTERVAL])


def _si_snr_bands(bands: list[dict]) -> str:
    rows = [
        [
            band["snr"],
            str(band["clips"]),
            _cell(band["si_snr"], ".2f"),
            _cell(band["si_snri"], "+.2f"),
            _interval(band["figures"]["si_snr"], 2),
        ]
        for band in bands
    ]
    return table(rows, ["mixed at (dB)", "clips", "SI-SNR (dB)", "SI-SNRi (dB)", _INTERVAL])


def _other_bands(bands: list[dict], names: list[str]) -> str:
    """The improvement of the other figures."""
    rows = []
    for band in bands:
        found = [(band["figures"][name], f"+.{FIGURES[name].decimals}f") for name in names]
        cells = [_cell(f and f["improvement"]["mean"], form) for f, form in found]
        rows.append([band["snr"], *cells])
    return table(rows, ["mixed at (dB)", *(f"Δ {FIGURES[name].label}" for name in names)])


def _interval(found: dict | None, digits: int) -> str:
    if not found:
        return "-"
    low, high = found["improvement"]["low"], found["improvement"]["high"]
    return f"{low:+.{digits}f} to {high:+.{digits}f}"


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
