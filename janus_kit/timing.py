"""The command `janus-kit bench`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from janus_kit import console
from janus_kit.console import Quiet, Verbose

__all__ = ["bench"]


def bench(
    shape: Annotated[
        str, typer.Option(help="embedded, or janus-pro-1b or -7b with random weights.")
    ] = "embedded",
    model: Annotated[str | None, typer.Option(help="A folder or a hub id in its place.")] = None,
    dtype: Annotated[str, typer.Option(help="Of both contenders.")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    quantization: Annotated[str | None, typer.Option(help="int8, int4 or fp8, ours alone.")] = None,
    components: Annotated[
        str, typer.Option(help="all, or draw where our pictures alone are timed.")
    ] = "all",
    batch: Annotated[int, typer.Option(min=1, help="Pictures at once.")] = 1,
    codes: Annotated[int | None, typer.Option(help="Of each picture, a square number.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="The longest caption.")] = 24,
    rounds: Annotated[int, typer.Option(min=1, help="Of all contenders.")] = 3,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch; its own choice.")] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Our steps by torch.compile, on a GPU.")
    ] = False,
    compiled: Annotated[
        bool, typer.Option("--compiled", help="Also transformers' steps by torch.compile.")
    ] = False,
    captions: Annotated[bool, typer.Option(help="Also captions and answers.")] = True,
    load: Annotated[bool, typer.Option("--load", help="Also loading.")] = False,
    peers: Annotated[
        str | None,
        typer.Option(help="Of generate, dynamic cache and published loop, with commas. [all]"),
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="For random weights. [runs/shapes]")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A JSON file.")] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Time janus-kit beside transformers on the same weights, in turns, and compare the results.

    Exits with 1 where codes or tokens differ in float32. Needs transformers, but for --peers ""
    --no-captions. What is done so far lies beside the file as .unfinished.json until all is.

    \b
    janus-kit bench
    janus-kit bench --shape janus-pro-1b --dtype bfloat16 --codes 16 -o results.json
    """
    from janus_kit.bench.machine import asked
    from janus_kit.bench.run import PEERS, show, write
    from janus_kit.bench.run import bench as run
    from janus_kit.options import needs

    if captions or compiled or peers != "":
        needs("transformers", "score")

    unfinished = output and output.with_name(f"{output.stem}.unfinished.json")

    def keep(figures: Mapping[str, Any]) -> None:
        if unfinished is not None:
            write({"command": asked(), **figures}, unfinished)

    figures = run(
        shape,
        model=model,
        dtype=dtype,
        device=device,
        quantization=quantization,
        components=components,
        batch=batch,
        codes=codes,
        tokens=tokens,
        rounds=rounds,
        threads=threads,
        compile=compile,
        compiled=compiled,
        captions=captions,
        load=load,
        peers=PEERS
        if peers is None
        else [name.strip() for name in peers.split(",") if name.strip()],
        folder=folder,
        so_far=keep,
    )
    result = {"command": asked(), **figures}
    console.result(show(result), result, False)
    if output is not None:
        write(result, output)
    if unfinished is not None:
        unfinished.unlink(missing_ok=True)
    exact = dtype == "float32" and quantization is None
    if exact and not all(found["equal"] for found in result["agreement"].values()):
        raise typer.Exit(1)
