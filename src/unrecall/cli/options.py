"""The options that several commands share, and what is checked of them before any work starts. Heavy imports wait."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from unrecall.errors import BadInput, nearest
from unrecall.spec.lines import check_named

if TYPE_CHECKING:
    from unrecall.experiment.against import Against

FORGOT_NOTHING = "forgot nothing"
"""What --fail-on takes beside verdicts: the exit code is then 3 where a method forgot nothing."""
SUITES = {"standard", "quick", "all"}
"""The names of whole suites."""

ScenarioName = Annotated[
    str, typer.Option("--scenario", "-s", help="built-in or FILE.py:function, then [:key=value,...]")
]
MethodName = Annotated[str, typer.Option("--method", "-m", help="name[:key=value,...], name(base), or FILE.py:Class")]
Out = Annotated[Path, typer.Option("--out", "-o", help="a new folder, or that of the same command, to go on with it")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; left out, Accelerate decides")]
Jobs = Annotated[int, typer.Option(min=1, help="how many runs at once, each in a process of its own")]
SeedCounts = Annotated[
    str,
    typer.Option("--seeds", help="how many: 3, or 3x2x2 for originals x unlearnings of each x evaluations of each"),
]
Seed = Annotated[int, typer.Option(min=0, help="seed of all random draws")]
Anyway = Annotated[bool, typer.Option("--anyway", help="go on though the model doesn't know what it must forget")]


@dataclass(frozen=True)
class OwnModel:
    """A model and examples of your own, in place of a scenario."""

    model: Annotated[str, typer.Option(help="folder or hub id of a model of Transformers")] = ""
    forget: Annotated[str, typer.Option(help="file or folder of what it must forget")] = ""
    retain: Annotated[str, typer.Option(help="file or folder of what it keeps")] = ""
    holdout: Annotated[
        str, typer.Option(help="texts or pictures like those of --forget that it was never trained on")
    ] = ""
    test: Annotated[str, typer.Option(help="others that it was never trained on")] = ""
    base: Annotated[str, typer.Option(help="the model before it was trained on --forget and --retain")] = ""
    adapter: Annotated[str, typer.Option(help="a LoRA adapter that is merged into it first")] = ""
    template: Annotated[
        str,
        typer.Option(help="what prompts become: chat, question, alpaca, plain, a text with {prompt}; else it shows it"),
    ] = ""
    group: Annotated[
        str, typer.Option(help="the key of the lines of --forget and --holdout that says whose each is")
    ] = ""
    control: Annotated[
        str, typer.Option(help="how --holdout came to be: random split, matched, synthetic, planted")
    ] = ""
    manifest: Annotated[str, typer.Option(help="with --control planted: what 'unrecall plant' wrote")] = ""
    published: Annotated[str, typer.Option(help="the sha256 of --manifest, published before training")] = ""

    @property
    def given(self) -> dict[str, str]:
        """The values of the options that were not left out, by name."""
        return {name: value for name, value in asdict(self).items() if value}


@dataclass(frozen=True)
class Unlearning:
    """How the method unlearns."""

    lora: Annotated[
        str | None,
        typer.Option(
            help="r=16[,alpha=32,...]: train a low-rank change, at ten times the method's lr unless its line sets one"
        ),
    ] = None
    tune: Annotated[
        bool | None,
        typer.Option(
            "--tune/--no-tune",
            help="search the method's strength first, on forget and validation data alone, and stop when it has "
            "forgotten; by default with --model, unless the method's line sets its strength",
        ),
    ] = None
    against: Annotated[
        str, typer.Option(help="search the strength after which this attack brings back least, as in relearn")
    ] = ""
    kl: Annotated[
        float | None,
        typer.Option(help="with --against: the most that answers on retain may change, KL in nats (default 0.01)"),
    ] = None
    measure: Annotated[
        str,
        typer.Option(help="with --against: what comes back is what the attack shows (shown), or a lower loss (loss)"),
    ] = "shown"

    def search(self) -> "bool | Against | None":
        """What strengths are searched by; None where no option says so. BadInput for options that contradict."""
        if not self.against:
            if self.kl is not None:
                raise BadInput(
                    f"--kl: expected it with --against, whose budget it is, got {self.kl:g} alone. Name an attack."
                )
            if self.measure != "shown":
                raise BadInput(f"--measure: expected it with --against, got '{self.measure}' alone. Name an attack.")
            return self.tune
        if self.tune is False:
            raise BadInput("--no-tune: expected it without --against, which tunes, got both. Leave one out.")
        from unrecall.experiment.against import Against

        budget = {} if self.kl is None else {"kl": self.kl}
        return Against(self.against, measure=self.measure, **budget)  # type: ignore[arg-type]  # which it checks


@dataclass(frozen=True)
class Attacks:
    """Which attacks there are, and beside what models."""

    suite: Annotated[
        str, typer.Option(help="standard, quick, all (every attack), names of attacks, or some of these, with spaces")
    ] = "standard"
    alone: Annotated[
        bool, typer.Option("--alone", help="no retrained models: judge beside records that were never trained on")
    ] = False

    def __post_init__(self) -> None:
        for name in self.suite.split():
            if "," in name and not SUITES.isdisjoint(name.split(",")):
                raise BadInput(f"--suite: expected names separated by spaces, got '{name}'. Put spaces for commas.")
            if name not in SUITES:
                _check_attack(name)


def _check_attack(name: str) -> None:
    """BadInput for an attack that there isn't; the name of a suite may be meant."""
    try:
        check_named(name, "attacks")
    except BadInput as error:
        if "Did you mean" in str(error):
            raise
        hint = nearest(name, SUITES).replace("Known: ", "Suites: ")
        raise BadInput(f"unknown attack '{name}'. {hint} 'unrecall list attacks' shows the attacks.") from error


