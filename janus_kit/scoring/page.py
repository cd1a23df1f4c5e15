"""report.html: one page that holds all it shows, with neither scripts nor anything from outside."""

import base64
import html
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from janus_kit.scoring.published import GENEVAL, SOURCE

__all__ = ["Card", "Table", "geneval_page", "page"]

_TITLES = {"geneval": "GenEval", "dpg": "DPG-Bench"}
MOST = 600  # pictures on a page; failures come first
SIDE = 256  # pixels of a picture's longer side there
_COLORS = ("#e11d48", "#2563eb", "#059669", "#d97706", "#7c3aed", "#0891b2")


@dataclass(frozen=True)
class Card:
    """One picture with its verdict."""

    kind: str  # the task, by which cards are filtered
    title: str
    good: bool
    text: str
    image: Callable[[], Image.Image]  # opened when the page is written
    boxes: Sequence[tuple[str, Sequence[float]]] = ()  # label with score, and box in pixels


@dataclass(frozen=True)
class Table:
    """Scores in percent; the first row is this run's and has intervals."""

    columns: Sequence[str]
    ours: Sequence[tuple[float, tuple[float, float] | None] | None]
    others: Mapping[str, Sequence[float]]
    caution: str = ""  # about the others, said below


def geneval_page(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], root: Path) -> str:
    """The page of a GenEval run; root holds the files that the rows name."""
    scores = summary["scores"]
    names = ["single_object", "two_object", "counting", "colors", "position", "color_attr"]

    def entry(name: str) -> tuple[float, tuple[float, float]] | None:
        if name not in scores["tasks"]:
            return None
        low, high = scores["task_intervals"][name]
        return 100 * scores["tasks"][name], (100 * low, 100 * high)

    low, high = scores["interval"]
    ours = [*map(entry, names), (100 * scores["overall"], (100 * low, 100 * high))]
    cards = [_geneval_card(row, root) for row in rows]
    return page(summary, Table([*names, "overall"], ours, GENEVAL), cards)


def _geneval_card(row: Mapping[str, Any], root: Path) -> Card:
    details = json.loads(row["details"])
    boxes = [(f"{name} {box[4]:.2f}", box[:4]) for name, found in details.items() for box in found]
    path = root / row["filename"]
    return Card(
        row["tag"],
        row["prompt"],
        bool(row["correct"]),
        row["reason"] or "as asked",
        lambda: Image.open(path),
        boxes,
    )


def page(summary: Mapping[str, Any], table: Table, cards: Sequence[Card]) -> str:
    """The page as HTML: scores beside published ones, pictures with verdicts, provenance."""
    ordered = sorted(cards, key=lambda card: card.good)  # stable: failures first
    kinds = list(dict.fromkeys(card.kind for card in cards))
    shown = ordered[:MOST]
    filters = _filters(kinds)
    name = str(summary.get("drawn_by", {}).get("model") or "pictures")
    title = f"{_TITLES[summary['benchmark']]} of {name}"
    bad = sum(not card.good for card in cards)
    count = f"{len(shown)} of {len(cards)} pictures, failures ({bad}) first"
    return "".join(
        [
            "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'>",
            "<meta name='viewport' content='width=device-width,initial-scale=1'>",
            # Whatever a prompt or a file name holds, nothing here is run or fetched.
            "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; ",
            "img-src data:; style-src 'unsafe-inline'\">",
            f"<title>{_text(title)}</title><style>{_STYLE}{filters[0]}</style></head><body>",
            f"<h1>{_text(title)}</h1>{_verdict(summary)}{_table(table, name)}",
            f"{_baseline(summary)}<h2>Pictures</h2><p>{_text(count)}</p>",
            f"{filters[1]}<main>{''.join(map(_card, shown))}</main>",
            f"<h2>How this was made</h2>{_facts(summary)}</body></html>\n",
        ]
    )


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)


def _verdict(summary: Mapping[str, Any]) -> str:
    parts = []
    if notes := summary["not_comparable_because"]:
        listed = "".join(f"<li>{_text(note)}</li>" for note in notes)
        parts.append(
            f"<div class='note'><b>Not comparable with published scores:</b><ul>{listed}</ul></div>"
        )
    if summary.get("warnings"):
        listed = "".join(f"<li>{_text(note)}</li>" for note in summary["warnings"])
        parts.append(f"<div class='note bad'><b>The judge looks broken:</b><ul>{listed}</ul></div>")
    if summary.get("missing"):
        listed = "".join(f"<li>{_text(note)}</li>" for note in summary["missing"][:20])
        more = len(summary["missing"]) - 20
        listed += f"<li>and {more} more</li>" if more > 0 else ""
        parts.append(f"<div class='note bad'><b>Not scored:</b><ul>{listed}</ul></div>")
    return "".join(parts)


def _table(table: Table, name: str) -> str:
    head = "".join(f"<th>{_text(column)}</th>" for column in table.columns)
    cells = []
    for entry in table.ours:
        if entry is None:
            cells.append("<td>–</td>")
            continue
        score, interval = entry
        span = f"<small>{interval[0]:.1f} to {interval[1]:.1f}</small>" if interval else ""
        cells.append(f"<td>{score:.1f}{span}</td>")
    rows = [f"<tr class='ours'><th>{_text(name)}</th>{''.join(cells)}</tr>"]
    for other, scores in table.others.items():
        cells = [f"<td>{score:.5g}</td>" for score in scores]
        rows.append(f"<tr><th>{_text(other)}</th>{''.join(cells)}</tr>")
    return (
        f"<div class='wide'><table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}"
        f"</tbody></table></div><p><small>Percent; below this run's, 95 % intervals by prompt. The "
        f"others: {_text(SOURCE)}. {_text(table.caution)}</small></p>"
    )


