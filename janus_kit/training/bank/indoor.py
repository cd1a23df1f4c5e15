"""Things of the house that no free model shows, or only one, built from solids."""

import math
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from janus_kit.training.bank.forms import arc, ball, box, lathe, oval, place, rounded, slab, tube
from janus_kit.training.bank.meshes import Mesh

__all__ = ["INDOOR"]

Thing = Callable[[], list[Mesh]]
STEEL = "#c4c8cc"
DARK = "#24262a"


def _flat(parts: list[Mesh]) -> list[Mesh]:
    """What was drawn upright laid on its back."""
    return [place(part, turn=(-90, 0, 0)) for part in parts]


def _mouse(color: str = "#2c2f34", line: str = "#0c0d0f", wheel: str = "#8a8f96") -> list[Mesh]:
    """Two buttons and a wheel away from the viewer, a cord to the computer."""
    hull = place(ball(1, color, shine=0.3), scale=(0.66, 0.46, 1.1))
    hull.points[:, 1] = np.maximum(hull.points[:, 1], -0.1)

    def over(x: float, z: float) -> tuple[float, float, float]:
        return x, 0.465 * math.sqrt(max(0.0, 1 - (x / 0.66) ** 2 - (z / 1.1) ** 2)), z

    seam = [over(0, z) for z in np.linspace(-1.09, -0.1, 16).tolist()]
    across = [over(x, -0.1 + 0.1 * x * x) for x in np.linspace(-0.655, 0.655, 24).tolist()]
    disc = lathe([(0, -0.08), (0.2, -0.08), (0.2, 0.08), (0, 0.08)], wheel)
    cord = [(0.25 * math.sin(2.2 * t), -0.04, -1.05 - 1.5 * t) for t in np.linspace(0, 1, 16)]
    return [
        place(hull),
        tube(seam, [0.022] * 16, line),
        tube(across, [0.022] * 24, line),
        place(disc, (0, 0.32, -0.6), turn=(0, 0, 90)),
        tube(cord, [0.035] * 16, color),
    ]


def _keyboard(case: str = "#26282c", keys: str = "#3c4046", letters: str = "#e8e8e8") -> list[Mesh]:
    parts = [slab(rounded(6.4, 2.3, 0.12), 0.16, case)]
    font = ImageFont.load_default(26)
    rows = ("~1234567890-=", "QWERTYUIOP[]", "ASDFGHJKL;'", "ZXCVBNM,./")
    for row in range(5):
        count = 15 if row < 4 else 0
        for k in range(count):
            cap = Image.new("RGB", (48, 48), keys)
            text = rows[row][k - 1 : k] if 0 < k <= len(rows[row]) else ""
            ImageDraw.Draw(cap).text((24, 24), text, letters, font, anchor="mm")
            at = (-2.94 + 0.42 * k, 0.88 - 0.42 * row, 0.12)
            parts.append(place(slab(rounded(0.36, 0.36, 0.05), 0.12, keys, skin=cap), at))
    for x, width in ((-2.75, 0.7), (-1.95, 0.7), (0.0, 2.9), (1.95, 0.7), (2.75, 0.7)):
        parts.append(place(slab(rounded(width, 0.36, 0.05), 0.12, keys), (x, -0.82, 0.12)))
    return [place(part, turn=(6, 0, 0)) for part in _flat(parts)]


def _remote(case: str = "#202226", accent: str = "#c8262c") -> list[Mesh]:
    parts = [slab(rounded(1.0, 4.2, 0.25), 0.28, case)]
    parts.append(place(slab(oval(0.2, 0.2), 0.06, accent), (-0.28, 1.75, 0.16)))
    for row in range(4):
        for k in range(3):
            at = (-0.28 + 0.28 * k, 1.3 - 0.3 * row, 0.16)
            parts.append(place(slab(rounded(0.2, 0.18, 0.05), 0.06, "#d8dade"), at))
    parts.append(place(slab(oval(0.74, 0.74), 0.05, "#4a4e54"), (0, -0.3, 0.16)))
    parts.append(place(slab(oval(0.3, 0.3), 0.09, "#d8dade"), (0, -0.3, 0.16)))
    for row, colors in enumerate((("#d8302c", "#3aa24a", "#e8c22a"), ("#9a9ea4",) * 3,
                                  ("#9a9ea4",) * 3)):  # fmt: skip
        for k, color in enumerate(colors):
            at = (-0.28 + 0.28 * k, -0.95 - 0.3 * row, 0.16)
            parts.append(place(slab(oval(0.2, 0.16), 0.06, color), at))
    return _flat(parts)


