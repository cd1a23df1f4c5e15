"""The bar of rows: on a terminal, elsewhere a line now and then, nothing when switched off."""

import pytest

from janus_kit import progress


def run(monkeypatch: pytest.MonkeyPatch, show: bool, seconds: float) -> None:
    """Two pictures of three rows, each row after some seconds."""
    clock = iter(range(1000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock) * seconds)
    with progress.rows_bar(2, 3, show) as advance:
        for _ in range(3):
            advance(2)


def test_off_a_terminal_a_line_tells_how_far_and_how_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, True, 10.0)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith("drawing: 2 of 6 rows, ")
    assert lines[-1] == "drawing: 6 of 6 rows, 0 s left"


def test_a_quick_drawing_says_nothing_off_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, True, 0.1)
    assert capsys.readouterr() == ("", "")


def test_the_bar_can_be_switched_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    run(monkeypatch, False, 60.0)
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_a_bar_counts_rows_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with progress.rows_bar(2, 3, True) as advance:
        for _ in range(3):
            advance(2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "6/6" in err
    assert "rows, left" in err
