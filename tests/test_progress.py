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


@pytest.mark.parametrize(
    ("left", "eta"),
    [
        (0, "-"),
        (1, "00:00:00"),
        (7_200, "01:00:00"),
        (172_799, "1 d 00:00:00"),
        (4e5, "2 d 07:33:20"),
    ],
)
def test_items_tell_the_time_left_in_days_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], left: float, eta: str
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    with progress.items_line("captioning", True) as draw:
        draw(5, 1, int(left), 2.0)
    _, err = capsys.readouterr()
    assert err == f"captioning: 5 done, 1 failed, {int(left)} left, 2.0 a second, {eta} to go\n"


def test_items_without_a_rate_have_no_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    with progress.items_line("captioning", True) as draw:
        draw(0, 0, 9, 0.0)
    assert capsys.readouterr().err.endswith("0.0 a second, - to go\n")


def test_on_a_terminal_one_line_of_items_follows_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with progress.items_line("captioning", True) as draw:
        draw(1, 0, 2, 1.0)
        draw(2, 1, 0, 1.0)
    out, err = capsys.readouterr()
    assert out == ""
    assert "captioning: 2 done, 1 failed, 0 left, 1.0 a second, - to go" in err
    assert "\x1b[2K" in err  # the line is taken away at the end
    with progress.items_line("captioning", False) as draw:
        draw(1, 0, 2, 1.0)
    assert capsys.readouterr() == ("", "")
