"""What cases of a user's own classifier share: examples with a class each, where they stand, and whose they are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from unrecall.data.examples import Examples
from unrecall.data.request import SPLITS, Request, Split
from unrecall.disk.files import is_folder_of_files
from unrecall.disk.tables import records
from unrecall.disk.weights import files_of, precision_of
from unrecall.errors import BadInput
from unrecall.scenarios.base import Scenario, adamw
from unrecall.scenarios.classifiers import Kind, builder
from unrecall.scenarios.hub import local_folder
from unrecall.scenarios.own_files import FromOwnFiles, no_owner, placed
from unrecall.spec.parameters import Count, Positive
from unrecall.tasks.base import Task, check_inputs


class Origin(Protocol):
    """Where in a user's files an example stands, for people, and whose it is, or nothing."""

    @property
    def where(self) -> str:
        """A file and its line, or the example's own file."""

    @property
    def owner(self) -> str:
        """A name or a number as a text; empty where nothing says it."""


class OwnSet(NamedTuple):
    """Examples of one set, the class of each, and where each comes from."""

    examples: Examples
    labels: Sequence[int]
    origins: Sequence[Origin]


@dataclass(frozen=True)
class OwnClassifier(FromOwnFiles):
    """A classifier of Transformers that was trained on examples with a class each.

    `name`: of the scenario. `kind`: what is classified.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]

    group: str = ""
    control: Literal["random split", "matched", "synthetic"] = "matched"
    lr: Positive = 2e-5
    batch: Count = 32

    def scenario(
        self,
        task: Task,
        model: Any,
        sets: Mapping[Split, OwnSet],
        inputs: Callable[[Request, Split], Sequence[str]],
        remark: str,
    ) -> Scenario:
        """The case of a model and a user's sets; BadInput, with file and line, for what can't be used.

        `inputs`: a text for each example of a set, which two examples share where they differ in their class alone.
        `remark`: what ends the summary.
        """
        try:
            request = self._request(sets)
            self._check_apart(sets, {split: inputs(request, split) for split in sets})
            check_inputs(task, model, request)
        except BadInput as error:
            raise placed(error, lambda split, index: sets[split].origins[index].where) from error
        return Scenario(
            name=self.name,
            summary=f"{self.model}; forget {len(request.forget)} {self.examples} of {Path(self.forget).name}, keep "
            f"{len(request.retain)} of {Path(self.retain).name}{remark}",
            task=task,
            request=request,
            original=model,
            build=builder(self.kind, self.base, model),
            retraining_recipe=adamw(self.lr, self.epochs, self.batch, 0.01),
            references=self.references,
            precision=precision_of(files_of(local_folder(self.model, self.kind.whole))),
        )

    def _request(self, sets: Mapping[Split, OwnSet]) -> Request:
        """Of a class where no example that stays has a class of those that must go."""
        forgotten, retained = (set(sets[split].labels) for split in SPLITS[:2])
        whole = forgotten.isdisjoint(retained)
        return Request(
            sets["forget"].examples,
            sets["retain"].examples,
            sets["holdout"].examples if "holdout" in sets else self.absent("holdout"),
            sets["test"].examples if "test" in sets else self.absent("test"),
            kind="class" if whole else "samples",
            masked=tuple(sorted(forgotten)) if whole else (),
            groups={split: self._owners(sets, split) for split in ("forget", "holdout")} if self.group else None,
            control=self.control,
        )

    def _owners(self, sets: Mapping[Split, OwnSet], split: Split) -> list[str]:
        """Whose each example of a set is; BadInput for one of which nothing says it."""
        origins = sets[split].origins if split in sets else ()
        for origin in origins:
            if not origin.owner:
                raise self._no_owner(origin.where)
        return [origin.owner for origin in origins]

    def _no_owner(self, place: str) -> BadInput:
        files = (path for path in self.paths.values() if place.startswith(str(path)) and not is_folder_of_files(path))
        record = next((record for path in files for where, record in records(path) if where == place), None)
        if record is None:
            return BadInput(
                f"{place}: expected '{self.group}' to say whose it is, got none. A folder can't say it: give records."
            )
        return no_owner(place, self.group, record)

    def _check_apart(self, sets: Mapping[Split, OwnSet], inputs: Mapping[Split, Sequence[str]]) -> None:
        """BadInput where what must go is in another set under another class, where it is another example."""
        forgotten = {text: i for i, text in enumerate(inputs["forget"])}
        for split in sets:
            for i, text in enumerate(inputs[split] if split != "forget" else ()):
                if (place := forgotten.get(text)) is not None:
                    raise BadInput(
                        f"Request: expected no {self.kind.example} that must go in {split}, got forget[{place}] under "
                        f"another class, {split}[{i}]. Remove it there."
                    )
