"""Every record that the repository keeps agrees with itself and with the rule as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from unrecall.recheck import recheck

KEPT = sorted((Path(__file__).parent.parent / "benchmarks" / "records").glob("*/*.json"))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_kept_record_holds(path: Path) -> None:
    assert recheck(path)[1] == []
