"""The cluster from the command line, which `make cluster` and `make cluster-down` use.

PYTHONPATH=tests/cluster .venv/bin/python -m harness up|down|status|images|load IMAGE.tar
"""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

from harness.errors import ClusterError
from harness.images import JOBS, OPERATOR, chart_values, load_images
from harness.instance import Instance
from harness.local import Local
from harness.teardown import down


def main(arguments: list[str]) -> int:
    """Do what is asked; return the exit code."""
    match arguments:
        case ["up"]:
            start = time.monotonic()
            local = Local.up(lasting=True)
            _say(f"The cluster '{local.instance.name}' is up ({time.monotonic() - start:.0f} s). To use it:")
            _show_exports(local)
        case ["down"]:
            name = Instance.chosen().name
            there = down(Instance.chosen())
            _say(f"The cluster '{name}' is down." if there else f"There is no cluster '{name}'.")
        case ["status"]:
            found = Local.attached()
            if not found:
                _say("There is no cluster. To bring it up: make cluster")
                return 1
            _show_exports(found)
            _show(found.kube.describe())
        case ["images"]:
            local = _cluster_for_images()
            start = time.monotonic()
            load_images(local)
            _say(f"The cluster '{local.instance.name}' has {JOBS} and {OPERATOR} ({time.monotonic() - start:.0f} s).")
            given = chart_values(JOBS)
            settings = ",".join(f"image.{name}={given[name]}" for name in ("registry", "tag", "pullPolicy"))
            _say(f"Install both charts with --set {settings}")
        case ["load", *sources] if sources:
            local = _cluster_for_images()
            for source in sources:
                path, _, name = source.partition("=")
                local.load_image(Path(path), name)
        case _:
            _say(__doc__.strip())
            return 2
    return 0


def _cluster_for_images() -> Local:
    found = Local.attached()
    if not found:
        raise ClusterError("there is no cluster to load an image into. To bring it up: make cluster")
    return found


def _show_exports(local: Local) -> None:
    for name, value in local.kube.environment().items():
        if name == "PATH":
            _show(f"export PATH={shlex.quote(str(local.kube.tools))}:$PATH")
        else:
            _show(f"export {name}={shlex.quote(value)}")


def _show(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ClusterError as error:
        _say(f"harness: {error}")
        sys.exit(2)
