"""Agreement with the paper's own code: every file that the golden directory lists, whatever its options.

The directory is LRNN_GOLDEN or the subset in tests/golden; golden/README.md says what the files hold and
where they come from. Each test goes through all files of its kind, prints how many it checked, and fails with
one line for each that disagrees.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace

import pytest
import torch
from golden_files import Golden, golden_dir, listed, lrnn_name, model_config, named_tensors
from golden_trace import tied_frames, trace

from lrnn.data.features import magnitude_features
from lrnn.data.metrics import paper_loss, paper_si_snr
from lrnn.data.stft import Stft, apply_mask
from lrnn.nn import SequenceModel, SequenceModelConfig, init
from lrnn.prune import CubicSchedule, Pruner, erk
from lrnn.train.optim import parameter_groups, scheduler, warmup_cosine

pytestmark = pytest.mark.parity

FORWARD = 1e-5  # of an array's largest magnitude, at least 1
GRADIENT = 1e-5
FRONTEND = 1e-6  # magnitudes are divided by 512
FLIPPED = 1e-3  # share of weights that rounding may mask or keep


def distance(found: torch.Tensor, expected: torch.Tensor, floor: float = 1.0) -> float:
    """Largest difference over the largest magnitude expected, which counts as `floor` at least."""
    assert found.shape == expected.shape, f"shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    if expected.numel() == 0:
        return 0.0
    error = (found - expected).abs().max() / expected.abs().max().clamp(min=floor)
    return error.nan_to_num(torch.inf).item()


@dataclass
class Tally:
    """What a check of one file found: the worst distance and the ties that were excused."""

    worst: float = 0.0
    ties: int = 0

    def near(self, what: str, found, expected, tol: float, floor: float = 1.0) -> None:
        """Compare two tensors."""
        error = distance(found, expected, floor)
        self.worst = max(self.worst, error)
        assert error <= tol, f"{what}: differs by {error:.1e}, expected at most {tol:.0e}"

    def near_all(self, what: str, found: dict, expected: dict, tol: float, floor: float = 1.0) -> None:
        """Compare tensors by name; both sides have the same names."""
        odd = sorted(found.keys() ^ expected.keys())
        assert not odd, f"{what}: {odd} on one side only"
        for name, value in expected.items():
            self.near(f"{what} {name}", found[name], value, tol, floor)


def check_each(files: list[Golden], check) -> None:
    """Run `check(file, tally)` on every file; print the count; fail with one line for each that disagrees."""
    if not files and os.environ.get("LRNN_GOLDEN"):
        pytest.skip(f"{golden_dir()} lists no file of this kind")
    failures, worst, ties = [], 0.0, 0
    for file in files:
        tally = Tally()
        try:
            check(file, tally)
        except Exception as error:
            failures.append(f"{file.name}: {type(error).__name__}: {error}")
        worst, ties = max(worst, tally.worst), ties + tally.ties
    checked = len(files) - len(failures)
    print(f"checked {checked} of {len(files)} files, worst {worst:.1e}, ties excused {ties}")
    assert checked == len(files) > 0, "\n".join(failures)


def model_of(file: Golden, config: SequenceModelConfig) -> SequenceModel:
    model = SequenceModel(config)
    model.load_state_dict(named_tensors(file.under("params") | file.under("batch_stats")))
    return model


def test_every_listed_file_is_of_a_kind_that_is_checked():
    index = json.loads((golden_dir() / "index.json").read_text())["files"]
    assert len(listed("eval", "hippo", "init")) == len(index) > 0
    assert len({entry["file"] for entry in index}) == len(index)


ARRAYS = {"x", "y", "init", "params", "batch_stats", "inter", "hippo", "train"}


def check_eval(file: Golden, tally: Tally) -> None:
    unknown = {name.split("/")[0] for name in file.arrays} - ARRAYS
    assert not unknown, f"arrays {sorted(unknown)} are unknown to this test"
    model = model_of(file, model_config(file.entry["config"])).eval()
    found, expected = trace(model, file["x"]), file.under("inter")
    tally.near_all("hippo", {"Lambda_init": init_eigenvalues(model)}, file.under("hippo"), FORWARD)
    excused, tally.ties = tied_frames(found, expected, FORWARD)
    if excused is None:
        excused = torch.zeros(file["x"].shape[:2], dtype=torch.bool)
    states = sum(value.numel() for name, value in expected.items() if name.endswith("/pre_C"))
    assert tally.ties <= 1e-3 * states, f"{tally.ties} ties in {states} states are too many for rounding"
    if model.config.ssm.bidirectional or model.config.head == "classification":
        excused = excused | excused.any(1, keepdim=True)  # every frame is read by every output
    for name, value in {**expected, "__call__": file["y"]}.items():
        assert name in found, f"inter/{name} is unknown to this test"
        ours = found[name]
        if value.shape[:2] == excused.shape:  # (B, T, width)
            ours, value = ours[~excused], value[~excused]
        elif name in ("__call__", "decoder/__call__"):  # (B, classes)
            ours, value = ours[~excused[:, -1]], value[~excused[:, -1]]
        tally.near(name, ours, value, FORWARD)


def init_eigenvalues(model: SequenceModel) -> torch.Tensor:
    config = model.config
    return init.block_hippo(config.d_state, config.blocks, config.ssm.conj_sym)[0].to(torch.complex64)


def test_eval_output_and_intermediates():
    check_each(listed("eval"), check_eval)


def test_a_disagreement_is_reported():
    file = listed("eval")[0]
    changed = Golden({**file.entry, "config": {**file.entry["config"], "step_rescale": 1.1}})
    with pytest.raises(AssertionError, match="differs by"):
        check_eval(changed, Tally())
    unheard_of = Golden({**file.entry, "config": {**file.entry["config"], "topk": 0.5}})
    with pytest.raises(ValueError, match="unknown field 'topk'"):
        check_eval(unheard_of, Tally())


def test_a_tie_excuses_what_follows_it_and_nothing_else():
    torch.manual_seed(0)
    states = torch.randn(2, 6, 3, dtype=torch.complex64)
    states[1, 2, 0] = 1e-8 + 0.5j  # kept by one side, dropped by the other
    dropped = states.clone()
    dropped[1, 2, 0] = 0
    excused, ties = tied_frames({"encoder/layers_0/pre_C": dropped}, {"encoder/layers_0/pre_C": states}, 1e-5)
    assert ties == 1
    assert excused.nonzero().tolist() == [[1, 2], [1, 3], [1, 4], [1, 5]]
    dropped[0, 0, 0] = 0  # a real part far from zero is no tie
    assert tied_frames({"encoder/layers_0/pre_C": dropped}, {"encoder/layers_0/pre_C": states}, 1e-5)[1] == 1


def check_train(file: Golden, tally: Tally) -> None:
    model = model_of(file, replace(model_config(file.entry["config"]), dropout=0.0)).train()
    y, _ = model(file["x"])
    loss = (y * file["train/w"]).mean()
    loss.backward()
    tally.near("train/y", y.detach(), file["train/y"], FORWARD)
    tally.near("train/loss", loss.detach().reshape(1), file["train/loss"], FORWARD)
    grads = {name: p.grad for name, p in model.named_parameters()}
    tally.near_all("gradient of", grads, named_tensors(file.under("train/grad")), GRADIENT, floor=0.1)
    statistics = named_tensors(file.under("train/new_batch_stats"))
    tally.near_all("after the step,", dict(model.named_buffers()), statistics, FORWARD)
    clipped = file["params/encoder/layers_0/mixer/Lambda_re"] > -1e-4
    if model.config.ssm.clip_eigs:
        assert clipped.any(), "no eigenvalue is clipped"
        assert (grads["blocks.0.ssm.Lambda_re"][clipped] == 0).all()


def test_train_mode_gradients_and_norm_updates():
    check_each(listed("eval"), check_train)


DRAWS = 6


def check_initialisation(file: Golden, tally: Tally) -> None:
    config = model_config(file.entry["config"])
    torch.manual_seed(0)
    draws = [SequenceModel(config).state_dict() for _ in range(DRAWS)]
    expected = named_tensors(file.under("init/params") | file.under("init/batch_stats"))
    assert draws[0].keys() == expected.keys()
    for name, value in expected.items():
        if name.endswith((".bias", ".norm.weight", "running_mean", "running_var")):
            assert torch.equal(draws[0][name], value), name
        elif name.endswith(("Lambda_re", "Lambda_im")):
            tally.near(name, draws[0][name], value, FORWARD)
        else:
            ours = torch.stack([draw[name] for draw in draws])
            assert ours[0].shape == value.shape, name
            ratio = (value.std() / ours.std()).item()  # of n normal numbers: 1 within 1/sqrt(2 n)
            assert abs(ratio - 1) < 5 / (2 * value.numel()) ** 0.5, f"{name}: spread {ratio:.2f} of ours"
            assert abs(value.mean() - ours.mean()) < 5 * ours.std() / value.numel() ** 0.5, f"{name}: mean"


def test_initialisation():
    check_each([f for f in listed("eval") if "init/params/decoder/bias" in f.arrays], check_initialisation)


def check_hippo(file: Golden, tally: Tally) -> None:
    for size in sorted({name.split("/")[0] for name in file.arrays}):
        n = int(size.removeprefix("N"))
        Lambda, V = init.hippo_eigen(n)
        expected, W = file[f"{size}/Lambda"], file[f"{size}/V"]
        tally.near(f"{size}/Lambda", Lambda.to(torch.complex64), expected, FORWARD)
        # An eigenvector's phase is arbitrary: compare the matrices that the decompositions stand for.
        tally.near(f"{size}/V", ((V * Lambda) @ V.mH).to(torch.complex64), (W * expected) @ W.mH, FORWARD)
        if f"{size}/A" in file.arrays:
            q = torch.sqrt(torch.arange(n) + 0.5)
            legs = init.legs_normal_part(n).float() - torch.outer(q, q)
            tally.near(f"{size}/A", legs, file[f"{size}/A"], FORWARD)


def test_hippo():
    check_each(listed("hippo"), check_hippo)


def check_projection(file: Golden, tally: Tally) -> None:
    for case in sorted({name.split("/")[0] for name in file.arrays}):
        raw_b, V, Vinv = file[f"{case}/B_raw"], file[f"{case}/V"], file[f"{case}/Vinv"]
        tally.near(f"{case}/B", init.project_b(raw_b, Vinv), file[f"{case}/B"], FORWARD)
        tally.near(f"{case}/C", init.project_c(file[f"{case}/C_raw"], V), file[f"{case}/C"], FORWARD)
        d_state, block = V.shape[0], (V[:, 0] != 0).sum().item()
        Lambda, W, Winv = init.block_hippo(d_state, d_state // block, conj_sym=V.shape[1] < d_state)
        expected = file[f"{case}/Lambda"]
        tally.near(f"{case}/Lambda", Lambda.to(torch.complex64), expected, FORWARD)
        whole = ((W * Lambda) @ Winv).to(torch.complex64)
        tally.near(f"{case}/V", whole, (V * expected) @ Vinv, FORWARD)


def test_projection_of_b_and_c():
    check_each(listed("init"), check_projection)


def check_schedule(file: Golden, tally: Tally) -> None:
    # The paper's recipe: 60,000 clips in batches of 32 for 50 epochs, one of them warm-up, peak 4e-3.
    rates = [warmup_cosine(step, 4e-3, 1875, 50 * 1875) for step in file.arrays["steps"].tolist()]
    tally.near("lr", torch.tensor(rates, dtype=torch.float64), file["lr"], 1e-6, floor=1e-3)


def test_learning_rate_schedule():
    check_each(listed("schedule"), check_schedule)


def prunable_shapes(config: SequenceModelConfig) -> dict[str, tuple[int, ...]]:
    """What the reference prunes: every parameter that it stores with two axes, log_step (P, 1) included."""
    H, P = config.d_model, config.d_state // 2
    shapes = {"encoder.weight": (config.d_in, H), "decoder.weight": (H, config.d_out)}
    for i in range(config.n_layers):
        layer = {"ssm.B": (P, H, 2), "ssm.C": (H, P, 2), "ssm.log_step": (P, 1), "out2.weight": (H, H)}
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in layer.items()}
    return shapes


def test_erk_sparsities():
    path = golden_dir() / "erk_sparsities.json"
    if not path.is_file() and os.environ.get("LRNN_GOLDEN"):
        pytest.skip(f"{golden_dir()} has no erk_sparsities.json")
    cases = json.loads(path.read_text())
    for case, reference in cases.items():
        scale, target = (float(part.split("=")[1]) for part in case.split(","))
        found = erk(prunable_shapes(SequenceModelConfig(d_in=257, d_out=257).scaled(scale)), target)
        expected = {lrnn_name(key): value for key, value in reference.items()}
        assert found == pytest.approx(expected, abs=1e-9), case
    print(f"checked {len(cases)} cases")
    assert cases


def check_frontend(file: Golden, tally: Tally) -> None:
    stft, length = Stft(window="boxcar"), file["noisy"].shape[-1]
    X = stft.analyse(file["noisy"])  # (B, T, F); the files have (B, F, T)
    tally.near("mag", X.abs().mT, file["mag"], FRONTEND)
    if "phase" in file.arrays:
        tally.near("spectrum", X.mT, torch.polar(file["mag"], file["phase"]), FRONTEND)
        tally.near("rec", stft.synthesise(X, length), file["rec"], FORWARD)
        tally.near("clean_mag", stft.analyse(file["clean"]).abs().mT, file["clean_mag"], FRONTEND)
    M = file["mask"].mT
    cleaned = stft.synthesise(apply_mask(X, M), length)
    tally.near("est", cleaned, file["est"], FORWARD)
    for name, target, estimate in (
        ("si_snr_noisy_ref_order", file["clean"], file["noisy"]),
        ("si_snr_est_call_order", cleaned, file["clean"]),
        ("si_snr_est_swapped", file["clean"], cleaned),
    ):
        tally.near(name, paper_si_snr(target=target, estimate=estimate), file[name], FORWARD)
    loss = paper_loss(cleaned, file["clean"], X.abs() * (1 + M), stft.analyse(file["clean"]).abs())
    tally.near("loss", loss.reshape(1), file["loss"], FORWARD)


def test_front_end_and_loss():
    check_each(listed("frontend"), check_frontend)


@dataclass
class Trajectory:
    """A training run of the reference made again: its model, optimiser, schedule and pruning."""

    file: Golden
    tally: Tally

    def __post_init__(self):
        entry = self.file.entry
        if entry["opt"] != "noBCdecay ssm_lr=1e-3 lr=4e-3 wd=0.04":
            raise ValueError(f"golden file: unknown optimiser {entry['opt']!r}")
        self.model = SequenceModel(model_config(entry["config"])).train()
        start = self.file.under("init/params") | self.file.under("init/batch_stats")
        self.model.load_state_dict(named_tensors(start))
        groups = parameter_groups(self.model, lr=4e-3, ssm_lr=1e-3, weight_decay=0.04, decay="all")
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8)
        self.scheduler = scheduler(self.optimizer, entry["n_warmup"], entry["n_steps_total"])
        self.pruner = self._pruner(dict(entry["pruner"]))

    def _pruner(self, options: dict) -> Pruner | None:
        if options["algorithm"] == "no_prune":
            return None
        if (options["algorithm"], options["dist_type"]) != ("magnitude_ste", "erk"):
            raise ValueError(f"golden file: unknown pruner {options}")
        schedule = CubicSchedule(options["update_start_step"], options["update_end_step"])
        return Pruner(self.model, options["sparsity"], "erk", schedule, mode="paper").attach()

    def run(self) -> None:
        stft, length = Stft(window="boxcar"), self.file["noisy"].shape[-1]
        noisy, clean_mag = stft.analyse(self.file["noisy"]), stft.analyse(self.file["clean"]).abs()
        for n, expected in enumerate(self.file.arrays["losses"]):
            if self.pruner:
                self.pruner.step(n)
            self._compare(n, f"masked_params_step{n}")
            self._compare_sparsity_and_rates(n)
            M, _ = self.model(magnitude_features(noisy))
            cleaned = stft.synthesise(apply_mask(noisy, M), length)
            loss = paper_loss(cleaned, self.file["clean"], noisy.abs() * (1 + M), clean_mag)
            assert loss.item() == pytest.approx(expected, rel=1e-6 if n == 0 else 1e-5), f"step {n}: loss"
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            self._compare(n, f"after_step{n}/params")
            self._compare(n, f"after_step{n}/batch_stats")

    def _compare_sparsity_and_rates(self, n: int) -> None:
        zeros = sum((p == 0).sum().item() for p in self.model.parameters())
        sparsity = zeros / sum(p.numel() for p in self.model.parameters())
        expected = self.file.arrays["sparsity_total"][n]
        assert sparsity == pytest.approx(expected, abs=FLIPPED), f"step {n}: sparsity"
        rates = {group["name"]: group["lr"] for group in self.optimizer.param_groups}
        expected = tuple(self.file.arrays["lrs_ssm_regular"][n])
        assert (rates["ssm"], rates["decayed"]) == pytest.approx(expected, rel=1e-6), f"step {n}: rates"

    def _compare(self, n: int, prefix: str) -> None:
        """Adam makes a whole step of a gradient's rounding; a mask may keep either of two like weights."""
        found = self.model.state_dict()
        for name, expected in named_tensors(self.file.under(prefix)).items():
            flipped = (found[name] == 0) != (expected == 0)
            assert flipped.float().mean() <= FLIPPED, f"{prefix}: {name} is masked differently"
            ours = torch.where(flipped, expected, found[name])
            self.tally.near(f"{prefix} {name}", ours, expected, 1e-4 if n == 0 else 2e-3, floor=1e-2)


def test_training_trajectories():
    check_each(listed("train"), lambda file, tally: Trajectory(file, tally).run())
