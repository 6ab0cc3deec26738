"""What can go wrong, said so that the reader knows what to do next.

Every message has the form `<Owner>: expected <constraint>, got <value>. <What to do.>`
"""

import difflib
import errno
import math
import re
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, requires
from numbers import Integral
from pathlib import Path
from typing import Any, TypeAlias

PACKAGE = Path(__file__).parent
INSTALLED = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")}
"""Where Python and installed packages stand."""
SITES = {"site-packages", "dist-packages"}
"""What folders of installed packages are called elsewhere, such as a user's own."""
CHECKOUT = PACKAGE.parents[1]
"""The folder from which this package was installed, where it runs from a checkout."""
LONGEST = 1000
"""How much of another library's message is told, in characters."""
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that steer a terminal or a page, or are none at all; a tab and the end of a line are not among them."""
NO_MEMORY = re.compile(
    "out of memory|can't allocate memory|not enough memory|cannot allocate memory|std::bad_alloc|_ALLOC_FAILED"
    "|posix_memalign",
    re.IGNORECASE,
)


def one_line(error: BaseException, most: int = 300) -> str:
    """What an error says, in one line of at most `most` characters; its kind where it says nothing."""
    return (" ".join(str(error).split()) or type(error).__name__)[:most]


class UnrecallError(Exception):
    """Root of all errors that unrecall raises on purpose; the command line prints it as one line and exits with 2."""


class BadInput(UnrecallError):
    """The caller's data, model, path or parameter can't be used."""


class NotSupported(UnrecallError):
    """A method, attack or metric asks for something that this task or model does not have."""


class MissingReference(UnrecallError):
    """A number was asked for that means nothing without a retrained model or a holdout set."""


class MissingDependency(UnrecallError):
    """An optional package isn't installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package}: expected it to be installed, got nothing. {_install(package, extra)}")


def _install(package: str, extra: str) -> str:
    """What to run: the extra from the checkout, or its packages by name. The index has no package of ours."""
    if (CHECKOUT / "pyproject.toml").is_file() and CHECKOUT / "src" / "unrecall" == PACKAGE:
        return f"Run in {CHECKOUT}: pip install -e '.[{extra}]'"
    try:
        needed = [line.partition(";") for line in requires("unrecall") or ()]
    except PackageNotFoundError:
        needed = []
    names = [name.strip() for name, _, condition in needed if re.search(rf"extra == .{extra}.", condition)]
    return "Run: pip install " + " ".join(f"'{name}'" for name in names or [package])


class Diverged(UnrecallError):
    """Losses or weights stopped being finite: at a step of training, or (None) in what a method made."""

    def __init__(self, owner: str, step: int | None, last_good: str, advice: str = "Lower lr, or set clip.") -> None:
        where = "" if step is None else f" at step {step}"
        good = f" {last_good}" if last_good else ""
        super().__init__(f"{owner}: expected finite losses and weights, got NaN or infinity{where}.{good} {advice}")
        self.step = step


Fields: TypeAlias = Mapping[str, tuple[Callable[[Any], bool], str]]
"""What values must be, by name: a test, and how it is said."""


def check_fields(owner: str, fields: Fields, values: Mapping[str, object]) -> None:
    """BadInput, in `owner`'s name, for the first value that is not what it must be."""
    for name, (right, expected) in fields.items():
        if not right(value := values[name]):
            raise BadInput(f"{owner}: expected {name} to be {expected}, got {str(value)[:80]!r}. Correct it.")


def kind_of(*kinds: type) -> Callable[[object], bool]:
    """A test for values of these kinds."""
    return lambda value: isinstance(value, kinds)


def share_of_one(value: object) -> bool:
    """Whether a value is a number from 0 to 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def positive_or_none(value: object) -> bool:
    """Whether a value is a finite number above 0, or None."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (number and 0 < value < math.inf)  # type: ignore[operator]


def at_least(least: int, *, or_none: bool = False) -> Callable[[object], bool]:
    """A test for whole numbers from `least` on, NumPy's among them but no bool, and perhaps None."""

    def test(value: object) -> bool:
        return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least

    return lambda value: (or_none and value is None) or test(value)


ONE_EXAMPLE = "Expected more than 1 value per channel"
"""What PyTorch says where BatchNorm should train on one example."""
UNFREEZE = "Unfreeze them: for p in model.parameters(): p.requires_grad_(True)."
FREEZE_BATCHNORM = (
    "batch: expected two examples or more where BatchNorm trains, got one. Set fit.batchnorm=frozen, or choose a "
    "method that doesn't train on what must be forgotten alone."
)


def nearest(name: str, names: Iterable[str], shown: Iterable[str] = ()) -> str:
    """A hint for a name that is none of `names`: the closest of them, or all, or all of `shown`."""
    options = sorted(names, key=lambda option: (int(option) if option.isdecimal() else -1, option))
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    return f"Did you mean '{close[0]}'?" if close else "Known: " + ", ".join(list(shown) or options) + "."