@dataclass(frozen=True)
class Judging(Attacks):
    """How it is attacked and judged."""

    rate: Annotated[
        float | None,
        typer.Option(min=1e-8, help="learning rate of the fine-tuning attacks of --alone; 0.02, for texts 0.001"),
    ] = None
    budget: Annotated[
        str, typer.Option(help="20min, 2h or seconds: leaves out attacks until all fits, and the record says which")
    ] = ""
    show_examples: Annotated[
        bool, typer.Option("--show-examples", help="put pictures and texts of forget into record and page")
    ] = False
    fail_on: Annotated[
        str,
        typer.Option(help=f"verdicts that make the exit code 1, separated by commas; '{FORGOT_NOTHING}' makes it 3"),
    ] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        labels(self.fail_on)

    def content(self, search: "bool | Against | None" = False) -> dict[str, object]:
        """What these options and --against add to what decides a folder's content; nothing where left out.

        Which attacks a budget leaves stands in a file of the folder.
        """
        content: dict[str, object] = {"suite": self.suite}
        content |= {"alone": True} if self.alone else {}
        content |= against_content(search)
        content |= {} if self.rate is None else {"rate": self.rate}
        content |= {"budget": True} if self.budget else {}
        return content | ({"show_examples": True} if self.show_examples else {})


def against_content(search: "bool | Against | None") -> dict[str, object]:
    """What --against adds to what decides a folder's content; nothing where it is left out."""
    if isinstance(search, bool | None):
        return {}
    attacked = {"attack": search.attack, "kl": search.kl}
    return {"against": attacked if search.measure == "shown" else attacked | {"measure": search.measure}}


def labels(fail_on: str) -> set[str]:
    """The verdicts that --fail-on names."""
    from unrecall.record.schema import Label

    every = [*get_args(Label), FORGOT_NOTHING]
    names = {label.strip() for label in fail_on.split(",") if label.strip()}
    for name in names - set(every):
        raise BadInput(f"--fail-on: unknown verdict '{name}'. {nearest(name, every)}")
    return names
