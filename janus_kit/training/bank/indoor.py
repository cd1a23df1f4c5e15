"""Things of the house that no free model shows, or only one, built from solids."""

import math
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from janus_kit.training.bank.forms import (
    arc,
    ball,
    box,
    lathe,
    oval,
    place,
    press,
    rounded,
    slab,
    tube,
)
from janus_kit.training.bank.meshes import Mesh

__all__ = ["INDOOR"]

Thing = Callable[[], list[Mesh]]
DARK = "#24262a"


def _flat(parts: list[Mesh]) -> list[Mesh]:
    """What was drawn upright laid on its back."""
    return [place(part, turn=(-90, 0, 0)) for part in parts]


def _mouse(color: str = "#2c2f34", line: str = "#0c0d0f", wheel: str = "#8a8f96") -> list[Mesh]:
    """Two buttons and a wheel away from the viewer, a cord to the computer."""
    hull = press(place(ball(1, color, shine=0.3), scale=(0.66, 0.46, 1.1)), low=-0.1)

    def over(x: float, z: float) -> tuple[float, float, float]:
        return x, 0.465 * math.sqrt(max(0.0, 1 - (x / 0.66) ** 2 - (z / 1.1) ** 2)), z

    seam = [over(0, z) for z in np.linspace(-1.09, -0.1, 16).tolist()]
    across = [over(x, -0.1 + 0.1 * x * x) for x in np.linspace(-0.655, 0.655, 24).tolist()]
    disc = lathe([(0, -0.08), (0.2, -0.08), (0.2, 0.08), (0, 0.08)], wheel)
    cord = [(0.25 * math.sin(2.2 * t), -0.04, -1.05 - 1.5 * t) for t in np.linspace(0, 1, 16)]
    return [
        hull,
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


def _laptop(case: str = "#b8bcc2", screen: str = "#2a68b8") -> list[Mesh]:
    """Open, a picture of hills on its screen."""
    skin = Image.new("RGB", (480, 300), screen)
    pen = ImageDraw.Draw(skin)
    for y in range(300):
        pen.line((0, y, 480, y), fill=(70 + y // 3, 130 + y // 4, 225))
    pen.polygon([(0, 300), (0, 210), (130, 150), (300, 240), (480, 170), (480, 300)], "#3f7a4a")
    pen.polygon([(0, 300), (0, 260), (200, 215), (480, 280), (480, 300)], "#2f5f38")
    pen.rectangle((0, 282, 480, 300), fill="#1c2026")
    lid = [
        slab(rounded(3.2, 2.1, 0.1), 0.06, case),
        place(box((2.95, 1.85, 0.01), "#ffffff", skin=skin), (0, 0.02, 0.036)),
    ]
    parts = [place(place(part, (0, 1.05, 0)), (0, 0.05, -1.05), turn=(-16, 0, 0)) for part in lid]
    parts.append(place(slab(rounded(3.2, 2.1, 0.1), 0.1, case), turn=(-90, 0, 0)))
    for row in range(5):
        for k in range(12):
            key = box((0.19, 0.03, 0.14), "#26282c")
            parts.append(place(key, (-1.22 + 0.222 * k, 0.06, -0.72 + 0.18 * row)))
    return [*parts, place(box((0.9, 0.012, 0.55), "#989ca2"), (0, 0.055, 0.62))]


INDOOR: Mapping[str, Mapping[str, Thing]] = {
    "laptop": {"silver": _laptop, "black": lambda: _laptop("#2a2c30")},
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
}  # fmt: skip
