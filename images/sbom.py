"""Print what Python distributions an image holds, as CycloneDX JSON; run while the image is built.

    python images/sbom.py kubesae-jobs 0.1.0 >/opt/kubesae/sbom.cdx.json

The same distributions give the same bytes: no time, no serial number. The system's packages are not in it, they belong
to the base image and its scanner (docs/images.md).
"""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import Distribution, distributions
from typing import Any


def component(distribution: Distribution) -> dict[str, Any]:
    """Describe one distribution; its license is what its metadata says, where that is short enough to be a name."""
    name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
    entry: dict[str, Any] = {
        "type": "library",
        "name": name,
        "version": distribution.version,
        "purl": f"pkg:pypi/{name}@{distribution.version}",
    }
    entry["bom-ref"] = entry["purl"]
    if expression := distribution.metadata.get("License-Expression"):
        entry["licenses"] = [{"expression": expression}]
    elif (named := distribution.metadata.get("License") or "") and len(named) < 60 and "\n" not in named:
        entry["licenses"] = [{"license": {"name": named}}]
    return entry


def bill(title: str, version: str) -> dict[str, Any]:
    """Return the bill of materials of this Python environment."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "name": title,
                "version": version,
                "bom-ref": title,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        "components": sorted((component(found) for found in distributions()), key=lambda entry: entry["name"]),
    }


if __name__ == "__main__":
    json.dump(bill(*sys.argv[1:]), sys.stdout, indent=1, sort_keys=True)
