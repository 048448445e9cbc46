"""The one tree of errors. Every message says what happened, the value, and what to do next.

Programs raise these; `kubesae.cli` prints the message without a traceback and exits with the class's code:

    KubesaeError            1   a fault: retrying may help
    ├── UserError           2   the user's mistake: retrying the same thing cannot help
    │   ├── ConfigError     2   an experiment file, a flag or their combination
    │   ├── IdentityError   2   the data at the prefix belongs to another experiment
    │   └── AccessError     2   credentials, permissions, a bucket that is not there
    ├── DamagedError        2   stored bytes that are not what a record says
    ├── HubError            1   the Hugging Face hub does not answer
    ├── StoreError          1   the object store failed beyond the deadline
    │   └── MissingError    1   no object under that key
    └── Interrupted        75   stopped by a signal: start again to go on
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_FAULT = 1
EXIT_USER = 2
EXIT_INTERRUPTED = 75


class KubesaeError(Exception):
    """A fault. `exit_code` is what a program that dies of it returns."""

    exit_code = EXIT_FAULT


class UserError(KubesaeError):
    """Something only the user can mend. A Job that exits with 2 is not retried."""

    exit_code = EXIT_USER


class ConfigError(UserError):
    """An experiment file, a flag, or a combination of them that cannot be run."""


class IdentityError(UserError):
    """The data at the prefix was made by another experiment. Nothing has been touched."""


class AccessError(UserError):
    """The store refused us: credentials, permissions, or a bucket that does not exist.

    `refused` tells which, where the store said it: CREDENTIALS, REFUSED (what they may do), SETTINGS or NO_BUCKET.
    """

    def __init__(self, message: str, refused: str = "") -> None:
        """Keep both."""
        super().__init__(message)
        self.refused = refused


class DamagedError(KubesaeError):
    """Stored bytes are not what their record says. `kubesae verify` names all of them."""

    exit_code = EXIT_USER


class HubError(KubesaeError):
    """The Hugging Face hub does not answer, or what it gives has no place here."""


class StoreError(KubesaeError):
    """The object store kept failing until the deadline."""


class MissingError(StoreError):
    """There is no object under that key."""


class Interrupted(KubesaeError):  # noqa: N818 - it is no error: the work goes on when started again
    """Stopped by SIGTERM or SIGINT at a point from which the work resumes."""

    exit_code = EXIT_INTERRUPTED
