"""The drawing world: what is said of a picture is what is in it."""

import hashlib
import io
import subprocess
import tarfile
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from janus_kit.errors import JanusKitError, OptionError
from janus_kit.training import painting, sprites, world
from janus_kit.training.sprites import DRAWN, FLUENT, NAMES
from janus_kit.training.world import Scene, compose

TRAIN = [compose(seed, names=DRAWN)[1] for seed in range(500)]
TEST = [compose(seed, names=DRAWN, split="test")[1] for seed in range(300)]


def _novel(scene: Scene) -> bool:
    """True when training never shows this."""
    names = {thing.name for thing in scene.things}
    return any(world.held_out(thing.name, thing.color) for thing in scene.things) or any(
        world.held_out_pair(*pair) for pair in combinations(names, 2)
    )


def test_equal_seeds_give_equal_pictures_and_the_splits_differ() -> None:
    once, scene = compose(7, names=DRAWN)
    again, same = compose(7, names=DRAWN)
    assert once.shape == (384, 384, 3)
    assert once.dtype == np.uint8
    assert np.array_equal(once, again)
    assert scene == same
    assert compose(7, names=DRAWN, split="test")[1] != scene


def test_a_picture_does_not_change_when_it_is_written_on() -> None:
    once, _ = compose(3, names=DRAWN)
    once[:] = 0
    assert compose(3, names=DRAWN)[0].any()


def test_every_thing_keeps_clear_of_the_edge_and_of_the_others() -> None:
    for scene in TRAIN + TEST:
        for x0, y0, x1, y1 in (thing.box for thing in scene.things):
            assert 8 <= x0 < x1 <= 376
            assert 8 <= y0 < y1 <= 376
        for a, b in combinations([thing.box for thing in scene.things], 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_the_said_relation_is_the_one_of_the_boxes() -> None:
    for scene in TRAIN:
        if scene.relation:
            a, b = (thing.box for thing in scene.things)
            true = {
                "left of": a[2] <= b[0],
                "right of": b[2] <= a[0],
                "above": a[3] <= b[1],
                "below": b[3] <= a[1],
            }
            assert [name for name, holds in true.items() if holds] == [scene.relation]


def test_of_two_things_in_a_steady_world_the_first_named_stands_on_the_left() -> None:
    scenes = [compose(seed, names=DRAWN, steady=True)[1] for seed in range(200)]
    pairs = [scene for scene in scenes if scene.task == "two"]
    assert len(pairs) > 15
    for scene in pairs:
        first, second = scene.things
        assert first.box[2] <= second.box[0]
        words = world.prompt(scene, np.random.default_rng(0)).lower()
        assert words.index(first.name) < words.rindex(second.name)
        assert " and " in words


def test_every_task_count_relation_and_colored_thing_of_training_occurs() -> None:
    assert {scene.task for scene in TRAIN} == set(world.TASKS)
    assert {scene.background for scene in TRAIN} == set(world.BACKGROUNDS)
    assert {scene.relation for scene in TRAIN} == {None, *world.OPPOSITE}
    assert {len(s.things) for s in TRAIN if s.task == "count"} == {2, 3, 4}
    names = Counter(thing.name for scene in TRAIN for thing in scene.things)
    colors = Counter(thing.color for scene in TRAIN for thing in scene.things)
    assert min(names[name] for name in DRAWN) > 50
    assert min(colors[color] for color in world.COLORS) > 50


def test_training_never_shows_what_is_held_out_and_every_test_scene_does() -> None:
    assert not any(map(_novel, TRAIN))
    assert all(map(_novel, TEST))
    pairs = [(name, color) for name in NAMES for color in world.COLORS]
    assert sum(world.held_out(*pair) for pair in pairs) == len(pairs) / 8
    assert world.held_out_pair("heart", "circle") == world.held_out_pair("circle", "heart")


def test_the_pixels_of_a_thing_have_its_color() -> None:
    palette = sprites.rgb_to_lab(list(world.COLORS.values()))
    for seed in range(60):
        pixels, scene = compose(seed, names=DRAWN)
        ground = np.array(world.BACKGROUNDS[scene.background])
        for thing in scene.things:
            x0, y0, x1, y1 = thing.box
            inside = pixels[y0:y1, x0:x1].reshape(-1, 3)
            seen = inside[np.abs(inside - ground).max(axis=1) > 40]
            assert len(seen) > 0.15 * len(inside)
            lab = sprites.rgb_to_lab(np.median(seen, axis=0))
            nearest = np.linalg.norm(palette - lab, axis=1).argmin()
            assert tuple(world.COLORS)[nearest] == thing.color


def test_nothing_is_drawn_outside_of_the_boxes() -> None:
    pixels, scene = compose(11, names=DRAWN)
    for x0, y0, x1, y1 in (thing.box for thing in scene.things):
        pixels[y0:y1, x0:x1] = np.array(painting.ground(world.BACKGROUNDS[scene.background], 384))[
            y0:y1, x0:x1
        ]
    assert np.array_equal(
        pixels, np.array(painting.ground(world.BACKGROUNDS[scene.background], 384))
    )


def test_the_light_tells_rows_and_columns_apart_and_stays_pale() -> None:
    for background in world.BACKGROUNDS:
        ground = np.array(painting.ground(world.BACKGROUNDS[background], 384)).astype(int)
        assert ground.min() > 180
        levels = ground[:, 0].sum(-1)
        assert (np.diff(levels[::48]) < 0).all()
        warmth = ground[0, :, 0] - ground[0, :, 2]
        assert warmth[0] > warmth[192] > warmth[-1]


def test_a_caption_is_read_back_as_the_facts_of_its_scene() -> None:
    for scene in TRAIN + TEST:
        assert world.parse(world.caption(scene)) == world.facts(scene)


def test_a_caption_does_not_depend_on_which_thing_was_named_first() -> None:
    for scene in TRAIN:
        if scene.relation:
            turned = world.OPPOSITE[scene.relation]
            swapped = Scene(scene.things[::-1], turned, scene.task, scene.background)
            assert world.caption(swapped) == world.caption(scene)


def test_a_prompt_asks_for_its_own_scene() -> None:
    rng = np.random.default_rng(0)
    for scene in TRAIN + TEST:
        asked = world.parse(world.prompt(scene, rng))
        assert world.matches(asked, world.facts(scene))
        assert (asked[1] is None) == (scene.task != "position")


def test_a_picture_of_something_else_does_not_match() -> None:
    asked = world.parse("a red apple left of a blue car")
    assert not world.matches(asked, world.parse("A blue car left of a red apple."))
    assert not world.matches(asked, world.parse("A blue apple left of a red car."))
    assert not world.matches(asked, world.parse("A red apple."))


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("A photo of 3 yellow stars.", (((3, "yellow", "star"),), None)),
        ("an orange fish", (((1, "orange", "fish"),), None)),
        ("Four orange fish.", (((4, "orange", "fish"),), None)),
        ("two pink umbrellas", (((2, "pink", "umbrella"),), None)),
        ("three black fish", (((3, "black", "fish"),), None)),
        (
            "a red apple to the right of a blue car",
            (((1, "blue", "car"), (1, "red", "apple")), "left of"),
        ),
        ("a stone under a green cat", (((1, "green", "cat"),), None)),
        ("", ((), None)),
        ("a carred of redder cats", ((), None)),
    ],
)
def test_parse_reads(text: str, facts: world.Facts) -> None:
    assert world.parse(text) == facts


