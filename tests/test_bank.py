"""The picture bank, on inputs of a few bytes: what it fetches, reads, draws, packs, and refuses."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bank_parts import library, red_cat

from janus_kit.errors import JanusKitError
from janus_kit.packages import Package
from janus_kit.training.bank import make, names, pack, sources
from janus_kit.training.bank.names import MODELS, NAMES, Model
from janus_kit.training.bank.pack import Bank, Sprite

PACKAGE = Package(
    client="npm",
    name="toys",
    version="1.0",
    file="toys-1.0.tgz",
    megabytes=1,
    sha256=hashlib.sha256(b"toy").hexdigest(),
)
SPRITE = Sprite("cat", "toy/cat", "0.6", "shapes", "MIT", "Somebody")


def small_bank(path: Path, sprites: list[Sprite]) -> Path:
    pack.write(path, sprites, [pack.encode(red_cat()) for _ in sprites])
    return path


# The table


def test_every_name_of_geneval_has_models_of_its_own() -> None:
    assert len(NAMES) == len(set(NAMES)) == 80
    shown = {name: [model.id for model in MODELS if model.name == name] for name in NAMES}
    assert [name for name, models in shown.items() if not models] == []
    assert len({model.id for model in MODELS}) == len(MODELS)
    solid = {model.name for model in MODELS if model.source in names.SOLID}
    assert set(NAMES) - solid == set()


def test_a_model_is_seen_from_different_sides_and_a_sibling_from_others() -> None:
    for model in MODELS:
        if model.source in names.SOLID:
            ways = names.poses(model)
            assert len(set(ways)) == len(ways) >= 6
    people = [model for model in MODELS if model.name == "person"]
    assert names.poses(people[0]) != names.poses(people[1])


def test_some_views_and_some_models_are_held_out_but_never_all() -> None:
    for name in NAMES:
        models = [m for m in MODELS if m.name == name and m.source in names.SOLID]
        hidden = [m for m in models if names.held_out_model(name, m.id)]
        assert len(hidden) == (len(models) >= 4)
        for model in models:
            views = [f"{a}.{e}" for a, e in names.poses(model)]
            out = [names.held_out_view(name, model.id, view) for view in views]
            assert all(out) == (model in hidden)
    every = [
        names.held_out_view(m.name, m.id, f"{a}.{e}")
        for m in MODELS
        if m.source in names.SOLID
        for a, e in names.poses(m)
    ]
    assert 0.1 < sum(every) / len(every) < 0.35
    assert not names.held_out_view("cat", "noto/cat", "flat")


def test_every_author_is_named_in_the_notice() -> None:
    notice = (Path(__file__).parents[1] / "NOTICE").read_text(encoding="utf-8")
    models = [model.id for model in MODELS if model.id.startswith("ccby/")]
    models += sources._BY_AFTER_ALL
    words = notice.replace("(", " ").replace(")", " ").replace(",", " ").split()
    assert [model for model in models if model.partition("/")[2] not in words] == []
    for package in sources.PACKAGES.values():
        assert f"{package.name} {package.version}" in notice


# The bank


def test_a_bank_gives_back_what_was_packed(tmp_path: Path) -> None:
    others = [replace(SPRITE, view="25.6"), replace(SPRITE, name="dog", model="toy/dog")]
    bank = Bank(small_bank(tmp_path / "b.zip", [SPRITE, *others]))
    assert bank.sprites == (SPRITE, *others)
    assert bank.names == ("cat", "dog")
    pixels = bank.pixels(SPRITE)
    assert (pixels.shape, pixels.dtype) == ((30, 60, 4), np.uint8)
    assert np.abs(pixels[..., :3].astype(int) - (200, 30, 30)).max() < 12
    assert bank.credits() == ["Somebody (MIT)"]
    assert SPRITE.solid
    assert list(tmp_path.iterdir()) == [tmp_path / "b.zip"]


def test_equal_pictures_make_equal_banks(tmp_path: Path) -> None:
    first, second = (small_bank(tmp_path / name, [SPRITE]) for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_a_torn_bank_is_told_with_a_remedy(tmp_path: Path) -> None:
    path = small_bank(tmp_path / "b.zip", [SPRITE])
    whole = path.read_bytes()
    place = whole.index(b"WEBP") + 20
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
    with pytest.raises(JanusKitError, match=r"toy/cat 0\.6\.webp cannot be read .*; delete the"):
        Bank(path).pixels(SPRITE)
    with pytest.raises(JanusKitError, match="cannot be read"):
        Bank(path).webp(replace(SPRITE, view="1.1"))
    for torn in (whole[: len(whole) // 2], b"", library({"a": b""}), library({"index.json": "[3"})):
        path.write_bytes(torn)
        with pytest.raises(
            JanusKitError, match=r"is not a whole picture bank .*; delete it and run"
        ):
            Bank(path)
    path.unlink()
    with pytest.raises(JanusKitError, match="is not there; run janus-kit train data"):
        Bank(path)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        raise OSError(28, "No space left on device")
        yield b""

    with pytest.raises(OSError, match="No space left"):
        pack.write(tmp_path / "b.zip", [SPRITE], broken())
    assert list(tmp_path.iterdir()) == []


# Making it

TOYS = (Model("frisbee", "shapes", "shapes/frisbee/red"), Model("cat", "fluent", "fluent/1f408"))


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two sources that draw red blocks; the models that they drew."""
    drawn: list[str] = []

    def source(archive: Path | None, work: Path) -> sources.Draw:
        def draw(model: Model) -> sources.Shown:
            drawn.append(model.id)
            return "MIT", "Somebody", iter([("0.6", red_cat())])

        return draw

    monkeypatch.setattr(make, "SOURCES", {"shapes": source, "fluent": source})
    monkeypatch.setattr(make, "PACKAGES", {"fluent": PACKAGE})
    monkeypatch.setattr(make, "fetch", lambda package, folder: folder / package.file)
    return drawn


def test_a_bank_is_made_once(tmp_path: Path, toys: list[str]) -> None:
    said: list[str] = []
    path = make.make_bank(said.append, tmp_path, TOYS)
    assert path == make.bank_path(tmp_path)
    assert said == [
        "shapes: 1 of 1 models drawn, 0 s left",
        "fluent: fetching toys@1.0, 1 MB",
        "fluent: 1 of 1 models drawn, 0 s left",
    ]
    bank = Bank(path)
    assert [(s.name, s.source) for s in bank.sprites] == [("frisbee", "shapes"), ("cat", "fluent")]
    assert make.make_bank(said.append, tmp_path, TOYS) == path
    assert toys == [model.id for model in TOYS]
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_run_goes_on_where_it_stopped(
    tmp_path: Path, toys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(package: Package, folder: Path) -> Path:
        raise JanusKitError("no network")

    with monkeypatch.context() as patch:
        patch.setattr(make, "fetch", dead)
        with pytest.raises(JanusKitError, match="no network"):
            make.make_bank(print, tmp_path, TOYS)
    assert not make.bank_path(tmp_path).exists()
    make.make_bank(print, tmp_path, TOYS)
    assert toys == [model.id for model in TOYS]


def test_a_full_disk_is_told_before_fetching(
    tmp_path: Path, toys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "ROOM", 1e30)
    with pytest.raises(JanusKitError, match=r"GB are free, but .* are needed for a while"):
        make.make_bank(print, tmp_path, TOYS)


def test_the_bank_lies_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert make.bank_path().parent == tmp_path / "janus_kit/bank"