def visible(text: str) -> str:
    """The text with characters that would steer a terminal, or can't be written, as their code points."""
    return UNSEEN.sub(lambda match: f"<U+{ord(match[0]):04X}>", text)


def _advice(error: BaseException, place: str | None, line: str) -> str:
    """What to do about some errors of other libraries; empty for all others."""
    if out_of_memory(error):
        return (
            f"memory: expected enough of it, got none left{f' at {place}' if place else ''}: {line or 'MemoryError'}. "
            "Use smaller batches, fewer examples or a smaller model."
        )
    if ONE_EXAMPLE in line:
        return FREEZE_BATCHNORM
    if place is not None and "Weights only load failed" in line:
        return (
            f"{place}: expected a file of weights, got one that holds other objects, perhaps a whole model. Save "
            "model.state_dict() where the model was made, or load it with weights_only=False if you trust who made it."
        )
    if place is not None and "Error(s) in loading state_dict" in line:
        prefix = "module." if '"module.' in line else "_orig_mod." if '"_orig_mod.' in line else ""
        advice = f"Take '{prefix}' off its names." if prefix else "Build the network that was trained."
        return f"{place}: expected the weights of this network, got others: {line[:LONGEST]}. {advice}"
    if "deepcopy protocol" in line:
        return (
            "model: expected one that can be copied, got one that keeps a tensor with its gradient in an attribute. "
            "Let it keep the detached value, or nothing."
        )
    return ""


def error_line(error: BaseException) -> str:
    """Any error in one line: ours as it is, that of a user's code with its file and line, and what nobody foresaw."""
    if isinstance(error, UnrecallError) and error.__cause__ is not None and out_of_memory(error.__cause__):
        return error_line(error.__cause__)
    place, line = _place(error), _line(error)
    if isinstance(error, UnrecallError):
        cause = None if error.__cause__ is None else _place(error.__cause__)
        return f"{line} (raised at {cause})" if cause and cause not in line else line
    if advice := _advice(error, place, line):
        return advice
    named = f"{type(error).__name__}: {line}" if line else type(error).__name__
    if place is not None:
        return f"{place}: expected code that runs to its end, got {named.rstrip('.')}. Correct it, or what it reads."
    if isinstance(error, OSError):
        return f"{error.filename or 'disk'}: {error.strerror or line}. Nothing half-written."
    ours = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    return (
        f"unrecall: expected an answer, got {named}{f' at {ours[-1]}' if ours else ''}, which nobody foresaw. "
        "UNRECALL_TRACEBACK=1 shows where it comes from."
    )


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is too little memory, whoever found that out."""
    if isinstance(error, UnrecallError):
        return False
    enough = NO_MEMORY.search(_line(error)) is None and getattr(error, "errno", None) != errno.ENOMEM
    return isinstance(error, MemoryError) or not enough


def of_users_code(error: BaseException) -> bool:
    """Whether an error came through a file of the user's own."""
    return _place(error) is not None


def _line(error: BaseException) -> str:
    """What an error says, in one line; an error's own code may fail too."""
    try:
        text = str(error)
    except Exception:
        text = ""
    line = " ".join(text.split())
    return line if isinstance(error, UnrecallError) or len(line) <= LONGEST else f"{line[:LONGEST]}..."


def _place(error: BaseException) -> str | None:
    """The last line of the user's own files that an error came through; None where it came through none."""
    if isinstance(error, SyntaxError) and error.filename and _of_user(error.filename):
        return f"{_short(error.filename)}:{error.lineno}"
    frames = traceback.walk_tb(error.__traceback__)
    places = [(frame.f_code.co_filename, line) for frame, line in frames if _of_user(frame.f_code.co_filename)]
    return f"{_short(places[-1][0])}:{places[-1][1]}" if places else None


def built_in(part: Any) -> bool:
    """Whether a class or function is unrecall's own."""
    return str(part.__module__).startswith("unrecall.")


def place_of(function: object) -> str:
    """File and line where a function of the user's own begins; empty for any other."""
    code = getattr(function, "__code__", None)
    file = getattr(code, "co_filename", "")
    return f"{_short(file)}:{code.co_firstlineno}" if code is not None and _of_user(file) else ""


def of_user(path: Path) -> bool:
    """Whether a file or folder is neither ours nor an installed package's."""
    path = path.resolve()
    homes = (PACKAGE, *INSTALLED)
    return not SITES & set(path.parts) and not any(path.is_relative_to(home) for home in homes)


def _of_user(file: str) -> bool:
    """Whether a traceback's file is there and is the user's own."""
    return Path(file).is_file() and of_user(Path(file))


def _short(file: str) -> str:
    """A file's path from where the user stands, if it is below."""
    path, here = Path(file).resolve(), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
