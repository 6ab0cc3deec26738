"""A run's folder belongs to one process at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unrecall.disk.run_folder import claimed
from unrecall.errors import BadInput

HOLD = """
import sys
from pathlib import Path
from unrecall.disk.run_folder import claimed
with claimed(Path("out"), {"command": "run"}):
    print("mine", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.skipif(os.name == "nt", reason="there are no such locks")
def test_a_folder_that_another_process_fills_is_refused_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "mine\n"
    refused = pytest.raises(BadInput, match="out: expected a folder that nobody else is writing to")
    with refused, claimed(Path("out"), {"command": "run"}):
        raise AssertionError("both have it")
    assert [path.name for path in Path("out").iterdir()] == ["run.json"]
    first.communicate("done\n", timeout=60)
    with claimed(Path("out"), {"command": "run"}) as folder:
        assert folder == Path("out")
