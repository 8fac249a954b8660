"""--calib_report: needs matplotlib before anything is computed, and a calibration."""

import pytest

import twinquant.flag_rules as flag_rules
from twinquant.errors import UserError


def test_it_needs_matplotlib(squad, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flag_rules, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="--calib_report needs the package matplotlib, not installed"):
        squad.parse("--do_calib", "--calib_report=r")


def test_without_calibration(squad, notes_with) -> None:
    assert notes_with(
        squad.parse("--do_predict", "--calib_report=r"), "--calib_report has no effect without --do_calib"
    )


@pytest.mark.parametrize("report", [True, False])
def test_the_percentile_of_the_report(squad, notes_with, report: bool) -> None:
    """Shown beside the other methods, so --percentile has an effect where another is chosen."""
    pytest.importorskip("matplotlib")
    words = ["--calib_report=r"] if report else []
    settings = squad.parse("--do_calib", "--calib_method=mse", "--percentile=99", *words)
    assert bool(notes_with(settings, "--percentile has no effect")) is not report
