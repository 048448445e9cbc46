"""The Hugging Face hub as it fails: soon when it does not answer, and told apart from a mistake of the user's.

The hub's own client tries for half a minute and more where nothing listens, and then reports a file that cannot be
found. Here a hub that does not answer is a `HubError` (try again later), within seconds; a model or dataset that it
does not have, or does not give us, is a `ConfigError`.
"""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kubesae.errors import ConfigError, HubError, KubesaeError
from kubesae.experiment import is_path

if TYPE_CHECKING:
    from collections.abc import Iterator

# Files of a model that are its config, its tokenizer, its weights, or code that these need: a folder's revision is the
# SHA-256 over them.
MODEL_FILES = (".json", ".safetensors", ".model", ".txt", ".jinja", ".tiktoken", ".py")

ATTEMPTS = 2
ATTEMPT_SECONDS = 10.0

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def loading(what: str, mend: str, *, repository: str | None = None, revision: str | None = None) -> Iterator[None]:
    """Turn what the body raises while it loads `what`, from the hub or a folder, into one of our errors.

    Args:
        what: what is loaded, for the message: "the config of model 'a/b'".
        mend: what the user can do if it is not there.
        repository: hub id of a model whose first file the body fetches; None: no first word with the hub is needed.
        revision: of the repository.

    Raises:
        HubError: the hub does not answer, or the disk that takes the download is full.
        ConfigError: there is no such thing, or it cannot be used.

    """
    try:
        if repository is not None:
            if is_path(repository):
                raise ConfigError(f"Cannot load {what}: nothing is at {repository!r}. {mend}")
            if not _cached(repository, revision):
                _ask()
        yield
    except KubesaeError:
        raise
    except Exception as error:
        from huggingface_hub import constants  # noqa: PLC0415 - an extra, and slow to import

        chain = list(_chain(error))
        if any(isinstance(link, OSError) and link.errno in _FULL for link in chain):
            raise HubError(
                f"The disk is full: {what} does not fit into the cache {constants.HF_HUB_CACHE}. Free some space, or "
                "set HF_HOME to a larger disk, and start again: what has been downloaded is kept."
            ) from error
        if reason := _silence(chain):
            raise HubError(
                f"The hub does not answer: {what} cannot be fetched from {constants.ENDPOINT} ({reason}). Check the "
                "network and HF_ENDPOINT, and start again: what has been downloaded is kept. HF_HUB_OFFLINE=1 takes "
                "what is in the cache without asking."
            ) from error
        if not isinstance(error, (OSError, ValueError, KeyError, RuntimeError)):  # a bug then, ours or a library's
            raise
        raise ConfigError(f"Cannot load {what}: {str(error).rstrip('.')}. {mend}") from error


def _cached(repository: str, revision: str | None) -> bool:
    from huggingface_hub import constants, try_to_load_from_cache  # noqa: PLC0415

    if constants.HF_HUB_OFFLINE:
        return True
    return isinstance(try_to_load_from_cache(repository, "config.json", revision=revision), str)


def _ask() -> None:
    """Have any answer from the hub, soon; raises what its client raises."""
    from huggingface_hub import constants, get_session  # noqa: PLC0415

    for attempt in range(ATTEMPTS):
        try:
            get_session().head(constants.ENDPOINT, timeout=ATTEMPT_SECONDS)
        except Exception as error:
            if attempt + 1 == ATTEMPTS or not _silence([error]):
                raise
        else:
            return


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _silence(chain: list[BaseException]) -> str | None:
    """Return why the hub did not answer; None where it did, or was not asked."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled  # noqa: PLC0415

    for link in chain:
        if isinstance(link, OfflineModeIsEnabled):
            return None
        if isinstance(link, HfHubHTTPError):
            status = link.response.status_code
            return f"HTTP {status}" if status == 429 or status >= 500 else None
        # The client's own errors: its package has had two names, and an error of it need not have a cause.
        if isinstance(link, (ConnectionError, TimeoutError)) or type(link).__module__.startswith("httpx"):
            return f"{type(link).__name__}: {link}".removesuffix(": ")
    return None
