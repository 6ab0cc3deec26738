"""What there is to choose from, read from the source files themselves, so that listing imports no torch.

A name is a file: `methods/rurk.py` holds the class `RURK`, and the command line calls it `rurk`.
"""

import ast
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

from unrecall.errors import BadInput, nearest

Kind: TypeAlias = Literal["methods", "attacks", "metrics", "scenarios"]
CATALOGS: tuple[Kind, ...] = ("methods", "attacks", "metrics", "scenarios")


@dataclass(frozen=True)
class Parameter:
    """One hyper-parameter as the source has it."""

    name: str
    type: str
    default: str


@dataclass(frozen=True)
class Entry:
    """One file's class or function: its name on the command line, its parameters, its docstring and parts of that."""

    name: str
    owner: str
    summary: str
    reference: str
    parameters: tuple[Parameter, ...]
    text: str


@cache
def entries(kind: Kind) -> tuple[Entry, ...]:
    """Everything of a kind, by name; a file counts if it holds a class of its own name, or metrics."""
    if kind == "metrics":
        return _metrics()
    folder = Path(__file__).parents[1] / kind
    files = (_entry(path) for path in sorted(folder.glob("*.py")))
    return tuple(entry for entry in files if entry is not None)


def class_name(stem: str) -> str:
    """How a file's class is recognised: the stem without underscores, in any capitalisation."""
    return stem.replace("_", "").replace("-", "").lower()


def unknown(kind: Kind, name: str) -> AttributeError:
    """What to raise where a package of classes is asked for a name that it hasn't: it names the class that is meant."""
    if name.startswith("__"):
        return AttributeError(f"module 'unrecall.{kind}' has no attribute '{name}'")
    owners = {class_name(entry.name): entry.owner for entry in entries(kind)}
    meant = owners.get(class_name(name))
    hint = f"Did you mean '{meant}'?" if meant else nearest(name, owners.values())
    return AttributeError(f"unrecall.{kind}: expected the name of a class, got '{name}'. {hint}")


def _entry(path: Path) -> Entry | None:
    """The dataclass that is named like its file; None where the file holds none."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        named_so = isinstance(node, ast.ClassDef) and node.name.lower() == class_name(path.stem)
        if isinstance(node, ast.ClassDef) and named_so and node.decorator_list and path.stem != "base":
            text = ast.get_docstring(node) or ""
            name = path.stem.replace("_", "-") if path.parent.name == "scenarios" else path.stem
            return Entry(
                name, node.name, _sentence(text), _reference(text), _parameters(node, _classes(path.parent)), text
            )
    return None


def entry_of_file(text: str) -> Entry:
    """What a user's own file says of the class or function `NAME` in "FILE.py:NAME"; BadInput where there is none.

    The file is read and not run; of classes that its own is made from, unrecall's own are known.
    """
    file, _, name = text.rpartition(":")
    if not Path(file).is_file():
        raise BadInput(f"{file}: expected a Python file, got none there. Check the path.")
    try:
        body = ast.parse(Path(file).read_text(encoding="utf-8")).body
    except (OSError, ValueError, SyntaxError) as error:
        raise BadInput(f"{file}: expected a Python file that can be read, got: {error}. Look at it.") from error
    nodes = {node.name: node for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    if name not in nodes:
        raise BadInput(f"{file}: expected it to define '{name}', got none. {nearest(name, nodes)}")
    node, built_in = nodes[name], ChainMap(*(_classes(Path(__file__).parents[1] / kind) for kind in CATALOGS))
    own = {k: other for k, other in nodes.items() if isinstance(other, ast.ClassDef)}
    arguments = _parameters(node, built_in, own) if isinstance(node, ast.ClassDef) else _arguments(node)
    docstring = ast.get_docstring(node) or ""
    return Entry(text, name, _sentence(docstring), _reference(docstring), arguments, docstring)


def _arguments(node: ast.FunctionDef) -> tuple[Parameter, ...]:
    """What a function takes by name."""
    args = node.args
    positional = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(positional) - len(args.defaults)) + [*args.defaults, *args.kw_defaults]
    return tuple(
        Parameter(arg.arg, ast.unparse(arg.annotation) if arg.annotation else "", ast.unparse(value) if value else "")
        for arg, value in zip([*positional, *args.kwonlyargs], defaults, strict=True)
    )


def _parameters(
    node: ast.ClassDef, built_in: Mapping[str, ast.ClassDef], own: Mapping[str, ast.ClassDef] | None = None
) -> tuple[Parameter, ...]:
    """The fields of a class, after those of what it is made from, which is among our own classes or in its file."""
    fields: list[Parameter] = []
    for base in node.bases:
        name = base.id if isinstance(base, ast.Name) else getattr(base, "attr", "")
        beside = {k: other for k, other in (own or {}).items() if other is not node}
        if isinstance(base, ast.Name) and name in beside:
            fields += _parameters(beside[name], built_in, beside)
        elif name in built_in:
            fields += _parameters(built_in[name], built_in)
    fields += filter(None, (_parameter(item) for item in node.body if isinstance(item, ast.AnnAssign)))
    return tuple({field.name: field for field in fields}.values())


@cache
def _classes(folder: Path) -> dict[str, ast.ClassDef]:
    """All classes of a folder by name."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.py")))
    return {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}


def _parameter(node: ast.AnnAssign) -> Parameter | None:
    kind = ast.unparse(node.annotation)
    if not isinstance(node.target, ast.Name) or kind.startswith("ClassVar"):
        return None
    return Parameter(node.target.id, kind, "" if node.value is None else ast.unparse(node.value))


def _sentence(text: str) -> str:
    return " ".join(text.split("\n\n", maxsplit=1)[0].split())


def _reference(text: str) -> str:
    return _sentence(text.partition("Reference:")[2])


def _metrics() -> tuple[Entry, ...]:
    """Whatever is made by `Metric(...)` or `of_evidence(...)`; the function that measures it says what it is."""
    metrics = []
    for path in sorted((Path(__file__).parents[1] / "metrics").glob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        texts = {node.name: ast.get_docstring(node) or "" for node in body if isinstance(node, ast.FunctionDef)}
        for call in (node.value for node in body if isinstance(node, ast.Assign | ast.AnnAssign)):
            if isinstance(call, ast.Call) and ast.unparse(call.func) in ("Metric", "of_evidence"):
                constants = (node.value for node in ast.walk(call) if isinstance(node, ast.Constant))
                name = next(value for value in constants if isinstance(value, str))
                functions = (a.id for a in call.args if isinstance(a, ast.Name) and a.id in texts)
                text = (
                    texts[next(functions)] if any(isinstance(a, ast.Name) and a.id in texts for a in call.args) else ""
                )
                metrics.append(Entry(name, path.stem, _sentence(text), _reference(text), (), text))
    return tuple(sorted(metrics, key=lambda entry: entry.name))
