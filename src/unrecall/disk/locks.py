"""Locks on open files and folders, which end with the process that holds them."""

import time

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

SUPPORTED = fcntl is not None
"""Whether this system has them."""


def lock(number: int) -> bool | None:
    """Whether an open file or folder could be locked, which it can't while somebody else holds it.

    None where there are no locks: on Windows, and on some disks of a network.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def lock_within(number: int, seconds: float) -> bool:
    """Whether an open file could be locked within so many seconds, or there are no locks."""
    end = time.monotonic() + seconds
    while lock(number) is False:
        if time.monotonic() > end:
            return False
        time.sleep(min(seconds / 20, 0.02))
    return True


def wait_for_lock(number: int) -> None:
    """Locks an open file, however long somebody else holds it."""
    while not lock_within(number, 60):
        continue
