"""Models on the Hugging Face hub: config.json and model.safetensors, from a folder or a repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_type_hints

from torch import nn

try:
    from huggingface_hub import PyTorchModelHubMixin
except ImportError:
    raise ImportError("lrnn.HubMixin needs huggingface_hub: pip install 'lrnn[hub]'") from None


class HubMixin(PyTorchModelHubMixin, library_name="lrnn"):
    """Gives a model with one configuration `save_pretrained`, `from_pretrained` and `push_to_hub`.

        class Denoiser(lrnn.SequenceModel, lrnn.HubMixin): ...

        model.save_pretrained("folder")
        model = Denoiser.from_pretrained("folder")

    The class must take its configuration as the argument `config`, annotated with a class that has
    `from_dict` and `to_dict`, and keep it as `self.config`. Sizes that `lrnn.shrink` changed are saved; masks
    must be baked before. A loaded model is in evaluation mode.
    """

    config: Any

    def _save_pretrained(self, save_directory: Path) -> None:
        assert isinstance(self, nn.Module)
        masked = [name for name in self.state_dict() if ".parametrizations." in f".{name}"]
        if masked:
            raise ValueError(f"model has parametrizations ({masked[0]}); bake them before saving")
        super()._save_pretrained(save_directory)
        self._hub_mixin_config = self.config.to_dict()  # written next; that of __init__ may be outgrown

    @classmethod
    def _from_pretrained(cls, *, config: Any = None, **options: Any) -> Any:
        folder, kind = options.get("model_id"), get_type_hints(cls.__init__)["config"]
        if config is None:
            raise ValueError(f"{folder}: found no config.json, expected that of a model")
        # Where annotations are no strings, the mixin makes a dataclass, of plain values inside.
        values = config.to_dict() if isinstance(config, kind) else config
        try:
            made = kind.from_dict(values)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{folder}: config.json does not fit a {cls.__name__}: {error}") from None
        return super()._from_pretrained(config=made, **{"strict": True, **options})
