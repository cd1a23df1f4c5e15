"""A tiny Janus in every form that tests need; made here, from seeds, never downloaded."""

import dataclasses
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from batch_parts import SHORT, contents, picture, rows
from torch import Tensor

from janus_kit import JanusPipeline, caption_folder, config
from janus_kit.cli import main
from janus_kit.config import JanusConfig, LanguageConfig, VisionConfig, VQConfig
from janus_kit.generation.native import NativeStep
from janus_kit.model import Language
from janus_kit.training.tokenizer import train_tokenizer

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes, each with a core
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
    torch.set_num_threads(1)

pytest_plugins = ["checkpoint_parts", "commands", "page_parts", "prompts_parts"]  # their fixtures

TEXTS = ["a red cat sits on a blue mat", "what colour is the cat?", "two green dogs and 3 birds"]


def tiny_config(**changes: Any) -> JanusConfig:
    """16 codes a picture of 64 px; sizes are unequal wherever equal ones could hide a mistake."""
    config = JanusConfig(
        language=LanguageConfig(
            hidden=32,
            layers=2,
            heads=4,
            kv_heads=2,
            head_dim=8,
            intermediate=80,
            vocab_size=320,
            max_positions=256,
            # Not transformers' defaults, which a config that is not read would have too.
            rope_theta=5e3,
            rms_eps=1e-3,
        ),
        vision=VisionConfig(
            image_size=64,
            patch_size=16,
            width=48,
            layers=2,
            heads=3,
            intermediate=96,
            norm_eps=1e-4,
        ),
        vq=VQConfig(
            codebook_size=64,
            code_dim=8,
            latent_channels=32,
            base_channels=32,
            channel_multiplier=(1, 1, 1, 1, 2),
            res_blocks=1,
        ),
    )
    return dataclasses.replace(config, **changes)


def hf_model(seed: int = 0, config: JanusConfig | None = None, image_token_id: int = 300) -> Any:
    """transformers' Janus with random weights; no norm is 1 and no bias 0, so that each counts."""
    from transformers import JanusConfig as HFConfig
    from transformers import JanusForConditionalGeneration

    settings = (config or tiny_config()).to_dict(image_token_id=image_token_id, dtype="float32")
    model = JanusForConditionalGeneration(HFConfig(**settings)).eval()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=draw)
            if weight.dim() > 1:
                spread = 1.0 if "embed" in name else weight[0].numel() ** -0.5
                weight.copy_(noise * spread)
            else:
                weight.copy_(noise * 0.2 + (1.0 if "norm" in name and "weight" in name else 0.0))
        book = model.model.vqmodel.quantize.embedding.weight
        book.copy_(torch.nn.functional.normalize(book, dim=-1))
    return model


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder; where weights in fewer bits are kept in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/janus_kit/quantized"


