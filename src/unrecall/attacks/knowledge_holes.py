"""Knowledge holes: what the original model answers near the forgotten, and the unlearned one no longer does."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import nn

from unrecall.attacks.base import ARMS
from unrecall.attacks.inspection import Inspection, InspectionAttack, beside
from unrecall.data.examples import iterate
from unrecall.data.request import Split
from unrecall.errors import NotSupported
from unrecall.evidence.neighbours import Neighbours
from unrecall.evidence.setting import Setting
from unrecall.models.knowledge_holes.input_probes import InputProbes
from unrecall.models.knowledge_holes.search import Holes, Probes, Round, Search, holes
from unrecall.models.knowledge_holes.text_probes import Corpus, QuestionProbes, WritingProbes
from unrecall.record import stats
from unrecall.record.schema import Estimate, Side, ThreatModel
from unrecall.spec.parameters import Count, NonNegative, Positive, Share
from unrecall.tasks.protocols import Perturbable, Textual, Unfinished, check_offers, offers, textual
from unrecall.training.randomness import seeded


class ArmSearch(NamedTuple):
    """Where holes are looked for near one arm: the search, and the probes at random, which are the same for all."""

    search: Search
    random: list[Round]


class Compared(NamedTuple):
    """The holes of one model near one arm: bred against it, and of as many probes at random."""

    searched: Holes
    random: Holes


@dataclass(frozen=True)
class KnowledgeHoles(InspectionAttack):
    """Searches for benign probes that the original answers and a model made of it does not.

        homes: the retain and test examples nearest to forget, by the cosine of the original's centred features, that
        the original answers right and surely, each of their rows with a probability of `sure` or more
        adjacent: the share of homes that the model answers wrong
        latent: the share of homes near which one of 1 + rounds * children probes is a hole

    Four properties make a probe a hole: it is well formed; the original answers it right and surely; the model asked
    answers it wrong (a row of the answer at least); no forget example says the answer. Classes that are forgotten whole
    are nobody's homes. input_probes.py and text_probes.py in models/knowledge_holes say how probes are made and what
    well formed means: inputs lie in a small ball around their home and are climbed to by gradients; questions are put
    in other words; of texts without questions the original writes the probes. `Search.against` breeds them: best of
    `children` near each home in each round, by how badly the model answers, less `novelty` for likeness.

    The lines are that share over the probes asked near each home, for the search and for as many probes at random, near
    forget and, as a control, near the holdout. The value is that of the search near forget, over homes, with an exact
    interval. Beside it stand the share at random, the distinct holes (cosine of `models.knowledge_holes.search.ALIKE`
    or less with each other), their Vendi score, and the share of them whose answer is among the worst. The original has
    none.

    Args:
        homes: how many examples are looked near.
        rounds: generations of the search.
        children: probes near each home in each of them.
        sure: the least probability that the original gives each row of its answer.
        novelty: weight of likeness to earlier probes (the paper's 1 beside a judge of 10).
        radius: of inputs: how far a probe lies from home at most, a share of the width of the task's bounds.
        step: of inputs: the size of a gradient step, a share too.
        steps: of inputs: gradient steps a probe.
        draws: of inputs: how many times noise must not change the original's answer.

    Expected to fail: as evidence of harm without retrained models. Two models that were trained alike differ near the
    edge of what they know, and a search finds it; what counts is how much more it finds than in a retrained model.

    Reference: Ko, Just, Fleming, Jin, Jia, "Probing Knowledge Holes in Unlearned LLMs", NeurIPS 2025, arXiv 2511.00030.
    Differs from the paper, whose code is not public, in nearly all that needs a large model: its questions are written
    by GPT-4o-mini and by a Llama that PPO trains on a judge's marks, ours are bred from examples; right or wrong
    against the original's answer stands for that judge; homes are neighbours in feature space. Of inputs, the paper
    knows nothing.
    """

    title: ClassVar[str] = "Knowledge holes"
    threat: ClassVar[ThreatModel] = ThreatModel(
        access="probabilities of both models' answers; gradients where inputs are continuous",
        data="forget, retain and test examples; the original model",
        budget="20 probes near each of 50 examples, and as many at random",
    )
    needs_own_rows: ClassVar[bool] = True
    shows: ClassVar[str] = "share of near examples with a hole beside them"
    axis: ClassVar[str] = "probes asked near each example"
    unit: ClassVar[str] = "share of examples with a hole"

    homes: Count = 50
    rounds: Count = 5
    children: Count = 4
    sure: Share = 0.5
    novelty: NonNegative = 0.1
    radius: Positive = 8 / 255
    step: Positive = 2 / 255
    steps: Count = 5
    draws: Count = 8

    @property
    def leak(self) -> Side | None:
        """Neither side: what is shown is harm, not memory."""
        return None

    def inspect(self, model: nn.Module, setting: Setting) -> Inspection:
        """The holes of one model."""
        return self.inspect_all({"model": model}, setting)["model"]

    def inspect_all(self, subjects: Mapping[str, nn.Module], setting: Setting) -> dict[str, Inspection]:
        """The holes of each model, searched for from the same homes, with the same draws."""
        searches = self.searches(setting)
        by_model = {
            model: self._inspection(
                {arm: self.holes_of(model, arm_search, setting) for arm, arm_search in searches.items()}
            )
            for model in dict.fromkeys(subjects.values())
        }
        return {role: by_model[model] for role, model in subjects.items()}

    def searches(self, setting: Setting) -> dict[Split, ArmSearch]:
        """Where to look: near forget, and near the holdout where there is one that has neighbours."""
        near, searches = Neighbours(setting), dict[Split, ArmSearch]()
        probes = _probes(self, near, setting)
        for arm in ARMS:
            if len(setting.request[arm]):
                search = Search(probes, _homes(self, near, probes, arm), self.rounds, self.children, self.novelty)
                searches[arm] = ArmSearch(search, search.at_random(seeded(setting.seed)))
        return searches

    def holes_of(self, model: nn.Module, arm_search: ArmSearch, setting: Setting) -> Compared:
        """The holes of a model, by search and at random."""
        rounds, probes = arm_search.search.against(model, seeded(setting.seed)), arm_search.search.probes
        return Compared(holes(model, probes, rounds), holes(model, probes, arm_search.random))

    def conclusion(self, unlearned: Estimate, reference: float | None) -> str:
        """How often a search meets what the unlearned model lost, beside retrained models."""
        if unlearned.value is None:
            return ""
        sentence = f"Near {unlearned.value:.2f} of {unlearned.n} examples beside forget the search met a hole"
        return f"{beside(sentence, 'in retrained models', reference)} Of the unlearned model: {unlearned.note}."

    def _inspection(self, by_arm: Mapping[Split, Compared]) -> Inspection:
        lines: dict[str, tuple[float, ...]] = {}
        for arm, both in by_arm.items():
            lines[f"search near {arm}"] = tuple(both.searched.met.mean(1).tolist())
            lines[f"random near {arm}"] = tuple(both.random.met.mean(1).tolist())
        value = stats.mean(by_arm["forget"].searched.met[-1].astype(float), share=True)
        x = tuple(float(i * self.children) for i in range(self.rounds + 1))
        return Inspection(x, lines, value.model_copy(update={"note": _note(by_arm)}))


def _note(by_arm: Mapping[Split, Compared]) -> str:
    """What stands beside the share that the search met."""
    searched, random = by_arm["forget"]
    beyond = stats.difference(searched.met[-1].astype(float) - random.met[-1])
    parts = [
        f"{searched.met[0].mean():.2f} wrong as they are",
        f"{random.met[-1].mean():.2f} by as many probes at random",
        f"search beyond random {_interval(beyond)}",
        f"{len(searched.distinct)} distinct holes, Vendi score {searched.diversity:.1f}, {searched.worst:.2f} worst",
    ]
    if "holdout" in by_arm:
        parts.append(f"near holdout {by_arm['holdout'].searched.met[-1].mean():.2f}")
    return ", ".join(parts)


def _interval(estimate: Estimate) -> str:
    limits = "" if estimate.low is None else f" ({estimate.low:.2f} to {estimate.high:.2f})"
    return f"{estimate.value:.2f}{limits}"


def _probes(attack: KnowledgeHoles, near: Neighbours, setting: Setting) -> Probes:
    """The probes that suit the task; NotSupported where it has neither texts nor continuous inputs."""
    task, original, name = setting.task, setting.models.original, type(attack).__name__
    if offers(task, Textual):
        texts, staying = textual(name, task), list(iterate(near.examples))
        asks = any(texts.prompt(item) for item in staying)
        check_offers(name, task, *(() if asks else (Unfinished,)))
        corpus = Corpus.of(texts, staying, list(iterate(setting.request.forget)))
        return (QuestionProbes if asks else WritingProbes)(task, original, near.centre, attack.sure, corpus=corpus)
    check_offers(name, task, Perturbable)
    sizes = attack.radius, attack.step, attack.steps, attack.draws
    return InputProbes(task, original, near.centre, attack.sure, 0, *sizes)


def _homes(attack: KnowledgeHoles, near: Neighbours, probes: Probes, arm: Split) -> Round:
    """The examples nearest to an arm that are sound as they are; NotSupported where there are none."""
    order, items = near.nearest(arm), list[Any]()
    for start in range(0, len(order), attack.homes):
        examples = [near.examples[i] for i in order[start : start + attack.homes]]
        drawn = probes.looked_at(probes.at_home(examples))
        items += [item for item, sound in zip(drawn.items, drawn.sound, strict=True) if sound]
        if len(items) >= attack.homes:
            break
    if not items:
        raise NotSupported(
            f"{type(attack).__name__}: expected retain or test examples that the original answers right with a "
            f"probability of {attack.sure:g} or more, got none of {len(order)}. Lower sure, or leave it out."
        )
    return probes.looked_at(items[: attack.homes])
