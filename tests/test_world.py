"""The drawing world: what a scene says of its picture is what is in the picture."""

from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from janus_kit.errors import JanusKitError, OptionError
from janus_kit.scoring.colors import pixel_color
from janus_kit.scoring.geneval import relative_positions
from janus_kit.scoring.promptset import COLORS, OBJECTS, RELATIONS
from janus_kit.scoring.promptset import TASKS as GENEVAL
from janus_kit.training import novelty, painting, world
from janus_kit.training.bank.heroes import HEROES
from janus_kit.training.bank.names import NAMES, held_out_view
from janus_kit.training.world import Scene, compose

pytestmark = pytest.mark.usefixtures("pictures")


def scenes(count: int, **options: object) -> list[Scene]:
    return [compose(seed, **options)[1] for seed in range(count)]  # type: ignore[arg-type]


def novel(scene: Scene) -> bool:
    return novelty.is_novel([(thing.name, thing.color) for thing in scene.things])


def test_the_world_speaks_of_genevals_objects_colors_and_relations() -> None:
    assert world.NAMES == OBJECTS
    assert tuple(world.COLORS) == COLORS
    assert set(world.OPPOSITE) == set(RELATIONS)
    assert set(world.TASKS) == {*GENEVAL, "dense"}


def test_each_name_is_drawn_by_a_view_that_training_may_show() -> None:
    assert set(HEROES) == set(NAMES)
    for name, view in HEROES.items():
        assert not held_out_view(name, *view.rsplit(" ", 1))


def test_equal_seeds_give_equal_pictures_and_the_splits_differ() -> None:
    once, scene = compose(7)
    again, same = compose(7)
    assert once.shape == (384, 384, 3)
    assert once.dtype == np.uint8
    assert np.array_equal(once, again)
    assert scene == same
    assert compose(7, split="test")[1] != scene


def test_a_crowd_is_four_things_of_which_about_half_are_coloured() -> None:
    found = scenes(60, steady=True, task="crowd")
    assert all(len({thing.name for thing in scene.things}) == 4 for scene in found)
    assert not any(novel(scene) for scene in found)
    colored = [thing.color is not None for scene in found for thing in scene.things]
    assert 0.4 < sum(colored) / len(colored) < 0.6
    assert {scene.task for scene in scenes(5, task="counting")} == {"counting"}
    for scene in scenes(20, task="numbers"):
        counts = Counter(thing.name for thing in scene.things)
        assert sorted(counts.values()) in ([1, 2], [1, 3])
    with pytest.raises(OptionError, match="task: 'heap' is not one"):
        compose(0, task="heap")


def test_a_picture_does_not_change_when_it_is_written_on() -> None:
    once, _ = compose(3, steady=True)
    once[:] = 0
    assert compose(3, steady=True)[0].any()


