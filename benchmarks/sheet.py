"""Contact sheets of the embedded model: one picture of each of its names, and 24 compositions.

    python benchmarks/sheet.py

Nothing is picked out: every picture has seed 1.
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

from janus_kit import JanusPipeline
from janus_kit.scoring.promptset import TASKS, prompts

HERE = Path(__file__).parent / "results"
COMPOSITIONS = (
    "a red apple left of a blue car",
    "three zebras",
    "a photo of a purple umbrella",
    "two green bottles",
    "a cat above a couch",
    "a pink teddy bear and a yellow cup",
    "four pizzas",
    "a giraffe right of a potted plant",
    "a photo of a white toilet",
    "a bench below a kite",
    "two dogs and a sports ball",
    "an orange bicycle",
    "a black horse left of a brown cow",
    "three wine glasses",
    "a stop sign above a motorcycle",
    "a blue chair and a red suitcase",
    "a laptop, a book and a cell phone",
    "a green vase",
    "four donuts",
    "an elephant and a traffic light",
    "a yellow bus below an airplane",
    "two people",
    "a hot dog right of a fork",
    "a brown handbag and a pink tie",
)


def sheet(pictures: list[Image.Image], labels: list[str], columns: int, side: int) -> Image.Image:
    """Pictures of one size side by side, each with its prompt below."""
    line = 14
    rows = -(-len(pictures) // columns)
    whole = Image.new("RGB", (columns * side, rows * (side + line)), "white")
    pen = ImageDraw.Draw(whole)
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x, y = number % columns * side, number // columns * (side + line)
        whole.paste(picture.resize((side, side), Image.Resampling.LANCZOS), (x, y))
        pen.text((x + 3, y + side + 1), label[: side // 6], fill="black")
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="A folder; without it, the embedded model.")
    parser.add_argument("--guidance", type=float, help="Without it, the model's own.")
    parser.add_argument("-o", "--output", type=Path, default=HERE)
    given = parser.parse_args()
    pipe = JanusPipeline.from_pretrained(given.model)
    alone = [line for line in prompts() if line["tag"] == TASKS[0]]
    single = {line["prompt"]: line["include"][0]["class"] for line in alone}
    composed = {text: text for text in COMPOSITIONS}
    for name, asked, columns, side in (
        ("embedded-names.jpg", single, 10, 128),
        ("embedded-samples.jpg", composed, 6, 208),
    ):
        drawn = [pipe(text, seed=1, guidance_scale=given.guidance).images[0] for text in asked]
        path = given.output / name
        sheet(drawn, list(asked.values()), columns, side).save(path, quality=88)
        print(path)


if __name__ == "__main__":
    main()
