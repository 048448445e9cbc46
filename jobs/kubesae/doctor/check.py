"""What one check found, and what became of a check that failed itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from kubesae.errors import EXIT_DONE, EXIT_FAULT, EXIT_USER, KubesaeError
from kubesae.experiment import Section

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class Check(Section):
    """One line of the examination."""

    name: str = Field(description="what was looked at")
    status: Literal["ok", "warning", "failed"] = Field(description="ok; warning: works, but; failed: does not work")
    found: str = Field(description="what was found")
    advice: str | None = Field(None, description="what to do about it")
    fault: bool = Field(False, description="failed by a fault: trying again may help, nothing is to be mended")  # noqa: FBT003


def ok(name: str, found: str) -> Check:
    """Return a check that found nothing wrong."""
    return Check(name=name, status="ok", found=found)


def warning(name: str, found: str, advice: str) -> Check:
    """Return a check that found something that works, but not well."""
    return Check(name=name, status="warning", found=found, advice=advice)


def failed(name: str, found: str, advice: str) -> Check:
    """Return a check that found something that the user has to mend."""
    return Check(name=name, status="failed", found=found, advice=advice)


def guarded(name: str, check: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """Yield the results of `check`; whatever it raises is one more, so that the others are made all the same."""
    try:
        yield from check()
    except KubesaeError as error:
        yield Check(name=name, status="failed", found=str(error), fault=error.exit_code != EXIT_USER)
    except ModuleNotFoundError as error:
        yield failed(name, f"not looked at, for lack of {error.name}", "Install what the lines above say.")
    except Exception as error:  # noqa: BLE001 - one check that breaks must not end the others
        yield Check(name=name, status="failed", found=f"the check itself broke: {error!r}", fault=True)


def exit_code(checks: Iterable[Check]) -> int:
    """Return what the program ends with: 2 when the user has something to mend, 1 when there was a fault alone."""
    failures = [check for check in checks if check.status == "failed"]
    if any(not check.fault for check in failures):
        return EXIT_USER
    return EXIT_FAULT if failures else EXIT_DONE
