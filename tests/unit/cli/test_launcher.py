"""Which of several processes works, and that nothing it uses looks for the others."""

import pytest

from unrecall.cli.launcher import claim_first_process
from unrecall.errors import BadInput

ALONE = {"PATH": "/bin"}
TORCHRUN = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
MPI = {"OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_LOCAL_SIZE": "3"}


def test_one_process_works_and_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for one in ({}, {"RANK": "gold"}, {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}, {"WORLD_SIZE": ""}):
        assert claim_first_process(surroundings := ALONE | one)
        assert surroundings == ALONE or "" in surroundings.values()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("launched", "rank", "local"),
    [(TORCHRUN, "RANK", "LOCAL_RANK"), (MPI, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK")],
)
def test_the_first_of_several_works_and_is_alone_from_then_on(
    launched: dict[str, str], rank: str, local: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first, others = launched | {rank: "0", local: "0"}, [launched | {rank: str(n), local: str(n)} for n in (1, 2)]
    assert [claim_first_process(other) for other in others] == [False, False]
    size = next(value for name, value in launched.items() if name.endswith("WORLD_SIZE"))
    idle = "process {} of {}: does nothing, for process 0 does all the work.\n"
    assert capsys.readouterr() == ("", idle.format(1, size) + idle.format(2, size))
    assert claim_first_process(first)
    assert first.keys() <= {"MASTER_ADDR"}
    at_work = f"process 0 of {size}: does all the work, in whole batches; the others end at once.\n"
    assert capsys.readouterr() == ("", at_work)
    assert claim_first_process(first)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("launched", "said"),
    [
        ({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "0"}, "got 2 of 4 on this one. Start one process."),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE: expected a whole number, got 'two'."),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK: expected a whole number, got '-1'."),
    ],
)
def test_what_a_launcher_should_not_say_is_one_line(launched: dict[str, str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        claim_first_process(launched)
