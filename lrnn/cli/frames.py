"""What a program reads, from a file: audio, text, or an array of frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np

_ARRAY = ".npy"


def input_frames(program, path: str) -> np.ndarray:
    """Input frames of a program, (frames, input_width) float32: features of a recording where it has a front
    end, a denoiser's or a keyword spotter's; a text's tokens where it is a language model; else, and of any
    language model too, the array of an .npy file.
    """
    if "text" in program.meta and Path(path).suffix != _ARRAY:
        return _text_frames(program, path)
    if not {"frontend", "keywords"} & set(program.meta):
        return read_frames(path, program.input_width)
    from lrnn.data import audio
    from lrnn.data.denoiser import Denoiser
    from lrnn.data.spotter import KeywordSpotter

    kind = KeywordSpotter if "keywords" in program.meta else Denoiser
    return kind(program).features(*audio.read(path))


def token_frames(program, text: bytes) -> np.ndarray:
    """A text's tokens as a language model's program reads them, (tokens, 1) float32."""
    from lrnn.data.text_program import tokenizer_of

    (tokens,) = tokenizer_of(program).encode([text])
    return tokens[:, None].astype(np.float32)


def _text_frames(program, path: str) -> np.ndarray:
    """All documents of a file, one after the other."""
    from lrnn.data.text import documents, find_text

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file, expected text")
    texts = [text for file in find_text(path, "val") for text in documents(file)]
    if not texts:
        raise ValueError(f"{path}: no text in it, expected at least one character")
    try:
        return np.concatenate([token_frames(program, text) for text in texts])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


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
