"""A line of text <-> a frozen dataclass: "rurk:tau=0.05", "spotter(salun):lambda_1=0.5", "case.py:make".

spec = name [ "(" spec ")" ] [ ":" key=value { "," key=value } ]     name = a built-in, or FILE.py:NAME
"""

import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, make_dataclass, replace
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any, get_type_hints

from pydantic import PydanticUserError

from unrecall.errors import BadInput, nearest
from unrecall.spec.catalog import Entry, Kind, class_name, entries
from unrecall.spec.parameters import Parameters, annotated, checked, nested_types, takes
from unrecall.spec.user_files import user_object

NAME = re.compile(r"((?:[^(]*?\.py:)?[^:(]*)(.*)", re.DOTALL)
"""A name, with the file before it if there is one, and all that follows."""
BASES: Mapping[Kind, str] = {"methods": "Method", "attacks": "Attack", "scenarios": "Builder"}


@dataclass(frozen=True)
class Spec:
    """The parts of a line, before anything is looked up."""

    name: str
    base: str | None
    values: Mapping[str, str]


def taken_apart(text: str) -> Spec:
    """Takes a line apart; BadInput where brackets or key=value pairs are off."""
    name, rest = NAME.findall(text.lstrip())[0]
    base = None
    if rest.startswith("("):
        closed = _closing(rest, text)
        base, rest = rest[1:closed], rest[closed + 1 :]
    if rest and not rest.startswith(":"):
        raise BadInput(f"'{text}': expected ':' and parameters after ')', got '{rest}'.")
    return Spec(name.strip(), base, dict(_pairs(rest.removeprefix(":"), text)))


def paths(*texts: str) -> Iterator[str]:
    """What lines name that can be a file or a folder: the FILE.py of a name, and the values of parameters."""
    for text in texts:
        spec = taken_apart(text)
        if ".py:" in spec.name:
            yield spec.name.rpartition(":")[0]
        if spec.base is not None:
            yield from paths(spec.base)
        for value in spec.values.values():
            yield from {value, *value.split("+")}


def settings(text: str, kind: Kind) -> set[str]:
    """The parameters that a line sets, its base's among them; a nested one with what it belongs to: fit.lr."""
    spec, inner = taken_apart(text), _inner_fields(type(parse(text, kind)))
    own = {f"{inner[key][0]}.{key.rsplit('.', 1)[-1]}" if key in inner else key for key in spec.values}
    return own | (settings(spec.base, kind) if spec.base else set())


def _closing(text: str, whole: str) -> int:
    """Where the bracket ends that `text` begins with."""
    depth = 0
    for i, mark in enumerate(text):
        depth += {"(": 1, ")": -1}.get(mark, 0)
        if depth == 0:
            return i
    raise BadInput(f"'{whole}': expected a closing bracket, got none.")


def _pairs(text: str, whole: str) -> Iterator[tuple[str, str]]:
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            name = whole.strip().partition(":")[0]
            meant = f" Did you mean '{name}.py:{text}'?" if Path(f"{name}.py").is_file() else ""
            raise BadInput(f"'{whole}': expected key=value, got '{part}'.{meant}")
        yield key.strip(), value.lstrip() if "{" in value else value.strip()  # a space may end a template


def parse(text: str, kind: Kind) -> Any:
    """The method, attack or scenario that a line names, with its parameters set."""
    spec = taken_apart(text)
    owner = user_object(spec.name) if ".py:" in spec.name else _built_in(spec.name, kind)
    if kind == "scenarios" and inspect.isfunction(owner):
        return _maker(text, owner, spec.values)
    promised = getattr(importlib.import_module(f"unrecall.{kind}.base"), BASES[kind])
    if not isinstance(owner, type) or not issubclass(owner, promised) or inspect.isabstract(owner):
        raise BadInput(f"'{text}': expected a class made from {promised.__name__}, got {owner!r}.")
    if lacking := list(_undeclared(owner)):
        raise BadInput(
            f"'{text}': expected {owner.__name__} to say its {', '.join(lacking)}, got none. {_to_be_added(lacking)}"
        )
    arguments: dict[str, Any] = {}
    if spec.base is not None:
        owner = getattr(owner, "wrapper", lambda: None)()
        if owner is None:
            raise BadInput(f"'{text}': expected a method that wraps another, got {spec.name}, which takes no base.")
        arguments["base"] = parse(spec.base, kind)
    return _configured(owner, arguments, spec.values)


