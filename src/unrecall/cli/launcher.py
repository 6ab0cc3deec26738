"""One command started as several processes, as torchrun and accelerate launch start one: the first does all the work.

A batch that is shared out is another batch to BatchNorm, to dropout and to every loss that is no mean over examples;
and each process would leave a record and a checkpoint of its own.
"""

import sys
from collections.abc import MutableMapping

from unrecall.errors import BadInput

SIZE = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
RANK = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
LOCAL_SIZE = ("LOCAL_WORLD_SIZE", "MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE")
LOCAL_RANK = ("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK")
"""Where torchrun and MPI say how many processes there are and which this is, as Accelerate reads them."""


def claim_first_process(environment: MutableMapping[str, str]) -> bool:
    """Whether this process does the work: it is the only one, or the first that a launcher started.

    The launcher's variables are then removed from the environment, so that no library looks for the other processes.
    BadInput for processes on several machines, whose launchers don't wait long for one that works on.
    """
    size = _number(environment, SIZE, 1)
    rank = _number(environment, RANK, 0) if size > 1 else 0
    if rank > 0:
        print(f"process {rank} of {size}: does nothing, for process 0 does all the work.", file=sys.stderr)
        return False
    here = _number(environment, LOCAL_SIZE, size) if size > 1 else size
    for name in (*SIZE, *RANK, *LOCAL_SIZE, *LOCAL_RANK):
        environment.pop(name, None)
    if here < size:
        raise BadInput(
            f"unrecall: expected all processes on one machine, got {here} of {size} on this one. Start one process."
        )
    if size > 1:
        print(f"process 0 of {size}: does all the work, in whole batches; the others end at once.", file=sys.stderr)
    return True


def _number(environment: MutableMapping[str, str], names: tuple[str, ...], otherwise: int) -> int:
    """What the first of these variables says that is set."""
    name = next((name for name in names if environment.get(name)), None)
    if name is None:
        return otherwise
    if not environment[name].isdecimal():
        raise BadInput(f"{name}: expected a whole number, got '{environment[name]}'. Unset it.")
    return int(environment[name])
