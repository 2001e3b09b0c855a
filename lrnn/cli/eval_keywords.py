"""`lrnn eval keywords`: how good a keyword spotter is on clips, in a stream, and on other speech."""

from __future__ import annotations

import json
import os
from dataclasses import asdict

from lrnn.cli.console import check_plot, progress, table
from lrnn.cli.listen import add_decision, decision
from lrnn.engine import default_engine


def add(tasks) -> None:
    """Declare the task."""
    parser = tasks.add_parser(
        "keywords",
        help="accuracy on keywords (Speech Commands layout), words found in a stream, false alarms",
        description="Score the testing clips, or the validation clips where there are none, or all clips "
        "where there are no lists; then the same clips one after the other as a stream.",
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        default=os.environ.get("LRNN_DATA"),
        help="holds a folder for each word and the lists of the splits, or kws-mini or "
        "speech_commands_v0.02 with them; default: $LRNN_DATA",
    )
    add_decision(parser)
    parser.add_argument(
        "--split",
        choices=("training", "validation", "testing", "all"),
        help="default: testing, else validation, else all",
    )
    parser.add_argument("--speech", metavar="DIR", help="speech without keywords, to count false alarms on")
    parser.add_argument("--plot", metavar="P.png", help="draw the confusions")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def run(args) -> int:
    """Measure; print a table, or one JSON object with accuracy, low, high, clips and more."""
    from lrnn.data.evaluate_keywords import false_alarms, score_clips, score_stream
    from lrnn.data.keywords import KeywordClips, find_keywords
    from lrnn.data.spotter import KeywordSpotter

    if args.plot:
        check_plot(args.plot)
    if args.data is None:
        raise ValueError("no data: expected --data DIR or LRNN_DATA in the environment")
    engine = args.engine or default_engine()
    spotter = KeywordSpotter.load(args.model)
    chosen = decision(spotter, args.threshold)
    folder = find_keywords(args.data)
    split, listed = _split(folder, args.split)
    clips = KeywordClips(folder, listed)
    scored = score_clips(spotter, clips, progress)
    report = {
        "task": "keywords",
        "data": str(folder.folder),
        "split": split,
        **scored.report(),
        "engine": engine,
        "decision": asdict(chosen),
        "stream": score_stream(spotter, clips, engine, chosen),
    }
    if args.speech:
        report["false_alarms"] = false_alarms(spotter, args.speech, engine, chosen, progress)
    print(json.dumps(report) if args.json else _words(report))
    if args.plot:
        from lrnn.profile.plot_confusion import plot_confusion

        plot_confusion(report["confusion"], report["labels"], args.plot)
    return 0


def _split(folder, asked: str | None):
    if asked is None:
        return folder.to_report()
    return asked, folder.clips if asked == "all" else folder.split(asked)


def _words(report: dict) -> str:
    stream, alarms = report["stream"], report.get("false_alarms")
    blocks = [
        [
            f"{report['clips']} clips ({report['split']})",
            f"{_percent(report['accuracy'])} right among the words, 95 % interval "
            f"{100 * report['low']:.1f} to {100 * report['high']:.1f}",
            f"{_percent(report['accuracy_all_labels'])} right among all labels",
            f"{_percent(report['rejected'])} of the words taken for no word",
        ],
        [
            f"the same clips as one stream, threshold {report['decision']['threshold']:g}",
            f"{_percent(stream['found'])} found",
            f"{_percent(stream['wrong'])} heard as another word",
            f"{_percent(stream['missed'])} missed",
            f"{stream['extra']:>5}   more decisions",
            *([f"{stream['delay']:>5.2f} s from the start of a clip, median"] if stream["delay"] else []),
        ],
    ]
    if alarms:
        by_word = sorted(alarms["words"].items(), key=lambda pair: -pair[1])
        blocks.append(
            [
                f"speech without keywords, {60 * alarms['hours']:.1f} minutes",
                f"{alarms['alarms']:>5}   false alarms, {alarms['per_hour']:.0f} an hour",
                *(f"{count:>5}   {word}" for word, count in by_word),
            ]
        )
    return "\n\n".join(
        ["\n".join([head, *(f"  {line}" for line in lines)]) for head, *lines in blocks]
        + [_confusions(report)]
    )


def _confusions(report: dict) -> str:
    """A row for each label that was said: its clips, the share that got it, what the others got."""
    labels, rows = report["labels"], []
    for i, counts in enumerate(report["confusion"]):
        if total := sum(counts):
            others = sorted(((n, labels[j]) for j, n in enumerate(counts) if n and j != i), reverse=True)
            taken = ", ".join(f"{name} {n}" for n, name in others)
            rows.append([labels[i], str(total), _percent(counts[i] / total), taken])
    return table(rows, ["said", "clips", "right", "taken for"], prose=1)


def _percent(share: float) -> str:
    return f"{100 * share:5.1f} %"