def _phone(case: str = "#1c1e22", screen: str = "#3a78c8") -> list[Mesh]:
    """A smart phone, upright and leaning back a little, its screen full of icons."""
    skin = Image.new("RGB", (220, 440), screen)
    pen = ImageDraw.Draw(skin)
    for y in range(0, 440, 4):
        pen.rectangle((0, y, 220, y + 4), fill=(60, 90 + y // 5, 190 - y // 6))
    pen.rectangle((0, 0, 220, 14), fill="#101216")
    tones = ("#e8483a", "#f2b82a", "#48b858", "#f4f4f4", "#8a52c8", "#2ab8c8")
    for k in range(20):
        x, y = 18 + 50 * (k % 4), 40 + 62 * (k // 4)
        pen.rounded_rectangle((x, y, x + 36, y + 36), 8, fill=tones[(k * 5) % 6])
    pen.rounded_rectangle((10, 372, 210, 428), 12, fill="#d8dce4")
    for k in range(4):
        pen.rounded_rectangle((18 + 50 * k, 382, 54 + 50 * k, 418), 8, fill=tones[k])
    return [
        slab(rounded(2.1, 4.3, 0.28), 0.2, case, shine=0.3),
        place(slab(rounded(1.92, 4.0, 0.15), 0.02, "#ffffff", skin=skin), (0, 0, 0.11)),
        place(box((0.05, 0.5, 0.08), "#70757c"), (1.06, 0.8, 0)),
    ]


def _book(cover: str = "#8c2430", title: str = "#f2d68a") -> list[Mesh]:
    """A closed book that stands, its cover to the viewer."""
    skin = Image.new("RGB", (300, 420), cover)
    pen = ImageDraw.Draw(skin)
    pen.rectangle((20, 20, 279, 399), outline=title, width=5)
    pen.text((150, 110), "NOVEL", title, ImageFont.load_default(58), anchor="mm")
    pen.line((60, 170, 240, 170), fill=title, width=4)
    pen.ellipse((105, 220, 195, 310), outline=title, width=5)
    pen.text((150, 360), "A. Writer", title, ImageFont.load_default(26), anchor="mm")
    return [
        place(slab([(-1.5, -2.1), (1.5, -2.1), (1.5, 2.1), (-1.5, 2.1)], 0.07, cover, skin=skin),
              (0, 0, 0.36)),
        place(box((3.0, 4.2, 0.07), cover), (0, 0, -0.36)),
        place(box((2.85, 4.0, 0.66), "#f2ead6"), (-0.02, 0, 0)),
        place(tube([(-1.5, -2.1, 0), (-1.5, 2.1, 0)], [0.39, 0.39], cover), (0, 0, 0),
              scale=(1, 1, 1)),
    ]  # fmt: skip


def _open_book() -> list[Mesh]:
    """A book that lies open, lines of print on both pages."""
    page = Image.new("RGB", (300, 400), "#faf6ea")
    pen = ImageDraw.Draw(page)
    for k in range(20):
        pen.line(
            (36, 40 + 16 * k, 264 if k % 6 != 5 else 150, 40 + 16 * k), fill="#5a564e", width=4
        )
    parts = [place(box((6.3, 0.06, 4.3), "#2a4a7a"), (0, -0.24, 0))]
    for side in (-1, 1):
        bulge = [(side * 3.0 * t, 0.55 * math.sin(math.pi * t) ** 0.8 * (1 - 0.6 * t) + 0.05)
                 for t in np.linspace(0, 1, 12).tolist()]  # fmt: skip
        top = np.array(bulge if side > 0 else bulge[::-1])
        block = [*top.tolist(), (top[-1, 0], -0.2), (top[0, 0], -0.2)]
        parts.append(slab([(x, y) for x, y in block], 4.0, "#efe8d4"))
        for (x0, y0), (x1, y1) in zip(top[:-1].tolist(), top[1:].tolist(), strict=True):
            left, right = (x0 - top[0, 0]) / 3 * 300, (x1 - top[0, 0]) / 3 * 300
            strip = page.crop((int(left), 0, max(int(right), int(left) + 1), 400))
            length = math.hypot(x1 - x0, y1 - y0)
            leaf = place(box((length, 4, 0.01), "#ffffff", skin=strip), turn=(-90, 0, 0))
            rise = math.degrees(math.atan2(y1 - y0, x1 - x0))
            parts.append(place(leaf, ((x0 + x1) / 2, (y0 + y1) / 2 + 0.012, 0), turn=(0, 0, rise)))
    return parts


def _clock(
    rim: str = "#2a2c30", face: str = "#faf8f0", hands: tuple[int, int] = (10, 10)
) -> list[Mesh]:
    """A round wall clock with numbers."""
    skin = Image.new("RGB", (512, 512), face)
    pen = ImageDraw.Draw(skin)
    font = ImageFont.load_default(56)
    for k in range(60):
        t = math.radians(6 * k)
        reach = 222 if k % 5 else 212
        ends = [(256 + r * math.sin(t), 256 - r * math.cos(t)) for r in (reach, 236)]
        pen.line(ends, fill="#202020", width=4 if k % 5 else 10)
    for k in range(1, 13):
        t = math.radians(30 * k)
        at = (256 + 178 * math.sin(t), 256 - 178 * math.cos(t))
        pen.text(at, str(k), "#202020", font, anchor="mm")
    hour, minute = hands
    for turn, reach, width in ((30 * hour + minute / 2, 110, 16), (6 * minute, 165, 10)):
        t = math.radians(turn)
        pen.line((256, 256, 256 + reach * math.sin(t), 256 - reach * math.cos(t)), fill="#101010",
                 width=width)  # fmt: skip
    pen.ellipse((244, 244, 268, 268), fill="#101010")
    ring = tube([(*point[:2], 0.05) for point in arc(0, 360, 1.05, count=60)], [0.13] * 60, rim)
    return [ring, slab(oval(2.1, 2.1), 0.12, "#ffffff", skin=skin)]


def _toaster(body: str = "#c4c8cc", ends: str = "#26282c") -> list[Mesh]:
    toast = rounded(0.95, 0.9, 0.2)
    parts = [
        place(slab(rounded(1.3, 1.4, 0.35), 2.2, body, shine=0.3), turn=(0, 90, 0)),
        place(slab(rounded(1.34, 1.44, 0.35), 0.12, ends), (-1.1, 0, 0), turn=(0, 90, 0)),
        place(slab(rounded(1.34, 1.44, 0.35), 0.12, ends), (1.1, 0, 0), turn=(0, 90, 0)),
        place(box((0.12, 0.14, 0.36), ends), (1.26, 0.25, 0)),
        place(slab(oval(0.3, 0.3), 0.08, ends), (1.18, -0.3, 0.0), turn=(0, 90, 0)),
    ]
    for z in (-0.26, 0.26):
        parts.append(place(box((1.5, 0.04, 0.22), "#141518"), (0, 0.7, z)))
        parts.append(place(slab(toast, 0.16, "#c98f4a"), (0, 0.62, z), scale=(1.35, 1, 1)))
        parts.append(place(slab(toast, 0.17, "#e8c488"), (0, 0.6, z), scale=(1.2, 0.9, 1)))
    for x in (-0.8, 0.8):
        for z in (-0.4, 0.4):
            parts.append(place(box((0.2, 0.14, 0.2), ends), (x, -0.75, z)))
    return parts


def _hair_drier(body: str = "#d8447a", dark: str = "#2a2c30") -> list[Mesh]:
    profile = [(0.0, -1.0), (0.35, -0.98), (0.52, -0.7), (0.55, -0.2), (0.46, 0.5), (0.38, 1.05)]
    barrel = lathe(profile, body, shine=0.3)
    nozzle = lathe(
        [(0.38, 1.0), (0.34, 1.35), (0.3, 1.45), (0.26, 1.45), (0.26, 1.1), (0, 1.1)], dark
    )
    grill = lathe([(0.0, -1.04), (0.3, -1.02), (0.34, -0.96)], dark)
    parts = [place(part, turn=(0, 0, 90)) for part in (barrel, nozzle, grill)]
    handle = tube([(0.35, -0.3, 0), (0.42, -1.0, 0), (0.55, -1.9, 0)], [0.24, 0.22, 0.2], body)
    cord = [(0.57, -1.95, 0), (0.65, -2.3, 0), (0.9, -2.5, 0), (1.3, -2.45, 0), (1.6, -2.6, 0)]
    return [
        *parts,
        handle,
        place(box((0.1, 0.4, 0.12), "#f2f2f0"), (0.19, -0.95, 0)),
        tube(cord, [0.06] * 5, dark),
    ]


def _toothbrush(color: str = "#2a8ad8", second: str = "#f4f6f8") -> list[Mesh]:
    stem = [(-3.0, 0, 0), (-2.6, 0.03, 0), (-1.6, 0.1, 0), (-0.6, 0.02, 0), (0.4, -0.03, 0),
            (1.4, 0, 0), (1.9, 0, 0), (2.9, 0, 0), (3.0, 0, 0)]  # fmt: skip
    handle = tube(stem, [0.16, 0.24, 0.26, 0.2, 0.13, 0.11, 0.2, 0.2, 0.12], color, shine=0.3)
    parts = [place(handle, scale=(1, 0.7, 1)), place(box((1.2, 0.06, 0.2), second), (-1.7, 0.2, 0))]
    for k in range(8):
        for z in (-0.12, 0.0, 0.12):
            tone = color if k in (0, 7) else second
            tuft = lathe([(0.055, 0), (0.065, 0.5), (0.0, 0.52)], tone)
            parts.append(place(tuft, (1.85 + 0.15 * k, 0.1, z)))
    return [place(part, turn=(0, 0, 24)) for part in parts]


def _tie(color: str = "#a8202c", stripe: str = "#e8c24a") -> list[Mesh]:
    skin = Image.new("RGB", (256, 768), color)
    pen = ImageDraw.Draw(skin)
    for k in range(-4, 12):
        pen.line((-40, 120 * k, 300, 120 * k + 170), fill=stripe, width=22)
    blade = [(-0.26, 2.1), (-0.62, -1.7), (0.0, -2.3), (0.62, -1.7), (0.26, 2.1)]
    knot = [(-0.42, 0.42), (-0.22, -0.42), (0.22, -0.42), (0.42, 0.42)]
    loop = [(1.25 * x, 1.5 * y, 0.0) for x, y, _ in arc(-65, 245, 0.75, count=30)]
    return [
        slab(blade, 0.06, color, skin=skin),
        place(slab(knot, 0.3, color, skin=skin.crop((0, 0, 256, 256))), (0, 2.3, 0.08)),
        place(tube(loop, [0.11] * 30, color), (0, 3.6, -0.1), scale=(1, 1, 0.5)),
    ]


def _umbrella(color: str = "#d8262c", second: str = "#d8262c") -> list[Mesh]:
    """An open umbrella with its crook."""
    parts = []
    ribs = 8
    for k in range(ribs):
        turn = np.linspace(2 * math.pi * k / ribs, 2 * math.pi * (k + 1) / ribs, 7)
        rise = np.linspace(0, 1, 10)
        net = []
        for up in rise.tolist():
            sag = 0.10 * np.sin(np.linspace(0, math.pi, 7)) * up**2
            radius = 2.0 * math.sin(up * 1.32) * (1 - sag)
            high = 2.0 * math.cos(up * 1.32) + sag
            net.append(np.column_stack([radius * np.sin(turn), high, radius * np.cos(turn)]))
        sheet = np.stack(net)
        a, b, c, d = sheet[:-1, :-1], sheet[1:, :-1], sheet[1:, 1:], sheet[:-1, 1:]
        points = np.stack([a, b, c, a, c, d], axis=2).reshape(-1, 3)
        look = slab([(0, 0), (1, 0), (0, 1)], 1, color if k % 2 else second).surface
        parts.append(place(Mesh(points=points, normals=points, surface=look)))
    crook = [(0, 2.25, 0), (0, 0, 0), (0, -1.6, 0), *[(0.3 + x, -1.6 + y, 0)
             for x, y, _ in arc(180, 350, 0.3, count=10)]]  # fmt: skip
    parts.append(tube(crook, [0.05] * len(crook), "#4a3222"))
    return [place(part, turn=(8, 0, -18)) for part in parts]


def _wine_glass(wine: str = "#7a1424", full: float = 0.55) -> list[Mesh]:
    bowl = [(0.1, -0.02), (0.45, 0.12), (0.7, 0.45), (0.78, 0.85), (0.72, 1.3), (0.58, 1.75)]
    stem = [(0.0, -2.0), (0.7, -1.98), (0.68, -1.93), (0.2, -1.86), (0.07, -1.7), (0.06, -0.2),
            (0.1, -0.02)]  # fmt: skip
    drink = [(0.0, 0.0), *[(0.94 * r, y) for r, y in bowl if y <= full + 0.4]]
    drink.append((0.0, drink[-1][1]))
    return [
        lathe(drink, wine, shine=0.3),
        lathe(stem, "#dfe8ec", alpha=0.75, shine=0.3),
        lathe(bowl, "#dfe8ec", alpha=0.35, shine=0.3),
    ]


def _bottle(glass: str = "#1f4a2a", label: str = "#f2e8cc") -> list[Mesh]:
    body = [(0.0, -2.0), (0.55, -2.0), (0.6, -1.9), (0.6, 0.4), (0.5, 0.8), (0.24, 1.25),
            (0.2, 2.0), (0.25, 2.02), (0.25, 2.15), (0.0, 2.15)]  # fmt: skip
    return [
        lathe(body, glass, shine=0.3, gloss=60.0),
        lathe([(0.61, -1.3), (0.61, 0.0)], label),
        lathe([(0.615, -0.9), (0.615, -0.45)], "#a8242c"),
        lathe([(0.215, 1.6), (0.265, 2.0), (0.265, 2.18), (0.0, 2.18)], "#7a1f28"),
    ]


def _spoon(color: str = STEEL) -> list[Mesh]:
    bowl = place(ball(1, color, shine=0.3), scale=(0.5, 0.16, 0.75))
    bowl.points[:, 1] = -np.abs(bowl.points[:, 1])
    stem = [(0, 0, 0.72), (0, 0.1, 1.0), (0, 0.06, 1.8), (0, 0, 3.2), (0, 0.02, 3.4)]
    handle = place(tube(stem, [0.09, 0.09, 0.1, 0.17, 0.1], color, shine=0.3), scale=(1, 0.45, 1))
    return [place(part, turn=(0, 20, 0)) for part in (place(bowl), handle)]


def _fork(color: str = STEEL) -> list[Mesh]:
    stem = [(0, 0, 0.4), (0, 0.08, 0.8), (0, 0.05, 1.8), (0, 0, 3.2), (0, 0, 3.4)]
    parts = [place(tube(stem, [0.2, 0.1, 0.1, 0.17, 0.1], color, shine=0.3), scale=(1, 0.5, 1))]
    palm = [(0.36, -0.35), (0.34, 0.05), (0.12, 0.55), (-0.12, 0.55), (-0.34, 0.05), (-0.36, -0.35)]
    parts.append(place(slab(palm, 0.07, color, shine=0.3), turn=(90, 0, 0)))
    for k in range(4):
        x = -0.31 + 0.207 * k
        tine = tube([(x, 0, -0.3), (x, 0.03, -0.9), (x, 0.1, -1.35)], [0.06, 0.055, 0.02], color)
        parts.append(tine)
    return [place(part, turn=(0, 20, 0)) for part in parts]


def _knife(blade: str = STEEL, handle: str = "#2a2422") -> list[Mesh]:
    edge = [(0.0, 0.22), (0.0, -0.28), (2.2, -0.28), (2.75, -0.12), (3.0, 0.2), (2.9, 0.22)]
    grip = rounded(1.9, 0.42, 0.14)
    rivets = [
        place(slab(oval(0.12, 0.12), 0.24, "#d8dade"), (x, 0, 0)) for x in (-1.5, -0.95, -0.4)
    ]
    parts = [
        slab(edge, 0.05, blade, shine=0.3),
        place(slab(grip, 0.2, handle), (-0.95, 0, 0)),
        *rivets,
    ]
    return [place(part, turn=(-90, 25, 0)) for part in parts]


def _microwave(body: str = "#2c2e32", panel: str = "#1c1d20") -> list[Mesh]:
    parts = [
        box((3.6, 2.0, 2.4), body),
        place(slab(rounded(2.5, 1.7, 0.08), 0.08, panel, shine=0.3), (-0.45, 0, 1.22)),
        place(slab(rounded(1.9, 1.15, 0.1), 0.05, "#4a5258", shine=0.3), (-0.55, 0, 1.26)),
        place(tube([(0, -0.6, 0), (0, 0.6, 0)], [0.06, 0.06], STEEL), (0.72, 0, 1.36)),
        place(box((0.6, 0.26, 0.04), "#2fd8a0"), (1.35, 0.7, 1.22)),
    ]
    for k in range(12):
        at = (1.15 + 0.2 * (k % 3), 0.35 - 0.2 * (k // 3), 1.22)
        parts.append(place(box((0.14, 0.12, 0.05), "#c4c8cc"), at))
    parts.append(place(slab(rounded(0.54, 0.2, 0.05), 0.05, "#8a9096"), (1.35, -0.65, 1.22)))
    return parts


INDOOR: Mapping[str, Mapping[str, Thing]] = {
    "computer mouse": {
        "black": _mouse,
        "white": lambda: _mouse("#eceef0", "#8a8f96", "#4a4e54"),
        "grey": lambda: _mouse("#8a9098", "#3a3e44", DARK),
    },
    "computer keyboard": {
        "black": _keyboard,
        "white": lambda: _keyboard("#d8dade", "#f6f6f4", "#303030"),
        "grey": lambda: _keyboard("#9aa0a6", "#2c2f34"),
    },
    "tv remote": {"black": _remote, "grey": lambda: _remote("#6a7078", "#e0402a")},
    "cell phone": {"black": _phone, "white": lambda: _phone("#eceef0")},
    "book": {
        "red": _book,
        "blue": lambda: _book("#24488c", "#f4f0e0"),
        "green": lambda: _book("#2c6a48", "#f2e2a8"),
        "open": _open_book,
    },
    "clock": {
        "black": _clock,
        "red": lambda: _clock("#c8302a", hands=(4, 35)),
        "wood": lambda: _clock("#8a5a30", "#f2e6c8", hands=(1, 50)),
    },
    "toaster": {"steel": _toaster, "red": lambda: _toaster("#c8302a"),
                "cream": lambda: _toaster("#ece2c8", "#8a8e94")},
    "hair drier": {
        "pink": _hair_drier,
        "black": lambda: _hair_drier("#303338", "#8a9096"),
        "blue": lambda: _hair_drier("#3a78c8"),
    },
    "toothbrush": {
        "blue": _toothbrush,
        "green": lambda: _toothbrush("#3aa858"),
        "pink": lambda: _toothbrush("#e0508a"),
    },
    "tie": {
        "red": _tie,
        "blue": lambda: _tie("#1f3f7a", "#c4ccd8"),
        "plain": lambda: _tie("#2a2c34", "#2a2c34"),
    },
    "umbrella": {
        "red": _umbrella,
        "blue": lambda: _umbrella("#2a58b0", "#f2f2ee"),
        "yellow": lambda: _umbrella("#f0c42a"),
    },
    "wine glass": {
        "red": _wine_glass,
        "white": lambda: _wine_glass("#e8d888", 0.4),
        "rose": lambda: _wine_glass("#e08a8a", 0.7),
    },
    "bottle": {"green": _bottle, "brown": lambda: _bottle("#4a2a14", "#e8d098")},
    "spoon": {"steel": _spoon, "wood": lambda: _spoon("#b07c48")},
    "fork": {"steel": _fork, "gold": lambda: _fork("#d0ac5c")},
    "knife": {"black": _knife, "wood": lambda: _knife(handle="#8a5430")},
    "microwave": {"black": _microwave, "white": lambda: _microwave("#ececea", "#3a3e44")},
}  # fmt: skip
