"""The lines that people see while a method trains: whose phase it is, and which of how many."""

import re

import pytest

from tests.worlds import World
from unrecall.methods.base import Null, short_line
from unrecall.methods.ec import ECAround
from unrecall.methods.finetune import Finetune
from unrecall.methods.neggrad_plus import NegGradPlus
from unrecall.methods.salun import SalUn
from unrecall.methods.scrub import SCRUB
from unrecall.methods.spotter import SpotterAround
from unrecall.training.job import Job
from unrecall.training.loop import Fit
from unrecall.training.randomness import seeded
from unrecall.training.session import Session


class Mine(Finetune):
    """A user's method."""


def test_a_method_goes_by_the_names_of_the_command_line() -> None:
    assert short_line(NegGradPlus()) == "neggrad_plus"
    assert short_line(SpotterAround(SalUn(SCRUB()))) == "spotter(salun(scrub))"
    assert short_line(ECAround(Finetune())) == "ec(finetune)"
    assert short_line(Null(SCRUB())) == "null(scrub)"
    assert short_line(Mine()) == "Mine"


def test_each_phase_says_whose_it_is_and_which_of_how_many(
    samples_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    w, fit = samples_world, Fit(lr=0.0, batch_size=64)
    job = Job(w.request, w.task, seeded(0), Session(device="cpu", show=True))
    Finetune(fit=fit).unlearn(w.original, job)
    two = SCRUB()
    phases = len(two.phases(w.original, w.original, job))
    assert phases > 1
    two.unlearn(w.original, job)
    names = [re.sub(r": done in .*", "", line) for line in capsys.readouterr().err.splitlines()]
    assert names == ["finetune", *(f"scrub, phase {i} of {phases}" for i in range(1, phases + 1))]
