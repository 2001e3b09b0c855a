"""`lrnn generate` and `lrnn eval text` on a tiny random program: what is drawn, scored and refused."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import lrnn
from lrnn.cli import main
from lrnn.data.generate import Generator, Sampler
from lrnn.data.text_program import BLOCK, Scored, Scorer, bits_per_byte, tokenizer_of
from lrnn.nn import HGRNBlockConfig, LanguageModel, LanguageModelConfig
from lrnn.ops.libraries import core_library

META = {"text": {"tokenizer": None}}
ENGINES = ("numpy", "torch")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    block = HGRNBlockConfig(d_model=8, d_state=8, d_hidden=12, relu="gates")
    made = LanguageModel(LanguageModelConfig(n_layers=2, block=block)).eval()
    with torch.no_grad():
        made.head.weight *= 3
    return made


@pytest.fixture(scope="module")
def program(model):
    return lrnn.compile(model, META)


@pytest.fixture(scope="module")
def path(program, tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "m.lrnn"
    program.save(path)
    return str(path)


@pytest.fixture
def text(tmp_path):
    (tmp_path / "a_val.txt").write_text("the cat sat\n" * 30)
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "b.txt").write_text("é" * 50)
    return str(tmp_path)


class TestSampler:
    def test_zero_temperature_takes_the_likeliest(self):
        assert Sampler(0.0)(np.array([0.1, 3.0, 2.9])) == 1

    def test_draws_follow_the_softmax(self):
        logits, sampler = np.log([0.1, 0.2, 0.7]), Sampler(seed=1)
        share = np.bincount([sampler(logits) for _ in range(4000)], minlength=3) / 4000
        np.testing.assert_allclose(share, [0.1, 0.2, 0.7], atol=0.03)

    def test_temperature_divides_the_logits(self):
        logits, sampler = np.log([0.1, 0.9]), Sampler(0.5, seed=1)
        share = np.mean([sampler(logits) for _ in range(4000)])
        assert share == pytest.approx(0.81 / 0.82, abs=0.01)

    @pytest.mark.parametrize(
        ("top_p", "drawn"), [(0.5, {2}), (0.75, {2, 1}), (0.95, {0, 1, 2}), (1.0, {0, 1, 2})]
    )
    def test_top_p_keeps_the_fewest_that_reach_it(self, top_p, drawn):
        logits, sampler = np.log([0.1, 0.2, 0.7]), Sampler(1.0, top_p, seed=1)
        assert {sampler(logits) for _ in range(300)} == drawn

    @pytest.mark.parametrize("top_p", [0.05, 0.4, 0.9])
    @pytest.mark.parametrize("spread", [0.2, 2.0])
    def test_draws_follow_the_softmax_of_what_sorting_keeps(self, spread, top_p):
        logits = (spread * np.random.default_rng(3).standard_normal(40)).astype(np.float32)
        p = np.exp(logits.astype(np.float64) / 0.8)
        p /= p.sum()
        order = np.argsort(-p)
        kept = order[: np.searchsorted(np.cumsum(p[order]), top_p) + 1]
        expected = np.zeros(40)
        expected[kept] = p[kept] / p[kept].sum()
        sampler, draws = Sampler(0.8, top_p, seed=4), 6000
        share = np.bincount([sampler(logits) for _ in range(draws)], minlength=40) / draws
        assert set(np.flatnonzero(share)) == set(kept)
        assert (np.abs(share - expected) <= 5 * np.sqrt(expected / draws)).all()

    def test_equally_likely_tokens_are_all_kept(self):
        logits, sampler = np.log([0.3, 0.1, 0.3, 0.3]), Sampler(1.0, 0.5, seed=1)
        share = np.bincount([sampler(logits) for _ in range(3000)], minlength=4) / 3000
        np.testing.assert_allclose(share, [1 / 3, 0, 1 / 3, 1 / 3], atol=0.04)

    def test_minus_infinity_is_never_drawn(self):
        logits, sampler = np.array([-np.inf, 0.0, -np.inf, 0.0, -np.inf], np.float32), Sampler(seed=1)
        assert {sampler(logits) for _ in range(100)} == {1, 3}

    @pytest.mark.parametrize("wrong", [np.nan, np.inf])
    @pytest.mark.parametrize("temperature", [0.0, 1.0])
    def test_reports_what_is_not_finite(self, temperature, wrong):
        with pytest.raises(ValueError, match=rf"logits\[1\] is {wrong}, expected finite numbers"):
            Sampler(temperature)(np.array([0.0, wrong, 1.0]))

    def test_leaves_the_logits_as_they_are(self):
        logits = np.array([1.0, 2.0, 3.0])
        Sampler(0.5, 0.1)(logits)
        assert logits.tolist() == [1, 2, 3]

    def test_a_seed_repeats(self):
        logits = np.zeros(256)
        one, other = ([sampler(logits) for _ in range(20)] for sampler in (Sampler(seed=5), Sampler(seed=5)))
        assert one == other != [Sampler(seed=6)(logits) for _ in range(20)]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"temperature": -1.0}, "temperature is -1.0, expected a finite number, 0 or more"),
            ({"temperature": math.nan}, "temperature is nan"),
            ({"top_p": 0.0}, "top_p is 0.0, expected 0 < top_p <= 1"),
            ({"seed": -1}, "seed is -1, expected 0 or more"),
        ],
    )
    def test_names_the_option(self, options, message):
        with pytest.raises(ValueError, match=message):
            Sampler(**options)


class TestGenerator:
    @pytest.mark.parametrize("engine", ENGINES)
    def test_is_the_model_step_by_step(self, engine, model, program):
        generator = Generator(program, engine)
        assert generator.read("To be") == 5
        tokens = list(b"To be")
        for found in generator.tokens(8, Sampler(0.0)):
            with torch.no_grad():
                logits, _ = model(torch.tensor([tokens]))
            assert found == logits[0, -1].argmax().item()
            tokens.append(found)

    def test_text_may_come_in_pieces(self, program):
        one, other = Generator(program, "numpy"), Generator(program, "numpy")
        one.read("To be or")
        other.read("To ")
        other.read("be or")
        assert list(one.tokens(9, Sampler(seed=2))) == list(other.tokens(9, Sampler(seed=2)))

    def test_needs_text(self, program):
        with pytest.raises(ValueError, match="no text to go on from"):
            next(Generator(program, "numpy").tokens(1, Sampler()))

    def test_refuses_other_programs(self, program):
        with pytest.raises(ValueError, match="has no entry 'text' in its meta"):
            Generator(replace(program, meta={}), "numpy")

    def test_a_tokenizer_wants_enough_logits(self, program):
        tokenizers = pytest.importorskip("tokenizers")
        made = tokenizers.Tokenizer(
            tokenizers.models.WordLevel({str(n): n for n in range(300)}, unk_token="0")
        )
        with pytest.raises(ValueError, match="gives 256 logits, expected at least 300"):
            tokenizer_of(replace(program, meta={"text": {"tokenizer": made.to_str()}}))


class TestScorer:
    @pytest.mark.parametrize("engine", ENGINES)
    def test_is_the_model_on_the_whole_document(self, engine, model, program, monkeypatch):
        monkeypatch.setattr("lrnn.data.text_program._LOGITS", 7 * 256)  # in chunks of 7 tokens
        document = b"the cat sat on the mat"
        tokens = torch.tensor([list(document)])
        with torch.no_grad():
            log_p = model(tokens[:, :-1])[0][0].double().log_softmax(-1)
        expected = -log_p.gather(1, tokens[0, 1:, None])[:, 0].numpy() / math.log(2)
        scorer = Scorer(program, engine)
        for _ in range(2):  # each document from the state zero
            score = scorer(document)
            assert score.bytes == len(document)
            np.testing.assert_allclose(score.bits, [8.0, *expected], rtol=1e-4)

    def test_takes_the_fastest_engine_there_is(self, program, monkeypatch):
        built = core_library()[0] is not None
        assert Scorer(program).engine == ("native" if built else "torch")
        monkeypatch.setattr("lrnn.data.text_program.default_engine", lambda: "numpy")
        assert Scorer(program).engine == "torch"

    @pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 15, 16])
    def test_counts_its_pieces(self, length, program, monkeypatch):
        monkeypatch.setattr("lrnn.data.text_program._LOGITS", 7 * 256)
        scorer, tokens = Scorer(program), np.zeros(length, np.uint8)
        assert len(list(scorer.pieces(tokens))) == scorer.count(tokens)

    @pytest.mark.parametrize("document", [b"", b"a"])
    def test_short_documents(self, document, program):
        assert Scorer(program)(document).bits.tolist() == [8.0] * len(document)

    def test_bits_per_byte_is_a_ratio_with_an_interval(self):
        rng = np.random.default_rng(0)
        scores = [Scored(rng.random(n), 2 * n) for n in (3 * BLOCK + 5, 10, 2 * BLOCK)]
        found = bits_per_byte(scores)
        total = sum(s.bits.sum() for s in scores) / sum(s.bytes for s in scores)
        assert found.mean == pytest.approx(total, rel=1e-12)
        assert found.low < total < found.high
        assert found.high - found.low < 0.02

    def test_no_text(self):
        with pytest.raises(ValueError, match="scores is empty"):
            bits_per_byte([Scored(np.empty(0), 0)])


class TestCommands:
    def test_generate(self, path, capsys):
        runs = []
        for seed in (1, 1, 2):
            assert (
                main(
                    [
                        "generate",
                        "Hé",
                        "--model",
                        path,
                        "--tokens",
                        "40",
                        "--engine",
                        "numpy",
                        f"--seed={seed}",
                    ]
                )
                == 0
            )
            out, err = capsys.readouterr()
            assert out.startswith("Hé")
            assert err.startswith("40 bytes, ")
            assert err.endswith(" bytes/s, numpy engine\n")
            runs.append(out)
        assert runs[0] == runs[1] != runs[2]

    def test_generate_reads_stdin(self, path, capsys, monkeypatch):
        monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe"))
        assert main(["generate", "-", "--model", path, "--tokens", "0", "--engine", "numpy"]) == 0
        assert capsys.readouterr().out == "from a pipe\n"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([""], "TEXT is empty, expected at least one character"),
            (["x", "--tokens", "-1"], "--tokens is -1, expected 0 or more"),
            (["x", "--top-p", "2"], "top_p is 2.0, expected 0 < top_p <= 1"),
        ],
    )
    def test_generate_refuses(self, arguments, message, path, capsys):
        assert main(["generate", *arguments, "--model", path, "--engine", "numpy"]) == 2
        assert capsys.readouterr().err == f"lrnn: error: {message}\n"

    def test_generate_refuses_what_is_no_text(self, path, capsys, monkeypatch):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff"), "utf-8"))
        for text in ("\udcff", "-"):
            assert main(["generate", text, "--model", path, "--engine", "numpy"]) == 2
            assert capsys.readouterr().err.startswith("lrnn: error: TEXT is not UTF-8 ('utf-8' codec can't")

    def test_eval(self, path, program, text, capsys):
        assert main(["eval", "text", "--data", text, "--model", path, "--engine", "torch", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        scorer = Scorer(program)
        scores = [scorer(b"the cat sat\n" * 30), scorer("é".encode() * 50)]
        assert report["bits_per_byte"] == pytest.approx(bits_per_byte(scores).mean)
        assert (report["bytes"], report["tokens"]) == (460, 460)
        assert [f["name"] for f in report["files"]] == ["a_val.txt", "b.txt"]
        assert main(["eval", "text", "--data", text, "--model", path, "--engine", "numpy"]) == 0
        out = capsys.readouterr().out
        assert f"460 bytes, 460 tokens: {report['bits_per_byte']:.3f} bits per byte" in out

    def test_eval_of_the_first_bytes(self, path, text, capsys):
        command = ["eval", "text", "--data", text, "--model", path, "--engine", "torch", "--json"]
        assert main([*command, "--bytes", "15"]) == 0
        assert [f["bytes"] for f in json.loads(capsys.readouterr().out)["files"]] == [
            15,
            14,
        ]  # whole characters

    def test_eval_of_too_few_bytes_for_a_character(self, path, text, capsys):
        command = ["eval", "text", "--model", path, "--engine", "torch", "--json", "--bytes", "1", "--data"]
        assert main([*command, text]) == 0
        report = json.loads(capsys.readouterr().out)
        assert [(f["name"], f["bytes"]) for f in report["files"]] == [("a_val.txt", 1)]
        assert main([*command, f"{text}/val/b.txt"]) == 2
        assert capsys.readouterr().err == f"lrnn: error: {text}/val/b.txt: no text, expected some\n"

    def test_eval_refuses(self, path, text, tmp_path, capsys, monkeypatch):
        monkeypatch.delenv("LRNN_DATA", raising=False)
        empty = tmp_path / "empty"
        empty.mkdir()
        for arguments, message in (
            ([], "no data: expected --data DIR or LRNN_DATA in the environment"),
            (["--data", text, "--bytes", "0"], "--bytes is 0, expected at least 1"),
            (["--data", str(empty)], f"{empty}: 0 .txt and .parquet files, none of them for val"),
        ):
            assert main(["eval", "text", "--model", path, "--engine", "torch", *arguments]) == 2
            assert message in capsys.readouterr().err

    def test_eval_draws_how_far_it_is(self, path, text, capsys, monkeypatch):
        drawn = []
        monkeypatch.setattr("lrnn.data.text_program._LOGITS", 20 * 256)
        monkeypatch.setattr(
            "lrnn.cli.eval_text.progress",
            lambda items, total, label: drawn.append((made := list(items), total, label)) or made,
        )
        assert main(["eval", "text", "--data", text, "--model", path, "--engine", "numpy"]) == 0
        ((pieces, total, _),) = drawn
        assert len(pieces) == total == 1 + 18 + 1 + 5  # of 360 and of 100 bytes

    def test_eval_names_the_file_that_is_no_utf_8(self, program, tmp_path, capsys):
        tokenizers = pytest.importorskip("tokenizers")
        made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))
        replace(program, meta={"text": {"tokenizer": made.to_str()}}).save(tmp_path / "m.lrnn")
        (tmp_path / "b.txt").write_bytes(b"abc\xff")
        command = ["eval", "text", "--data", str(tmp_path / "b.txt"), "--engine", "torch"]
        assert main([*command, "--model", str(tmp_path / "m.lrnn")]) == 2
        expected = f"lrnn: error: {tmp_path / 'b.txt'}: not UTF-8 at byte 3, which the tokenizer wants\n"
        assert capsys.readouterr().err == expected

    def test_profile_measures_activity_on_text(self, path, text, tmp_path, capsys):
        file = f"{text}/a_val.txt"
        np.save(tmp_path / "x.npy", np.frombuffer(b"the cat sat\n" * 30, np.uint8)[:, None])
        reports = []
        for data in (["--data", file], ["--data", str(tmp_path / "x.npy")], []):
            assert main(["profile", path, "--json", *data]) == 0
            nodes = json.loads(capsys.readouterr().out)["nodes"]
            reports.append({node["name"]: node["activity"] for node in nodes})
        one, same, default = reports
        assert one == same != default
        relu = "stack.blocks.0.mixer.o_proj"  # its input went through a ReLU
        assert 0 < one[relu] < 1
        assert 0 < default[relu] < 1

    def test_profile_takes_the_first_tokens_of_a_text(self, path, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr("lrnn.cli.profile._MOST_TOKENS", 17)
        (tmp_path / "x.txt").write_text("abcdefg " * 10)
        assert main(["profile", path, "--data", str(tmp_path / "x.txt")]) == 0
        assert "mean of 17 frames" in capsys.readouterr().out

    def test_profile_refuses(self, path, tmp_path, capsys):
        (tmp_path / "empty.txt").touch()
        (tmp_path / "x.wav").write_bytes(b"RIFF")
        for name, message in (
            ("empty.txt", "no text in it, expected at least one character"),
            ("x.wav", "found suffix '.wav', expected .txt or .parquet"),
            ("none.txt", "no such file, expected text"),
        ):
            assert main(["profile", path, "--data", str(tmp_path / name)]) == 2
            assert capsys.readouterr().err == f"lrnn: error: {tmp_path / name}: {message}\n"

    def test_quantize_calibrates_on_text(self, program, text, tmp_path, monkeypatch):
        from lrnn.cli import quantize

        (tmp_path / "c_train.txt").write_text("the dog ran\n" * 400)
        args = type("Args", (), {"calibrate": text, "clips": 3})
        batches = list(quantize._batches(program, args))
        assert [batch.shape for batch in batches] == [(1, 1024, 1)] * 3
        assert bytes(batches[0][0, :, 0].to(torch.uint8).numpy()) in b"the dog ran\n" * 400
