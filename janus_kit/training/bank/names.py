"""What the bank shows: GenEval's 80 names, the models of each, and from where each is seen."""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from janus_kit.training.bank.shapes import SHAPES

__all__ = ["MODELS", "NAMES", "SOLID", "Model", "held_out_model", "held_out_view", "poses"]

Pose = tuple[int, int]  # azimuth and elevation in degrees; 0, 0 looks at the front, level

NAMES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
    "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant",
    "bed", "dining table", "toilet", "tv", "laptop", "computer mouse", "tv remote",
    "computer keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator",
    "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip

SOLID = ("furniture", "fauna", "shapes")  # seen from many sides; the others are flat drawings

# The furniture library in its five parts: cc0 and ccby of Blend Swap, kator, real and scopia. Left
# out are models that show no more than a part, several things, or something else at first sight.
FURNITURE: Mapping[str, str] = {
    "person": "kator/female-01-casual-clothing kator/male-01-suit real/female01 real/female02 "
    "real/female03 real/male01 real/male02 real/male03 real/holdingMale01 real/holdingFemale01 "
    "real/holdingFemale02 real/holdingFemale03 real/sitMale01 real/sitMale02 real/sitMale03 "
    "real/sitFemale01 real/sitFemale02 real/sitFemale03 real/boySitting real/boyStanding "
    "real/girlSittingGround real/girlSittingTable real/girlStanding",
    "bicycle": "ccby/bike scopia/bicycle",
    "car": "ccby/fordFocus kator/concept-sedan-01v1 kator/concept-sedan-01v2 "
    "kator/concept-sedan-02 kator/VW-new-beetle scopia/seat_leon scopia/peugeot-308 "
    "scopia/renault-scenic scopia/suv scopia/chevrolet scopia/smart-car",
    "motorcycle": "kator/scooter scopia/yamaha-yzr-r6 scopia/scooter2",
    "airplane": "cc0/cartoon_biplane",
    "bus": "scopia/bus scopia/cityBus",
    "train": "ccby/toyTrain",
    "truck": "cc0/peterbilt ccby/dafTruck scopia/truck",
    "boat": "ccby/rowboat",
    "fire hydrant": "kator/fire-hydrant",
    "bench": "kator/concrete-bench kator/painted-bench scopia/littlebank scopia/wood_bank",
    "bird": "cc0/chicken",
    "cat": "ccby/siameseCat scopia/cat",
    "dog": "ccby/bulldog scopia/dog",
    "horse": "cc0/horse2 ccby/horse",
    "backpack": "ccby/backpack",
    "umbrella": "cc0/umbrella",
    "handbag": "cc0/handbag",
    "suitcase": "cc0/briefcase ccby/suitcase",
    "sports ball": "cc0/basketball ccby/ballonFoot",
    "skateboard": "scopia/skateboard",
    "tennis racket": "cc0/tennisRacket",
    "bottle": "cc0/yogurtBottle ccby/beer_bottle kator/red-wine-bottle-01 scopia/wine_bottle "
    "scopia/com_bath2_jabon_pijo",
    "wine glass": "ccby/glass ccby/cocktailGlass",
    "cup": "cc0/caffe_final cc0/plasticCup ccby/coffee_cup kator/coffee-mug scopia/cup",
    "fork": "ccby/fork",
    "knife": "ccby/kitchenKnife ccby/knife",
    "spoon": "ccby/spoon scopia/kitchen_tool1",
    "bowl": "kator/bowl scopia/bowl scopia/bowlWithSalad",
    "sandwich": "ccby/hamburger",
    "hot dog": "cc0/hotDog",
    "cake": "cc0/cupcake scopia/birthday_cake",
    "chair": "cc0/armchair cc0/oakChair cc0/plasticChair cc0/sillaBlanca cc0/chair "
    "cc0/antiqueChair cc0/chairWithCushion cc0/osakaChair cc0/designChair cc0/thonet "
    "ccby/cafe_set_tonon_chair ccby/childChair ccby/ella_chair_f ccby/foldingChair "
    "ccby/plaidChair ccby/kitchenChair ccby/chair3 ccby/chair4 kator/dining-chair "
    "scopia/silla_teca scopia/chair4 scopia/chair scopia/office_chair scopia/tubular_chair "
    "scopia/kids_desk_chair scopia/modern_armchair scopia/plastic_chair "
    "scopia/white_kitchen_chair scopia/children_chair",
    "couch": "cc0/couch cc0/couch2 cc0/sofa2 cc0/winchesterSofa ccby/sofa3 ccby/couch3 "
    "kator/futon-couch kator/mid-century-bench-sofa kator/mid-century-sofa scopia/clear_sofa "
    "scopia/simple_sofa scopia/beige_sofa_2seats scopia/beige_sofa scopia/burlap_sofa "
    "scopia/leather_sofa scopia/rattanSofa",
    "potted plant": "cc0/littlePlant cc0/cactus cc0/decorativePlant cc0/orchids cc0/plant "
    "ccby/luckyBamboo ccby/mediumIndoorPlant ccby/spatifilum ccby/yuccaPlant ccby/succulentPlant "
    "scopia/maceta scopia/ficus scopia/bonsai-tree",
    "bed": "cc0/bed1 cc0/bed2 cc0/bedWithTexture cc0/bed3 ccby/bunkBed ccby/juniorBed "
    "ccby/lettoCloud scopia/bed1 scopia/iron_bed scopia/children_bed scopia/hospital-bed "
    "scopia/captains-bed scopia/day_bed_frame",
    "dining table": "cc0/oakTable cc0/table cc0/tableWithTablecloth ccby/cafe_set_mota_table "
    "kator/cafe-table kator/folding-table kator/glass-dining-table scopia/black_table "
    "scopia/table3 scopia/table4 scopia/wooden_table_office scopia/glass_table_office "
    "scopia/white_kitchen_table scopia/table-with-leaning-feet scopia/round-table "
    "scopia/children_table",
    "toilet": "cc0/toiletsUnit ccby/toilets_unit_jay_hardy ccby/modernToilet",
    "tv": "cc0/led_tv scopia/tv scopia/wall-flat-tv",
    "laptop": "ccby/laptop kator/apple-ibook-2001",
    "tv remote": "scopia/tv-remote-control",
    "cell phone": "cc0/iphone",
    "microwave": "ccby/microwave",
    "oven": "cc0/doubleOven cc0/oven ccby/largeStove kator/propane-stove scopia/small-oven",
    "toaster": "scopia/toaster",
    "sink": "cc0/washbasin cc0/modernVanity cc0/sinkCabinet ccby/kitchenSink "
    "ccby/washbasin_jay_hardy scopia/bathroom4 scopia/small_lavatory",
    "refrigerator": "cc0/refrigerator cc0/largeFridge kator/fridge",
    "book": "ccby/book",
    "clock": "cc0/cuckooClock ccby/clock",
    "vase": "scopia/old_jar scopia/vase1 scopia/vase2 scopia/vase3 scopia/vase5 scopia/jar",
    "scissors": "cc0/cissors_swap",
    "teddy bear": "cc0/teddyBear",
}

