"""Split the training sources of ndns-mini once more, so that choices need not be made on the validation set.

    python experiments/make_split.py --data DIR -o SPLIT
    lrnn fit -c experiments/denoise-mini.yaml --data.root SPLIT ...
    lrnn eval denoise --data SPLIT --model M

SPLIT/sources/train links to nine tenths of the speakers and noise recordings, SPLIT/validation_set holds
mixtures of the others, in the layout of the Intel N-DNS challenge and mixed by its rule. One command, one
split.
"""

import argparse
import os
import sys
import zlib
from pathlib import Path

import numpy as np

from lrnn.cli.console import progress
from lrnn.data import audio
from lrnn.data.mix import Mixer
from lrnn.data.sources import Recordings, find_sources

RATE, CLIPS, SECONDS, ONE_IN = 16000, 96, 4.0, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, metavar="DIR", help="holds the sources, as ndns-mini does")
    parser.add_argument(
        "-o", "--out", required=True, metavar="SPLIT", help="folder to make; it must not exist"
    )
    args = parser.parse_args()
    sources, out = find_sources(args.data).resolve(), Path(args.out)
    if out.exists():
        raise SystemExit(f"{out}: exists already, expected a new folder")
    held_out = {kind: split(sources / kind, out / "sources" / "train" / kind) for kind in ("clean", "noise")}
    recordings = [
        Recordings([audio.to_int16(audio.read_mono(path, RATE)) for path in paths], RATE)
        for paths in held_out.values()
    ]
    for i in progress(range(CLIPS), CLIPS, "mix"):
        write(out / "validation_set", recordings, i)
    counts = ", ".join(f"{len(paths)} {kind}" for kind, paths in held_out.items())
    print(f"{out}: {CLIPS} mixtures of {SECONDS:g} s from {counts} recordings held out", file=sys.stderr)


def split(folder: Path, training: Path) -> list[Path]:
    """Link what is trained on into `training`, return what is held out; no speaker is on both sides."""
    training.mkdir(parents=True)
    held_out = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in audio.EXTENSIONS):
        if zlib.crc32(group(path.stem).encode()) % ONE_IN == 0:
            held_out.append(path)
        else:
            os.symlink(path, training / path.name)
    return held_out


def group(stem: str) -> str:
    """The speaker of ls_8088-284756-0000, of an4_an103-mrcb-b; the Freesound clip of esc10_rain_1-17367-A."""
    parts = stem.split("-")
    if stem.startswith("an4_") and len(parts) > 1:
        return parts[1]
    return "-".join(parts[:2]) if stem.startswith("esc10_") else parts[0]


def write(folder: Path, recordings: list[Recordings], i: int) -> None:
    rng = np.random.default_rng(i)
    snr, level = -5 + i % 26, int(rng.integers(-35, -14))
    noisy, clean = Mixer(*recordings, SECONDS, (snr, snr), (level, level))(0, i)
    files = {
        f"noisy/heldout_snr{snr}_tl{level}_fileid_{i}.flac": noisy,
        f"clean/clean_fileid_{i}.flac": clean,
        f"noise/noise_fileid_{i}.flac": noisy - clean,
    }
    for name, samples in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        audio.write(folder / name, samples, RATE)


if __name__ == "__main__":
    main()
