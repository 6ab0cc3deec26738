"""The whole story on one screen: a scenario, an unlearning, an audit, a record."""

from pathlib import Path
from typing import NamedTuple

from torch import nn

from unrecall.experiment.against import Against
from unrecall.experiment.run_identity import identity, rate_key
from unrecall.experiment.seeds import Seeds
from unrecall.experiment.starting_point import StartingPoint
from unrecall.harness.adversary import check_requests
from unrecall.harness.audit import audit
from unrecall.harness.suites import Suite, judged_names, suite
from unrecall.methods.base import Method
from unrecall.models.layers import named
from unrecall.record.schema import Record, Run
from unrecall.report import write
from unrecall.scenarios.base import Scenario
from unrecall.scenarios.model_cache import Trained
from unrecall.spec import lines
from unrecall.tasks.base import check_inputs
from unrecall.training.session import Session


class Outcome(NamedTuple):
    """What comes of an experiment: the unlearned model, in eval mode, and the record of what was measured of it."""

    model: nn.Module
    record: Record

    def __repr__(self) -> str:
        """The model's class and the verdict; a record is long."""
        return f"Outcome({type(self.model).__name__}: {self.record.verdict.line})"

    def page(self, path: str | Path) -> None:
        """Writes the record's page, one HTML file; BadInput where something else than a page is there."""
        write([self.record], path, judged_names(self.record))


def experiment(
    scenario: Scenario,
    method: Method,
    attacks: Suite | None = None,
    seed: int | Seeds = 0,
    session: Session | None = None,
    *,
    tuned: bool | Against = False,
    rate: float | None = None,
    show_examples: bool = False,
) -> Outcome:
    """Trains the models, unlearns, attacks every model alike, judges, and gives the unlearned model and the record.

    `attacks`: the standard suite by default. `tuned`: whether the method's strength is searched first, on forget and
    validation data alone, or against which attack. `seed`: one for all that chance decides, or `Seeds`. `rate`,
    `show_examples`: as in `audit`. With a session that has a folder, every finished part is kept there, and an
    interrupted run goes on to the same record.
    """
    session, attacks, seeds = session or Session(), attacks or suite("standard"), Seeds.of(seed)
    request = scenario.request.with_validation() if tuned else scenario.request
    suiting = attacks.suiting(scenario.task)
    check_requests(suiting, request, scenario.task)
    original = scenario.train_original(seeds.training, session)
    check_inputs(scenario.task, original.model, request)
    for part in (method, method.innermost(), *suiting):
        named(original.model, getattr(part, "layers", ()))  # BadInput where they are none of the model's
    retrained = retrained_models(scenario, session)
    start = StartingPoint(scenario, original.model, seeds.unlearning, session, tuned)
    tuning = start.tuning(method) if tuned else None
    chosen = method if tuning is None else method.scaled(tuning.chosen)
    unlearned = start.unlearned(chosen)
    timed = [trained for trained in retrained if trained.cost is not None and trained.cost.seconds is not None]
    costs = {"original": original, "unlearned": unlearned}
    costs |= {"retrained": (timed or retrained)[0]} if retrained else {}
    run = Run(
        scenario=scenario.name,
        summary=scenario.summary,
        costs={role: trained.cost for role, trained in costs.items() if trained.cost is not None},
        tuning=tuning,
        identity=identity(scenario, method, suiting, seeds, session, tuned) | rate_key(rate),
        seeds=seeds.differing,
        reported=dict(scenario.reported.get(lines.show(chosen).split(":")[0], {})),
    )
    record = audit(
        original=original.model,
        unlearned=unlearned.model,
        retrained=[trained.model for trained in retrained],
        null=start.null(chosen, unlearned.cost),
        request=request,
        task=scenario.task,
        attacks=attacks,
        seed=seeds.evaluation,
        session=session,
        method=chosen,
        run=run,
        defender=start.defender(chosen),
        rate=rate,
        show_examples=show_examples,
    )
    return Outcome(unlearned.model, record)


def retrained_models(scenario: Scenario, session: Session) -> list[Trained]:
    """The retrained models: the user's own, and as many more as the scenario wants and can train; all on the host."""
    trained = (scenario.train_retrained(i, session) for i in range(scenario.retrained_count))
    return [each._replace(model=each.model.to("cpu")) for each in trained]
