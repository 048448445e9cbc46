"""Doctor: everything that a run will need, looked at before it starts.

    kubesae doctor experiment.yaml

Nothing is changed but for one probe object in the store, which is deleted again; no weights are loaded or fetched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubesae.doctor import libraries, machine
from kubesae.doctor.check import guarded
from kubesae.doctor.storage import store_checks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kubesae.doctor.check import Check
    from kubesae.experiment import Experiment


def examine(experiment: Experiment | None = None, data: str | None = None, gpus: int | None = None) -> Iterator[Check]:
    """Yield what each check found, as it comes.

    Args:
        experiment: what is to be run here, if anything.
        data: a store to look at, where there is no experiment.
        gpus: how many GPUs there have to be.

    """
    for name, check in _checks(experiment, data, gpus):
        yield from guarded(name, check)


def _checks(
    experiment: Experiment | None, data: str | None, gpus: int | None
) -> Iterator[tuple[str, Callable[[], Iterable[Check]]]]:
    yield "Python", machine.python
    yield "CPUs", machine.cpus
    yield "Memory", machine.memory
    yield "Folders", machine.folders
    yield "Extras", lambda: libraries.extras(needed=experiment is not None)
    yield "torch", libraries.torch_works
    yield "Kernels", libraries.kernels
    yield "Accelerators", lambda: libraries.accelerators(gpus)
    url = data if experiment is None else experiment.data
    if url is not None:
        yield "Store", lambda: store_checks("Store", url)
    if experiment is None:
        return
    if experiment.output_prefix != experiment.data:
        yield "Output", lambda: store_checks("Output", experiment.output_prefix)
    from kubesae.doctor.experiment import corpus_checks, model_checks  # noqa: PLC0415 - may lack what it needs

    yield "Model", lambda: model_checks(experiment)
    yield "Corpora", lambda: corpus_checks(experiment)