def _baseline(summary: Mapping[str, Any]) -> str:
    found = summary.get("against_baseline")
    if not found:
        return ""
    lines = {"overall": found["overall"], **found["tasks"]}
    rows = "".join(
        f"<tr><th>{_text(name)}</th><td>{entry['difference']:+.1f}<small>{entry['interval'][0]:+.1f}"
        f" to {entry['interval'][1]:+.1f}</small></td><td>{_text(entry['verdict'])}</td></tr>"
        for name, entry in lines.items()
    )
    return (
        f"<h2>Against {_text(found['baseline'])}</h2><div class='wide'><table><tbody>{rows}</tbody>"
        "</table></div>"
    )


def _filters(kinds: Sequence[str]) -> tuple[str, str]:
    """Style and buttons that show one kind, or only failures, without a script."""
    style, buttons = [], []
    for number, kind in enumerate(["all", *kinds]):
        checked = " checked" if number == 0 else ""
        buttons.append(
            f"<input type='radio' name='kind' id='k{number}'{checked}>"
            f"<label for='k{number}'>{_text(kind)}</label>"
        )
        if number:
            style.append(
                f"#k{number}:checked~main article:not([data-kind='{_css(kind)}']){{display:none}}"
            )
    buttons.append("<input type='checkbox' id='bad'><label for='bad'>failures only</label>")
    style.append("#bad:checked~main article.good{display:none}")
    return "".join(style), "".join(buttons)


def _css(kind: str) -> str:
    """A text inside a quoted CSS string, inside a style element."""
    return "".join(c if c.isalnum() or c in "_-" else f"\\{ord(c):x} " for c in kind)


def _card(card: Card) -> str:
    try:
        picture = _picture(card)
    except (OSError, SyntaxError, ValueError) as error:
        picture = f"<p class='gone'>{_text(error)}</p>"
    state = "good" if card.good else "wrong"
    lines = "<br>".join(_text(line) for line in card.text.split("\n"))
    return (
        f"<article class='{state}' data-kind='{_text(card.kind)}'>{picture}"
        f"<h3>{_text(card.title)}</h3><p><b>{state}</b> · {_text(card.kind)}<br>{lines}</p>"
        "</article>"
    )


def _picture(card: Card) -> str:
    with card.image() as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    w, h = image.size
    image.thumbnail((SIDE, SIDE))
    data = BytesIO()
    image.save(data, format="JPEG", quality=80)
    code = base64.b64encode(data.getvalue()).decode()
    names = list(dict.fromkeys(label.rpartition(" ")[0] for label, _ in card.boxes))
    shapes = []
    size = max(w, h) / 18
    for label, (x1, y1, x2, y2) in card.boxes:
        color = _COLORS[names.index(label.rpartition(" ")[0]) % len(_COLORS)]
        shapes.append(
            f"<rect x='{x1:.1f}' y='{y1:.1f}' width='{max(x2 - x1, 0):.1f}' "
            f"height='{max(y2 - y1, 0):.1f}' fill='none' stroke='{color}' "
            f"stroke-width='{size / 6:.1f}'/><text x='{x1 + size / 4:.1f}' y='{y1 + size:.1f}' "
            f"font-size='{size:.1f}' fill='{color}' stroke='white' stroke-width='{size / 5:.1f}' "
            f"paint-order='stroke'>{_text(label)}</text>"
        )
    return (
        f"<svg viewBox='0 0 {w} {h}' role='img' aria-label='{_text(card.title)}'>"
        f"<image href='data:image/jpeg;base64,{code}' width='{w}' height='{h}'/>"
        f"{''.join(shapes)}</svg>"
    )


def _facts(summary: Mapping[str, Any]) -> str:
    """The summary without its scores, as a table."""
    left = ("scores", "scores_of_visible_names", "missing", "against_baseline", "items")
    rows = []
    for name, value in summary.items():
        if name not in left:
            plain = not isinstance(value, dict | list)
            shown = value if plain else json.dumps(value, ensure_ascii=False)
            rows.append(f"<tr><th>{_text(name)}</th><td>{_text(shown)}</td></tr>")
    return f"<div class='wide'><table class='facts'><tbody>{''.join(rows)}</tbody></table></div>"


_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881}
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:1200px;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
.wide{overflow-x:auto}table{border-collapse:collapse}
th,td{padding:.35rem .7rem;border-bottom:1px solid var(--line);text-align:right}
th:first-child,.facts td{text-align:left}.facts td{overflow-wrap:anywhere}
td small{display:block;opacity:.7;white-space:nowrap}.ours{background:var(--soft);font-weight:600}
.note{border-left:4px solid #d97706;background:var(--soft);padding:.5rem 1rem;margin:1rem 0}
.note.bad{border-color:#e11d48}.note ul{margin:.3rem 0}
input{position:absolute;opacity:0}
label{display:inline-block;padding:.25rem .8rem;margin:0 .3rem .5rem 0;border:1px solid var(--line);
border-radius:99px;cursor:pointer}
input:checked+label{background:#2563eb;color:white}input:focus-visible+label{outline:2px solid}
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(210px,1fr));gap:1rem}
article{border:1px solid var(--line);border-radius:8px;overflow:hidden}
article.good{border-top:4px solid #059669}article.wrong{border-top:4px solid #e11d48}
article h3{font-size:.95rem;margin:.5rem .7rem 0}
article p{font-size:.85rem;margin:.2rem .7rem .7rem}
svg{display:block;width:100%;height:auto}
"""
