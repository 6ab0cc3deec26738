"""The options of the command line, and what is checked of them before any work starts. Heavy imports wait."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from unrecall.disk.files import is_folder_of_files, read_json
from unrecall.errors import BadInput, nearest

if TYPE_CHECKING:
    from unrecall.experiment.against import Against

ScenarioName = Annotated[str, typer.Option("--scenario", "-s", help="built-in[:key=value,...] or FILE.py:function")]
MethodName = Annotated[str, typer.Option("--method", "-m", help="name[:key=value,...], name(base), or FILE.py:Class")]
Out = Annotated[Path, typer.Option("--out", "-o", help="a new folder, or that of the same command, to go on with it")]
SuiteName = Annotated[
    str, typer.Option("--suite", help="the attacks: standard, quick, all (every attack), or names separated by spaces")
]
Device = Annotated[str | None, typer.Option("--device", help="cpu or cuda; left out, Accelerate decides")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="how many runs at once, each in a process of its own")]
Budget = Annotated[
    str,
    typer.Option("--budget", help="20min, 2h or seconds: leaves out attacks until all fits, and the record says which"),
]
NOTHING = "forgot nothing"
"""What --fail-on takes beside verdicts: the exit code is then 3 where a method forgot nothing."""
FailOn = Annotated[
    str,
    typer.Option("--fail-on", help=f"verdicts that make the exit code 1, separated by commas; '{NOTHING}' makes it 3"),
]
Tune = Annotated[
    bool | None,
    typer.Option(
        "--tune/--no-tune",
        help="search the method's strength first, on forget and validation data alone, and stop when it has forgotten; "
        "by default with --model, unless the method's line sets its strength",
    ),
]
AgainstAttack = Annotated[
    str, typer.Option("--against", help="search the strength after which this attack brings back least, as in relearn")
]
MostKl = Annotated[
    float | None,
    typer.Option("--kl", help="with --against: the most that answers on retain may change, KL in nats; 0.01"),
]
Measure = Annotated[
    str,
    typer.Option(
        "--measure", help="with --against: what comes back is what the attack shows (shown), or a lower loss (loss)"
    ),
]
Anyway = Annotated[bool, typer.Option("--anyway", help="go on though the model doesn't know what it must forget")]

Alone = Annotated[
    bool, typer.Option("--alone", help="no retrained models: judge beside records that were never trained on")
]
Levels = Annotated[
    str,
    typer.Option("--seeds", help="how many: 3, or 3x2x2 for originals x unlearnings of each x evaluations of each"),
]
Rate = Annotated[
    float | None,
    typer.Option("--rate", min=1e-8, help="learning rate of the fine-tuning attacks of --alone; 0.02, for texts 0.001"),
]
ShowExamples = Annotated[
    bool, typer.Option("--show-examples", help="put pictures and texts of forget into record and page")
]

ModelName = Annotated[
    str,
    typer.Option("--model", help="in place of a scenario: folder or hub id of a model of Transformers"),
]
Forget = Annotated[str, typer.Option("--forget", help="with --model: file or folder of what it must forget")]
Retain = Annotated[str, typer.Option("--retain", help="with --model: file or folder of what it keeps")]
Holdout = Annotated[
    str, typer.Option("--holdout", help="with --model: texts or pictures like forget that it was never trained on")
]
Test = Annotated[str, typer.Option("--test", help="with --model: others that it was never trained on")]
Base = Annotated[str, typer.Option("--base", help="with --model: the model before it was trained on forget and retain")]
Group = Annotated[
    str, typer.Option("--group", help="with --model: the key of forget's and holdout's lines that says whose each is")
]
HoldoutIs = Annotated[
    str,
    typer.Option("--control", help="with --model: how holdout came to be: random split, matched, synthetic, planted"),
]
ManifestFile = Annotated[str, typer.Option("--manifest", help="with --control planted: what 'unrecall plant' wrote")]
Published = Annotated[str, typer.Option("--published", help="with --manifest: its sha256, published before training")]
Adapter = Annotated[str, typer.Option("--adapter", help="with --model: a LoRA adapter that is merged into it first")]
Lora = Annotated[
    str | None,
    typer.Option(
        "--lora",
        help="r=16[,alpha=32,...]: train a low-rank change, at ten times the method's lr unless its line sets one",
    ),
]


OWN = (
    "model", "forget", "retain", "holdout", "test", "base", "adapter", "group", "control", "manifest", "published",
)  # fmt: skip
"""The options that stand in place of a scenario."""


def own_texts(arguments: Mapping[str, Any]) -> dict[str, str]:
    """The values of the options in `OWN`, by name, out of all arguments of a command."""
    return {key: arguments[key] for key in OWN if key in arguments}


def scenario_line(scenario: str, **own: str) -> str:
    """The scenario's line: `scenario`, or that of a user's own model and texts; BadInput unless it is one of the two.

    `own`: the values of --model, --forget and so on; empty where an option was left out.
    """
    paths = {key: value for key, value in own.items() if value}
    if scenario and paths:
        raise BadInput(
            f"--scenario: expected it alone, or --model in its place, got both it and --{next(iter(paths))}."
        )
    if scenario:
        return scenario
    if not paths:
        raise BadInput("Missing option '--scenario', or '--model' with '--forget' and '--retain' in its place.")
    for key in ("model", "forget", "retain"):
        if key not in paths:
            raise BadInput(
                f"--{key}: expected it beside --{next(iter(paths))}, got none. Needed are model, forget, retain."
            )
    for key, value in paths.items():
        if "," in value:
            raise BadInput(f"--{key}: expected a path without a comma, got '{value}'. Rename it.")
    values = ",".join(f"{key}={value}" for key, value in paths.items())
    return f"{own_kind(Path(paths['model']), Path(paths['retain']))}:{values}"


KINDS = {"ForImageClassification": "pictures", "CLIPModel": "pairs"}
"""The scenario for models of some architectures, by what their names in Transformers hold."""


def own_kind(model: Path, retain: Path) -> str:
    """The scenario for a model of one's own, by the architecture in its configuration.

    Where that names none, what must stay decides: a folder that `datasets` didn't write is one of pictures; else texts.
    """
    path = model / "config.json"
    content = read_json(path) if path.is_file() else {}
    architectures = content.get("architectures") if isinstance(content, dict) else None
    if not isinstance(architectures, list) or not architectures:
        return "pictures" if is_folder_of_files(retain) else "texts"
    return next((kind for part, kind in KINDS.items() if part in str(architectures[0])), "texts")


LORA_RATE = 10
"""A low-rank change wants about ten times the learning rate that all weights do."""


def method_line(method: str, lora: str | None) -> str:
    """The method's line, wrapped in LoRA where --lora says with which parameters, at ten times the rates of its own.

    A rate that the line names stays.
    """
    if lora is None:
        return method
    from unrecall.spec.lines import parse, settings, show

    line = show(_faster(parse(method, "methods"), settings(method, "methods")))
    return f"lora({line})" + (f":{lora}" if lora else "")


def _faster(method: Any, named: set[str]) -> Any:
    """The method with `LORA_RATE` times each learning rate that its line doesn't name, and those of what it wraps."""
    from unrecall.training.loop import Fit

    recipes = {field.name: getattr(method, field.name) for field in fields(method) if field.name != "base"}
    changed: dict[str, Any] = {
        name: replace(recipe, lr=LORA_RATE * recipe.lr)
        for name, recipe in recipes.items()
        if isinstance(recipe, Fit) and f"{name}.lr" not in named
    }
    if any(field.name == "base" for field in fields(method)):
        changed["base"] = _faster(method.base, named)
    return replace(method, **changed)


