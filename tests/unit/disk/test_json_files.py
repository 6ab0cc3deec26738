"""JSON is read strictly."""

from pathlib import Path

import pytest

from unrecall.disk.json_files import read_json
from unrecall.errors import BadInput


def test_a_key_that_a_json_object_names_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.json"
    path.write_text('[{"answer": "a", "more": {"b": 1, "b": 2}}]')
    with pytest.raises(BadInput, match="expected JSON, got the key 'b' twice in an object"):
        read_json(path)
    path.write_text('[{"b": 1}, {"b": 2}]')
    assert read_json(path) == [{"b": 1}, {"b": 2}]
