"""Make golden_s5 and golden_fxp here: python tests/golden/subset.py FULL, the folder above the full ones.

Keeps every kind of file and every option of a model, and drops what says little new: arrays equal to another
array of the same file, the initial draw of all but a few models, the intermediates of two whose option acts
at one end only, and the steps of a training run between its first and its last. Of the models in fixed point
it keeps integers: weights, what enters and leaves, the states of one layer.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent / "golden_s5"
WITH_INITIAL_DRAW = ("a_half1_zoh", "c_full_relu_b1", "l_bidirectional", "o_complexnormal")
WITHOUT_INTERMEDIATES = ("o_complexnormal", "r_quantinput")
LEFT_OUT = {"train_dense", "u_naivescan"}
DROPPED = {
    "ndns_frontend": ("phase", "rec", "clean_mag"),
    "train_prune09": ("after_step1/", "after_step2/", "masked_params_step0/", "masked_params_step3/"),
}
AQT = ("qat_w8a16_gelu_naive",)
FIXED = {  # arrays of golden_fxp by file, by how their names begin
    "fxparray_ops": ("",),
    "sigmoid_lut": ("x6_y14/",),
    "fxp_half1_a16": (
        "params/",
        "input",
        "output",
        "inter/encoder/layer_",
        "inter/encoder/encoder_output_relu",
        "inter/encoder/layers_0/pre_s5",
        "inter/encoder/layers_0/mixer/xs.",
        "inter/encoder/layers_0/mixer/ys",
    ),
    "fxp_half1_a8": (
        "params/",
        "input",
        "output",
        "inter/encoder/layer_",
        "inter/encoder/encoder_output_relu",
    ),
}
NEEDED = ("x", "y", "params/", "batch_stats/", "init/", "train/", "after_step", "masked_params", "N")


def kept(entry: dict, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of one file that the subset keeps."""
    drop = DROPPED.get(entry["name"], ())
    if entry["kind"] == "eval" and entry["name"] not in WITH_INITIAL_DRAW:
        drop += ("init/",)
    if entry["name"] in WITHOUT_INTERMEDIATES:
        drop += ("inter/",)
    out, seen = {}, set()
    for name, array in sorted(arrays.items(), key=lambda item: not item[0].startswith(NEEDED)):
        content = (array.dtype.str, array.shape, array.tobytes())
        if name.startswith(drop):
            continue
        if name.startswith(NEEDED) or entry["kind"] != "eval" or content not in seen:
            out[name] = array
            seen.add(content)
    return out


def main(full: Path) -> None:
    HERE.mkdir(exist_ok=True)
    index = json.loads((full / "index.json").read_text())
    more = json.loads((full / "index2.json").read_text())
    index["files"] = [entry for entry in index["files"] if entry["name"] not in LEFT_OUT]
    more = [entry for entry in more if entry["name"] not in LEFT_OUT]
    for entry in index["files"] + more:
        for stale in ("arrays", "bytes"):
            entry.pop(stale, None)
        with np.load(full / entry["file"], allow_pickle=False) as file:
            np.savez_compressed(HERE / entry["file"], **kept(entry, dict(file)))
    (HERE / "index.json").write_text(json.dumps(index, indent=1) + "\n")
    (HERE / "index2.json").write_text(json.dumps(more, indent=1) + "\n")
    shutil.copyfile(full / "erk_sparsities.json", HERE / "erk_sparsities.json")
    shutil.copyfile(full / "aqt_ops.npz", HERE / "aqt_ops.npz")
    quantized = [e for e in json.loads((full / "index3.json").read_text()) if e["name"] in AQT]
    for entry in quantized:
        shutil.copyfile(full / entry["file"], HERE / entry["file"])
    (HERE / "index3.json").write_text(json.dumps(quantized, indent=1) + "\n")


def fixed_point(full: Path) -> None:
    """golden_fxp: operations, the sigmoid, two models without what is said twice."""
    here = HERE.parent / "golden_fxp"
    here.mkdir(exist_ok=True)
    entries = [e for e in json.loads((full / "index.json").read_text()) if e["name"] in FIXED]
    for name, starts in FIXED.items():
        with np.load(full / f"{name}.npz", allow_pickle=False) as file:
            arrays = {key: array for key, array in dict(file).items() if key.startswith(starts)}
        np.savez_compressed(here / f"{name}.npz", **arrays)
        for entry in entries:
            if entry["name"] == name and "config" in entry:
                meta = entry["fxp_meta_bits_exp_signed"]
                entry["fxp_meta_bits_exp_signed"] = {key: meta[key] for key in meta if key in arrays}
                for stale in ("fxp_qconfig", "errors", "arrays", "bytes"):
                    entry.pop(stale, None)
    (here / "index.json").write_text(json.dumps(entries) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) / "golden_s5")
    fixed_point(Path(sys.argv[1]) / "golden_fxp")