def against_attack(tune: bool | None, against: str, kl: float | None, measure: str = "shown") -> "Against | None":
    """The attack that strengths are tuned against; None where none is named."""
    if not against:
        if kl is not None:
            raise BadInput(f"--kl: expected it with --against, whose budget it is, got {kl:g} alone. Name an attack.")
        if measure != "shown":
            raise BadInput(f"--measure: expected it with --against, got '{measure}' alone. Name an attack.")
        return None
    if tune is False:
        raise BadInput("--no-tune: expected it without --against, which tunes, got both. Leave one out.")
    from unrecall.experiment.against import Against

    chosen = Against(against, measure=measure)  # type: ignore[arg-type]  # which it checks
    return chosen if kl is None else replace(chosen, kl=kl)


def tunes(tune: bool | None, method: str, own: Mapping[str, str]) -> bool:
    """Whether the strength is searched first: as --tune says; by default for a user's own model and texts.

    Not where the method has no strength, or its line sets that or a rate; nor without texts to search by that were
    never trained on.
    """
    if tune is not None:
        return tune
    from unrecall.spec.lines import parse, settings

    strength, named = parse(method, "methods").innermost().strength, settings(method, "methods")
    return bool(
        own.get("model")
        and (own.get("holdout") or own.get("test"))
        and own.get("control") != "planted"  # whose holdout is paired with forget
        and strength is not None
        and not any(name in strength.parameters or name.endswith(".lr") for name in named)
    )


