"""Which attacks an audit runs, by name: standard, quick, all, or a list of one's own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from unrecall import attacks
from unrecall.attacks.base import Attack
from unrecall.errors import BadInput
from unrecall.harness.finding import named_parameters, report_of
from unrecall.harness.scoring import ENDINGS
from unrecall.metrics import METRICS
from unrecall.record.schema import Record, Side
from unrecall.spec.catalog import entries
from unrecall.spec.lines import name_of, parse
from unrecall.tasks.base import Task
from unrecall.tasks.protocols import Classed, Classifying, Paired, Perturbable, Ranked, Textual, offers
from unrecall.training.loop import Fit

TEXT_RELEARNING = Fit(optimizer="adamw", batch_size=8, weight_decay=0.0)
LEARNING_RATES = (1e-5, 1e-4, 1e-3)
PAIR_RELEARNING = Fit(optimizer="adamw", batch_size=32, weight_decay=0.0)
"""A pair is learned by being told from the others of its batch, so that small batches teach little."""
RANKED_RELEARNING = Fit(optimizer="adam", batch_size=32, weight_decay=0.0)
"""Vectors of users and items hardly move under SGD: each is in few batches."""
BENIGN_RELEARNING = Fit(batch_size=32, weight_decay=0.0)
"""What is like retain may move BatchNorm's statistics; a handful of one class would only destroy them."""


Entry: TypeAlias = tuple[type, Attack]
"""An attack of a suite, and the protocol that a task must offer for it to be run; `Task` stands for any task."""

STANDARD: tuple[Entry, ...] = (
    (Classifying, attacks.Recalibration()),
    (Perturbable, attacks.ResidualKnowledge(precision=0.005)),
    (Classifying, attacks.Relearn()),
    (Textual, attacks.Relearn(learning_rates=LEARNING_RATES, fit=TEXT_RELEARNING)),
    (Paired, attacks.Relearn(learning_rates=LEARNING_RATES, fit=PAIR_RELEARNING)),
    (Ranked, attacks.Relearn(learning_rates=(1e-3, 1e-2), fit=RANKED_RELEARNING)),
    (Textual, attacks.Relearn(share=0.1, learning_rates=LEARNING_RATES, fit=TEXT_RELEARNING)),
    (Classifying, attacks.Relearn(data="benign", fit=BENIGN_RELEARNING)),
    (Textual, attacks.Relearn(data="benign", learning_rates=LEARNING_RATES, fit=TEXT_RELEARNING)),
    (Paired, attacks.Relearn(data="benign", learning_rates=LEARNING_RATES, fit=PAIR_RELEARNING)),
    (Classifying, attacks.RelearnTime()),
    (Classifying, attacks.Prototypical()),
    (Classifying, attacks.ReaClass()),
    (Classed, attacks.LinearProbe()),
    (Textual, attacks.Quantise()),
    (Paired, attacks.Quantise()),
    (Ranked, attacks.Quantise()),
    (Textual, attacks.Prefix()),
    (Textual, attacks.Paraphrase()),
    (Perturbable, attacks.UMA()),
    (Textual, attacks.Attribution()),
    (Textual, attacks.LogitLens()),
    (Classed, attacks.CKA()),
    (Classed, attacks.CKA(beside="retrained")),
    (Task, attacks.Loss()),
    (Classed, attacks.SVC()),
    (Textual, attacks.ZlibRatio()),
    (Textual, attacks.MinK()),
    (Textual, attacks.MinKPlusPlus()),
    (Textual, attacks.ReferenceModel()),
    (Textual, attacks.GradNorm()),
    (Task, attacks.Lira()),
    (Task, attacks.RMIA()),
    (Textual, attacks.REMIND()),
)
"""What needs nothing but the models, at the papers' settings; the other attacks are run by name."""

QUICK: tuple[Entry, ...] = (
    (Classifying, attacks.Recalibration(counts=(128,))),
    (Perturbable, attacks.ResidualKnowledge(points=3, draws=20, precision=0.01)),
    (Classifying, attacks.Relearn(steps=(1, 4, 16), learning_rates=(1e-2,))),
    (Textual, attacks.Relearn(steps=(1, 4, 16), learning_rates=(1e-4,), fit=TEXT_RELEARNING)),
    (Paired, attacks.Relearn(steps=(1, 4, 16), learning_rates=(1e-4, 1e-3), fit=PAIR_RELEARNING)),
    (Ranked, attacks.Relearn(steps=(1, 4, 16), learning_rates=(1e-2,), fit=RANKED_RELEARNING)),
    (Classifying, attacks.Prototypical(ks=(5,))),
    (Textual, attacks.Quantise(bits=(4,))),
    (Paired, attacks.Quantise(bits=(4,))),
    (Paired, attacks.LinearProbe(ks=(5,))),
    (Textual, attacks.Attribution()),
    (Paired, attacks.CKA(most=100)),
    (Task, attacks.Loss()),
    (Classifying, attacks.RMIA()),
    (Paired, attacks.RMIA()),
    (Ranked, attacks.RMIA()),
    (Textual, attacks.MinKPlusPlus()),
)
"""One attack of each kind, at a fraction of the budget; for trying things out, not for a claim."""

