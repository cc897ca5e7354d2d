"""Which exceptions mean "the user can mend this", and the one line that tells it. Standard library only."""

from __future__ import annotations

import errno
import re

from s2f_rl.errors import UserError, one_line

_REMEDIES = {
    errno.ENOSPC: "free some space or choose another disk",
    errno.EDQUOT: "free some space or choose another disk",
    errno.EACCES: "check the permissions or choose another place",
    errno.EPERM: "check the permissions or choose another place",
    errno.EROFS: "choose a place that can be written",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "name a file, not a folder",
    errno.EEXIST: "choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "name a file, not a link in a circle",
    errno.EFBIG: "free some space or choose another disk",
    errno.EIO: "check the disk",
    errno.ENXIO: "name a file, not a pipe, a socket or a device",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}

_NO_MEMORY = re.compile("can't allocate memory|out of memory", re.IGNORECASE)  # torch raises RuntimeErrors


def mistake_line(error: BaseException) -> str | None:
    """One line for stderr if ``error`` is the user's to mend (a UserError, or the system refusing a file), else None.

    Example:
        >>> mistake_line(UserError("speech.wav: no such file; check the path"))
        'speech.wav: no such file; check the path'
        >>> mistake_line(ValueError("a bug")) is None
        True
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        place = f"{error.filename}: " if error.filename is not None else ""
        return one_line(f"{place}{error.strerror}; {_REMEDIES[error.errno]}")
    text = str(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_MEMORY.search(text)):
        return one_line(f"not enough memory ({text[:120] or 'MemoryError'}); use smaller sizes (batch, lanes, widths)")
    return None
