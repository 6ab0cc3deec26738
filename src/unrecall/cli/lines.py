"""What options make of the lines of a scenario and a method. Heavy imports wait."""

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unrecall.cli.options import OwnModel
from unrecall.disk.files import is_folder_of_files
from unrecall.disk.json_files import read_json
from unrecall.errors import BadInput
from unrecall.spec.lines import check_named, parse, settings, show

if TYPE_CHECKING:
    from unrecall.experiment.against import Against


def scenario_line(scenario: str, own: OwnModel) -> str:
    """The scenario's line: `scenario`, or that of a user's own model; BadInput unless it is one of the two."""
    paths = own.given
    if scenario and paths:
        raise BadInput(
            f"--scenario: expected it alone, or --model in its place, got both it and --{next(iter(paths))}."
        )
    if scenario:
        check_named(scenario, "scenarios")
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
    return f"{own_kind(Path(own.model), Path(own.retain))}:{values}"


KINDS = {"ForImageClassification": "pictures", "ForSequenceClassification": "labelled-texts", "CLIPModel": "pairs"}
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
    check_named(method, "methods")
    if lora is None:
        return method
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


def tunes(tune: bool | None, method: str, own: OwnModel) -> bool:
    """Whether the strength is searched first: as --tune says; by default for a user's own model and texts.

    Not where the method has no strength, or its line sets that or a rate; nor without texts to search by that were
    never trained on.
    """
    if tune is not None:
        return tune
    strength, named = parse(method, "methods").innermost().strength, settings(method, "methods")
    return bool(
        own.model
        and (own.holdout or own.test)
        and own.control != "planted"  # whose holdout is paired with forget
        and strength is not None
        and not any(name in strength.parameters or name.endswith(".lr") for name in named)
    )


def search_of(search: "bool | Against | None", method: str, own: OwnModel) -> "bool | Against":
    """What a method's strength is searched by in a bench, which also takes methods without one: these run as they are.

    `search`: as --tune, --no-tune or --against say; None where none is given, and the default of `tunes` holds.
    `method`: its line without --lora, which sets rates of its own.
    """
    if isinstance(search, bool | None) and not search:
        return tunes(search, method, own)
    return search if parse(method, "methods").innermost().strength is not None else False


def lines_of(methods: str, lora: str | None) -> tuple[dict[str, str], list[str]]:
    """The line of each method that --methods names, by what it is called there; and which of all are left out.

    These are the methods that do more than train, so that --lora can't wrap them. BadInput for none.
    """
    from unrecall.methods.base import GradientMethod, has_null
    from unrecall.spec.catalog import entries

    def only_trains(name: str) -> bool:
        method = parse(name, "methods")
        return isinstance(method, GradientMethod) and has_null(method)

    names, left_out = methods.split(), list[str]()
    if methods == "all":
        names = [entry.name for entry in entries("methods")]
        left_out = [] if lora is None else [name for name in names if not only_trains(name)]
    if not names:
        raise BadInput("--methods: expected names separated by spaces, or all, got none. Name one.")
    return {name: method_line(name, lora) for name in names if name not in left_out}, left_out


def check_names(scenario: str, method: str | None, suite_names: str, tune: bool = False) -> None:
    """Raises BadInput for unknown names and impossible parameters, before anything is trained or written."""
    from unrecall.harness.suites import suite

    chosen = parse(method, "methods") if method else None
    if tune and chosen:
        chosen.scaled(1)
    parse(scenario, "scenarios")
    suite(*suite_names.split())
