"""A pickle that runs code when it is opened."""

import os
from typing import Any


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.path}",))

    path = "/tmp/unrecall-bomb"
