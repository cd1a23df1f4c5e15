"""The codes of the embedded model: what they stand for and show, and how pictures become codes."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from codes_parts import FEW, scenes_of, small_book
from conftest import tiny_config
from PIL import Image

from janus_kit.errors import CheckpointError
from janus_kit.model import Janus
from janus_kit.training import painting, world
from janus_kit.training.bank.heroes import HEROES
from janus_kit.training.designing import design
from janus_kit.training.quantizer import BUSY, PatchBook, as_drawn, patches, to_pixels
from janus_kit.training.relaying import relay, sources
from janus_kit.training.traits import COLOR, NAME, PLACE, Traits, survey
from janus_kit.training.vision_stage import some_spoilt


@pytest.mark.usefixtures("pictures")
def test_a_thing_has_the_same_codes_wherever_it_stands() -> None:
    book = small_book(30, 512)
    thing = painting.cutout(HEROES["bicycle"], world.COLORS["red"], 144)
    pictures = []
    places = [(32, 32), (208, 144)]
    for place in places:
        picture = Image.new("RGB", (384, 384), painting.GROUNDS["slate"])
        picture.paste(thing, place, thing)
        pictures.append(np.array(picture))
    found = book.codes(to_pixels(pictures)).view(2, 24, 24)
    first, second = (found[i, y // 16 :, x // 16 :][:7, :7] for i, (x, y) in enumerate(places))
    assert torch.equal(first, second)
    assert len(torch.unique(first)) > 8


@pytest.mark.usefixtures("pictures")
def test_a_thing_has_the_same_forms_in_every_colour() -> None:
    book = small_book(30, 4096)
    calm, busy = book.ground + book.own[0], len(book.calm) + book.own[1]
    smooth, forms = ((run.stop - run.start) // 10 for run in book.families())
    scene = world.compose(10_000, names=FEW, steady=True)[1]
    lying = [world.places(world.painted(scene, color)).reshape(-1, 3) for color in world.COLORS]
    found = book.codes(to_pixels(world.in_all_colors(scene)), torch.from_numpy(np.stack(lying)))
    found = torch.where(book.is_bare(found), 0, found)
    assert ((found >= calm) & (found < len(book.calm)) | (found >= busy)).any()
    right = []
    for color, row in enumerate(found):
        both = (row >= busy) & (found[0] >= busy)
        if both.sum() > 10:
            assert ((row - busy) % forms == (found[0] - busy) % forms)[both].float().mean() > 0.8
            assert ((row - busy) // forms == color)[both].all()
        inside = (row >= calm) & (row < len(book.calm))
        right += ((row - calm) // smooth == color)[inside].tolist()
    # A tenth by chance; calm places that a thing hardly touches look alike in all colours.
    assert sum(right) > 0.3 * len(right)


@pytest.mark.usefixtures("pictures")
def test_things_in_their_own_colours_have_codes_of_their_own() -> None:
    book = small_book(30, 1024)
    scene = world.painted(world.compose(10_001, names=FEW, steady=True)[1], None)
    found = book.codes(to_pixels([world.render(scene)]))[0]
    own_busy = (found >= len(book.calm)) & (found < len(book.calm) + book.own[1])
    own_calm = (found >= book.ground) & (found < book.ground + book.own[0])
    things = ~(found < book.ground)
    assert things.sum() > 20
    assert (own_busy | own_calm)[things].float().mean() > 0.65


@pytest.mark.usefixtures("pictures")
def test_a_saved_book_gives_the_same_codes_and_another_file_is_refused(tmp_path: Path) -> None:
    book = small_book(10, 256)
    book.save(tmp_path / "patches.safetensors")
    again = PatchBook.load(tmp_path / "patches.safetensors")
    assert torch.equal(book.calm, again.calm)
    assert torch.equal(book.busy, again.busy)
    assert torch.equal(book.bare, again.bare)
    assert (book.ground, book.own, book.colors) == (again.ground, again.own, again.colors)
    assert [path.name for path in tmp_path.iterdir()] == ["patches.safetensors"]
    assert (tmp_path / "patches.safetensors").stat().st_mode & 0o777 == 0o644
    older = with_no_bare_forms(book)
    older.save(tmp_path / "patches.safetensors")
    assert PatchBook.load(tmp_path / "patches.safetensors").bare.shape == (0, 10, 192)
    (tmp_path / "torn.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match=r"torn\.safetensors: holds no patches"):
        PatchBook.load(tmp_path / "torn.safetensors")


@pytest.mark.usefixtures("pictures")
def test_painted_codes_show_what_they_stand_for() -> None:
    book = small_book(40, 512)
    pixels = to_pixels([world.compose(9_000 + i, names=FEW, steady=True)[0] for i in range(4)])
    painted = book.paint(book.codes(pixels))
    assert painted.shape == pixels.shape
    error = (painted - pixels).abs().mean()
    assert error < 0.05
    shuffled = book.paint(book.codes(pixels.flip(-1)))
    assert (shuffled - pixels).abs().mean() > 2 * error


@pytest.mark.usefixtures("pictures")
def test_some_steady_pictures_are_shown_as_drawn_ones_would_look() -> None:
    book = small_book(40, 512)
    found = [world.compose(9_000 + i, steady=i < 8) for i in range(10)]
    pixels = to_pixels([picture for picture, _ in found])
    assert [scene.steady for _, scene in found] == [True] * 8 + [False] * 2
    lying = [world.places(scene) if scene.steady else None for _, scene in found]
    spoil = partial(as_drawn, book)
    shown = some_spoilt(pixels, lying, spoil, np.random.default_rng(3))
    kept = [torch.equal(a, b) for a, b in zip(shown, pixels, strict=True)]
    assert 1 <= sum(kept[:8]) <= 7
    assert all(kept[8:])
    assert torch.equal(shown, some_spoilt(pixels, lying, spoil, np.random.default_rng(3)))
    assert 0.005 < (shown - pixels)[[not k for k in kept]].abs().mean() < 0.15
    assert shown.abs().max() <= 1
    assert some_spoilt(pixels, lying, None, np.random.default_rng(3)) is pixels


@pytest.mark.usefixtures("pictures")
def test_codes_know_what_they_show() -> None:
    few = (*FEW[:4], "zebra")
    book = small_book(60, 2048, few)
    traits = survey(book, (world.compose(i, names=few, steady=True) for i in range(60)), few)
    seen = traits.name.sum(1) > 0
    forms = book.families()[1]
    for trait in (traits.row, traits.column):  # a coloured form tells where it lies
        assert trait[forms][seen[forms]].max(1).values.mean() > 0.7
    for trait in (traits.name, traits.row, traits.column):
        assert torch.allclose(trait.sum(1)[seen], torch.ones(int(seen.sum())))
    assert (traits.name[: book.ground, -1][seen[: book.ground]] > 0.5).all()
    # A zebra that no survey saw: each place says zebra and tells where in it it lies.
    picture, scene = world.staged([(1, None, "zebra")], None, 5)
    codes = book.codes(to_pixels([picture])).view(24, 24)
    (thing,) = scene.things
    left, top = thing.box[0] // 16, thing.box[1] // 16
    inside = torch.from_numpy(world.mask(thing)).view(24, 16, 24, 16).float().mean((1, 3)) > 0.5
    right, near = [], []
    for y, x in inside.nonzero().tolist():
        code = codes[y, x]
        right.append(traits.name[code].argmax() == few.index("zebra"))
        near.append(traits.row[code, y - top] > 0.3 and traits.column[code, x - left] > 0.3)
    assert sum(right) > 0.8 * len(right)
    assert sum(near) > 0.2 * len(near)  # 1 of 40 by chance
    calm, busy = book.families()
    for run in (calm, busy):
        assert (traits.color[run].argmax(1) == torch.arange(10).repeat_interleave(
            (run.stop - run.start) // 10)).all()  # fmt: skip


def test_codes_of_one_name_place_or_colour_begin_as_kin() -> None:
    # Names, rows and columns of four codes; the last shares nothing with the first.
    one = torch.eye(4)
    traits = Traits(one[[0, 0, 1, 1]], one[[0, 1, 0, 1]], one[[0, 1, 1, 1]], one[[0, 0, 0, 1]])
    vectors = traits.vectors(512, 0)
    assert vectors.std() == pytest.approx(1, abs=0.1)
    alike = torch.cosine_similarity(vectors[0], vectors, dim=1)
    assert alike[1] == pytest.approx(NAME + COLOR, abs=0.1)
    assert alike[2] == pytest.approx(PLACE + COLOR, abs=0.1)
    assert alike[3] == pytest.approx(0, abs=0.1)
    embeds = traits.embeds(8, 0)
    assert torch.equal(embeds, traits.embeds(8, 0))
    assert torch.cdist(embeds, embeds).add(torch.eye(4)).min() > 0.2  # none is as another


def test_a_thing_begins_where_a_busy_code_stands_below_a_calm_one() -> None:
    patch = torch.zeros(2, 192)
    none = torch.zeros(0, 1, 192)
    book = PatchBook(
        torch.zeros(2, 3), patch, ground=1, own=(0, 0), colors=1, places=patch[:, :2], bare=none
    )
    codes = torch.tensor([[2, 0, 0, 3, 3, 1, 0, 2, 0]])  # 2 and 3 are busy
    expected = torch.tensor([[1, 0, 0, 0, 1, 0, 0, 0, 0]])
    assert book.outlines(codes).long().tolist() == expected.tolist()


@pytest.mark.usefixtures("pictures")
def test_a_code_stands_for_the_patch_that_is_nearest() -> None:
    book = small_book(10, 256)
    calm = len(book.calm)
    assert calm + len(book.busy) == 256
    pixels = to_pixels([world.compose(7, names=FEW, steady=True)[0]])
    found = patches(pixels)
    for patch, code in zip(found, book.codes(pixels)[0].tolist(), strict=True):
        if code < calm:
            assert patch.std(-1).max() <= BUSY
            nearest = (book.calm - patch.mean(-1)).norm(dim=-1)
        else:
            telling = book.busy[: len(book.busy) - len(book.bare)]
            nearest = (telling - patch.flatten()).norm(dim=-1)
        assert nearest[code % calm if code < calm else code - calm] <= nearest.min() + 1e-4


@pytest.mark.usefixtures("pictures")
def test_a_codes_vector_says_what_it_looks_like() -> None:
    book = small_book(10, 256)
    vectors = book.vectors(20)
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(256), atol=1e-5)
    wanted = book.whole() - book.whole().mean(0)
    parts = vectors[:, 1:-3] / vectors[:, :1]  # what the sphere made of them is undone
    painted = parts @ torch.linalg.lstsq(parts, wanted).solution
    assert (painted - wanted).square().sum() < 0.15 * wanted.square().sum()
    fewer = book.vectors(7)
    parts = fewer[:, 1:-3] / fewer[:, :1]
    rough = parts @ torch.linalg.lstsq(parts, wanted).solution
    assert (rough - wanted).square().sum() > (painted - wanted).square().sum()


@pytest.mark.usefixtures("pictures")
def test_a_codes_vector_changes_sign_from_row_to_row_and_column_to_column_of_a_thing() -> None:
    book = small_book(30, 4096)
    signs = book.vectors(20)[:, -3:-1].sign()
    assert not signs[: len(book.calm)].any()
    for color in (None, "green"):
        scene = world.compose(30_000, names=FEW, steady=True, task="crowd")[1]
        scene = world.painted(scene, color)
        places = torch.from_numpy(world.places(scene)).flatten(0, 1)
        codes = book.codes(to_pixels([world.render(scene)]), places[None])[0]
        busy = codes >= len(book.calm)
        assert busy.sum() > 40
        right = signs[codes[busy]] == 1 - 2 * (places[busy, :2] % 2)
        assert right.float().mean() > 0.9


@pytest.mark.usefixtures("pictures")
def test_each_place_of_a_thing_in_its_own_colours_has_a_code_where_there_are_enough() -> None:
    book = small_book(60, 2048)
    taken: dict[int, set[tuple[str, int, int]]] = {}
    for seed in range(30):
        scene = world.painted(world.compose(seed, names=FEW, steady=True)[1], None)
        places = torch.from_numpy(world.places(scene))
        codes = book.codes(to_pixels([world.render(scene)]), places.view(1, -1, 3))[0].view(24, 24)
        for thing in scene.things:
            left, top = thing.box[0] // 16, thing.box[1] // 16
            inside = torch.from_numpy(world.mask(thing)).view(24, 16, 24, 16).any(1).any(2)
            for y, x in (inside & (codes >= len(book.calm))).nonzero().tolist():
                taken.setdefault(int(codes[y, x]), set()).add((thing.name, y - top, x - left))
    assert len(taken) > 100
    assert sum(len(shown) == 1 for shown in taken.values()) > 0.9 * len(taken)


@pytest.mark.usefixtures("pictures")
def test_where_the_colour_is_known_every_code_of_a_thing_is_of_it() -> None:
    book = small_book(30, 4096)
    for seed in range(8):
        pixels, scene = world.compose(20_000 + seed, names=FEW, steady=True, task="colors")
        places = torch.from_numpy(world.places(scene)).view(1, -1, 3)
        (color,) = {1 + list(world.COLORS).index(str(thing.color)) for thing in scene.things}
        found = book.codes(to_pixels([pixels]), places)[0]
        bare = torch.arange(4096 - len(book.bare), 4096)
        allowed = torch.cat((torch.arange(book.ground), *book.codes_of(color), bare))
        assert torch.isin(found, allowed).all()
        own = book.codes(to_pixels([pixels]), places * torch.tensor([1, 1, 0]))[0]
        assert torch.isin(own, torch.cat((torch.arange(book.ground), *book.codes_of(0)))).all()
    every = torch.cat([bare, *(torch.cat(book.codes_of(color)) for color in range(11))])
    assert sorted(every.tolist()) == list(range(book.ground, 4096))


@pytest.mark.usefixtures("pictures")
def test_a_coloured_thing_has_bare_forms_that_are_the_same_in_all_colours() -> None:
    book = small_book(40, 4096)
    assert len(book.bare) > 500
    scene = world.compose(7, names=FEW, steady=True, task="colors")[1]
    scenes = [world.painted(scene, color) for color in world.COLORS]
    places = torch.from_numpy(np.stack([world.places(s).reshape(-1, 3) for s in scenes]))
    pixels = to_pixels([world.render(s) for s in scenes])
    codes = book.codes(pixels, places)
    bare = book.is_bare(codes)
    busy = codes >= len(book.calm)
    assert 0.4 < bare[busy].float().mean() < 0.9  # three in four, but for rims
    both = bare[0] & bare
    assert (codes == codes[0])[both].float().mean() > 0.9
    lattice = (places[..., :2] % 2 == 0).all(-1)
    assert not (bare & lattice).any()
    numbers = torch.arange(1, 11)[:, None].expand_as(codes)
    told = book.colors_of(codes)
    assert torch.isin(told, torch.tensor([0])).logical_or(told == numbers).all()
    # Beside each that tells nothing is one that does.
    assert (book.nearest_colors(codes) == numbers)[bare].all()
    error = (book.paint(codes) - pixels).abs().mean((1, 2, 3))
    assert error.max() < 0.05
    alone = torch.where(bare, codes, 0)[:1]  # nobody tells a colour
    means = replace(
        book, bare=book.bare[:0], places=book.places[: len(book.places) - len(book.bare)]
    )
    assert torch.equal(book.paint(alone), means.paint(alone))


@pytest.mark.usefixtures("pictures")
def test_a_model_takes_over_other_codes(tokenizer_folder: Path) -> None:
    book = small_book(10, 64 * 8)
    first = with_no_bare_forms(book)
    scenes = scenes_of(FEW, 12)
    colored = ((world.in_all_colors(s), world.places(world.painted(s, "red"))) for s in scenes)
    second = design(world.empty(), [], colored, 64 * 8, keep=first, seed=1)
    kept = len(first.calm) + first.own[1]
    assert torch.equal(second.whole()[:kept], first.whole()[:kept])
    assert not torch.equal(second.busy, first.busy)
    config = tiny_config()
    config = replace(config, vq=replace(config.vq, codebook_size=64 * 8, code_dim=12))
    torch.manual_seed(0)
    janus = Janus(config)
    with torch.no_grad():
        janus.vq.codebook.weight.copy_(first.vectors(12))
    before = {name: value.clone() for name, value in janus.state_dict().items()}
    relay(janus, first, second)
    after = janus.state_dict()
    for name in ("code_embed.weight", "code_head.fc2.weight", "code_head.fc2.bias"):
        assert torch.equal(before[name][:kept], after[name][:kept])
        assert not torch.equal(before[name], after[name])
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.split(".")[0] for name in moved} == {"code_embed", "code_head", "vq"}
    assert torch.equal(janus.vq.codebook.weight, second.vectors(12))
    # What the decoder reads is nearly what it was, of codes that stayed.
    old = first.vectors(12) @ before["vq.from_code.weight"].flatten(1).T
    new = second.vectors(12) @ after["vq.from_code.weight"].flatten(1).T
    old, new = (x + s["vq.from_code.bias"] for x, s in ((old, before), (new, after)))
    off = (new - old)[:kept].square().sum() / (old[:kept] - old[:kept].mean(0)).square().sum()
    assert off < 0.1
    after = sources(first, second)
    bare = after[-len(second.bare) :]
    forms = first.families()[1]
    each = (forms.stop - forms.start) // 10
    same = (bare - forms.start) % each
    assert (same == same[:, :1]).float().mean() > 0.5  # mostly one form, in each of the colours
    assert ((bare - forms.start) // each == torch.arange(10)).all()
    assert (after[:kept] == torch.arange(kept)[:, None]).all()
    every = torch.arange(len(book.calm) + len(book.busy))
    assert (sources(book, book) == every[:, None]).all()


def with_no_bare_forms(book: PatchBook) -> PatchBook:
    """A book as it was before there were any; its ground has the codes that they had."""
    many = len(book.bare)
    calm = torch.cat((book.calm[:1].expand(many, -1), book.calm))
    busy, places = (rows[: len(rows) - many] for rows in (book.busy, book.places))
    ground = book.ground + many
    return replace(book, calm=calm, busy=busy, places=places, ground=ground, bare=book.bare[:0])
