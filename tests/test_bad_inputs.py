"""Bad pictures and bad names: each ends as failed with a reason, and nothing else is lost.

The numbers are rows of the list of bad inputs that this was made from. What the loader makes of a
good picture of any mode is tested in test_images.py.
"""

import json
import os
import socket
import struct
import tempfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch_parts import picture
from PIL import Image

from janus_kit import JanusPipeline, caption_folder
from janus_kit.batch import inputs
from janus_kit.batch.files import text_of
from janus_kit.errors import BatchError

SHORT = {"max_new_tokens": 4}


@pytest.fixture(scope="module")
def pipe(hf_folder: Path) -> JanusPipeline:
    return JanusPipeline.from_pretrained(hf_folder)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    data = BytesIO()
    image.save(data, format=kind, **options)
    return data.getvalue()


def noise(size: tuple[int, int] = (64, 48), mode: str = "RGB") -> Image.Image:
    draw = np.random.default_rng(1)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    return Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, color: int, *more: bytes) -> bytes:
    """A PNG of one colour by hand, with any claims."""
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    channels = {0: 1, 2: 3, 6: 4}[color]
    row = b"\0" * (1 + (width * depth * channels + 7) // 8)
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    parts = [chunk(b"IHDR", head), *more, chunk(b"IDAT", body), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


def webp_header(width: int, height: int) -> bytes:
    body = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0"
    body += (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


# name → bytes → a part of the reason.
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "01 empty.png": (lambda: b"", "is empty"),
    "02 cut.jpg": (lambda: encoded(noise(), "JPEG")[:900], "damaged or cut short"),
    "03 cut.png": (lambda: encoded(noise())[:900], "damaged or cut short"),
    "04 crc.png": (lambda: flipped(encoded(noise()), 30), "damaged|not a readable"),
    "05 text.jpg": (lambda: b"this is no picture", "not a readable"),
    "06 page.png": (lambda: b"<!doctype html><html></html>", "web page"),
    "10 drawing.svg": (lambda: b"<svg xmlns='x'></svg>", "SVG"),
    "11 a.eps": (lambda: b"%!PS-Adobe-3.0 EPSF", "EPS"),
    "11 b.wmf": (lambda: b"\xd7\xcd\xc6\x9a" + b"\0" * 40, "WMF"),
    "11 c.psd": (lambda: b"8BPS\0\1" + b"\0" * 40, "Photoshop"),
    "11 d.fpx": (lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 40, "FlashPix"),
    "12 pages.tif": (lambda: encoded(noise(), "TIFF"), "is a TIFF"),
    "13 photo.heic": (lambda: b"\0\0\0\x18ftypheic" + b"\0" * 20, "pillow-heif"),
    "13 photo.avif": (lambda: b"\0\0\0\x18ftypavif" + b"\0" * 20, "AVIF"),
    "16 thin.png": (lambda: png(1, 20_000, 8, 0), "longer than 200:1"),
    "17 wide.png": (lambda: png(20_001, 200, 1, 0), "at most 20000 a side"),
    "18 huge.png": (lambda: png(10_000, 10_000, 1, 0), "more than 64 million pixels"),
    "19 claim.webp": (lambda: webp_header(16_383, 16_383), "more than 64 million pixels"),
    "20 bomb.png": (
        lambda: png(8, 8, 8, 0, chunk(b"zTXt", b"k\0\0" + zlib.compress(b"\0" * 90_000_000, 9))),
        "damaged|not a readable",
    ),
}

TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
LOOP = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"
GOOD: dict[str, Callable[[], bytes]] = {
    "07 jpeg.png": lambda: encoded(noise(), "JPEG"),
    "09 UPPER.JPG": lambda: encoded(noise(), "JPEG"),
    "14 moving.gif": lambda: encoded(
        noise(), "GIF", save_all=True, append_images=[noise((64, 48))], duration=5
    ),
    "15 dot.png": lambda: encoded(noise((1, 1))),
    "21 grey16.png": lambda: encoded(Image.new("I;16", (20, 20), 30_000)),
    "22 rgb16.png": lambda: png(20, 20, 16, 2),
    "24 one bit.png": lambda: encoded(noise().convert("1")),
    "24 palette.png": lambda: encoded(noise().convert("P"), transparency=0),
    "24 la.png": lambda: encoded(noise().convert("LA")),
    "25 clear.png": lambda: encoded(Image.new("RGBA", (20, 20), (9, 9, 9, 0))),
    "26 cmyk.jpg": lambda: encoded(noise().convert("CMYK"), "JPEG"),
    "27 turned.jpg": lambda: encoded(noise(), "JPEG", exif=TURNED),
    "28 loop.jpg": lambda: encoded(noise(), "JPEG", exif=LOOP),
    "29 icc.png": lambda: encoded(noise(), icc_profile=b"no profile"),
}


def reasons(folder: Path) -> dict[str, str | None]:
    lines = (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["file_name"]: row.get("error") for row in map(json.loads, lines)}


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # Pillow's own, about broken EXIF
def test_bad_pictures_fail_with_a_reason_and_good_ones_are_captioned(
    tmp_path: Path, pipe: JanusPipeline
) -> None:
    for name, (make, _) in BAD.items():
        (tmp_path / name).write_bytes(make())
    for name, good in GOOD.items():
        (tmp_path / name).write_bytes(good())
    outcome = caption_folder(pipe, tmp_path, full_names=True, **SHORT)
    found = reasons(tmp_path)
    wrong = {name: error for name, error in found.items() if name in GOOD and error}
    assert wrong == {}
    for name, (_, part) in BAD.items():
        assert found[name] is not None, name
        assert any(word in str(found[name]) for word in part.split("|")), (name, found[name])
        assert "\n" not in str(found[name])
        assert len(str(found[name])) < 300
    assert (outcome.done, outcome.failed, outcome.left) == (len(GOOD), len(BAD), 0)
    assert {path.name for path in tmp_path.glob("*.txt")} == {f"{name}.txt" for name in GOOD}


def test_what_is_no_file_fails_and_never_hangs(
    tmp_path: Path, pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    picture(tmp_path / "good.png", 1)
    os.mkfifo("pipe.png")  # 30
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.png")
    Path("device.png").symlink_to("/dev/zero")
    Path("dangling.png").symlink_to("nowhere.png")  # 32
    Path("itself.png").symlink_to("itself.png")
    Path("loop").symlink_to(".")
    Path("folder.png").mkdir()  # 33
    outcome = caption_folder(pipe, ".", recursive=True, **SHORT)
    assert (outcome.done, outcome.failed) == (1, 5)
    found = reasons(tmp_path)
    for name in ("pipe.png", "socket.png", "device.png"):
        assert "is a pipe, socket or device" in str(found[name])
    assert "No such file" in str(found["dangling.png"])
    assert "symbolic link" in str(found["itself.png"])


NAMES = [
    "line\nbreak.png",
    "tab\tquote\"'.png",
    "\U0001f600 \u202eevil.png",
    "-rf.png",
    "=cmd|'calc'!A1.png",
    "<script>alert(1)</script>.png".replace("/", "∕"),
    "${HOME} `id`; rm.png",
    "%ff.png",
    "漢字 العربية.png",
    "bytes:x.png",
]


def test_any_name_is_captioned_and_listed(tmp_path: Path, pipe: JanusPipeline) -> None:
    raw = os.fsdecode(b"bad-\xff.png")  # 36
    long = "n" * 251 + ".png"  # 38
    names = [*NAMES, raw, long]
    for i, name in enumerate(names):
        picture(tmp_path / name, i)
    outcome = caption_folder(pipe, tmp_path, formats=["txt", "csv", "imagefolder"], **SHORT)
    assert (outcome.done, outcome.failed, outcome.left) == (len(names), 0, 0)
    assert set(reasons(tmp_path)) == {text_of(name) for name in names}
    for name in names:
        assert (tmp_path / f"{name[:-4]}.txt").exists(), name
    assert caption_folder(pipe, tmp_path, formats=["txt"], **SHORT).calls == 0
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".janus-")]


def test_a_sidecar_name_that_is_too_long_fails_alone(tmp_path: Path, pipe: JanusPipeline) -> None:
    picture(tmp_path / ("n" * 251 + ".png"), 1)
    picture(tmp_path / "b.png", 2)
    outcome = caption_folder(pipe, tmp_path, full_names=True, **SHORT)
    assert (outcome.done, outcome.failed) == (1, 1)
    assert "File name too long" in str(reasons(tmp_path)["n" * 251 + ".png"])


def test_a_file_without_an_ending_is_taken_if_asked_for(
    tmp_path: Path, pipe: JanusPipeline
) -> None:
    picture(tmp_path / "a.png", 1)
    (tmp_path / "a.png").rename(tmp_path / "a")  # 8
    with pytest.raises(BatchError, match="holds no picture"):
        inputs.find([tmp_path])
    assert [item.name for item in inputs.find([tmp_path], all_files=True)[1]] == ["a"]
    outcome = caption_folder(pipe, [tmp_path / "a"], tmp_path / "out", **SHORT)
    assert (outcome.done, outcome.failed) == (1, 0)


def test_an_unreadable_file_fails_with_the_systems_reason(pipe: JanusPipeline) -> None:
    with tempfile.TemporaryDirectory() as name:  # tmp_path lies where only its owner may go
        folder = Path(name)
        folder.chmod(0o777)
        picture(folder / "a.png", 1)
        picture(folder / "b.png", 2)
        (folder / "a.png").chmod(0)  # 31
        user = os.geteuid()
        if user == 0:  # whom no mode stops
            os.seteuid(65534)
        try:
            outcome = caption_folder(pipe, folder, **SHORT)
        finally:
            os.seteuid(user)
        assert (outcome.done, outcome.failed) == (1, 1)
        assert "Permission denied" in str(reasons(folder)["a.png"])


def test_a_file_that_grows_while_it_is_read_fails(
    tmp_path: Path, pipe: JanusPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "a.png", 1)
    picture(tmp_path / "b.png", 2)
    real = inputs.read

    def read(item: inputs.Item) -> str | bytes:
        found = real(item)
        if item.name == "a.png":
            with (tmp_path / "a.png").open("ab") as file:
                file.write(b"more")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(inputs, "read", read)
        outcome = caption_folder(pipe, tmp_path, **SHORT)
    assert (outcome.done, outcome.failed) == (1, 1)
    assert "has changed since it was listed" in str(reasons(tmp_path)["a.png"])
    assert caption_folder(pipe, tmp_path, **SHORT).done == 2


def test_an_output_that_cannot_be_written_is_an_error_before_any_work(
    tmp_path: Path, pipe: JanusPipeline
) -> None:
    picture(tmp_path / "a.png", 1)
    with pytest.raises(BatchError, match=r"^/proc/out: cannot be written"):
        caption_folder(pipe, tmp_path, "/proc/out", **SHORT)  # 44: read-only, for root too
    assert not list(tmp_path.glob("*.txt"))


def test_results_inside_the_inputs_are_not_captioned(tmp_path: Path, pipe: JanusPipeline) -> None:
    picture(tmp_path / "a.png", 1)
    out = tmp_path / "out"
    for _ in range(2):
        outcome = caption_folder(
            pipe, tmp_path, out, recursive=True, formats=["imagefolder"], **SHORT
        )
        assert outcome.done == 1
    assert (out / "a.png").exists()  # which imagefolder reads; 43


@pytest.mark.slow
def test_a_hundred_thousand_files_are_listed_in_seconds(tmp_path: Path) -> None:
    import resource
    import time

    for i in range(100_000):  # 41
        (tmp_path / f"{i:06}.png").touch()
    begun = time.process_time()
    _, items = inputs.find([tmp_path])
    assert len(items) == 100_000
    assert time.process_time() - begun < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4_000_000