# Mesh/skin of the animals, below art/meshes/skeletal and art/textures/skins/skeletal of the game.
FAUNA: Mapping[str, str] = {
    "bird": "chicken/animal_chicken.dds crow/animal_crow.png hawk/animal_hawk.png "
    "seagull/animal_seagull.png peacock/animal_peacock.png",
    "dog": "mastiff_no_spikes/brit/mastiff_b_01.png mastiff_no_spikes/brit/mastiff_b_02.png",
    "horse": "horse_celtic/horse_bay_01.png horse_celtic/horse_white.png "
    "horse_celtic/horse_black.png horse_lusitano/horse_palomino_01.png "
    "horse_persian/horse_dark_chestnut.png horse_celtic/horse_skewbald.png",
    "sheep": "sheep/animal_sheep_a.dds sheep/animal_sheep_no_player_color_a.dds",
    "cow": "cattle_female_a/animal_cattle_black_and_white.png "
    "cattle_female_b/animal_cattle_beige.png cattle_female_a/animal_zebu_white_and_brown.png "
    "bull_a/animal_cattle_black.png zebu/animal_zebu_brown.png",
    "elephant": "elephant/animal_elephant.dds elephant_african_baby/animal-elephant-base-baby.dds "
    "elephant_african_bush/animal-elephant-base.dds "
    "elephant_asian_male/animal-elephant-asian-base.png",
    "bear": "bear/animal_bear_black.png bear/animal_bear_brown.png "
    "bear_polar/animal_bear_white.png",
    "zebra": "zebra/animal_zebra.dds horse/animal_zebra_2.png",
    "giraffe": "giraffe_adult/animal_giraffe.png giraffe_adult/animal_giraffeb.png "
    "giraffe_infant/animal_giraffe.png",
}

