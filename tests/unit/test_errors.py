"""What an error says: the way out of a missing package, and texts that steer no terminal."""

from pathlib import Path

import numpy as np
import pytest

from unrecall import errors
from unrecall.errors import BadInput, MissingDependency, at_least, error_line, nearest, visible


def test_in_a_checkout_the_extra_is_installed_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "src" / "unrecall"
    monkeypatch.setattr(errors, "PACKAGE", package)
    monkeypatch.setattr(errors, "CHECKOUT", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    assert str(MissingDependency("peft", "llm")).endswith(f"Run in {tmp_path}: pip install -e '.[llm]'")


def test_elsewhere_the_packages_of_the_extra_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No package of the index is ours, so its name must not be asked for."""
    monkeypatch.setattr(errors, "CHECKOUT", tmp_path)
    needed = ["torch>=2.6", 'peft>=0.18; extra == "llm"', "ray>=2; extra == 'grid'"]
    monkeypatch.setattr(errors, "requires", lambda _: needed)
    assert str(MissingDependency("peft", "llm")).endswith("Run: pip install 'peft>=0.18'")
    monkeypatch.setattr(errors, "requires", lambda _: None)
    assert str(MissingDependency("rouge-score", "llm")).endswith("Run: pip install 'rouge-score'")


def test_control_characters_become_code_points_and_nothing_else_changes() -> None:
    assert visible("a\x1b[0m\x07\x9b\r\ud800") == "a<U+001B>[0m<U+0007><U+009B><U+000D><U+D800>"
    assert visible(text := "ä\n\t中文 – ok") == text


def test_an_error_of_ours_names_the_users_line_that_caused_it() -> None:
    try:
        try:
            raise KeyError("x")
        except KeyError as cause:
            raise BadInput("model: expected logits, got none.") from cause
    except BadInput as error:
        line = error_line(error)
    assert line.startswith("model: expected logits, got none. (raised at ")
    assert f"{Path(__file__).name}:" in line


@pytest.mark.parametrize("line", ["std::bad_alloc", "cuBLAS: CUBLAS_STATUS_ALLOC_FAILED", "posix_memalign failed"])
def test_every_library_s_words_for_too_little_memory_are_known(line: str) -> None:
    assert error_line(RuntimeError(line)).startswith("memory: expected enough of it, got none left")
    try:
        raise BadInput("model: expected other inputs.") from RuntimeError(line)
    except BadInput as error:
        assert error_line(error).startswith("memory: expected enough of it, got none left")


def test_names_that_are_numbers_stand_by_their_size() -> None:
    assert nearest("x", ["10", "9", "b", "a"]) == "Known: a, b, 9, 10."


@pytest.mark.parametrize(
    ("value", "taken"),
    [(2, True), (np.int64(2), True), (1, False), (np.int64(1), False), (True, False), (2.0, False), (None, False)],
)
def test_whole_numbers_are_also_numpy_s_and_no_bools(value: object, taken: bool) -> None:
    assert at_least(2)(value) is taken
    assert at_least(2, or_none=True)(value) is (taken or value is None)
