"""Checkpoints that are written whole or not at all, and that hold no code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from lrnn.files import remove_leftovers, written_whole
from lrnn.train.checkpoint import pickled_classes, read_checkpoint

_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.Tensor)


class WholeCheckpointIO(CheckpointIO):
    """How a Trainer writes and reads its checkpoints: `Trainer(plugins=[lrnn.train.WholeCheckpointIO()])`.

    Written to a temporary file, synced to the disk and renamed: a process killed at any moment, or a machine
    without power, leaves the old file or the new one. What such a process left behind is deleted at the next
    write. A checkpoint holds tensors and plain values only: anything else is refused when it is written, and
    never unpickled when it is read. `lrnn fit` installs this by itself.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write `checkpoint` whole.

        Raises:
            TypeError that names the entry of `checkpoint` which is no plain value.
        """
        if storage_options is not None:
            raise TypeError(f"storage_options is {storage_options!r}, expected None: files are local")
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, path.suffix)
        with written_whole(path) as temporary:
            torch.save(checkpoint, temporary)
            if pickled := pickled_classes(temporary):
                where = _not_plain(checkpoint) or "checkpoint"
                raise TypeError(
                    f"{where} holds {', '.join(pickled)}, expected tensors and plain values: "
                    f"{path} was not written, for it could not be loaded without running code"
                )

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint onto the CPU; `map_location` is not needed and `weights_only` is always True.

        Raises:
            FileNotFoundError, or ValueError that names the file and what was found in it.
        """
        if weights_only is False:
            raise ValueError("weights_only is False, but WholeCheckpointIO never unpickles code")
        return read_checkpoint(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint that is no longer wanted."""
        Path(path).unlink(missing_ok=True)


def _not_plain(value: Any, name: str = "checkpoint") -> str | None:
    """Where in `value` the first thing is neither tensor nor plain, such as checkpoint['a'][0]."""
    if type(value) in _PLAIN or isinstance(value, torch.Tensor):
        return None
    if isinstance(value, dict):
        entries = [(f"{name}[{key!r}]", entry) for key, entry in value.items()]
    elif isinstance(value, list | tuple | set):
        entries = [(f"{name}[{index}]", entry) for index, entry in enumerate(value)]
    else:
        return name
    return next((found for entry_name, entry in entries if (found := _not_plain(entry, entry_name))), None)
