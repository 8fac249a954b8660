"""The tokenizer against hand-written expectations and an independent implementation."""

from pathlib import Path

import pytest

from tasks.tokenization import Tokenizer, check_vocabulary_size, load_tokenizer
from twinquant.errors import UserError


def tokenize(tokenizer: Tokenizer, text: str) -> list[str]:
    """The word pieces of one text as strings."""
    return [tokenizer.tokens[index] for index in tokenizer.encode_texts([text])[0]]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        pytest.param("The CAT sat", ["the", "cat", "sat"], id="lower-cases"),
        pytest.param("unaffable", ["un", "##aff", "##able"], id="word pieces"),
        pytest.param("cats", ["cat", "##s"], id="suffix"),
        pytest.param("zebra", ["[UNK]"], id="no full cover is [UNK]"),
        pytest.param("Café", ["cafe"], id="accent stripped"),
        pytest.param("Cafe\u0301", ["cafe"], id="combining accent stripped"),
        pytest.param("a北京a", ["a", "北", "京", "a"], id="Chinese split"),
        pytest.param("cat's(mat)", ["cat", "'", "s", "(", "mat", ")"], id="punctuation split"),
        pytest.param("c\u0000a\u200bt", ["cat"], id="control characters removed"),
        pytest.param("the\u00a0cat\u3000sat", ["the", "cat", "sat"], id="Unicode spaces"),
        pytest.param("[SEP] in", ["[", "sep", "]", "in"], id="special tokens in text are text"),
        pytest.param(" ", [], id="nothing"),
    ],
)
def test_pieces(tokenizer: Tokenizer, text: str, pieces: list[str]) -> None:
    assert tokenize(tokenizer, text) == pieces


def test_vocabulary_is_the_whole_file(tokenizer: Tokenizer, vocab_file: Path) -> None:
    lines = vocab_file.read_text(encoding="utf-8").splitlines()
    assert tokenizer.tokens == lines
    assert tokenizer.vocab == {token: index for index, token in enumerate(lines)}
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id) == (0, 1, 2, 3)


def test_case_and_accents_are_kept_without_lower_casing(vocab_file: Path) -> None:
    vocab_file.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nCafé\ncafe\n", encoding="utf-8")
    cased = load_tokenizer(vocab_file, do_lower_case=False)
    assert tokenize(cased, "Café CAFE cafe") == ["Café", "[UNK]", "cafe"]


@pytest.mark.parametrize(("length", "known"), [(200, True), (201, False)])
def test_words_of_up_to_200_characters(vocab_file: Path, length: int, known: bool) -> None:
    vocab_file.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n##a\n", encoding="utf-8")
    expected = ["a"] + ["##a"] * (length - 1) if known else ["[UNK]"]
    assert tokenize(load_tokenizer(vocab_file), "a" * length) == expected


def test_words_index_the_given_lists(tokenizer: Tokenizer) -> None:
    texts = tokenizer.encode_words([["cats", "\x00", "(mat)"], [], ["the", "cats"]])
    assert texts.offsets.tolist() == [0, 5, 5, 8]
    assert texts.words.tolist() == [0, 0, 2, 2, 2, 0, 1, 1]
    assert [tokenizer.tokens[index] for index in texts[0]] == ["cat", "##s", "(", "mat", ")"]
    assert [tokenizer.tokens[index] for index in texts[2]] == ["the", "cat", "##s"]
    assert len(texts) == 3 and len(tokenizer.encode_words([])) == 0


def test_many_words_in_several_calls(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = [[f"{number}cats", "the"] for number in range(40)]
    whole = tokenizer.encode_words(lists)
    monkeypatch.setattr("tasks.tokenization.WORDS_PER_TEXT", 3)
    monkeypatch.setattr("tasks.tokenization.TEXTS_PER_CALL", 2)
    parts = tokenizer.encode_words(lists)
    for name in ("ids", "words", "offsets"):
        assert getattr(parts, name).tolist() == getattr(whole, name).tolist()


def test_basic_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.basic_tokens("Jim's Café-北") == ["jim", "'", "s", "cafe", "-", "北"]


def test_last_of_duplicate_lines_wins(vocab_file: Path) -> None:
    vocab_file.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\ncat\nmat\ncat\n\n\n", encoding="utf-8")
    tokenizer = load_tokenizer(vocab_file, vocab_size=7)
    assert tokenizer.encode_texts(["cat mat"])[0].tolist() == [6, 5]


def test_windows_line_ends_and_byte_order_mark(vocab_file: Path) -> None:
    vocab_file.write_bytes(b"\xef\xbb\xbf[PAD]\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\ncat\r\n")
    assert load_tokenizer(vocab_file).tokens == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "cat"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "does not exist", id="missing"),
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"\n\n", "is empty", id="blank lines"),
        pytest.param(b"[PAD]\n\xff\xfe\n", "not UTF-8", id="not text"),
        pytest.param(b"[PAD]\n[CLS]\n[SEP]\ncat\n", r"\(4 tokens\) has no \[UNK\];", id="no UNK"),
        pytest.param(b"cat\nmat\n", r"has no \[PAD\], \[UNK\], \[CLS\], \[SEP\]", id="no special token"),
    ],
)
def test_unusable_vocabulary(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "vocab.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        load_tokenizer(path)
    assert str(path) in str(error.value)


def test_folder_as_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(("tokens", "rows"), [(30522, 30522), (30522, 30528), (21128, 21128), (9, 16)])
def test_vocabulary_fits_embeddings(tokens: int, rows: int) -> None:
    check_vocabulary_size(tokens, rows, "vocab.txt")


@pytest.mark.parametrize(("tokens", "rows"), [(30522, 21128), (30522, 30523), (30522, 30536), (8, 16), (30528, 30522)])
def test_vocabulary_of_another_model(tokens: int, rows: int) -> None:
    with pytest.raises(UserError, match=f"vocab.txt has {tokens} tokens, but .* {rows} rows"):
        check_vocabulary_size(tokens, rows, "vocab.txt")


def test_agrees_with_transformers_on_real_text(shared_data: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = load_tokenizer(shared_data / "models/minilm-squad/vocab.txt", vocab_size=30522)
    reference = transformers.BertTokenizer(vocab=dict(tokenizer.vocab), do_lower_case=True)
    text = (shared_data / "squad/xquad.en.json").read_text(encoding="utf-8")
    lines = [text[begin : begin + 400] for begin in range(0, 200_000, 400)]
    assert reference.vocab_size == 30522  # not the five tokens that a wrong argument gives
    for line, ids in zip(lines, reference(lines, add_special_tokens=False)["input_ids"], strict=True):
        assert tokenizer.encode_texts([line])[0].tolist() == ids