NAMED = {"standard": STANDARD, "quick": QUICK}


@dataclass(frozen=True)
class Suite:
    """The attacks of an audit, in the order in which they are run and shown; each says of what tasks it is for."""

    name: str
    entries: tuple[Entry, ...]

    def suiting(self, task: Task) -> tuple[Attack, ...]:
        """The attacks for a task; BadInput, with what it lacks, where none of them can run.

        Beside attacks that can run, one that can't stays: it becomes a row with its reason.
        """
        suiting = tuple(attack for protocol, attack in self.entries if offers(task, protocol))
        if not any(offers(task, *attack.needs) for attack in suiting):
            needs = {need for protocol, attack in self.entries for need in (protocol, *attack.needs)}
            lacking = sorted(need.__name__ for need in needs if not offers(task, need))
            raise BadInput(
                f"suite {self.name}: expected a task that is one of {', '.join(lacking)}, got {type(task).__name__}, "
                "on which none of its attacks can run. Name attacks that can, or give the task what they need."
            )
        names = [report_of(attack).name for attack in suiting]
        if len(set(names)) < len(names):
            name = next(name for name in names if names.count(name) > 1)
            raise BadInput(f"suite {self.name}: expected each attack once, got two called '{name}'. Leave one out.")
        return suiting


def suite(*chosen: str | Attack) -> Suite:
    """A suite of attacks, and of suites by name; `all` are the attacks that there are."""
    if not chosen:
        raise BadInput("suite: expected attacks, got none. Name some, or one of the suites standard, quick and all.")
    if wrong := [entry for entry in chosen if not isinstance(entry, str | Attack)]:
        raise BadInput(
            f"suite: expected attacks, or names of some, got {wrong[0]!r}. Name them: ur.suite('loss', 'rmia')."
        )
    parts: list[Entry] = []
    for attack in chosen:
        if attack == "all":
            parts += [(Task, parse(entry.name, "attacks")) for entry in entries("attacks")]
        elif isinstance(attack, str) and attack in NAMED:
            parts += NAMED[attack]
        else:
            parts.append((Task, parse(attack, "attacks") if isinstance(attack, str) else attack))
    return Suite(" ".join(map(str, chosen)), tuple(parts))


Attacks: TypeAlias = Suite | str | Attack | Sequence[str | Attack] | None
"""What people give as the attacks of an audit."""


def suite_of(attacks: Attacks) -> Suite:
    """The suite that is meant: one as it is, names ("quick", "loss rmia"), attacks, or None for the standard one."""
    if isinstance(attacks, Suite):
        return attacks
    if isinstance(attacks, str):
        return suite(*attacks.split())
    if attacks is None or isinstance(attacks, Attack):
        return suite("standard" if attacks is None else attacks)
    if not isinstance(attacks, list | tuple):
        raise BadInput(f"attacks: expected a suite, names or attacks, got {attacks!r}. Name some: attacks='quick'.")
    return suite(*attacks)


def built_in(name: str) -> str | None:
    """The attack of the catalog that a report of that name is of; None for one of the user's own."""
    names = (entry.name for entry in entries("attacks"))
    return max((attack for attack in names if f"{name}_".startswith(f"{attack}_")), key=len, default=None)


def own_judged(record: Record) -> Iterator[str]:
    """The measurements that the user's own attacks of a record are judged by; their code alone could say otherwise.

    Where the record names scores of any attack, theirs are among them, unless nothing could be scored.
    """
    user_attacks = {report.name for report in record.attacks if built_in(report.name) is None}
    for m in record.measurements:
        name, _, ending = m.name.rpartition("_")
        has_scores = name in record.scores or not record.scores or m.unlearned.value is None
        if m.judged and name in user_attacks and ending in ENDINGS.values() and has_scores:
            yield m.name


def judged_names(*records: Record) -> dict[str, Side | None]:
    """Every measurement that a verdict may rest on, by name, and the side on which it leaks.

    Those of the user's own attacks are as `records` have them.
    """
    sides = {row.name: row.leak for metric in METRICS for row in metric.rows if row.judged}
    judged = [attack for _, attack in STANDARD if attack.judged and not named_parameters(attack)]
    names = [f"{name_of(attack)}_{attack.judged}" for attack in judged]
    return sides | dict.fromkeys([*names, *(name for record in records for name in own_judged(record))], "above")
