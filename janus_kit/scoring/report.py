"""What a run writes last, and what it says: the comparison, the page, the lines for people."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from janus_kit.scoring.compare import against
from janus_kit.scoring.records import read_rows, write_whole
from janus_kit.scoring.run import Outcome, Run

__all__ = ["lines", "write"]


def write(
    run: Run, outcome: Outcome, baseline: Path | None, page: Callable[..., str]
) -> dict[str, Any]:
    """Add the comparison with a baseline to the summary and write report.html; the summary.

    page: a function of summary and rows, the page's HTML.
    """
    summary = dict(outcome.summary)
    rows = read_rows(run.output / "results.jsonl")
    if baseline is not None:
        summary["against_baseline"] = against(baseline, rows, summary)
        write_whole(run.output / "summary.json", json.dumps(summary, indent=2) + "\n")
    write_whole(run.output / "report.html", page(summary=summary, rows=rows))
    return summary


def lines(summary: Mapping[str, Any]) -> list[str]:
    """The scores for people, in percent with their intervals, and what to know about them."""
    scores = summary["scores"]
    entries: dict[str, tuple[float, list[float] | None]]
    if summary["benchmark"] == "geneval":
        entries = {
            name: (100 * value, [100 * end for end in scores["task_intervals"][name]])
            for name, value in scores["tasks"].items()
        }
        entries["overall"] = (100 * scores["overall"], [100 * end for end in scores["interval"]])
    else:
        entries = {name: (value["raw"], None) for name, value in scores["l1"].items()}
        entries["overall"] = (scores["overall"], scores["interval"])
    shown = [
        f"{name:14} {value:5.1f}" + (f"   {ends[0]:.1f} to {ends[1]:.1f}" if ends else "")
        for name, (value, ends) in entries.items()
    ]
    shown += [f"not comparable: {note}" for note in summary["not_comparable_because"]]
    if found := summary.get("against_baseline"):
        apart = found["overall"]
        low, high = apart["interval"]
        shown.append(
            f"against {found['baseline']}: {apart['difference']:+.1f} ({low:+.1f} to {high:+.1f}), "
            f"{apart['verdict']}"
        )
    return shown