@pytest.fixture(scope="session")
def small_bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with a picture bank of drawn shapes."""
    from bank_parts import make_small_bank

    from janus_kit.training.bank.make import EDITION

    cache = tmp_path_factory.mktemp("cache")
    make_small_bank(cache / f"janus_kit/bank/bank-{EDITION}.zip")
    return cache


@pytest.fixture
def pictures(small_bank: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The training world has the small bank instead of the true one; the cache folder."""
    from janus_kit.training import painting

    monkeypatch.setenv("XDG_CACHE_HOME", str(small_bank))
    painting.forget()
    yield small_bank
    painting.forget()


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer of some 280 ids, and nothing else."""
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS * 4, 300, folder)
    return folder


@pytest.fixture(scope="session")
def hf_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """The tiny model as transformers saves it, with a tokenizer. Copy it before changing it."""
    folder = tmp_path_factory.mktemp("model")
    ids = json.loads((tokenizer_folder / "tokenizer.json").read_text())["added_tokens"]
    image = next(entry["id"] for entry in ids if entry["content"] == "<image_placeholder>")
    hf_model(image_token_id=image).save_pretrained(folder)
    for path in tokenizer_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


# transformers' names → deepseek-ai's, written down apart from janus_kit/names.py to check it.
_ORIGINAL_NAMES = [
    (r"^model\.language_model\.", "language_model.model."),
    (r"^lm_head\.", "language_model.lm_head."),
    (
        r"^model\.vision_model\.embeddings\.patch_embedding",
        "vision_model.vision_tower.patch_embed.proj",
    ),
    (
        r"^model\.vision_model\.embeddings\.position_embedding\.weight",
        "vision_model.vision_tower.pos_embed",
    ),
    (r"^model\.vision_model\.post_layernorm", "vision_model.vision_tower.norm"),
    (r"^model\.vision_model\.encoder\.layers\.", "vision_model.vision_tower.blocks."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"\.self_attn\.projection_layer\.", ".attn.proj."),
    (r"^model\.aligner\.fc1", "aligner.layers.0"),
    (r"^model\.aligner\.hidden_layers\.0", "aligner.layers.2"),
    (r"^model\.generation_aligner\.fc1", "gen_aligner.layers.0"),
    (r"^model\.generation_aligner\.hidden_layers\.0", "gen_aligner.layers.2"),
    (r"^model\.generation_embeddings", "gen_embed"),
    (r"^model\.generation_head\.proj_out", "gen_head.output_mlp_projector"),
    (r"^model\.generation_head\.vision_head", "gen_head.vision_head"),
    (r"^model\.vqmodel\.", "gen_vision_model."),
    (r"coder\.(?:down|up)\.(\d+)\.block\.", r"coder.conv_blocks.\1.res."),
    (r"coder\.(?:down|up)\.", "coder.conv_blocks."),
    (r"\.mid\.block_1\.", ".mid.0."),
    (r"\.mid\.attn_1\.", ".mid.1."),
    (r"\.mid\.block_2\.", ".mid.2."),
]


def to_original(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights with deepseek-ai's names and shapes, and what its files hold besides."""
    state = dict(state)
    for name in [name for name in state if "vision_model" in name and "q_proj" in name]:
        three = [state.pop(name.replace("q_proj", part)) for part in ("q_proj", "k_proj", "v_proj")]
        state[name.replace("self_attn.q_proj", "attn.qkv")] = torch.cat(three)
    found = {}
    for name, tensor in state.items():
        for pattern, replacement in _ORIGINAL_NAMES:
            name = re.sub(pattern, replacement, name)
        found[name] = tensor[None] if name.endswith("pos_embed") else tensor
    found["vision_model.vision_tower.attn_pool.latent"] = torch.zeros(1, 1, 48)
    found["vision_model.vision_tower.attn_pool.mlp.fc1.weight"] = torch.zeros(96, 48)
    found["gen_vision_model.quantize.codebook_used"] = torch.zeros(65_536)
    found["language_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)
    return found


def original_config(hidden: int = 2048, **language: Any) -> dict[str, Any]:
    """config.json as deepseek-ai publishes it; the keywords are what language_config states."""
    return {
        "model_type": "multi_modality",
        "architectures": ["MultiModalityCausalLM"],
        "torch_dtype": "bfloat16",
        "aligner_config": {
            "cls": "MlpProjector",
            "params": {
                "depth": 2,
                "input_dim": 1024,
                "n_embed": hidden,
                "projector_type": "mlp_gelu",
            },
        },
        "gen_aligner_config": {
            "cls": "MlpProjector",
            "params": {"depth": 2, "input_dim": 8, "n_embed": hidden, "projector_type": "mlp_gelu"},
        },
        "gen_head_config": {
            "cls": "vision_head",
            "params": {"image_token_embed": hidden, "image_token_size": 16384, "n_embed": hidden},
        },
        "gen_vision_config": {"cls": "VQ-16", "params": {"image_token_size": 16384, "n_embed": 8}},
        "vision_config": {
            "cls": "CLIPVisionTower",
            "params": {
                "image_size": 384,
                "model_name": "siglip_large_patch16_384",
                "select_feature": "same",
                "select_layer": -1,
            },
        },
        "language_config": {"model_type": "llama", "vocab_size": 102400, **language},
    }


@dataclasses.dataclass(frozen=True)
class Ended:
    """What a command has left behind."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


Run = Callable[..., Ended]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a command in this process, inside tmp_path; stdin: what it reads."""

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JANUS_KIT_MODEL", raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # so that --quiet leaves no trace

    def run_command(*arguments: object, stdin: bytes = b"") -> Ended:
        monkeypatch.setattr(sys, "argv", ["janus-kit", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        return Ended(code if isinstance(code, int) else 0, *capfd.readouterr())

    return run_command


@pytest.fixture
def janus(run: Run, hf_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """As run, with the tiny model."""
    monkeypatch.setenv("JANUS_KIT_MODEL", str(hf_folder))
    return run


DETECTOR = '''
import numpy as np
from janus_kit.scoring.geneval import OBJECTS, Detection

calls = []

class Sees:
    """Finds things by a picture's first pixels; with masks, so that they are kept too."""

    def detect(self, images):
        found = []
        for image in images:
            calls.append(image.size)
            pixels = np.asarray(image).reshape(-1, 3).astype(int)
            mask = np.zeros((image.height, image.width), bool)
            mask[2:20, 3:30] = True
            found.append([
                Detection(OBJECTS[pixels[k].sum() % 80], (k, 2, 30 + k, 20), 0.3 + k / 9, mask)
                for k in range(6)
            ])
        return found
'''


@pytest.fixture
def scored(janus: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """As janus, with the tiny model, and a detector named sees:Sees."""
    (tmp_path / "sees.py").write_text(DETECTOR)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sees", raising=False)
    return janus


@pytest.fixture(scope="module")
def pipe(hf_folder: Path) -> JanusPipeline:
    return JanusPipeline.from_pretrained(hf_folder, device="cpu")


@pytest.fixture
def spare(hf_folder: Path) -> JanusPipeline:
    """A pipeline of one's own, to be changed."""
    return JanusPipeline.from_pretrained(hf_folder, device="cpu")


@pytest.fixture
def read(pipe: JanusPipeline) -> Iterator[list[Tensor]]:
    """The tokens that the model reads from now on, [b, t] a call."""
    found: list[Tensor] = []
    embed = pipe.model.language.embed
    hook = embed.register_forward_pre_hook(lambda module, given: found.append(given[0].clone()))
    yield found
    hook.remove()


@pytest.fixture(name="rows")
def rows_read(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """How many rows the language model reads at once, whole ("forward") and in steps ("step")."""
    found: dict[str, list[int]] = {"forward": [], "step": []}

    def spy(name: str) -> Callable[..., Tensor]:
        plain = getattr(Language, name)

        def method(self: Language, embeds: Tensor, *rest: Any, **named: Any) -> Tensor:
            found[name].append(len(embeds))
            return plain(self, embeds, *rest, **named)  # type: ignore[no-any-return]

        return method

    for name in found:
        monkeypatch.setattr(Language, name, spy(name))
    quick = NativeStep.__call__

    def native(self: NativeStep, embeds: Tensor, *rest: Any) -> Tensor:
        found["step"].append(len(embeds))
        return quick(self, embeds, *rest)

    monkeypatch.setattr(NativeStep, "__call__", native)
    whole = NativeStep.draw

    def draw(
        self: NativeStep, logits: Any, before: Any, noise: Tensor, *rest: Any, **named: Any
    ) -> Any:
        steps = noise.shape[1] - (before is None)
        found["step"] += [len(noise) * (2 if named["guided"] else 1)] * steps
        return whole(self, logits, before, noise, *rest, **named)

    monkeypatch.setattr(NativeStep, "draw", draw)
    return found


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures, two of them broken. Copy it before captioning it."""
    folder = tmp_path_factory.mktemp("album")
    for i in range(20):
        picture(folder / f"{i:02}.png", i)
    (folder / "07.png").write_bytes((folder / "07.png").read_bytes()[:60])
    (folder / "13.png").write_bytes(b"")
    return folder


@pytest.fixture
def tiny_originals(monkeypatch: pytest.MonkeyPatch) -> None:
    """The original config.json cannot say tiny: whatever it says, read the tiny shapes."""
    monkeypatch.setattr(config, "_from_original", lambda data: tiny_config())


@pytest.fixture
def folder(album: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(album, tmp_path / "pictures"))


@pytest.fixture(scope="module")
def undisturbed(
    album: Path, pipe: JanusPipeline, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What a run without any misfortune leaves."""
    folder = Path(shutil.copytree(album, tmp_path_factory.mktemp("calm") / "pictures"))
    outcome = caption_folder(pipe, folder, **SHORT)
    assert (outcome.done, outcome.failed, outcome.left) == (18, 2, 0)
    assert len({row.get("caption") for row in rows(folder)}) > 9  # else nothing could be mixed up
    return contents(folder)
