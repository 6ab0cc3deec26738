"""Classification of examples that fall into groups, some of which a model may serve worse than others."""

from dataclasses import dataclass
from typing import Any

from unrecall.errors import BadInput
from unrecall.tasks.classification import Classification
from unrecall.tasks.labelled import Example, example


@dataclass(frozen=True, repr=False)
class Grouped(Classification):
    """Examples are `(input, label, group)`: a classifier that never sees the name of the group, a text.

    A group is what should make no difference, such as a background, beside the class: where most examples of a class
    share one, a model may go by it, and then it fails in the groups that lack it.
    """

    def group(self, item: Any) -> str:
        """The name of the group of an example; BadInput where there is none."""
        value = item[2] if isinstance(item, tuple | list) and len(item) == 3 else None
        if not isinstance(value, str):
            raise BadInput(
                f"example: expected (input, label, group) with the group's name, got {type(value).__name__} for it. "
                "Name one, or use Classification()."
            )
        return value

    def _read(self, item: Any, where: str) -> Example:
        """Input and label, checked; BadInput names the item and what to do."""
        if isinstance(item, Example):
            return item
        try:
            self.group(item)
        except BadInput as error:
            raise BadInput(str(error).replace("example:", f"{where}:", 1)) from error
        return super()._read(item, where) if self.read is not None else example(item[:2], where)
