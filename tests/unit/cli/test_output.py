"""What the command line says of errors."""

import pytest

from unrecall.cli.output import complain, complain_of
from unrecall.errors import UnrecallError


def test_an_error_is_one_line_on_stderr_and_the_exit_code_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert complain("first\nsecond") == 2
    assert complain("") == 2, "nothing is said of nothing"
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "error: first second\n")


def test_of_several_errors_each_is_said_before_the_summary_is_raised(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnrecallError, match="2 of 3"):
        complain_of(["a", "b"], "2 of 3")
    assert capsys.readouterr().err == "error: a\nerror: b\n"
    complain_of([], "none of 3")
