"""TextWriter against single calls: the same ids, and on a CPU the same bits."""

import copy

import pytest
import torch
from conftest import tiny_config
from torch import Tensor

from janus_kit import engine, writing
from janus_kit.generation import native as native_code
from janus_kit.generation.sampling import SamplingOptions, uniforms
from janus_kit.model import Janus
from janus_kit.writing import Ended, TextWriter, write_text

EOS, PAD, IMAGE = 1, 2, 3
STEPS = 9
GREEDY = SamplingOptions(guidance=1, temperature=0)
DRAWN = SamplingOptions(guidance=1, temperature=0.3, top_p=0.95)


@pytest.fixture(scope="module")
def janus() -> Janus:
    """Random weights with which answers end after different numbers of tokens."""
    torch.manual_seed(3)
    model = Janus(tiny_config()).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.3 + 0.02)
    model.text_head.weight[EOS] *= 2.5
    return model


def asked(janus: Janus, count: int) -> tuple[list[list[int]], Tensor]:
    """Rows with one picture each, of unequal lengths, and the features of the pictures."""
    draw = torch.Generator().manual_seed(5)
    places = janus.config.vision.tokens
    rows = []
    for i in range(count):
        text = torch.randint(4, 300, (3 + (7 * i) % 11,), generator=draw).tolist()
        rows.append([*text[:2], *[IMAGE] * places, *text[2:]])
    features = torch.randn(count, places, janus.config.language.hidden, generator=draw)
    return rows, features


