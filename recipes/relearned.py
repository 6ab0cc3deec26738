"""What methods leave of a class of the digits, and what ten epochs of relearning bring back of what they don't show.

python recipes/relearned.py [METHOD ...]

Prints a table in Markdown, one line a method: accuracy on forget and on the test set, KL on retain against the original
in nats, and accuracy and mean loss on the half of forget that relearning was not taught. Left out, METHOD is each of
METHODS; without any tuning, one seed. Five minutes of a core.
"""

import copy
import sys

import torch
from torch import nn

from unrecall.data.examples import Examples, Selection
from unrecall.methods.base import loss_on
from unrecall.models.observe import accuracy, mean_loss
from unrecall.scenarios.base import Scenario
from unrecall.spec.lines import parse
from unrecall.training.disruption import disruption
from unrecall.training.job import Job
from unrecall.training.loop import Fit, Phase, fit
from unrecall.training.randomness import seeded
from unrecall.training.session import Session

SCENARIO = "digits:forget=class:3"
METHODS = (
    "grad_diff:lr=0.0003",
    "blur(grad_diff:lr=0.0003)",
    "sam(grad_diff:lr=0.0003):rho=0.3",
    "undo(grad_diff:lr=0.0003)",
    "jensun:lr=0.001",
    "repselect:kl=0.1",
    "repselect:kl=0.1,components=1",
    "distort:lr=0.001,epochs=10",
    "distort:form=drop,amount=0.2,lr=0.001,epochs=10",
    "distort:form=apart,amount=1,lr=0.001,epochs=10",
    "undo(distort:lr=0.001,epochs=10)",
    "bounded(grad_diff:lr=0.0003):kl=0.01",
    "sfron:steps=200",
    "lat(grad_diff:lr=0.0003)",
    "cir",
    "mudman:form=ce,lr=0.03",
    "mudman:form=ce,lr=0.01",
    "lotus:lr=0.003",
    "example_localization:lr=0.05",
)
RELEARNING = Fit(lr=0.003, epochs=10, batch_size=32, batchnorm="frozen", clip=1.0)


def relearned(model: nn.Module, scenario: Scenario, lesson: Examples) -> nn.Module:
    """A copy of the model after fine-tuning on a part of forget."""
    copied, phase = copy.deepcopy(model), Phase(loss_on("forget", scenario.task), {"forget": lesson}, RELEARNING)
    fit(copied, scenario.task, phase, seeded(1), Session(device="cpu"))
    return copied


def main(*methods: str) -> None:
    torch.set_num_threads(1)
    scenario = parse(SCENARIO, "scenarios").make()
    request, task, session = scenario.request, scenario.task, Session(device="cpu")
    original, retrained = (train(0, session).model for train in (scenario.train_original, scenario.train_retrained))
    distance = disruption(copy.deepcopy(original).eval(), Job(request, task, seeded(0), session).settled(original))
    half = len(request.forget) // 2
    lesson, hidden = Selection(request.forget, range(half)), Selection(request.forget, range(half, len(request.forget)))

    def right(model: nn.Module, examples: Examples) -> float:
        return float(accuracy(model, task, examples).mean())

    def line(name: str, model: nn.Module) -> None:
        after = relearned(model, scenario, lesson)
        cells = [right(model, request.forget), right(model, request.test), distance(model)]
        cells += [right(after, hidden), mean_loss(after, task, hidden)]
        print(f"| {name} |", " | ".join(f"{cell:.3f}" for cell in cells), "|", flush=True)

    print("| method | forget | test | KL on retain | after | loss after |", "|---" * 6 + "|", sep="\n")
    line("original", original)
    line("retrained", retrained)
    for method in methods or METHODS:
        line(f"`{method}`", parse(method, "methods").unlearn(original, Job(request, task, seeded(0), session)))


if __name__ == "__main__":
    main(*sys.argv[1:])