def test_yes_and_no_are_about_equally_frequent_and_true() -> None:
    rng = np.random.default_rng(0)
    answers: Counter[str] = Counter()
    for scene in TRAIN:
        shown = world.facts(scene)[0]
        for question, answer in world.questions(scene, rng, DRAWN):
            assert question[0].isupper()
            assert answer[0].isupper()
            assert answer[-1] == "."
            if question.split()[1] == "there":
                answers[answer] += 1
                (asked,) = world.parse(question)[0]
                assert (asked in shown) == (answer == "Yes.")
    assert set(answers) == {"Yes.", "No."}
    assert 0.4 < answers["Yes."] / answers.total() < 0.6


def test_questions_use_the_right_words_for_one_and_for_many() -> None:
    things = tuple(world.Thing("fish", "red", (0, y, 96, y + 96)) for y in (0, 144))
    scene = Scene(things, None, "count", "white")
    asked = dict(world.questions(scene, np.random.default_rng(1)))
    assert asked["Describe the picture."] == "Two red fish."
    assert asked["How many fish are there?"] == "Two."
    assert asked.get("What color are the fish?", asked.get("What colour are the fish?")) == "Red."
    lone = Scene(things[:1], None, "single", "white")
    alone = dict(world.questions(lone, np.random.default_rng(1)))
    assert alone["How many things are there?"] == "One."


def test_where_is_answered_from_both_sides() -> None:
    rng = np.random.default_rng(0)
    apple = world.Thing("apple", "red", (0, 0, 96, 96))
    scene = Scene((apple, world.Thing("car", "blue", (144, 0, 240, 96))), "left of", "two", "white")
    asked = {pair for _ in range(60) for pair in world.questions(scene, rng)}
    assert ("Where is the apple?", "Left of the car.") in asked
    assert ("Where is the car?", "Right of the apple.") in asked
    assert ("What is left of the car?", "A red apple.") in asked
    assert ("Is the apple left of the car?", "Yes.") in asked
    assert ("Is the apple right of the car?", "No.") in asked


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder without any emoji."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    painting.forget()
    return tmp_path


