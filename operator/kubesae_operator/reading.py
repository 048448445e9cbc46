"""Reads the store of one experiment: with its own credentials, no more often than is of use, and never for ever."""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING

from kubesae.errors import AccessError, ConfigError, DamagedError, Interrupted, KubesaeError
from kubesae.experiment import Experiment, validate
from kubesae.store import open_store
from kubesae_operator.api import Problem
from kubesae_operator.bucket import Bucket
from kubesae_operator.client import ApiError, Unanswered
from kubesae_operator.credentials import ProblemError, settings_of

if TYPE_CHECKING:
    from kubesae.store import S3Settings
    from kubesae_operator.api import SaeExperiment
    from kubesae_operator.bucket import StoreView
    from kubesae_operator.client import Api

log = logging.getLogger(__name__)

DEADLINE = 20.0
"""seconds that one call on a store may take"""

LOOK_SECONDS = 15.0
QUIET_SECONDS = 60.0
AGAIN_SECONDS = 2.0
WHOLE_SECONDS = 900.0
LISTS_PER_HOUR = 19_300.0
"""listings of one experiment's store, at most"""

TELL_SECONDS = 3600.0
"""a problem that lasts is logged so often"""

_REFUSALS = {
    "CREDENTIALS": "CredentialsRefused",
    "REFUSED": "AccessDenied",
    "SETTINGS": "StoreSettings",
    "NO_BUCKET": "BucketMissing",
}
_ADVICE = {
    "CredentialsRefused": "Correct {who}, or store.endpoint.",
    "AccessDenied": "Allow {who} to list and get below that prefix, or correct store.region.",
    "StoreSettings": "Correct store.endpoint, store.region or store.caBundle.",
    "BucketMissing": "Create the bucket, or correct experiment.data or store.endpoint.",
    "StoreUnreachable": "Check the server, store.endpoint, and what NetworkPolicies let the operator reach.",
}
"""in place of what a program on a user's machine would be told to do"""
_OTHER_ADVICE = re.compile(r"\. (?:Check|Look|Renew) ")


class Reading:
    """What is known of an experiment's store: the last `view`, and the `problem` that keeps it from being read."""

    def __init__(self, api: Api) -> None:
        """Read nothing yet."""
        self._api = api
        self._asked: tuple[object, ...] = ()
        self._told: dict[str, float] = {}
        self._begin()

    def _begin(self) -> None:
        """Know nothing."""
        self.view: StoreView | None = None
        self.problem: Problem | None = None
        self._settings: S3Settings | None = None
        self._bucket: Bucket | None = None
        self._looked = self._whole = float("-inf")

    def read(self, experiment: SaeExperiment, *, busy: bool, hurry: bool) -> float:
        """Look, if a look is due; return the seconds until the next one.

        Args:
            experiment: whose store; a change in what is asked for begins anew.
            busy: whether anything is running that would change the store.
            hurry: whether something has just ended that should show there.

        """
        asked = (experiment.uid, experiment.description, experiment.phases, experiment.store)
        if asked != self._asked:
            self._asked = asked
            self._begin()
        wait = self._looked + (AGAIN_SECONDS if hurry else self._interval(busy=busy)) - time.monotonic()
        if wait > 0:
            return wait
        self._looked = time.monotonic()  # and not after the look: what it showed first is no older than what last
        self.problem = self._look(experiment)
        if self.problem:
            self._looked = time.monotonic()  # a store that does not answer has no claim on all workers
        self._tell(experiment)
        return self._interval(busy=busy)

    def _interval(self, *, busy: bool) -> float:
        """Return the seconds between two looks."""
        lists = self.view.lists if self.view else 0
        return max(LOOK_SECONDS if busy or self.problem else QUIET_SECONDS, lists * 3600 / LISTS_PER_HOUR)

    def _tell(self, experiment: SaeExperiment) -> None:
        """Log what keeps the store from being read: once, and again when that has lasted, however it is worded."""
        now, problem = time.monotonic(), self.problem
        if problem is None:
            if self._told:
                log.info("%s/%s: the store can be read again", *experiment.key)
            self._told = {}
        elif now - self._told.get(problem.reason, float("-inf")) >= TELL_SECONDS:
            self._told[problem.reason] = now
            log.warning("%s/%s: %s: %s", *experiment.key, problem.reason, problem.message)

    def _look(self, experiment: SaeExperiment) -> Problem | None:
        try:
            bucket = self._open(experiment)
            if time.monotonic() - self._whole > WHOLE_SECONDS:
                bucket.forget()
                self._whole = time.monotonic()
            self.view = bucket.look()
        except ProblemError as error:
            return error.problem
        except ConfigError as error:
            return Problem("InvalidExperiment", f"{error} Correct `experiment` in the values, and `helm upgrade`.")
        except DamagedError as error:
            return Problem("DataDamaged", str(error))
        except KubesaeError as error:
            return _store_problem(error, experiment)
        except (ApiError, Unanswered) as error:
            return Problem("StoreUnreachable", f"The API server does not give the store's credentials: {error}.")
        return None

    def _open(self, experiment: SaeExperiment) -> Bucket:
        """Return the bucket; after a problem the Secret is read again, and what is known kept if it is the same."""
        if self._bucket is not None and self.problem is None:
            return self._bucket
        described = validate(Experiment, experiment.description, "spec.experiment")
        for url in (described.data, described.output_prefix):
            if not url.startswith("s3://"):
                raise ProblemError(
                    "NotInBucket",
                    f"{url} is no s3:// prefix: the operator cannot see it, and releases no phase. Give one, or start "
                    "phases by `kubesae release`.",
                )
        settings = settings_of(self._api, experiment)
        if self._bucket is None or settings != self._settings:
            data = open_store(described.data, deadline=DEADLINE, settings=settings)
            output = open_store(described.output_prefix, deadline=DEADLINE, settings=settings)
            self._bucket, self._settings = Bucket(data, output, described, experiment.phases), settings
        return self._bucket


def _store_problem(error: KubesaeError, experiment: SaeExperiment) -> Problem:
    """Say what a store has refused, with advice for who runs an operator in place of that for who runs a program."""
    secret = experiment.store.secret
    who = f"Secret {secret} in namespace {experiment.key[0]}" if secret else "the operator's own credentials"
    if isinstance(error, AccessError) and error.refused:
        reason, what = _REFUSALS[error.refused], str(error).partition("). ")[0] + ")"
    else:
        credentials = isinstance(error, Interrupted)  # those worked before
        reason, what = "CredentialsRefused" if credentials else "StoreUnreachable", _OTHER_ADVICE.split(str(error))[0]
    return Problem(reason, f"{what}. {_ADVICE[reason].format(who=who)}")
