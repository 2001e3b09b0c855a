"""What docs/dropping-in.md shows works as shown, and whole models compile, train in bfloat16 and copy."""

from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path

import pytest
import torch

import lrnn

PAGE = Path(__file__).resolve().parents[1] / "docs" / "dropping-in.md"
SECTIONS = {
    section.splitlines()[0]: re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    for section in PAGE.read_text().split("\n## ")[1:]
}
NEEDS = {"Hugging Face hub": "huggingface_hub", "Shrink what pruning cut off": "torch_pruning"}
has_compiler = shutil.which("g++") or shutil.which("c++")
needs_compiler = pytest.mark.skipif(not has_compiler, reason="Inductor needs a C++ compiler")
SLOW = "Export a step"


@pytest.fixture(autouse=True)
def _quiet_folder(tmp_path, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)


def run(name: str) -> dict:
    """Run a section's blocks, each by itself, all in one folder; the names that the last one leaves."""
    names: dict = {}
    for code in SECTIONS[name]:
        quick = code.replace("fullgraph=True)", "fullgraph=True, backend='aot_eager')")  # Inductor: minutes
        names = {"__name__": "page"}
        exec(compile(quick, f"{PAGE.name}, {name}", "exec"), names)
    return names


@pytest.mark.parametrize("name", [name for name in SECTIONS if name != SLOW])
def test_the_page(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    names = run(name)
    if name == "Sparse Linear layers":
        assert len(names["report"].replaced) == 3
        assert all(layer.density < 0.25 for layer in names["report"].replaced.values())


@needs_compiler
@pytest.mark.slow
def test_the_page_with_a_compiler():
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    names = run(SLOW)
    assert len(names["states"]) == 2
    assert "lrnn" not in str(names["exported"].graph)


def test_no_section_is_empty_and_the_contents_lead_to_each():
    assert len(SECTIONS) >= 8
    assert all(SECTIONS.values())
    assert all(f"[{name}](#" in PAGE.read_text() for name in SECTIONS)


def models() -> dict[str, torch.nn.Module]:
    s5 = lrnn.SequenceModelConfig(d_in=6, d_out=6, d_model=8, d_state=8, blocks=2, n_layers=2)
    hgrn = lrnn.HGRNBlockConfig(d_model=6, d_state=4, d_hidden=8)
    classifier = lrnn.SequenceModelConfig(**{**s5.to_dict(), "ssm": s5.ssm, "head": "classification"})
    return {
        "SequenceModel": lrnn.SequenceModel(s5),
        "classifier": lrnn.SequenceModel(classifier),
        "HGRNStack": lrnn.HGRNStack(hgrn, 2),
        "LRNN": lrnn.LRNN(6, 8, 2, batch_first=True),
        "LRNN of HGRN": lrnn.LRNN(6, 8, 2, batch_first=True, cell="hgrn"),
    }


every_model = pytest.mark.parametrize("name", list(models()))


@every_model
def test_a_whole_model_is_one_graph(name):
    model, x = models()[name].eval(), torch.randn(2, 5, 6)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    y, state = model(x)
    again, _ = compiled(x)
    torch.testing.assert_close(again, y)
    on, _ = compiled(x, state)  # with a state too
    torch.testing.assert_close(on, model(x, state)[0])


@every_model
def test_a_whole_model_trains_under_autocast(name):
    model, x = models()[name], torch.randn(4, 12, 6)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        with torch.autocast("cpu", torch.bfloat16):
            y, _ = model(x)
        target = x.cumsum(1)[..., : y.shape[-1]] if y.ndim == 3 else None
        short = None if target is None else y[..., : target.shape[-1]].float()
        loss = -y[:, 0].mean() if target is None else (short - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        assert all(p.grad is None or p.grad.dtype == torch.float32 for p in model.parameters())
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@every_model
def test_copies_and_files_without_pickle(name, tmp_path):
    from safetensors.torch import load_file, save_file

    model, x = models()[name].eval(), torch.randn(2, 5, 6)
    twin = copy.deepcopy(model)
    torch.manual_seed(1)
    fresh = models()[name].eval()
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    fresh.load_state_dict(load_file(tmp_path / "m.safetensors"))
    assert torch.equal(twin(x)[0], model(x)[0])
    assert torch.equal(fresh(x)[0], model(x)[0])
    torch.save(model.state_dict(), tmp_path / "m.pt")
    fresh.load_state_dict(torch.load(tmp_path / "m.pt", weights_only=True))
