"""What a program reads, from a file: audio where it has a front end, an array of frames for any other."""

from __future__ import annotations

import numpy as np


def input_frames(program, path: str) -> np.ndarray:
    """Input frames of a program, (frames, input_width) float32: features of a recording where it has a front
    end, a denoiser's or a keyword spotter's, else the array of an .npy file.
    """
    if not {"frontend", "keywords"} & set(program.meta):
        return read_frames(path, program.input_width)
    from lrnn.data import audio
    from lrnn.data.denoiser import Denoiser
    from lrnn.data.spotter import KeywordSpotter

    kind = KeywordSpotter if "keywords" in program.meta else Denoiser
    return kind(program).features(*audio.read(path))


def read_frames(path: str, width: int, clips: bool = False) -> np.ndarray:
    """An array of frames of an .npy file.

    Args:
        path: the file.
        width: numbers per frame.
        clips: whether a batch of clips will do too.

    Returns:
        (frames, width) float32, or with `clips` also (clips, frames, width).

    Raises:
        ValueError: the file is no array of finite real numbers of that shape; names it.
        OSError: it cannot be read.
    """
    try:
        frames = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:  # of a file that is no array, or an array of objects
        raise ValueError(f"{path}: not an .npy file of numbers ({error})") from None
    if not isinstance(frames, np.ndarray):
        raise ValueError(f"{path}: found an archive of arrays, expected an .npy file of one")
    if frames.dtype.kind not in "iuf":
        raise ValueError(f"{path}: found {frames.dtype}, expected real numbers")
    if frames.ndim not in (2, 3)[: 1 + clips] or frames.shape[-1] != width or 0 in frames.shape:
        expected = f"(frames, {width})" + (f" or (clips, frames, {width})" if clips else "")
        raise ValueError(f"{path}: found an array of shape {frames.shape}, expected {expected}")
    with np.errstate(over="ignore"):
        frames = frames.astype(np.float32)
    if not np.isfinite(frames).all():
        raise ValueError(f"{path}: found NaN or infinite values, expected finite numbers of float32")
    return frames