def search_of(search: "bool | Against | None", method: str, own: Mapping[str, str]) -> "bool | Against":
    """What a method's strength is searched by in a bench, which also takes methods without one: these run as they are.

    `search`: as --tune, --no-tune or --against say; None where none is given, and the default of `tunes` holds.
    `method`: its line without --lora, which sets rates of its own.
    """
    from unrecall.spec.lines import parse

    if isinstance(search, bool | None) and not search:
        return tunes(search, method, own)
    return search if parse(method, "methods").innermost().strength is not None else False


def lines_of(methods: str, lora: str | None) -> tuple[dict[str, str], list[str]]:
    """The line of each method that --methods names, by what it is called there; and which of all are left out.

    These are the methods that do more than train, so that --lora can't wrap them. BadInput for none.
    """
    from unrecall.methods.base import GradientMethod
    from unrecall.spec.catalog import entries
    from unrecall.spec.lines import parse

    def only_trains(name: str) -> bool:
        method = parse(name, "methods")
        return isinstance(method, GradientMethod) and method.has_null

    names, left_out = methods.split(), list[str]()
    if methods == "all":
        names = [entry.name for entry in entries("methods")]
        left_out = [] if lora is None else [name for name in names if not only_trains(name)]
    if not names:
        raise BadInput("--methods: expected names separated by spaces, or all, got none. Name one.")
    return {name: method_line(name, lora) for name in names if name not in left_out}, left_out


def check_names(scenario: str, method: str | None, suite_names: str, tune: bool = False) -> None:
    """Raises BadInput for unknown names and impossible parameters, before anything is trained or written."""
    from unrecall.harness.suites import NAMED, suite
    from unrecall.spec.lines import parse

    words = suite_names.replace(",", " ").split()
    whole = [word for word in words if word in (*NAMED, "all")]
    if whole and len(words) > 1:
        raise BadInput(
            f"--suite: expected '{whole[0]}' alone, as it is a whole suite, got '{suite_names}'. "
            "Name one suite, or attacks separated by spaces."
        )
    chosen = parse(method, "methods") if method else None
    if tune and chosen:
        chosen.scaled(1)
    parse(scenario, "scenarios")
    suite(*suite_names.split())


def labels(fail_on: str) -> set[str]:
    """The verdicts that --fail-on names."""
    from unrecall.record.schema import Label

    every = [*get_args(Label), NOTHING]
    names = {label.strip() for label in fail_on.split(",") if label.strip()}
    for name in names - set(every):
        raise BadInput(f"--fail-on: unknown verdict '{name}'. {nearest(name, every)}")
    return names


def basis(alone: bool, rate: float | None, budget: str, search: "bool | Against | None" = False) -> dict[str, object]:
    """What --alone, --rate, --budget and --against add to what decides a folder's content; nothing where left out.

    Which attacks a budget leaves stands in a file of the folder.
    """
    added: dict[str, object] = {"alone": True} if alone else {}
    if not isinstance(search, bool | None):
        attacked = {"attack": search.attack, "kl": search.kl}
        added["against"] = attacked if search.measure == "shown" else attacked | {"measure": search.measure}
    return added | ({} if rate is None else {"rate": rate}) | ({"budget": True} if budget else {})


def shown(show_examples: bool) -> dict[str, object]:
    """What --show-examples adds to what decides a folder's content; nothing where it is left out."""
    return {"show_examples": True} if show_examples else {}
