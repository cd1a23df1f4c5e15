"""Picture sets that training never sees: what the embedded model makes of other hands' drawings."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from janus_kit.cache import cache_home
from janus_kit.packages import Package, fetch
from janus_kit.training import painting
from janus_kit.training.bank.archives import from_deb
from janus_kit.training.bank.names import NOTO
from janus_kit.training.bank.render import cut
from janus_kit.training.bank.sources import iconify, vector

__all__ = ["SETS", "foreign"]

SETS: Mapping[str, Package] = {
    "twemoji": Package(
        client="npm",
        name="@iconify-json/twemoji",
        version="1.2.5",
        file="iconify-json-twemoji-1.2.5.tgz",
        megabytes=2,
        sha256="19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
    ),
    "openclipart": Package(
        client="apt-get",
        name="openclipart-svg",
        version="1:0.18+dfsg-19",
        file="openclipart-svg_1%3a0.18+dfsg-19_all.deb",
        megabytes=25,
        sha256="989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
    ),
    "openmoji": Package(
        client="npm",
        name="@iconify-json/openmoji",
        version="1.2.29",
        file="iconify-json-openmoji-1.2.29.tgz",
        megabytes=1,
        sha256="03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5",
    ),
}
# Those that Noto was not needed for.
_MORE = {
    "elephant": "elephant", "zebra": "zebra", "giraffe": "giraffe", "sheep": "ewe", "cow": "cow",
    "horse": "horse", "dog": "dog", "cat": "cat", "bird": "bird", "bear": "bear", "car":
    "automobile", "motorcycle": "motorcycle", "truck": "delivery-truck", "stop sign": "stop-sign",
    "banana": "banana", "chair": "chair", "couch": "couch-and-lamp", "bed": "bed", "tv":
    "television", "kite": "kite", "tie": "necktie", "fork": "fork-and-knife",
}  # fmt: skip
# The plain drawings of openclipart: its files by what they show.
_CLIPS = {
    "bicycle": "transportation/vehicles/bicycle_01",
    "car": "transportation/vehicles/car",
    "motorcycle": "transportation/motorcycle_jarno_vasama_",
    "airplane": "transportation/vehicles/military_airplane_mo_01",
    "bus": "transportation/bus_01",
    "train": "recreation/toys/kiddy_train_orlando_kara_",
    "truck": "transportation/big_truck_01",
    "boat": "transportation/boating/boat_jarno_vasamaa_",
    "traffic light": "signs_and_symbols/traffic_light_dan_gerhar_01",
    "stop sign": "transportation/roadsigns/stop_sign_01",
    "bird": "animals/birds/bird_of_peace_mauro_oliv_01",
    "cat": "animals/mammals/cartoon_cat_gerald_g._01",
    "dog": "animals/mammals/dogs/bored_dog_01",
    "horse": "animals/mammals/horses/horse_1_konstantin_r._01",
    "sheep": "animals/mammals/sheep-md-v0.1",
    "elephant": "animals/mammals/elephant_01",
    "bear": "animals/mammals/bears/bear_peterm_01",
    "giraffe": "animals/mammals/contour_giraffe",
    "umbrella": "tools/umbrella",
    "tie": "people/clothing/tie_-_clothing_nicu_bucu_01",
    "suitcase": "transportation/little_tan_suitcase_jona_",
    "baseball bat": "recreation/sports/baseball_bat_ganson",
    "baseball glove": "recreation/sports/baseball_glove_ganson",
    "tennis racket": "recreation/sports/tennis_racket_01",
    "bottle": "tools/bottle_jean_victor_balin_",
    "wine glass": "food/beverages/alcohol/wine_glass_christian_h._",
    "cup": "office/cup_rollandin_francesco_",
    "knife": "tools/weapons/knife",
    "bowl": "food/bowl_chaspo_",
    "banana": "food/fruit/banana",
    "apple": "food/fruit/apple",
    "sandwich": "food/submarine_sandwich_01",
    "orange": "food/fruit/orange",
    "hot dog": "food/meats_and_eggs/hot_dog",
    "pizza": "food/pizza_pepperoni",
    "cake": "food/desserts/birthday_cake",
    "tv": "recreation/tv_01",
    "laptop": "computer/hardware/laptop",
    "computer keyboard": "computer/hardware/computer_keyboard_01",
    "cell phone": "office/slim_cell_phone_israel_c_01",
    "book": "education/books/closed_book_01",
    "clock": "signs_and_symbols/clocks/clock01",
    "scissors": "tools/scissors",
    "teddy bear": "recreation/toys/simple_teddy_bear_with__01",
    "toothbrush": "tools/toothbrush_and_paste_ganson",
}
_CLIPART = "usr/share/openclipart/svg"
SIZE = 224  # of the drawings in their pictures


def foreign(name: str, cache: Path | None = None) -> list[tuple[str, npt.NDArray[np.uint8]]]:
    """The drawings of one of SETS: (what it shows, picture uint8 [384, 384, 3]), one a name.

    Fetches the set once; raises JanusKitError where it cannot be had.
    """
    folder = cache or cache_home() / "foreign"
    archive = fetch(SETS[name], folder)
    drawings = _clips(archive, folder) if name == "openclipart" else _emoji(archive)
    found = []
    for thing, image in drawings:
        image.thumbnail((SIZE, SIZE))
        picture = painting.ground(painting.GROUNDS["slate"], 384).copy()
        picture.paste(image, ((384 - image.width) // 2, (384 - image.height) // 2), image)
        found.append((thing, np.array(picture)))
    return found


def _emoji(archive: Path) -> Iterator[tuple[str, Image.Image]]:
    tables = {**{thing: found.split()[0] for thing, found in NOTO.items()}, **_MORE}
    there, draw = iconify(archive)
    return ((thing, cut(draw(icon))) for thing, icon in tables.items() if icon in there)


def _clips(archive: Path, folder: Path) -> Iterator[tuple[str, Image.Image]]:
    work = folder / "openclipart"
    work.mkdir(exist_ok=True)
    files = {thing: work / f"{thing}.svg" for thing in _CLIPS}
    from_deb(archive, {f"{_CLIPART}/{_CLIPS[thing]}.svg": files[thing] for thing in _CLIPS})
    return ((thing, cut(vector(file.read_text("utf-8")))) for thing, file in files.items())
