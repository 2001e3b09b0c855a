"""What ships with the package: a denoiser, a keyword spotter and a language model, cards, the demo's clip."""

from pathlib import Path

HERE = Path(__file__).parent
DENOISER = HERE / "denoiser.lrnn"  # in fixed point, W8A16
DENOISER_FLOAT = HERE / "denoiser-float.lrnn"  # what it was made of
DENOISER_CARD = HERE / "denoiser.md"
LANGUAGE = HERE / "language.lrnn"  # of bytes of English, in fixed point, W8A16
LANGUAGE_CARD = HERE / "language.md"
DEMO_CLIP = HERE / "demo-noisy.flac"
DEMO_CLEAN = HERE / "demo-clean.flac"
KEYWORDS = HERE / "keywords.lrnn"  # in fixed point, W8A16
KEYWORDS_CARD = HERE / "keywords.md"