def _maker(text: str, function: FunctionType, values: Mapping[str, str]) -> Callable[[], Any]:
    """The function of a user's file, with the parameters that the line sets; BadInput where it needs others too.

    What a value may be follows from the parameter's annotation, or else from its default.
    """
    hints = _hints_of(function)
    for key in values:
        if key not in hints:
            hint = nearest(key, hints) if hints else "It takes no parameters."
            raise BadInput(f"{function.__name__}: unknown parameter '{key}'. {hint}")
    set_ones = [(key, hints[key]) for key in values]
    kind = make_dataclass(function.__name__, set_ones, bases=(Parameters,), frozen=True)
    try:
        settings = _configured(kind, {}, values)
    except PydanticUserError as error:
        raise BadInput(
            f"'{text}': expected parameters that a line can say, such as numbers and texts, got {function.__name__}"
            f"{inspect.signature(function)}. Annotate them so."
        ) from error
    maker = partial(function, **{key: getattr(settings, key) for key in values}) if values else function
    if not takes(maker, 0):
        other = "other " if values else ""
        raise BadInput(
            f"'{text}': expected a function that needs no {other}arguments, got {function.__name__}"
            f"{inspect.signature(function)}. Give each a default."
        )
    return maker


def _hints_of(function: FunctionType) -> dict[str, Any]:
    """What each named parameter of a function may be: as annotated, else what its default is, else a text."""
    try:
        annotations = get_type_hints(function, include_extras=True)
    except Exception:  # annotations that mean nothing outside of a type checker
        annotations = {}
    hints: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            hints[name] = annotations.get(name, _kind_of(parameter.default))
    return hints


def _kind_of(default: Any) -> Any:
    """What a parameter without an annotation may be: such as its default; a text where that says nothing."""
    if default is inspect.Parameter.empty:
        return str
    if isinstance(default, tuple) and default:
        kind: Any = _kind_of(default[0])
        return tuple[kind, ...]
    kinds: dict[type, Any] = {int: int | float, type(None): str | None}
    return kinds.get(type(default), type(default))


def _undeclared(owner: type) -> Iterator[str]:
    """What the bases of a class declare that each class must say of itself, and this one doesn't."""
    for base in owner.__mro__:
        for name, hint in inspect.get_annotations(base).items():
            if "ClassVar" in str(hint) and not hasattr(owner, name):
                yield name


def _to_be_added(lacking: list[str]) -> str:
    """The lines that a class lacks, ready to be pasted."""
    forms = {"threat": "threat: ClassVar[ThreatModel] = ThreatModel(access=..., data=..., budget=...)"}
    return f"Add {'; '.join(forms.get(name, name) for name in lacking)}."


def _configured(owner: type[Parameters], arguments: dict[str, Any], values: Mapping[str, str]) -> Parameters:
    parameters, inner = annotated(owner), _inner_fields(owner)
    deeper: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        if key in parameters:
            arguments[key] = _value(owner, key, value)
        elif key in inner:
            field, default = inner[key]
            name = key.rsplit(".", 1)[-1]
            subject = f"{owner.__name__}: expected {field}.{name}"
            deeper.setdefault(field, {"": default})[name] = _value(type(default), name, value, subject)
        else:
            short = [name for name in inner if name.rpartition(".")[2] not in inner or "." not in name]
            hint = nearest(key, [*parameters, *short]) if parameters else "It takes no parameters."
            raise BadInput(f"{owner.__name__}: unknown parameter '{key}'. {hint}")
    for field, changes in deeper.items():
        arguments[field] = replace(changes.pop(""), **changes)
    return owner(**arguments)


