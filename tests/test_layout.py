"""The layout that the package keeps: storeys, file sizes, public names, and what is never used."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import janus_kit

ROOT = Path(__file__).parents[1]
ROOMS = ("vision", "generation", "demos")  # lie at the root, are imported as janus_kit.vision, ...
LONGEST = 400  # lines of a library file

# A module may import from the storeys below it. On the floors without walls (0, 2) also from its
# neighbours; elsewhere only from its own room, and from the neighbours that SHARED names.
STOREYS = (
    ("errors", "config", "weights"),
    ("vision", "generation", "linears"),
    (
        "prompts",
        "model",
        "checkpoint",
        "pipeline",
        "drawing",
        "engine",
        "writing",
        "steps",
        "variants",
        "graphs",
        "names",
        "storage",
        "settings",
        "packages",
        "cache",
        "sharing",
        "metadata",
        "loading",
        "options",
        "progress",
        "conversation",
        "answering",
        "imaging",
        "known",
    ),
    ("batch", "bench", "scoring", "training"),
    ("cli", "demos", "bulk", "console", "host", "score", "timing", "train", "__main__"),
)
STOREY = {room: number for number, rooms in enumerate(STOREYS) for room in rooms}
OPEN = (0, 2)
SHARED = {
    "linears": ("vision",),
    "batch": ("scoring", "training"),
    "bench": ("training",),  # beside which its cost is measured
    "scoring": ("training",),  # the embedded model is measured by GenEval's verdict
    "demos": ("host",),
    "bulk": ("cli",),
    "console": ("cli", "bulk", "host", "score", "timing", "train"),
    "host": ("cli",),
    "timing": ("cli",),
    "score": ("cli",),
    "train": ("cli",),
    "cli": ("__main__",),
}


def library() -> dict[str, Path]:
    """Every module of the package: its dotted name and its file."""
    found = {}
    for top in ("janus_kit", *ROOMS):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if any(parent.is_symlink() for parent in path.parents):
                continue
            parts = parts if top == "janus_kit" else ("janus_kit", *parts)
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


LIBRARY = library()
SOURCES = {name: path.read_text(encoding="utf-8") for name, path in LIBRARY.items()}


def room(module: str) -> str:
    """The part of a dotted name that has a storey; empty for janus_kit itself, the door."""
    return module.split(".")[1] if "." in module else ""


def imports(source: str) -> Iterator[tuple[int, str]]:
    """The line and the target of every import; names taken from the package count one by one."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            if module == "janus_kit":
                for alias in node.names:
                    inside = f"janus_kit.{alias.name}"
                    yield node.lineno, inside if room(inside) in STOREY else module
            else:
                yield node.lineno, module


def complaint(name: str, target: str) -> str | None:
    """Why module name must not import target; None if it may."""
    own = room(name)
    if target.startswith("."):
        return "is a relative import"
    if target.split(".")[0] in ROOMS:
        return "must be imported as a part of janus_kit"
    if target.split(".")[0] != "janus_kit":
        outside = STOREY[own] == 0 and target.split(".")[0] not in sys.stdlib_module_names
        return "is not of the standard library" if outside else None
    if own == "demos":
        inside = room(target) in ("", "demos")
        return None if inside else "is behind the door; demos import from janus_kit itself"
    other = room(target)
    if not other:
        return "is the door for users"
    if other not in STOREY:
        return "has no storey"
    level, there = STOREY[own], STOREY[other]
    if there > level:
        return "points up"
    walled = level not in OPEN and other != own and own not in SHARED.get(other, ())
    return "points sideways" if there == level and walled else None


def complaints(name: str, source: str) -> list[str]:
    return [
        f"{name}:{line}: {target} {reason}"
        for line, target in imports(source)
        if (reason := complaint(name, target))
    ]


def test_every_module_has_a_storey() -> None:
    assert [name for name in LIBRARY if room(name) not in STOREY] == ["janus_kit"]


def test_imports_point_down() -> None:
    inside = [(name, text) for name, text in SOURCES.items() if name != "janus_kit"]
    assert [found for name, text in inside for found in complaints(name, text)] == []


@pytest.mark.parametrize(
    ("name", "line", "reason"),
    [
        ("config", "import torch", "standard library"),
        ("vision.images", "from janus_kit.model import Janus", "points up"),
        ("vision.images", "from janus_kit.generation.vq import VQTokenizer", "points sideways"),
        ("generation.vq", "def f():\n from janus_kit import vision", "points sideways"),
        ("scoring.geneval", "from janus_kit.training.world import parse", "points sideways"),
        ("batch.ledger", "from janus_kit.scoring import report", "points sideways"),
        ("pipeline", "import janus_kit.cli", "points up"),
        ("pipeline", "import janus_kit", "the door"),
        ("pipeline", "from janus_kit import JanusPipeline", "the door"),
        ("pipeline", "from . import model", "relative"),
        ("pipeline", "from .model import Janus", "relative"),
        ("pipeline", "from janus_kit.attic import dust", "no storey"),
        ("model", "from vision.encoder import VisionEncoder", "part of janus_kit"),
        ("demos.app", "from janus_kit.pipeline import JanusPipeline", "behind the door"),
    ],
)
def test_a_wrong_import_is_found(name: str, line: str, reason: str) -> None:
    assert [reason in found for found in complaints(f"janus_kit.{name}", line)] == [True]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("config", "import math\nfrom janus_kit.errors import OptionError"),
        ("vision.encoder", "from janus_kit.vision.images import load\nimport torch"),
        ("pipeline", "from janus_kit import checkpoint\nimport janus_kit.config as configs"),
        ("scoring.judges", "from janus_kit.batch.ledger import Ledger"),
        ("training.evaluate", "from janus_kit.scoring.geneval import judge"),
        ("host", "from janus_kit.demos.app import build_app"),
        ("demos.server", "from janus_kit import JanusPipeline\nfrom janus_kit.demos import app"),
    ],
)
def test_a_right_import_is_left_alone(name: str, line: str) -> None:
    assert complaints(f"janus_kit.{name}", line) == []


