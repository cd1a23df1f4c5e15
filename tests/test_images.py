"""The image loader against bad files; numbers are rows of the bad-input list."""

import os
import signal
import socket
import struct
import warnings
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from janus_kit.errors import ImageError
from janus_kit.vision import images

RED, WHITE = (255, 0, 0), (255, 255, 255)
NOISE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
SCENE = Image.fromarray(NOISE).resize((40, 24), Image.Resampling.BICUBIC)
TWO = [Image.new("RGB", (9, 9), RED), Image.new("RGB", (9, 9), (0, 0, 255))]
MANY: dict[str, Any] = {"save_all": True, "append_images": TWO[1:]}


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of image as a file of that kind, without loss unless options say otherwise."""
    buffer = BytesIO()
    image.save(buffer, format=kind, **({"lossless": True} if kind == "WEBP" else {}) | options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """One PNG chunk with a right checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(side: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A square PNG made by hand, from rows that start with their filter byte."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0))
    body = header + extra + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def webp(kind: bytes, payload: bytes) -> bytes:
    """A WEBP that is nothing but its header."""
    size = struct.pack("<I", len(payload))
    return b"RIFF" + struct.pack("<I", len(payload) + 12) + b"WEBP" + kind + size + payload


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def pixels_of(source: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """What load makes of source: [h, w, 3]."""
    loaded = images.load(source, allow_tiff=True)
    assert loaded.mode == "RGB"
    return np.asarray(loaded)


def refusal(source: Any) -> str:
    """The message with which load refuses source: within 5 s, one line of bearable length."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("hangs"))
    signal.alarm(5)
    try:
        with pytest.raises(ImageError) as caught:
            images.load(source)
    finally:
        signal.alarm(0)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 600
    return message


JPEG, PNG, SCENE_LEVELS = encode(SCENE, "JPEG", quality=95), encode(SCENE, "PNG"), np.asarray(SCENE)
BOMB = b"k\0\0" + zlib.compress(bytes(30_000_000))
BAD = {
    "1 empty": (b"", "is empty"),
    "2 truncated JPEG": (JPEG[: len(JPEG) // 2], "cut short"),
    "2 JPEG cut in its header": (JPEG[:20], "not a readable"),
    "3 truncated PNG": (PNG[: len(PNG) // 2], "cut short"),
    "4 bad checksum": (PNG[:29] + b"\0\0\0\0" + PNG[33:], "not a readable"),
    "5 text": (b"a red cat on a mat\n" * 9, "not a readable"),
    "6 web page": (b"\n<!DOCTYPE html><html><body>404</body></html>", "web page"),
    "10 SVG": (b"\xef\xbb\xbf<?xml version='1.0'?>\n<svg></svg>", "SVG"),
    "11 EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "EPS"),
    "11 EPS for DOS": (b"\xc5\xd0\xd3\xc6\x20\0\0\0", "EPS"),
    "11 PDF": (b"%PDF-1.7\n", "PDF"),
    "11 WMF": (b"\xd7\xcd\xc6\x9a\0\0", "WMF"),
    "11 FPX": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0", "FlashPix"),
    "11 PSD": (b"8BPS\0\1", "Photoshop"),
    "12 TIFF": (encode(SCENE, "TIFF"), "is a TIFF; convert it to PNG or JPEG"),
    "13 HEIC": (
        b"\0\0\0\x18ftypheic",
        "HEIC photo, for which Pillow needs pip install pillow-heif",
    ),
    "13 HEIF": (
        b"\0\0\0\x18ftypmif1",
        "HEIC photo, for which Pillow needs pip install pillow-heif",
    ),
    "13 AVIF": (b"\0\0\0\x18ftypavif", "AVIF picture, which Pillow opens with nothing to install"),
    "a video": (b"\0\0\0\x18ftypisom", "video"),
    "16 a line": (encode(Image.new("L", (1, 20_000)), "PNG"), "longer than 200:1"),
    "17 too wide": (encode(Image.new("L", (20_001, 200)), "PNG"), "20000 a side"),
    "18 just too large": (png(8_001, 1, 0, b""), "64 million pixels"),
    "20 text bomb": (png(1, 8, 0, b"\0\0", chunk(b"zTXt", BOMB)), "too large"),
    "20 colour profile bomb": (png(1, 8, 0, b"\0\0", chunk(b"iCCP", BOMB)), "too large"),
    "WEBP of no known kind": (webp(b"ODD ", bytes(20)), "not a readable"),
    "no pixel": (webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + bytes(9)), "at least one"),
    "a narrow image": (Image.new("L", (1, 201)), "200:1"),
    "an image without pixels": (Image.new("L", (0, 5)), "at least one"),
    "a lazy image": (Image.open(BytesIO(PNG[:100])), "cut short"),
    "floats": (SCENE_LEVELS / 255, "pass uint8"),
    "channels first": (SCENE_LEVELS.transpose(2, 0, 1), "pass uint8"),
    "an array without pixels": (np.zeros((0, 4), dtype=np.uint8), "at least one"),
    "nothing": (None, "NoneType is not a picture"),
    "a list": ([PNG], "list is not a picture"),
    "a web address": ("HTTPS://host/a.png", "is a URL; download it first"),
    "a file address": ("file:///etc/passwd", "is a URL; download it first"),
    "a data address": ("data:image/png;base64," + "A" * 9_000, "is a URL; download it first"),
    "34 no file": ("never.png", "No such file"),
    "a name with NUL": ("a\0b.png", "null byte"),
    "a name without end": ("a" * 100_000, "too long"),
    "33 a folder": (Path("/"), "is a folder"),
    "30 a device": ("/dev/zero", "pipe, socket or device"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_picture_is_refused_with_its_name_and_a_remedy(
    case: str, tmp_path: Path
) -> None:
    source, words = BAD[case]
    message = refusal(source)
    assert words in message
    assert "; " in message
    if isinstance(source, bytes):
        path = tmp_path / "a.png"
        path.write_bytes(source)
        assert refusal(path) == message.replace("the image bytes", str(path))


@pytest.mark.parametrize("side", [10_000, 16_000])
@pytest.mark.parametrize("action", ["ignore", "error"])
def test_a_bomb_is_refused_whatever_the_warning_filter(side: int, action: Any) -> None:
    data = png(side, 1, 0, bytes(side * (side // 8 + 1)))  # 18
    assert len(data) < 40_000
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        assert "64 million pixels" in refusal(data)


@pytest.mark.parametrize(
    "data",
    [
        webp(b"VP8X", bytes(4) + b"\xfe\x3f\0\xfe\x3f\0"),
        webp(b"VP8L", b"\x2f\xfe\xbf\xff\x0f" + bytes(9)),
        webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a\xff\x3f\xff\x3f" + bytes(9)),
    ],
)
def test_a_webp_bomb_takes_no_memory(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def address_space() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmPeak:")[2].split()[0]) * 1024

    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("was decoded"))  # 19
    before = address_space()
    assert "16383x16383 and has more than 64 million pixels" in refusal(data)
    assert address_space() - before < 50_000_000


NAMES = [b"a", b"A.JPG", b"a.png", b"-=cmd.png", b"bad\xff.png", b"a\nb\t'\".png"]
NAMES += ["🐈.png".encode(), "\u202egnp.png".encode()]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_loads_by_content_and_is_shown_on_one_line(name: bytes, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)  # 7, 8, 9, 36, 37
    Path(path).write_bytes(JPEG)
    assert np.array_equal(pixels_of(path), pixels_of(JPEG))
    assert np.array_equal(pixels_of(Path(path)), pixels_of(JPEG))
    Path(path).write_bytes(b"")
    refusal(path).encode("utf-8")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "TIFF"])
def test_a_lossless_file_comes_back_unchanged_and_may_go_on(kind: str) -> None:
    assert np.array_equal(pixels_of(encode(SCENE, kind) + bytes(999)), SCENE_LEVELS)  # 35


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (20_000, 100)])
def test_the_limits_themselves_are_allowed(size: tuple[int, int]) -> None:
    assert images.load(encode(Image.new("L", size), "PNG")).size == size  # 15


def test_a_large_jpeg_is_decoded_smaller_and_a_narrow_one_or_an_image_is_not() -> None:
    large = encode(Image.new("RGB", (3_200, 1_600), RED), "JPEG")
    assert images.load(large).size == (1_600, 800)
    assert images.load(Image.open(BytesIO(large))).size == (3_200, 1_600)
    assert images.load(encode(Image.new("RGB", (3_200, 160)), "JPEG")).size == (3_200, 160)


HIDDEN = Image.new("RGBA", (2, 2), (50, 60, 70, 0))
FLAT = Image.fromarray(np.full((2, 2), np.nan, dtype=np.float32))
CMYK = encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
# YCCK holds the YCbCr of (C, M, Y). Pillow inverts what it writes, so it is given inverted; then
# the transform that Adobe's marker names is set from 0, CMYK, to 2, YCCK.
YCC = Image.new("RGB", (16, 16), (0, 255, 255)).convert("YCbCr").point(lambda level: 255 - level)
INKS = encode(Image.merge("CMYK", [*YCC.split(), Image.new("L", (16, 16))]), "JPEG", quality=95)
YCCK = INKS[: INKS.index(b"Adobe") + 11] + b"\2" + INKS[INKS.index(b"Adobe") + 12 :]
FIRST_PIXELS = {
    "12 TIFF of two pages": (encode(TWO[0], "TIFF", **MANY), RED),
    "14 GIF of two frames": (encode(TWO[0], "GIF", **MANY), RED),
    "14 PNG of two frames": (encode(TWO[0], "PNG", **MANY), RED),
    "14 WEBP of two frames": (encode(TWO[0], "WEBP", **MANY), RED),
    "21 16-bit grey": (png(1, 16, 0, b"\0\x40\x41"), (64, 64, 64)),
    "21 16-bit grey in 32 bits": (Image.new("I", (1, 1), 0x4041), (64, 64, 64)),
    "22 16-bit RGB": (png(1, 16, 2, b"\0\x12\x34\x80\0\xff\xff"), (0x12, 0x80, 0xFF)),
    "22 16-bit RGBA": (png(1, 16, 6, b"\0\x80\0\0\0\0\0\xff\xff"), (128, 0, 0)),
    "22 16-bit LA": (png(1, 16, 4, b"\0\x80\0\0\0"), WHITE),
    "23 floats without a range": (FLAT, (0, 0, 0)),
    "24 1": (encode(Image.new("1", (2, 2)), "PNG"), (0, 0, 0)),
    "24 1, black is clear": (encode(Image.new("1", (2, 2)), "PNG", transparency=0), WHITE),
    "24 L, a grey is clear": (encode(Image.new("L", (2, 2), 7), "PNG", transparency=7), WHITE),
    "24 P, an entry is clear": (encode(Image.new("P", (2, 2)), "PNG", transparency=0), WHITE),
    "24 P with alphas": (encode(Image.new("P", (2, 2)), "PNG", transparency=bytes(3)), WHITE),
    "24 GIF": (encode(Image.new("P", (2, 2)), "GIF", transparency=0), WHITE),
    "24 RGB, red is clear": (encode(TWO[0], "PNG", transparency=RED), WHITE),
    "24 LA": (encode(HIDDEN.convert("LA"), "PNG"), WHITE),
    "24 PA": (HIDDEN.convert("PA"), WHITE),
    "25 RGBA": (encode(HIDDEN, "PNG"), WHITE),
    "25 RGBA in WEBP": (encode(HIDDEN, "WEBP"), WHITE),
    "25 RGBa": (HIDDEN.convert("RGBa"), WHITE),
    "25 RGBA array": (np.zeros((2, 2, 4), dtype=np.uint8), WHITE),
    "25 RGBA, half clear": (Image.new("RGBA", (2, 2), (0, 0, 0, 128)), (127, 127, 127)),
    "26 CMYK": (Image.new("CMYK", (2, 2), (0, 255, 255, 0)), RED),
    "26 CMYK, inverted by Adobe": (CMYK, RED),
    "26 YCCK": (YCCK, RED),
    "YCbCr": (TWO[0].convert("YCbCr"), RED),
    "HSV": (TWO[0].convert("HSV"), RED),
    "28 EXIF garbage": (encode(TWO[0], "JPEG", exif=b"Exif\0\0garbage"), RED),
    "29 bad profile": (encode(TWO[0], "PNG", icc_profile=b"nonsense"), RED),
}


@pytest.mark.parametrize("case", FIRST_PIXELS)
def test_every_kind_of_picture_looks_as_it_does_on_white_paper(case: str) -> None:
    source, colour = FIRST_PIXELS[case]
    assert np.allclose(pixels_of(source)[0, 0], colour, atol=5 if "26" in case else 1)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_only_a_picture_of_several_frames_is_noted(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    preview = SCENE.copy()  # saving an MPO leaves marks on the images
    pixels_of(encode(SCENE.copy(), "MPO", save_all=True, append_images=[preview]))
    pixels_of(encode(TWO[0], kind))
    assert not caplog.messages
    pixels_of(encode(TWO[0], kind, **MANY))  # 12, 14
    assert caplog.messages == ["the image bytes: holds several frames; only the first is read"]


def test_a_good_first_frame_is_read_whatever_follows_it() -> None:
    data = encode(TWO[0], "GIF", **MANY)
    second = data.index(b"\x2c", data.index(b"\x2c") + 1)
    for kept in (1, 4, 9, 12):
        assert np.allclose(pixels_of(data[: second + kept])[0, 0], RED)


def test_floats_are_stretched_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    ramp = np.array([[-2.0, 0.0, 2.0, np.nan, np.inf]], dtype=np.float32)  # 23
    levels = pixels_of(encode(Image.fromarray(ramp), "TIFF"))[0, :, 0]
    assert levels.tolist() == [0, 128, 255, 0, 255]
    assert "the image bytes: holds floats" in caplog.text


# How a camera stores an upright picture: EXIF orientation → quarter turns, then mirrored or not.
STORED = dict(enumerate([(0, 1), (0, -1), (2, 1), (2, -1), (3, -1), (1, 1), (1, -1), (3, 1)], 1))


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_photo_is_turned_upright_once(orientation: int, kind: str, mode: str) -> None:
    turns, mirror = STORED[orientation]  # 27
    stored = images.load(np.rot90(SCENE_LEVELS, turns)[:, ::mirror])
    data = encode(stored.convert(mode), kind, exif=oriented(orientation))
    loaded = images.load(data, allow_tiff=True)
    assert np.array_equal(np.asarray(loaded), SCENE_LEVELS)
    assert np.array_equal(pixels_of(loaded), SCENE_LEVELS)
    assert not loaded.info


LOOP = b"MM\0*\0\0\0\x08\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x08\0\0\0\x08"  # an IFD in itself
BROKEN = [b"garbage", b"II", b"MM\0*\0\0\0\xff", b"MM\0*\0\0\0\x08\xff\xff\1\2", LOOP]


@pytest.mark.parametrize("exif", BROKEN)
def test_broken_exif_is_at_most_a_warning(exif: bytes, caplog: pytest.LogCaptureFixture) -> None:
    levels = pixels_of(encode(SCENE, "PNG", exif=b"Exif\0\0" + exif))  # 28
    assert np.array_equal(levels, SCENE_LEVELS)
    assert exif is LOOP or "the image bytes: its EXIF cannot be read" in caplog.text


def test_pipes_sockets_and_links_to_nothing_are_refused_at_once(tmp_path: Path) -> None:
    pipe, plug, dangling, loop = (tmp_path / f"{name}.png" for name in "psdl")
    os.mkfifo(pipe)  # 30
    assert "is a pipe, socket or device" in refusal(pipe)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(plug))
        assert "is a pipe, socket or device" in refusal(plug)
    dangling.symlink_to(tmp_path / "gone.png")  # 32
    assert "No such file" in refusal(dangling)
    loop.symlink_to(loop)
    assert "symbolic links" in refusal(loop)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_of_mode_000_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch(mode=0)  # 31
    assert "Permission denied" in refusal(tmp_path / "a.png")


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file"), PermissionError(13, "No")])
def test_a_file_may_vanish_or_be_closed_to_us_before_it_is_opened(
    error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise error

    (tmp_path / "a.png").write_bytes(PNG)
    monkeypatch.setattr(Path, "open", fails)  # 31, 34
    assert f"{error.strerror}; check that it can be read" in refusal(tmp_path / "a.png")


def test_a_file_over_50_mb_is_refused_and_none_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 - iterdir keeps its own open
    os.truncate(path, 50_000_001)
    assert "larger than 50 MB" in refusal(path)
    os.truncate(path, 50_000_000)
    kept = images.load(path)
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert kept.size == SCENE.size


def test_an_image_or_array_is_copied_and_not_changed() -> None:
    assert images.load(SCENE) is not SCENE
    assert np.array_equal(pixels_of(SCENE), SCENE_LEVELS)
    assert np.array_equal(pixels_of(SCENE_LEVELS[::-1]), SCENE_LEVELS[::-1])
    assert np.array_equal(pixels_of(SCENE_LEVELS[..., 0])[..., 2], SCENE_LEVELS[..., 0])


SEEDS = [JPEG, PNG, encode(SCENE, "BMP"), encode(SCENE, "WEBP", lossless=False)]
SEEDS += [encode(TWO[0], kind, **MANY) for kind in ("PNG", "GIF", "WEBP")]
SEEDS += [encode(SCENE, "TIFF", compression="tiff_lzw"), encode(SCENE, "JPEG", exif=oriented(6))]
CHANGES = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=8)


@given(st.sampled_from(SEEDS), CHANGES, st.just(0) | st.integers(1, 100))
@settings(max_examples=100, deadline=5_000)
def test_a_mutated_file_is_a_picture_or_an_image_error(
    seed: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(seed[: len(seed) - cut])
    for place, value in changes:
        data[place % len(data)] = value
    with suppress(ImageError):
        assert pixels_of(bytes(data)).size >= 3