def _inner_fields(owner: type[Parameters]) -> dict[str, tuple[str, Parameters]]:
    """Parameters of parameters: `fit.lr`, and `lr` for short; where there are several, it is that of `fit`, or none."""
    nested = _nested(owner)
    inner: dict[str, tuple[str, Parameters]] = {}
    for field, default in nested.items():
        for name in annotated(type(default)):
            inner[f"{field}.{name}"] = (field, default)
            if field == _short(nested):
                inner[name] = (field, default)
    return inner


def _nested(owner: type[Parameters]) -> dict[str, Parameters]:
    """The defaults of fields that are parameters themselves, by name."""
    defaults = {field.name: field.default for field in fields(owner) if field.name != "base"}
    return {name: default for name, default in defaults.items() if isinstance(default, Parameters)}


def _short(nested: Iterable[str]) -> str | None:
    """The nested parameters whose own go by their bare names."""
    names = list(nested)
    return names[0] if len(names) == 1 else "fit" if "fit" in names else None


def _value(owner: type[Parameters], key: str, text: str, subject: str = "") -> Any:
    """What the text of a parameter means. `subject`: what an error names in place of "OWNER: expected KEY"."""
    if nested_types(annotated(owner)[key]):
        raise BadInput(f"{owner.__name__}: expected {key} in brackets, as in name(other), got '{text}'.")
    if text.lower() in ("none", "null"):
        return checked(owner, key, None, subject=subject)
    if "tuple" in str(annotated(owner)[key]):
        return checked(owner, key, tuple(text.split("+")), lax=True, subject=subject)
    return checked(owner, key, text, lax=True, subject=subject)


def check_named(text: str, kind: Kind) -> None:
    """BadInput where a line names what there isn't; nothing is imported for it, so that it is said at once."""
    spec = taken_apart(text)
    if ".py:" not in spec.name:
        _entry(spec.name, kind)
    if spec.base is not None and kind == "methods":
        check_named(spec.base, kind)


def _built_in(name: str, kind: Kind) -> type:
    entry = _entry(name, kind)
    module = importlib.import_module(f"unrecall.{kind}.{entry.name.replace('-', '_')}")
    owner: type = getattr(module, entry.owner)
    return owner


def _entry(name: str, kind: Kind) -> Entry:
    """What the catalog says of a built-in; BadInput where it knows none of this name."""
    entry = next((entry for entry in entries(kind) if class_name(entry.name) == class_name(name)), None)
    if entry is None and name.endswith(".py"):
        raise BadInput(f"{name}: expected a name of it, as in {name}:make, got the file alone. Say which {kind[:-1]}.")
    if entry is None:
        what = kind.removesuffix("s")
        of_file = f"What {name}.py defines goes by {name}.py:NAME." if Path(f"{name}.py").is_file() else ""
        raise BadInput(f"unknown {what} '{name}'. {of_file or nearest(name, (e.name for e in entries(kind)))}")
    return entry


def name_of(value: Parameters) -> str:
    """The name of its file for what is built in, of its class for what a user wrote."""
    home, _, stem = type(value).__module__.rpartition(".")
    return stem if home.startswith("unrecall.") else type(value).__name__


def show(value: Parameters) -> str:
    """The line that `parse` reads back: the name, the base in brackets, and whatever differs from the defaults."""
    module, name = type(value).__module__, name_of(value)
    if module.endswith(".py"):
        name = f"{module}:{name}"
    base, changed = "", []
    short = _short(_nested(type(value)))
    for field in fields(value):
        now = getattr(value, field.name)
        if field.name == "base" and isinstance(now, Parameters):
            base = f"({show(now)})"
        elif isinstance(now, Parameters) and isinstance(field.default, Parameters):
            place = "" if field.name == short else f"{field.name}."
            inside = {part.name: getattr(now, part.name) for part in fields(now)}
            changed += [f"{place}{k}={_text(v)}" for k, v in inside.items() if v != getattr(field.default, k)]
        elif now != field.default:
            changed.append(f"{field.name}={_text(now)}")
    return name + base + (":" + ",".join(changed) if changed else "")


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(_text(part) for part in value)
    return format(value, ".12g") if isinstance(value, float) else str(value)
