"""The script that is meant for a GPU runs here, on sizes for that, and measures nothing twice."""

import json
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[2] / "recipes"


def test_every_part_is_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(RECIPES)
    import gpu

    parts = {name: gpu.PARTS[name] for name in ("loop", "importance", "references")}
    monkeypatch.setattr(gpu, "PARTS", parts)
    command = [str(tmp_path), "--tiny", "--device", "cpu"]
    gpu.main(command)
    lines = [json.loads(line) for line in (tmp_path / "measurements.jsonl").read_text().splitlines()]
    assert [line["part"] for line in lines] == list(parts)
    assert all(line["seconds"] > 0 and line["ratio"] > 0 for line in lines[:2])
    assert lines[2]["references"] == 2
    gpu.main(command)
    assert capsys.readouterr().out.count("measured before") == 3
    assert len((tmp_path / "measurements.jsonl").read_text().splitlines()) == 3


def test_what_may_take_too_long_is_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(RECIPES)
    import gpu

    gpu.main([str(tmp_path), "--minutes", "0.01", "--device", "cpu"])
    out = capsys.readouterr().out
    assert all(f"{name}: left out" in out for name in gpu.PARTS)