# Code points in Fluent emoji, names in Noto. Few: a detector trained on photographs knows one
# emoji in three, and two renderings in three.
FLUENT: Mapping[str, str] = {
    "airplane": "2708-fe0f", "train": "1f682", "boat": "26f5", "traffic light": "1f6a6",
    "bird": "1f99c", "backpack": "1f392", "handbag": "1f45c", "suitcase": "1f9f3", "kite": "1fa81",
    "skateboard": "1f6f9", "sports ball": "1f3d0", "broccoli": "1f966", "hot dog": "1f32d",
    "donut": "1f369", "cake": "1f382 1f370", "sandwich": "1f96a", "pizza": "1f355",
    "carrot": "1f955", "potted plant": "1fab4", "tv": "1f4fa", "laptop": "1f4bb",
    "computer mouse": "1f5b1-fe0f", "computer keyboard": "2328-fe0f", "book": "1f4d7",
    "clock": "23f0 1f570-fe0f", "vase": "1f3fa", "scissors": "2702-fe0f", "teddy bear": "1f9f8",
    "toothbrush": "1faa5", "spoon": "1f944", "knife": "1f52a", "bicycle": "1f6b2",
    "motorcycle": "1f3cd-fe0f",
}  # fmt: skip
NOTO: Mapping[str, str] = {
    "airplane": "airplane", "train": "locomotive train", "boat": "sailboat speedboat",
    "traffic light": "vertical-traffic-light", "backpack": "backpack", "handbag": "handbag",
    "suitcase": "luggage", "skateboard": "skateboard", "sports ball": "soccer-ball volleyball",
    "frisbee": "flying-disc", "broccoli": "broccoli", "carrot": "carrot", "hot dog": "hot-dog",
    "donut": "doughnut", "cake": "birthday-cake", "sandwich": "sandwich", "pizza": "pizza",
    "apple": "red-apple", "orange": "tangerine", "potted plant": "potted-plant",
    "computer mouse": "computer-mouse", "computer keyboard": "keyboard", "cell phone":
    "mobile-phone", "book": "closed-book", "clock": "alarm-clock", "vase": "amphora",
    "scissors": "scissors", "teddy bear": "teddy-bear", "toothbrush": "toothbrush",
    "spoon": "spoon", "knife": "kitchen-knife", "wine glass": "wine-glass", "bicycle": "bicycle",
    "toilet": "toilet", "laptop": "laptop", "bus": "bus", "umbrella": "umbrella",
}  # fmt: skip


def _round(azimuths: tuple[int, ...], elevations: tuple[int, ...]) -> tuple[Pose, ...]:
    return tuple((a, e) for a in azimuths for e in elevations)