def use(steps: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have native steps, or PyTorch's, or those that a GPU replays, here without capture."""
    if steps != "native":
        for module in (engine, writing):
            monkeypatch.setattr(module, "native_step", lambda model, kind: None)
    monkeypatch.setattr(writing, "replays", lambda model: steps == "replayed")


def alone(janus: Janus, row: list[int], features: Tensor, options: SamplingOptions) -> list[int]:
    noise = uniforms([4], STEPS)
    written = write_text(
        janus,
        [row],
        [features],
        pad=PAD,
        eos=EOS,
        image=IMAGE,
        noise=noise,
        options=options,
    )
    ids = [int(token) for token in written]
    return ids[: ids.index(EOS)] if EOS in ids else ids


def together(
    janus: Janus, rows: list[list[int]], features: Tensor, size: int, options: SamplingOptions
) -> list[Ended]:
    """The rows through a writer of the given size; in the order in which they end."""
    writer = TextWriter(
        janus, size, eos=EOS, pad=PAD, image=IMAGE, noise=uniforms([4], STEPS)[0], options=options
    )
    waiting = list(enumerate(rows))
    ended: list[Ended] = []
    while waiting or writer.free < len(writer.names):
        part, waiting = waiting[: writer.free], waiting[writer.free :]
        writer.add([(name, row, [features[name]]) for name, row in part])
        if not waiting:
            writer.shrink()
        ended += writer.step()
    return ended


@pytest.mark.parametrize("options", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("steps", ["native", "torch", "replayed"])
def test_refilled_rows_are_answered_as_alone(
    janus: Janus, options: SamplingOptions, steps: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(steps, monkeypatch)
    rows, features = asked(janus, 30)
    expected = {i: alone(janus, row, features[i], options) for i, row in enumerate(rows)}
    lengths = {len(ids) for ids in expected.values()}
    assert len(lengths) > 3, lengths  # so that rows do end at different times
    for size in (1, 3, 8):
        ended = together(janus, rows, features, size, options)
        assert sorted(row.name for row in ended) == list(range(30))
        assert {row.name: row.ids for row in ended} == expected


@pytest.mark.parametrize("options", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_a_token_of_all_rows_is_one_wait_for_a_gpu(
    janus: Janus, options: SamplingOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    use("replayed", monkeypatch)
    rows, features = asked(janus, 3)
    noise = uniforms([4], STEPS)[0]
    writer = TextWriter(janus, 4, eos=-1, pad=PAD, image=IMAGE, noise=noise, options=options)
    writer.add([(i, row, [features[i]]) for i, row in enumerate(rows)])
    writer.step()
    waits = []

    def waited(tensor: Tensor, *given: object) -> list[int]:
        waits.append(len(tensor))
        return tolist(tensor)

    def refuse(*given: object, **named: object) -> None:
        raise AssertionError("a copy to the device, or a reading back")

    tolist = Tensor.tolist
    with monkeypatch.context() as patch:
        patch.setattr(Tensor, "tolist", waited)
        for name in ("item", "cpu", "numpy", "__bool__", "__int__", "__float__", "nonzero"):
            patch.setattr(Tensor, name, refuse)
        for name in ("tensor", "as_tensor", "from_numpy"):
            patch.setattr(torch, name, refuse)
        for _ in range(3):
            assert writer.step() == []
    assert waits == [4, 4, 4]


def test_a_long_answer_does_not_hold_up_the_others(janus: Janus) -> None:
    rows, features = asked(janus, 30)
    order = [row.name for row in together(janus, rows, features, 4, GREEDY)]
    assert order != sorted(order)


@pytest.mark.skipif(
    not native_code.available(), reason="PyTorch's products of several rows round differently"
)
def test_a_rows_logits_are_to_the_bit_those_that_it_has_alone(janus: Janus) -> None:
    rows, features = asked(janus, 12)

    def logits(size: int) -> dict[int, list[Tensor]]:
        writer = TextWriter(
            janus,
            size,
            eos=EOS,
            pad=PAD,
            image=IMAGE,
            noise=uniforms([4], STEPS)[0],
            options=GREEDY,
        )
        waiting = list(enumerate(rows))
        seen: dict[int, list[Tensor]] = {i: [] for i in range(len(rows))}
        while waiting or writer.free < len(writer.names):
            part, waiting = waiting[: writer.free], waiting[writer.free :]
            writer.add([(name, row, [features[name]]) for name, row in part])
            for place, name in enumerate(writer.names):
                if name is not None:
                    seen[name].append(writer.logits[place].clone())
            writer.step()
        return seen

    single, five = logits(1), logits(5)
    for name, found in single.items():
        assert len(found) == len(five[name])
        assert all(torch.equal(a, b) for a, b in zip(found, five[name], strict=True))


@pytest.mark.parametrize("steps", ["native", "torch", "replayed"])
def test_a_row_with_nan_fails_alone(
    janus: Janus, steps: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(steps, monkeypatch)
    rows, features = asked(janus, 10)
    expected = {i: alone(janus, row, features[i], GREEDY) for i, row in enumerate(rows) if i != 4}
    features[4] = float("nan")
    ended = together(janus, rows, features, 3, GREEDY)
    assert {row.name: row.ids for row in ended if row.error is None} == expected
    (bad,) = [row for row in ended if row.error is not None]
    assert (bad.name, "token 1 of the answer" in str(bad.error)) == (4, True)


@pytest.mark.parametrize("steps", ["native", "torch", "replayed"])
def test_a_free_row_leaves_nothing_to_the_next(
    janus: Janus, steps: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(steps, monkeypatch)
    rows, features = asked(janus, 3)
    broken = copy.deepcopy(janus)
    broken.language.embed.weight[0] = float("nan")  # no row has this token
    expected = alone(broken, rows[2], features[2], GREEDY)
    features[1] = float("nan")
    free = 2 * len(rows[2])  # steps after which the next row does not cover what a free one left
    noise = uniforms([4], 2 * free)[0]
    writer = TextWriter(broken, 2, eos=-1, pad=PAD, image=IMAGE, noise=noise, options=GREEDY)
    writer.add([(i, rows[i], [features[i]]) for i in range(2)])
    assert [row.name for row in writer.step() if row.error is not None] == [1]
    for _ in range(free):
        assert writer.step() == []
    writer.add([(2, rows[2], [features[2]])])
    ended = [row for _ in range(2 * free) for row in writer.step()]
    assert [(row.name, row.error) for row in ended] == [(0, None), (2, None)]
    assert ended[1].ids[: len(expected)] == expected


def test_an_answer_ends_where_the_model_reads_no_further(janus: Janus) -> None:
    rows, features = asked(janus, 1)
    limit = janus.config.language.max_positions
    long = rows[0] + [5] * (limit - len(rows[0]) - 2)
    (ended,) = together(janus, [long], features, 1, GREEDY)
    assert len(ended.ids) <= 2