def test_names_that_cannot_be_drawn_are_refused_with_a_remedy(bare: Path) -> None:
    with pytest.raises(OptionError, match=r"'\w+' is not fetched yet; call .*fetch"):
        compose(0, names=["apple", "cat"])
    with pytest.raises(OptionError, match="unicorn"):
        compose(0, names=["circle", "unicorn"])
    with pytest.raises(OptionError, match="none given"):
        compose(0, names=[])
    with pytest.raises(OptionError, match="no two things"):
        compose(0, names=["circle", "circle"])
    with pytest.raises(OptionError, match="split: 'dev'"):
        compose(0, names=DRAWN, split="dev")  # type: ignore[arg-type]


def test_the_drawn_things_are_there_without_any_download(bare: Path) -> None:
    found = sprites.bank()
    assert tuple(found) == DRAWN
    for rgba in found.values():
        assert rgba.dtype == np.uint8
        assert max(rgba.shape[:2]) == sprites.SIDE
        assert rgba.shape[2] == 4
        for edge in (rgba[0], rgba[-1], rgba[:, 0], rgba[:, -1]):
            assert edge[:, 3].any()


def _archive() -> bytes:
    """A package with one grey square a thing."""
    image, packed = io.BytesIO(), io.BytesIO()
    Image.new("RGBA", (64, 32), (128, 128, 128, 255)).save(image, "WEBP")
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for point in FLUENT.values():
            member = tarfile.TarInfo(f"package/assets/{point}.webp")
            member.size = len(image.getvalue())
            tar.addfile(member, io.BytesIO(image.getvalue()))
    return packed.getvalue()


def _npm(monkeypatch: pytest.MonkeyPatch, archive: bytes, code: int = 0) -> list[list[str]]:
    """A client that packs the archive; the commands that it is given."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        (Path(command[-1]) / "emoji.tgz").write_bytes(archive)
        return subprocess.CompletedProcess(command, code, "", "no network")

    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    return commands


def test_fetching_fills_the_bank_once(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = _archive()
    commands = _npm(monkeypatch, archive)
    monkeypatch.setattr(sprites, "SHA256", hashlib.sha256(archive).hexdigest())
    path = sprites.fetch()
    assert path == sprites.fetch()
    assert path.parent == bare / "janus_kit/sprites"
    assert list(path.parent.iterdir()) == [path]
    assert len(commands) == 1
    assert tuple(sprites.bank()) == NAMES
    assert sprites.bank()["apple"].shape == (112, 224, 4)


def test_an_archive_with_another_digest_is_not_used(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _npm(monkeypatch, _archive())
    with pytest.raises(JanusKitError, match="sha256"):
        sprites.fetch()
    assert tuple(sprites.bank()) == DRAWN


def test_a_missing_or_failing_npm_is_told_plainly(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _npm(monkeypatch, _archive(), code=1)
    with pytest.raises(JanusKitError, match="no network"):
        sprites.fetch()
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(JanusKitError, match=r"install Node\.js"):
        sprites.fetch()


@pytest.mark.skipif(len(sprites.bank()) < len(NAMES), reason="the emoji are not fetched")
def test_every_emoji_takes_every_color() -> None:
    palette = sprites.rgb_to_lab(list(world.COLORS.values()))
    found = sprites.bank()
    for name in FLUENT:
        for index, color in enumerate(world.COLORS.values()):
            rgba = sprites.recolor(found[name][::4, ::4], color)
            lab = sprites.rgb_to_lab(np.median(rgba[rgba[..., 3] > 200][:, :3], axis=0))
            assert np.linalg.norm(palette - lab, axis=1).argmin() == index


def test_a_steady_world_has_one_size_and_place_for_each_task_and_count() -> None:
    places: dict[tuple[str, int, str | None], set[tuple[int, int]]] = {}
    for seed in range(200):
        _, scene = world.compose(seed, names=("square",) * 1 + ("circle",), steady=True)
        key = (scene.task, len(scene.things), scene.relation)
        corners = tuple(sorted(thing.box[:2] for thing in scene.things))
        places.setdefault(key, set()).add(corners)  # type: ignore[arg-type]
        assert max(x1 - x0 for x0, _, x1, _ in (t.box for t in scene.things)) in (192, 128)
    assert all(len(found) == 1 for found in places.values()), places