@pytest.mark.parametrize("steady", [False, True])
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_thing_is_whole_and_clear_of_the_others(steady: bool, split: str) -> None:
    for scene in scenes(60, split=split, steady=steady):
        assert 1 <= len(scene.things) <= 4
        for x0, y0, x1, y1 in (thing.box for thing in scene.things):
            assert 6 <= x0 < x1 <= 378
            assert 6 <= y0 < y1 <= 378
        for a, b in combinations([thing.box for thing in scene.things], 2):
            wide = max(0, min(a[2], b[2]) - max(a[0], b[0]))
            high = max(0, min(a[3], b[3]) - max(a[1], b[1]))
            least = min((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
            assert wide * high <= 0.12 * least


def test_the_said_relation_is_the_one_that_geneval_finds() -> None:
    found = [s for steady in (False, True) for s in scenes(90, steady=steady) if s.relation]
    assert {scene.relation for scene in found} == set(RELATIONS)
    for scene in found:
        first, second = (thing.box for thing in scene.things)
        assert relative_positions(first, second) == [scene.relation]


def test_of_two_things_in_a_steady_world_the_first_stands_on_the_left() -> None:
    pairs = [s for s in scenes(120, steady=True) if s.task in ("two_object", "color_attr")]
    assert len(pairs) > 20
    for scene in pairs:
        first, second = scene.things
        assert first.box[2] <= second.box[0]
        assert (scene.relation == "left of") == (first.name != second.name)


def test_a_place_is_counted_from_the_corner_of_its_thing() -> None:
    for scene in scenes(20, steady=True):
        found = world.places(scene)
        for thing in scene.things:
            x, y = thing.box[0] // 16, thing.box[1] // 16
            color = 1 + list(world.COLORS).index(thing.color) if thing.color else 0
            assert found[y, x].tolist() == [0, 0, color]
            assert found[y + 2, x + 1].tolist() == [2, 1, color]
            assert found[y - 1, x].tolist() == [-1, 0, color] or len(scene.things) > 1


def test_steady_things_begin_on_the_grid_of_codes_in_two_sizes() -> None:
    found = scenes(100, steady=True)
    boxes = [thing.box for scene in found for thing in scene.things]
    assert all(x0 % 16 == 0 and y0 % 16 == 0 for x0, y0, _, _ in boxes)
    assert {max(x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes} == {144, 112}
    assert {thing.view for s in found for thing in s.things} <= set(HEROES.values())
    assert {scene.ground for scene in found} == set(world.STEADY_GROUNDS)


def test_every_task_name_color_and_count_of_training_occurs() -> None:
    found = [world.sketch(seed) for seed in range(2500)]
    assert {scene.task for scene in found} == set(world.TASKS)
    assert {scene.ground for scene in scenes(40)} == set(painting.GROUNDS)
    assert {len(s.things) for s in found if s.task == "counting"} == {2, 3, 4}
    names = Counter(thing.name for scene in found for thing in scene.things)
    colors = Counter(thing.color for scene in found for thing in scene.things)
    assert min(names[name] for name in NAMES) > 30
    assert min(colors[color] for color in COLORS) > 100
    assert not any(t.color for s in found for t in s.things if t.name in world.UNPAINTED)
    assert all(t.color for s in found if s.task == "color_attr" for t in s.things)


def test_training_never_shows_what_is_held_out_and_every_test_scene_does() -> None:
    assert not any(map(novel, scenes(150)))
    assert all(map(novel, scenes(100, split="test")))
    colored = [(name, color) for name in NAMES for color in COLORS]
    assert sum(novelty.held_out(*pair) for pair in colored) == len(colored) / 10
    counted = [novelty.held_out_count(name, n) for name in NAMES for n in (2, 3, 4)]
    assert sum(counted) == len(counted) / 8
    assert not any(novelty.held_out_count(name, 1) for name in NAMES)
    assert novelty.held_out_pair("cat", "dog") == novelty.held_out_pair("dog", "cat")
    pairs = [novelty.held_out_pair(a, b) for a, b in combinations(NAMES, 2)]
    assert 0.07 < sum(pairs) / len(pairs) < 0.13


def test_training_shows_no_view_that_is_held_out_and_tests_show_them_where_there_are_any() -> None:
    def hidden(thing: world.Thing) -> bool:
        return held_out_view(thing.name, *thing.view.rsplit(" ", 1))

    assert not any(hidden(thing) for scene in scenes(100) for thing in scene.things)
    there = {s.name for s in painting.bank().sprites if s.held_out}
    shown = [t for scene in scenes(60, split="test") for t in scene.things]
    assert all(hidden(thing) == (thing.name in there) for thing in shown)


def test_the_color_judge_sees_the_color_of_every_colored_thing() -> None:
    wrong = []
    for seed in range(60):
        pixels, scene = compose(seed, steady=seed % 2 == 0)
        image = Image.fromarray(pixels)
        for thing in scene.things:
            if thing.color:
                seen = pixel_color(image, thing.box, world.mask(thing))
                wrong += [(seed, thing, seen)] if seen != thing.color else []
    assert wrong == []


def test_a_mask_covers_what_is_painted_and_nothing_beside_it() -> None:
    pixels, scene = compose(12, steady=True)
    empty = world.empty()[world.STEADY_GROUNDS.index(scene.ground)]
    changed = (pixels.astype(int) - empty).any(-1)
    masks = np.logical_or.reduce([world.mask(thing) for thing in scene.things])
    assert changed[masks].mean() > 0.97
    outside = changed & ~masks
    assert outside.sum() < 0.2 * masks.sum()  # half transparent edges
    for x0, y0, x1, y1 in (thing.box for thing in scene.things):
        outside[y0:y1, x0:x1] = False
    assert not outside.any()


def test_in_all_colors_changes_the_things_alone() -> None:
    scene = next(s for s in scenes(50, steady=True) if world.paintable(s))
    shown = world.in_all_colors(scene)
    assert len(shown) == len(COLORS)
    masks = np.logical_or.reduce([world.mask(thing) for thing in scene.things])
    assert not (shown[0] != shown[1])[~masks].any(-1).mean() > 0.02
    assert (shown[0] != shown[1])[masks].any(-1).mean() > 0.8  # deep shades are alike
    assert all(thing.color is None for thing in world.painted(scene, None).things)


def test_a_staged_scene_shows_what_was_asked_for() -> None:
    pixels, scene = world.staged([(1, "red", "cat"), (1, None, "dog")], "above", 4)
    assert pixels.shape == (384, 384, 3)
    cat, dog = scene.things
    assert (cat.name, cat.color, dog.name, dog.color) == ("cat", "red", "dog", None)
    assert relative_positions(cat.box, dog.box) == ["above"]
    assert len(world.staged([(4, None, "bus")], None, 0)[1].things) == 4


def test_names_and_splits_that_are_none_are_refused_with_a_remedy() -> None:
    with pytest.raises(OptionError, match=r"unicorn.*give 5 or more"):
        compose(0, names=["cat", "unicorn"])
    with pytest.raises(OptionError, match="give 5 or more"):
        compose(0, names=["cat", "dog"])
    with pytest.raises(OptionError, match="split: 'dev'"):
        compose(0, split="dev")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="'cat 3' is not in the picture bank"):
        painting.cutout("cat 3", None, 100)


def test_a_missing_bank_is_told_with_the_command_that_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    painting.forget()
    with pytest.raises(JanusKitError, match="run janus-kit train data"):
        compose(0)


def test_recolouring_keeps_outline_and_shading_and_moves_the_hue() -> None:
    grey = np.zeros((8, 4, 4), np.uint8)
    grey[..., :3] = np.linspace(60, 200, 8).astype(np.uint8)[:, None, None]
    grey[2:, :, 3] = 255
    blue = painting.recolor(grey, world.COLORS["blue"])
    assert np.array_equal(blue[..., 3], grey[..., 3])
    assert (np.diff(blue[..., 2].astype(int), axis=0) >= 0).all()  # lighter stays lighter
    assert blue[-1, 0, 2] > blue[2, 0, 2]
    assert (blue[..., 2] > blue[..., 0]).all()


def test_the_light_tells_rows_and_columns_apart() -> None:
    for tone in painting.GROUNDS.values():
        ground = np.array(painting.ground(tone, 384)).astype(int)
        assert (np.diff(ground[::48, 0].sum(-1)) < 0).all()
        warmth = ground[0, :, 0] - ground[0, :, 2]
        assert warmth[0] > warmth[192] > warmth[-1]


@pytest.mark.usefixtures("pictures")
def test_only_training_stretches_things_and_never_steady_ones() -> None:
    def stretches(**options: Any) -> list[float]:
        scenes = [world.compose(seed, **options)[1] for seed in range(12)]
        return [thing.stretch for scene in scenes for thing in scene.things]

    assert len(set(stretches())) > 12
    limit = np.exp(world.STRETCH)
    assert all(1 / limit <= stretch <= limit for stretch in stretches())
    assert set(stretches(steady=True)) | set(stretches(split="test")) == {1.0}
    view = HEROES["bicycle"]
    plain, wide = (painting.cutout(view, None, 120, stretch=s) for s in (1.0, 1.2))
    assert max(plain.size) == max(wide.size) == 120
    shape = plain.width / plain.height
    assert wide.width / wide.height == pytest.approx(1.2 * shape, rel=0.03)


def test_only_training_leans_things_as_another_view_would_and_never_steady_ones() -> None:
    def leans(**options: Any) -> set[tuple[float, ...]]:
        return {thing.lean for scene in scenes(12, **options) for thing in scene.things}

    assert len(leans()) > 8
    assert () in leans()
    assert all(0 <= share <= world.LEAN for lean in leans() for share in lean)
    assert leans(steady=True) | leans(split="test") == {()}


def test_a_leaning_thing_has_its_corners_moved_in_and_stays_as_large() -> None:
    square = np.full((100, 100, 4), 255, np.uint8)

    def seen(*lean: float) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(painting, "_whole", lambda view, tone: square)
            image = painting.cutout.__wrapped__("square", None, 100, lean=lean)
        assert image.size == (100, 100)
        return np.asarray(image.getchannel("A")) > 127

    assert seen(0, 0, 0, 0, 0, 0, 0, 0).all()
    # The upper left corner alone, then the lower right one alone.
    for lean, (y, x) in (((0.2, 0.2) + (0,) * 6, (3, 3)), ((0,) * 4 + (0.2, 0.2, 0, 0), (96, 96))):
        found = seen(*lean)
        assert not found[y, x]
        corners = {(a, b) for a in (3, 96) for b in (3, 96)} - {(y, x)}
        assert all(found[corner] for corner in corners)


def test_tints_lie_between_the_color_of_a_thing_and_another_that_it_may_have() -> None:
    def tinted(share: float) -> list[tuple[world.Thing, world.Thing]]:
        plain = [thing for scene in scenes(30, task="color_attr") for thing in scene.things]
        found = scenes(30, task="color_attr", tints=share)
        return list(zip(plain, (t for scene in found for t in scene.things), strict=True))

    assert all(thing == plain for plain, thing in tinted(0))
    changed = [(plain, thing) for plain, thing in tinted(0.5) if thing.tint]
    assert 15 < len(changed) < 45
    for plain, thing in changed:
        assert replace(thing, tint=None) == plain
        own, tone = np.array(world.COLORS[str(thing.color)]), np.array(thing.tint)
        ways = {c: np.array(t) - own for c, t in world.COLORS.items() if c != thing.color}
        part = {c: (tone - own) @ way / (way @ way) for c, way in ways.items()}
        fits = [c for c, way in ways.items() if np.abs(own + part[c] * way - tone).max() < 1]
        assert any(0.14 < part[c] < 0.51 and not novelty.held_out(thing.name, c) for c in fits)
    plain, thing = changed[0]
    assert not np.array_equal(*(np.asarray(world._sprite(one)) for one in (plain, thing)))


def test_things_that_are_asked_about_are_turned_and_flipped_on_grounds_of_many_kinds() -> None:
    found = scenes(60)
    things = [thing for scene in found for thing in scene.things]
    assert {thing.flip for thing in things} == {True, False}
    assert {-8, 8} <= {thing.angle for thing in things}
    assert all(-8 <= thing.angle <= 8 for thing in things)
    assert {scene.ground for scene in found} == set(painting.GROUNDS)
    view = HEROES["bicycle"]
    plain = painting.cutout(view, None, 120)
    assert painting.cutout(view, None, 120, flip=True).tobytes() == plain.transpose(0).tobytes()
    assert painting.cutout(view, None, 120, angle=8).size != plain.size

    def unevenness(picture: Any) -> float:
        """How sharply the mean of 8 × 8 pixels turns from place to place at most."""
        grey = np.array(picture, float).mean(-1).reshape(48, 8, 48, 8).mean((1, 3))
        return max(float(np.abs(np.diff(grey, 2, axis)).max()) for axis in (0, 1))

    tone = painting.GROUNDS["slate"]
    assert unevenness(painting.ground(tone, 384)) < 1
    rooms = [painting.room(tone, 384, np.random.default_rng(seed)) for seed in range(40)]
    turns = sorted(map(unevenness, rooms))
    assert turns[4] < 1.5  # plain
    assert any(2 < turn < 15 for turn in turns)  # textured
    assert turns[-4] > 20  # two-toned, like a wall and a floor


def test_a_thing_on_a_ground_like_a_room_throws_a_soft_shadow() -> None:
    image = Image.new("RGB", (200, 200), (200, 200, 200))
    painting.shadow(image, (50, 60, 150, 120), 0.5)
    dark = 200 - np.asarray(image)[..., 0].astype(int)
    assert dark[120, 100] == dark.max() > 40
    assert (dark[:100] == 0).all()
    assert (dark[:, :45] == 0).all()
    assert 0 < dark[120, 60] < dark[120, 100] / 2  # soft at its ends

    def darkness(**options: Any) -> float:
        with pytest.MonkeyPatch.context() as patch:
            lit = compose(5, **options)[0].astype(int)
            patch.setattr(painting, "shadow", lambda image, box, strength: None)
            return float((compose(5, **options)[0].astype(int) - lit).sum())

    assert darkness() > 1000
    assert darkness(steady=True) == 0
