"""What the command line makes of --lora, --tune and a method's line."""

from dataclasses import replace

import pytest

from unrecall.cli.lines import method_line, tunes
from unrecall.cli.options import SUITES, OwnModel
from unrecall.harness.suites import NAMED
from unrecall.spec.lines import settings

OWN = OwnModel(model="m", forget="f", retain="r", holdout="h")


@pytest.mark.parametrize(
    ("method", "lora", "line"),
    [
        ("npo", None, "npo"),
        ("npo", "", "lora(npo:lr=0.0001)"),
        ("npo", "r=8", "lora(npo:lr=0.0001):r=8"),
        ("npo:beta=0.2", "r=8", "lora(npo:lr=0.0001,beta=0.2):r=8"),
        ("npo:lr=3e-5", "r=8", "lora(npo:lr=3e-05):r=8"),
        ("npo:fit.lr=3e-5", "r=8", "lora(npo:lr=3e-05):r=8"),
        ("salun(npo)", "", "lora(salun(npo:lr=0.0001))"),
        ("whp:reinforce.lr=1e-4", "", "lora(whp:reinforce.lr=0.0001,lr=0.0001)"),
    ],
)
def test_lora_trains_at_ten_times_the_rate_unless_the_line_names_one(method: str, lora: str | None, line: str) -> None:
    made = method_line(method, lora)
    assert sorted(made.replace("(", ",").replace(")", ",").replace(":", ",").split(",")) == sorted(
        line.replace("(", ",").replace(")", ",").replace(":", ",").split(",")
    )


def test_a_line_sets_parameters_of_its_own_and_of_its_base() -> None:
    assert settings("npo:lr=1e-4,beta=0.2", "methods") == {"fit.lr", "beta"}
    assert settings("salun(npo:lr=1e-4):share=0.5", "methods") == {"fit.lr", "share"}
    assert settings("whp:reinforce.lr=1e-4", "methods") == {"reinforce.lr"}
    assert settings("npo", "methods") == set()


@pytest.mark.parametrize(
    ("said", "method", "changed", "searched"),
    [
        (None, "npo", {}, True),
        (None, "npo:beta=0.2", {}, True),
        (None, "npo:lr=1e-4", {}, False),
        (None, "retrain", {}, False),
        (None, "neggrad_plus:lr=1e-3", {}, False),  # its strength is beta, and its line names a rate
        (None, "neggrad_plus:epochs=2", {}, True),
        (None, "npo", {"model": ""}, False),
        (None, "npo", {"holdout": ""}, False),
        (None, "npo", {"holdout": "", "test": "t"}, True),
        (None, "npo", {"control": "planted"}, False),
        (False, "npo", {}, False),
        (True, "npo:lr=1e-4", {"model": ""}, True),
    ],
)
def test_own_texts_are_tuned_unless_the_rate_is_set(
    said: bool | None, method: str, changed: dict[str, str], searched: bool
) -> None:
    assert tunes(said, method, replace(OWN, **changed)) is searched


def test_the_command_line_knows_all_suites_before_they_are_imported() -> None:
    assert {*SUITES} == {*NAMED, "all"}