_SIDES = _round((-125, -95, -70, -45, -25, 0, 25, 45, 70, 95, 125), (6, 22))
_PEOPLE = _round((-95, -60, -40, -20, 0, 20, 40, 60, 95), (2, 14))
_FRONT = _round((-55, -36, -18, 0, 18, 36, 55), (5, 20, 36))
_TURNED = _round((0, 60, 120, 180, 240, 300), (6, 20, 34))
_TABLE = _round((0, 35, 70, 145, 215, 290, 325), (12, 22, 32))
_ABOVE = _round((-150, -105, -60, -20, 20, 60, 105), (38, 58, 78))
_FLYING = _round((-110, -65, -30, 0, 30, 65, 110), (-42, 38, 62))
_WAYS: Mapping[str, tuple[Pose, ...]] = {
    name: way
    for way, names in (
        (_PEOPLE, "person"),
        (_FRONT, "stop sign|traffic light|parking meter|tie|kite|tv|laptop|microwave|oven|toaster|"
         "sink|refrigerator|book|clock|cell phone|toilet|baseball glove|baseball bat|umbrella|"
         "backpack|handbag|suitcase|surfboard|skis|snowboard|hair drier|banana|toothbrush|"
         "carrot|teddy bear|bed|bench|couch"),
        (_TURNED, "fire hydrant|bottle|wine glass|cup|vase|apple|orange|broccoli|cake|"
         "potted plant|sports ball"),
        (_TABLE, "dining table|bowl|sandwich"),
        (_ABOVE, "frisbee|skateboard|tennis racket|fork|knife|spoon|pizza|donut|computer mouse|"
         "tv remote|computer keyboard|scissors|hot dog"),
    )
    for name in names.split("|")
}  # fmt: skip
# What lies flat in its file though others of its name stand, and other exceptions.
_OWN_WAY: Mapping[str, tuple[Pose, ...]] = {
    "cc0/iphone": _ABOVE,
    "ccby/book": _ABOVE,
    "shapes/book/open": _ABOVE,
    "fauna/crow/animal_crow.png": _FLYING,
    "fauna/hawk/animal_hawk.png": _FLYING,
    "fauna/seagull/animal_seagull.png": _FLYING,
}
_BACKWARD = ("fauna/sheep/",)  # models whose head points away in their file
_VIEWS = 52  # of the models of one name together; a bank of 80 names then has about 20 MB
_FEWEST, _STEP = 6, 5


@dataclass(frozen=True)
class Model:
    """One thing that the bank shows."""

    name: str  # one of NAMES
    source: str  # furniture, fauna, shapes, fluent or noto
    id: str  # unique in the bank


def _models() -> tuple[Model, ...]:
    tables = (("furniture", FURNITURE), ("fauna", FAUNA), ("fluent", FLUENT), ("noto", NOTO))
    found = [
        Model(name, source, model if source == "furniture" else f"{source}/{model}")
        for source, table in tables
        for name, models in table.items()
        for model in models.split()
    ]
    found += [
        Model(name, "shapes", f"shapes/{name}/{variant}")
        for name, variants in SHAPES.items()
        for variant in variants
    ]
    return tuple(sorted(found, key=lambda model: (NAMES.index(model.name), model.id)))


MODELS = _models()


@cache
def _solid(name: str) -> tuple[str, ...]:
    """The models of a name that have sides."""
    return tuple(m.id for m in MODELS if m.name == name and m.source in SOLID)


def poses(model: Model) -> tuple[Pose, ...]:
    """Where a solid model is seen from; two of a name are seen from different sides."""
    siblings = _solid(model.name)
    way = _OWN_WAY.get(model.id) or _WAYS.get(model.name, _SIDES)
    count = min(len(way), max(_FEWEST, math.ceil(_VIEWS / len(siblings))))
    first = siblings.index(model.id)
    chosen = [way[(first + _STEP * k) % len(way)] for k in range(count)]
    around = 180 if model.id.startswith(_BACKWARD) else 0
    return tuple((azimuth + around, elevation) for azimuth, elevation in chosen)


def held_out_model(name: str, model: str) -> bool:
    """True for the one model in four or more of a name that training never shows."""
    solid = _solid(name)
    return len(solid) >= 4 and model == min(solid, key=lambda m: zlib.crc32(m.encode()))


def held_out_view(name: str, model: str, view: str) -> bool:
    """True for what training never shows: whole models, and an eighth of the others' views."""
    if held_out_model(name, model):
        return True
    return model in _solid(name) and zlib.crc32(f"{model} {view}".encode()) % 8 == 0
