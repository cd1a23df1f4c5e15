"""Gather what training needs of the network, for a machine without one: a cache of some 25 MB.

    python benchmarks/carry.py runs/carried
    XDG_CACHE_HOME=runs/carried benchmarks/train_gpu.sh runs/embedded

The picture bank is without what training never shows, so that held-out figures during such a run
are of views that it has seen; `janus-kit train evaluate` afterwards has the whole bank.
"""

import argparse
import shutil
from pathlib import Path

from janus_kit.cache import cache_home
from janus_kit.training.bank import pack
from janus_kit.training.bank.make import bank_path
from janus_kit.training.perceptual import Perceptual


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path, help="What XDG_CACHE_HOME will name.")
    target = parser.parse_args().folder / "janus_kit"
    bank = pack.Bank(bank_path())
    kept = [sprite for sprite in bank.sprites if not sprite.held_out]
    made = bank_path(target / "bank")
    made.parent.mkdir(parents=True, exist_ok=True)
    pack.write(made, kept, map(bank.webp, kept))
    Perceptual()  # fetches its network
    shutil.copytree(cache_home() / "perceptual", target / "perceptual", dirs_exist_ok=True)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{target}: {len(kept)} of {len(bank.sprites)} pictures, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
