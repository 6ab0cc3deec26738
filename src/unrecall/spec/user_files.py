"""What a user's own Python file defines, loaded with the modules beside it."""

import ast
import importlib.util
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

from unrecall.errors import BadInput, UnrecallError, error_line, nearest


def user_object(name: str) -> Any:
    """What a user's own Python file calls `NAME` in "FILE.py:NAME"."""
    file, _, attribute = name.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise BadInput(f"{file}: expected a Python file, got none there. Check the path.")
    if b"\0" in path.read_bytes():
        raise BadInput(f"{file}: expected a Python file, got one with NUL bytes. Save it as plain text in UTF-8.")
    module_spec = importlib.util.spec_from_file_location(file, path)
    if module_spec is None or module_spec.loader is None:
        raise BadInput(f"{file}: expected a Python file, got something that can't be imported.")
    module = importlib.util.module_from_spec(module_spec)
    _check_siblings(path.resolve())
    sys.modules[file] = module
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.append(folder)  # modules beside the file are found, after those that are installed
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's code may raise
        raise error if isinstance(error, UnrecallError) else BadInput(error_line(error)) from error
    public = {key: value for key, value in vars(module).items() if not key.startswith("_")}
    if attribute not in public:
        names = [key for key, value in public.items() if isinstance(value, type | FunctionType)]
        own = [key for key in names if public[key].__module__ == file]
        raise BadInput(f"{file}: expected it to define '{attribute}', got none. {nearest(attribute, own or names)}")
    return public[attribute]


def _check_siblings(path: Path) -> None:
    """BadInput where the file needs a module beside it, and one of that name from beside another file is loaded."""
    folders = {Path(name).resolve().parent for name in sys.modules if name.endswith(".py")} - {path.parent}
    for module in sorted(_modules_beside(path)):
        loaded = getattr(sys.modules.get(module.stem), "__file__", None)
        if loaded and Path(loaded).resolve().parent in folders:
            raise BadInput(
                f"{path.name}: expected modules of different names beside different files, got {module.name} beside "
                f"both, of which {loaded} is loaded already. Rename one of the two."
            )


def _modules_beside(path: Path) -> set[Path]:
    """The modules beside a file that it imports, and those that these import in turn."""
    modules, unread = set[Path](), [path]
    while unread:
        for name in _imports(unread.pop()):
            module = path.parent / f"{name}.py"
            if module.is_file() and module not in modules:
                modules.add(module)
                unread.append(module)
    return modules


def _imports(path: Path) -> set[str]:
    """The names of the modules that a file imports; none of a file that can't be read, as importing it says so."""
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (SyntaxError, ValueError):
        return set()
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.partition(".")[0] for name in names}
