"""Put trained denoisers beside each other: quality, multiply-accumulates, bytes.

    python experiments/compare.py runs/*/version_0/model.lrnn --data DIR -o experiments/results/denoise-mini

writes the table (.md), the figures (.json) and the picture (.svg). Every model is scored on the same
validation clips; each is compared with the first clip by clip, with a bootstrap interval of the mean
difference.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from lrnn.cli.console import progress
from lrnn.data.bootstrap import intervals
from lrnn.data.denoiser import Denoiser
from lrnn.data.evaluate import scores
from lrnn.data.ndns import NdnsFolder, find_validation
from lrnn.data.summary import by_snr, summary
from lrnn.files import written_whole
from lrnn.profile import count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "models", nargs="+", metavar="M.lrnn", help="compiled denoisers; the first is the one compared to"
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="folder with the validation set")
    parser.add_argument(
        "-o", "--out", required=True, metavar="PREFIX", help="of the .md, .json and .svg files"
    )
    args = parser.parse_args()
    folder = NdnsFolder(find_validation(args.data))
    clips = [folder[i] for i in range(len(folder))]
    rows = [measure(path, clips) for path in progress(args.models, len(args.models), "compare")]
    for row in rows[1:]:
        differences = np.array(row["after"]) - np.array(rows[0]["after"])
        row["gain_over_first"] = intervals(differences[:, None])[0]
    command = f"python experiments/compare.py {' '.join(args.models)} --data DIR -o {args.out}"
    write(Path(args.out), rows, command)
    print(Path(args.out).with_suffix(".md").read_text())


def measure(path: str, clips: list) -> dict:
    denoiser = Denoiser.load(path)
    found = list(scores(denoiser, clips))
    features = np.concatenate([denoiser.features(c.noisy.numpy(), denoiser.sample_rate) for c in clips])
    costs = count(denoiser.program, features)
    card = denoiser.program.meta.get("card", {})
    return {
        "model": Path(path).parts[-3] if len(Path(path).parts) > 2 else Path(path).stem,
        "k": card.get("recipe", {}).get("k"),
        "seed": card.get("seed"),
        "steps": card.get("steps"),
        "density": sum(c.nonzero for c in costs) / sum(c.parameters for c in costs),
        "macs": sum(c.macs for c in costs),
        "macs_weights": sum(c.macs_weights for c in costs),
        "macs_effective": round(sum(c.macs_effective for c in costs)),
        "file_bytes": Path(path).stat().st_size,
        **summary(found),
        "by_snr": by_snr(found),
        "after": [s.denoised["si_snr"] for s in found],
    }


def write(out: Path, rows: list[dict], command: str) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(out.with_suffix(".json")) as path:
        path.write_text(json.dumps({"command": command, "models": rows}, indent=1) + "\n")
    with written_whole(out.with_suffix(".md")) as path:
        path.write_text(markdown(rows, command))
    plot(out.with_suffix(".svg"), rows)


COLUMNS = "model, k, seed, steps, density, MACs, nonzero, effective, kB, SI-SNR, SI-SNRi, worse, to the first"


def markdown(rows: list[dict], command: str) -> str:
    names = COLUMNS.split(", ")
    lines = [
        f"# {rows[0]['clips']} validation clips, noisy {rows[0]['noisy_si_snr']:.2f} dB SI-SNR",
        "",
        f"`{command}`",
        "",
        "MACs per frame (125 frames a second): all weights, nonzero weights, nonzero weights on nonzero",
        "inputs. SI-SNR and its improvement in dB; clips made worse; mean difference to the first model over",
        "the same clips in dB, with its 95 % bootstrap interval.",
        "",
        f"| {' | '.join(names)} |",
        "|---" * len(names) + "|",
        *(f"| {' | '.join(cells(r))} |" for r in rows),
        "",
        "SI-SNRi (dB) by the SNR of the mixture:",
        "",
        f"| model | {' | '.join(b['snr'] + ' dB' for b in rows[0]['by_snr'])} |",
        "|---" * (1 + len(rows[0]["by_snr"])) + "|",
    ]
    for r in rows:
        bins = [format(b["si_snri"], "+.2f") for b in r["by_snr"]]
        lines.append(f"| {' | '.join([r['model'], *bins])} |")
    return "\n".join(lines) + "\n"


def cells(r: dict) -> list[str]:
    gain = r.get("gain_over_first")
    return [
        r["model"],
        f"{r['k']}",
        f"{r['seed']}",
        f"{r['steps']}",
        f"{100 * r['density']:.1f} %",
        f"{r['macs']:,}",
        f"{r['macs_weights']:,}",
        f"{r['macs_effective']:,}",
        f"{r['file_bytes'] / 1000:.0f}",
        f"**{r['si_snr']:.2f}**",
        f"{r['si_snri']:+.2f}",
        f"{r['worse']}",
        f"{gain[0]:+.2f} ({gain[1]:+.2f} to {gain[2]:+.2f})" if gain else "",
    ]


def plot(path: Path, rows: list[dict]) -> None:
    from lrnn.profile.plot import pyplot, save

    plt = pyplot()
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for sparse, label, colour, mark in (
        (False, "dense", "#8a8a8a", "o"),
        (True, "90 % sparse", "#1b4f8a", "s"),
    ):
        chosen = [r for r in rows if (r["density"] < 0.5) == sparse]
        axes.scatter(
            [r["macs_weights"] / 1000 for r in chosen],
            [r["si_snri"] for r in chosen],
            c=colour,
            marker=mark,
            label=label,
        )
        for r in chosen:
            note = f"k={r['k']:g}, seed {r['seed']}, {r['steps'] // 1000}k steps"
            axes.annotate(
                note,
                (r["macs_weights"] / 1000, r["si_snri"]),
                xytext=(6, -3),
                textcoords="offset points",
                fontsize=7,
            )
    axes.set_xlim(0, 1.5 * max(r["macs_weights"] for r in rows) / 1000)
    axes.set_xlabel("thousand multiply-accumulates per frame, nonzero weights")
    axes.set_ylabel("SI-SNR improvement, dB")
    axes.margins(y=0.15)
    axes.legend(loc="lower right", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


if __name__ == "__main__":
    sys.exit(main())
