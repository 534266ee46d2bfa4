"""The one exception for everything that a user can mend."""

from __future__ import annotations

import errno
from pathlib import Path

ROOM = "make room there, or name another folder, then give the same command"
ALLOWED = "ask who owns it, or name another folder, then give the same command"
CURES = {  # of what the system refuses, and no program can mend
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMLINK), ROOM),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), ALLOWED),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP), "name another folder"),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY),
                    "move away what lies in its place"),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN),
                    "the disk or its server does not answer: try again later"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM),
                    "this machine has no more of it: end other programs, or raise the limit"),
}  # fmt: skip
MEND = "bring it back from a copy, or move it away"


class UserError(Exception):
    """Something is wrong with what was asked for, not with the program.

    The message names the key or file, its value, the choices and the cure. The command line
    prints it without a traceback and exits with status 2.
    """


class Unfit(UserError):
    """Words that are fine alone and cannot go together; a sweep leaves their combination out."""


def told(error: OSError) -> str:
    """Return a sentence with path and cure for what the system refuses; nothing for other errors.

    Other errors, a file that is not there, say, are faults of the program and want a traceback.
    """
    cure = CURES.get(error.errno or 0)
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror}; {cure}" if cure else ""


class Damaged(UserError):
    """A file that cannot be what its name says: no JSON, other values, a directory, a loop ...

    A verb of one run ends with it; a verb of many names the file and goes on (`files.sound`).
    """

    def __init__(self, path: Path | str, fault: str, cure: str = MEND) -> None:
        super().__init__(f"{path}: {fault}; {cure}")