def test_no_library_file_is_longer_than_a_reader_likes() -> None:
    lengths = {name: len(text.splitlines()) for name, text in SOURCES.items()}
    assert {name: count for name, count in lengths.items() if count > LONGEST} == {}


def test_every_room_is_in_the_wheel() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    rooms = [name for name, path in LIBRARY.items() if path.name == "__init__.py"]
    assert sorted(settings["tool"]["setuptools"]["packages"]) == sorted(rooms)


def dangers(source: str) -> Iterator[tuple[int, str]]:
    """Lines that could run foreign code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import) and "pickle" in {alias.name for alias in node.names}:
            yield node.lineno, "import pickle"
        if isinstance(node, ast.ImportFrom) and node.module == "pickle":
            # torch.load raises this one for a file that it refuses.
            names = {alias.name for alias in node.names} - {"UnpicklingError"}
            yield from ((node.lineno, f"pickle.{name}") for name in names)
        if not isinstance(node, ast.Call):
            continue
        given = {
            word.arg: word.value.value
            for word in node.keywords
            if isinstance(word.value, ast.Constant)
        }
        called = ast.unparse(node.func)
        if called in ("eval", "exec", "os.system"):
            yield node.lineno, called
        for word, value in (
            ("trust_remote_code", True),
            ("weights_only", False),
            ("shell", True),
        ):
            if given.get(word) is value:
                yield node.lineno, f"{word}={value}"
        if called == "torch.load" and given.get("weights_only") is not True:
            yield node.lineno, "torch.load without weights_only=True"


def test_nothing_runs_foreign_code() -> None:
    found = [(name, *danger) for name, text in SOURCES.items() for danger in dangers(text)]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "import os, pickle",
        "from pickle import loads",
        "x = eval('1')",
        "run('ls', shell=True)",
        "torch.load(path)",
        "load(path, weights_only=False)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_a_line_that_runs_foreign_code_is_found(line: str) -> None:
    assert list(dangers(line))


def test_a_harmless_line_is_no_danger() -> None:
    harmless = "from pickle import UnpicklingError\nm.eval()\ntorch.load(p, weights_only=True)"
    assert list(dangers(harmless)) == []


def test_the_public_names_are_those_that_are_visible() -> None:
    assert dir(janus_kit) == janus_kit.__all__
    typed = [
        alias.name
        for node in ast.walk(ast.parse(SOURCES["janus_kit"]))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("janus_kit.")
        for alias in node.names
    ]
    assert sorted(typed) == janus_kit.__all__  # what type checkers see


@pytest.mark.parametrize("name", janus_kit.__all__)
def test_a_public_name_loads(name: str) -> None:
    assert getattr(janus_kit, name).__name__ == name


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Attic'"):
        janus_kit.Attic  # noqa: B018


def test_importing_the_package_is_instant() -> None:
    code = (
        "import sys, time; start = time.process_time(); import janus_kit;"
        "print(time.process_time() - start, 'torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    seconds, torch = said.stdout.split()
    assert torch == "False"
    assert float(seconds) < 0.15


def examples() -> list[str]:
    """The ```python blocks of the README, each at its line, so that a traceback points there."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return ["\n" * text[: block.start(1)].count("\n") + block[1] for block in blocks]


@pytest.mark.parametrize("own", [{}, {"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}])
def test_threads_that_wait_sleep_soon_unless_the_user_says_otherwise(own: dict[str, str]) -> None:
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    clean = {name: text for name, text in os.environ.items() if name not in names}
    code = f"import janus_kit, os; print([os.environ.get(name) for name in {names}])"
    said = subprocess.run(
        [sys.executable, "-c", code], env=clean | own, capture_output=True, text=True, check=True
    )
    expected = own or {"GOMP_SPINCOUNT": "5000"}
    assert ast.literal_eval(said.stdout) == [expected.get(name) for name in names]


@pytest.mark.parametrize("block", examples())
def test_an_example_of_the_readme_is_python(block: str) -> None:
    compile(block, "README.md", "exec")


def test_the_examples_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (ROOT / "janus_kit" / "weights" / "model.safetensors").exists():
        pytest.skip("there is no embedded model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Image.Image, "show", lambda image: None)
    names: dict[str, object] = {}  # a reader goes from the top: later blocks use earlier names
    for block in examples():
        exec(compile(block, "README.md", "exec"), names)
