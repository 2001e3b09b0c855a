"""Text as tokens: which files, which documents, tokens kept on disk, packed rows, text back from tokens."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from text_cases import word_tokenizer

from lrnn.data.rows import IGNORED, EvenRows, Rows, row_at
from lrnn.data.text import documents, find_text, split_of
from lrnn.data.tokenizer import Tokenizer
from lrnn.data.tokens import Part, Tokens, read_tokens

few = settings(max_examples=30, deadline=None)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LRNN_CACHE", str(tmp_path / "cache"))


def corpus(folder: Path, **files: bytes) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_txt", ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    return folder


def of(*texts: bytes) -> Tokens:
    """Each text a part with one document."""
    starts = [np.zeros(min(len(text), 1), np.int64) for text in texts]
    return Tokens([Part(np.frombuffer(text, np.uint8), s) for text, s in zip(texts, starts, strict=True)])


def write_parquet(path: Path, texts: list, column: str = "text") -> Path:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table({column: texts, "id": list(range(len(texts)))}), path)
    return path


class TestFiles:
    def test_splits_by_folder_and_by_name(self, tmp_path):
        data = corpus(
            tmp_path,
            a_train_txt=b"a",
            a_val_txt=b"b",
            deep__train__x_txt=b"c",
            deep__val__y_txt=b"d",
            z_txt=b"e",
        )
        names = {split: [p.name for p in find_text(data, split)] for split in ("train", "val")}
        assert names == {"train": ["a_train.txt", "x.txt", "z.txt"], "val": ["a_val.txt", "y.txt"]}

    @pytest.mark.parametrize(
        ("path", "split"),
        [
            ("a.txt", "train"),
            ("books/b-test.txt", "val"),
            ("Validation/c.parquet", "val"),
            ("vale.txt", "train"),
        ],
    )
    def test_what_a_path_says(self, path, split):
        assert split_of(Path(path)) == split

    def test_text_mini_below_a_folder_is_found_and_nothing_beside_it(self, tmp_path):
        corpus(tmp_path, other__list_txt=b"no")
        corpus(tmp_path / "text-mini", t_train_txt=b"yes")
        assert [p.name for p in find_text(tmp_path, "train")] == ["t_train.txt"]

    def test_a_file_is_any_split(self, tmp_path):
        path = corpus(tmp_path, a_txt=b"x") / "a.txt"
        assert find_text(path, "val") == find_text(path, "train") == [path]

    def test_errors_say_what_was_found(self, tmp_path):
        corpus(tmp_path, a_txt=b"x")
        with pytest.raises(FileNotFoundError, match=r"1 \.txt and \.parquet files, none of them for val"):
            find_text(tmp_path, "val")
        (tmp_path / "a.md").write_text("x")
        with pytest.raises(ValueError, match=r"a\.md: found suffix '\.md', expected \.txt or \.parquet"):
            find_text(tmp_path / "a.md", "train")
        with pytest.raises(FileNotFoundError, match=r"none: no such file or folder, expected text"):
            find_text(tmp_path / "none", "train")

    def test_documents_of_parquet(self, tmp_path):
        texts = ["one", "", None, "zwölf", *(str(n) for n in range(2000))]
        path = write_parquet(tmp_path / "a.parquet", texts)
        assert [d.decode() for d in documents(path)] == [t for t in texts if t]

    def test_parquet_faults_name_the_file(self, tmp_path):
        with pytest.raises(ValueError, match=r"a\.parquet: found the columns words, id, expected 'text'"):
            list(documents(write_parquet(tmp_path / "a.parquet", ["x"], "words")))
        with pytest.raises(ValueError, match=r"b\.parquet: the column 'text' holds int64, expected strings"):
            list(documents(write_parquet(tmp_path / "b.parquet", [1])))
        (tmp_path / "c.parquet").write_bytes(b"nothing of the kind")
        with pytest.raises(ValueError, match=r"c\.parquet: not a parquet file that can be read"):
            list(documents(tmp_path / "c.parquet"))

    @pytest.mark.parametrize("place", [10, 0.5])
    def test_damage_within_parquet_names_the_file(self, place, tmp_path):
        path = write_parquet(tmp_path / "a.parquet", [f"some words {n}" * 40 for n in range(500)])
        whole = bytearray(path.read_bytes())
        at = place if isinstance(place, int) else int(place * len(whole))
        whole[at : at + 40] = b"\xff" * 40
        path.write_bytes(whole)
        with pytest.raises(ValueError, match=r"a\.parquet: not a parquet file that can be read \(.*\)$"):
            list(documents(path))

    def test_parquet_of_strings_that_are_no_utf8(self, tmp_path):
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        places = pa.py_buffer(np.array([0, 2, 4], np.int32))
        column = pa.Array.from_buffers(pa.string(), 2, [None, places, pa.py_buffer(b"ab\xff\xfe")])
        parquet.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
        with pytest.raises(ValueError, match=r"a\.parquet: not a parquet file that can be read .*utf-8"):
            list(documents(tmp_path / "a.parquet"))


class TestTokens:
    @given(st.lists(st.binary(max_size=9), max_size=5), st.data())
    @few
    def test_reads_across_parts(self, texts, data):
        tokens, whole = of(*texts), b"".join(texts)
        assert len(tokens) == len(whole)
        start = data.draw(st.integers(0, len(whole)))
        stop = data.draw(st.integers(start, len(whole)))
        found, first = tokens.read(start, stop)
        assert bytes(found.astype(np.uint8)) == whole[start:stop]
        starts = {sum(map(len, texts[:i])) for i, text in enumerate(texts) if text}
        assert [start + int(i) for i in np.flatnonzero(first)] == sorted(
            s for s in starts if start <= s < stop
        )

    def test_bytes_of_text_files_and_parquet(self, tmp_path):
        corpus(tmp_path, a_txt=b"abc", b_txt=b"")
        write_parquet(tmp_path / "c.parquet", ["de", "f"])
        found, first = (tokens := read_tokens(find_text(tmp_path, "train"), Tokenizer())).read(0, len(tokens))
        assert bytes(found.astype(np.uint8)) == b"abcdef"
        assert first.tolist() == [True, False, False, True, False, True]

    def test_tokens_are_made_once_and_anew_when_the_file_changes(self, tmp_path):
        path, cache = write_parquet(tmp_path / "a.parquet", ["abc"]), tmp_path / "cache"
        read_tokens([path], Tokenizer())
        (kept,) = cache.glob("*.bin")
        kept.write_bytes(b"xyz")
        assert bytes(read_tokens([path], Tokenizer()).read(0, 3)[0].astype(np.uint8)) == b"xyz"
        write_parquet(path, ["abd"])
        os.utime(path, ns=(1, 1))
        assert bytes(read_tokens([path], Tokenizer()).read(0, 3)[0].astype(np.uint8)) == b"abd"

    def test_nothing_half_made_is_kept(self, tmp_path):
        path = tmp_path / "a.txt"
        path.write_bytes(b"the cat \xff")
        tokenizer = Tokenizer.read(word_tokenizer(tmp_path / "tokenizer.json"))
        with pytest.raises(ValueError, match=r"a\.txt: not UTF-8 at byte 8, which the tokenizer wants"):
            read_tokens([path], tokenizer)
        assert not list((tmp_path / "cache").iterdir())

    def test_a_tokenizer(self, tmp_path):
        text = "the cat sat on the mat"
        path = write_parquet(tmp_path / "a.parquet", [text, "é"])
        tokenizer = Tokenizer.read(word_tokenizer(tmp_path / "tokenizer.json"))
        tokens = read_tokens([path], tokenizer)
        (alone,) = tokenizer.encode([text.encode()])
        found, first = tokens.read(0, len(tokens))
        assert len(alone) < len(text)
        assert found[: len(alone)].tolist() == alone.tolist()
        assert np.flatnonzero(first).tolist() == [0, len(alone)]
        assert tokenizer.dtype == np.uint16

    def test_a_tokenizer_that_cuts_and_pads_batches_gives_whole_texts(self, tmp_path):
        tokenizers = pytest.importorskip("tokenizers")
        path = word_tokenizer(tmp_path / "tokenizer.json")
        made = tokenizers.Tokenizer.from_file(str(path))
        made.enable_truncation(3)
        made.enable_padding(length=8)
        texts = [b"the cat sat on the mat", b"a"]
        found = Tokenizer(made.to_str()).encode(texts)
        expected = Tokenizer.read(path).encode(texts)
        assert [tokens.tolist() for tokens in found] == [tokens.tolist() for tokens in expected]

    def test_numbers_may_be_left_out(self):
        tokenizers = pytest.importorskip("tokenizers")
        made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 300}, unk_token="a"))
        made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        tokenizer = Tokenizer(made.to_str())
        assert (tokenizer.vocabulary, tokenizer.dtype) == (301, np.uint16)
        assert tokenizer.encode([b"a b"])[0].tolist() == [0, 300]

    def test_no_text_at_all(self, tmp_path):
        corpus(tmp_path, a_txt=b"")
        with pytest.raises(ValueError, match=r"a\.txt: no text, expected some"):
            read_tokens(find_text(tmp_path, "train"), Tokenizer())


class TestRows:
    def test_a_row(self):
        row = row_at(of(b"abc", b"defg"), 1, 4)
        assert bytes(row.tokens.to(torch.uint8).numpy()) == b"bcde"
        assert row.targets.tolist() == [ord("c"), IGNORED, ord("e"), ord("f")]
        assert row.reset.tolist() == [False, False, True, False]

    @given(st.integers(20, 60), st.integers(1, 9), st.integers(0, 99))
    @few
    def test_a_pass_sees_no_token_twice_and_nearly_all(self, n, length, seed):
        tokens = Tokens([Part(np.arange(n, dtype=np.uint8), np.zeros(1, np.int64))])
        rows = Rows(tokens, length, seed, 0, 1)
        for number in range(2):
            seen = [t for k in range(rows.per_pass) for t in rows[number * rows.per_pass + k].tokens.tolist()]
            assert len(set(seen)) == len(seen) > n - 2 * length

    def test_follow_from_seed_stream_and_number_alone(self):
        tokens = of(bytes(np.random.default_rng(0).integers(256, size=500, dtype=np.uint8)))
        one, other = (Rows(tokens, 10, 3, 0, 1) for _ in range(2))
        _ = [other[n] for n in range(100)]
        assert all(torch.equal(one[n].tokens, other[n].tokens) for n in (0, 7, 60, 1000))
        for changed in (Rows(tokens, 10, 4, 0, 1), Rows(tokens, 10, 3, 1, 1)):
            assert not all(torch.equal(one[n].tokens, changed[n].tokens) for n in range(5))
        assert one[0].tokens.tolist() != one[one.per_pass].tokens.tolist()

    @given(st.integers(3, 60), st.integers(1, 9), st.integers(1, 9))
    @few
    def test_even_rows_span_the_text_without_overlap(self, n, length, count):
        if n <= length:
            return
        rows = EvenRows(Tokens([Part(np.arange(n, dtype=np.uint8), np.zeros(1, np.int64))]), length, count)
        starts = [row.tokens[0].item() for row in rows]
        assert starts[0] == 0
        assert all(b - a >= length for a, b in pairwise(starts))
        assert len(rows) == min(count, (n - 1) // length)

    def test_too_little_text(self):
        with pytest.raises(ValueError, match="length is 4, expected at most 3, half the tokens there are"):
            Rows(of(b"abcdefg"), 4, 0, 0, 1)
        with pytest.raises(ValueError, match="length is 3, expected 1 to 2, the tokens to predict"):
            EvenRows(of(b"abc"), 3, 1)
        with pytest.raises(ValueError, match="length is 0, expected 1 to 2, the tokens to predict"):
            EvenRows(of(b"abc"), 0, 1)


class TestDecoding:
    @given(st.text(max_size=20))
    @few
    def test_bytes_give_whole_characters(self, text):
        decoder = Tokenizer().decoder()
        parts = [decoder.step(byte) for byte in text.encode()]
        assert "".join(parts) + decoder.end() == text
        assert all("\ufffd" not in part for part in parts) or "\ufffd" in text

    def test_what_is_no_utf8_is_replaced(self):
        decoder = Tokenizer().decoder()
        assert [decoder.step(b) for b in b"a\xff\xc3b"] == ["a", "\ufffd", "", "\ufffdb"]
        assert decoder.step(0xE2) == ""
        assert decoder.end() == "\ufffd"

    @pytest.mark.parametrize("text", ["the cat sat\non the mat\n\nand", "é the é", "日本 the"])
    def test_tokens_give_whole_characters(self, text, tmp_path):
        tokenizer = Tokenizer.read(word_tokenizer(tmp_path / "tokenizer.json"))
        decoder = tokenizer.decoder()
        parts = [decoder.step(int(t)) for t in tokenizer.encode([text.encode()])[0]]
        assert "".join(parts) + decoder.end() == text

    def test_a_line_may_begin_with_a_space(self):
        """A decoder that drops the first space of a text does not drop that of a line."""
        tokenizers = pytest.importorskip("tokenizers")
        made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"▁a": 0, "\n": 1, "▁b": 2}, unk_token="▁a"))
        made.decoder = tokenizers.decoders.Metaspace()
        tokens = [0, 2, 1, 2, 0, 1, 1, 2]
        decoder = Tokenizer(made.to_str()).decoder()
        assert "".join(map(decoder.step, tokens)) + decoder.end() == made.decode(tokens) == "a b\n b a\n\n b"

    def test_a_broken_tokenizer_is_named(self, tmp_path):
        pytest.importorskip("tokenizers")
        (tmp_path / "t.json").write_text("{}")
        with pytest.raises(ValueError, match=r"t\.json: not a tokenizer\.json"):
            Tokenizer.read(tmp_path / "t.json")
