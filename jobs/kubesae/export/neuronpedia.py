"""Neuronpedia's bulk import: a folder of JSON lines a source, gzipped where they are many.

    <model>/<layer>-<sae>/{release,model,sourceset,source}.jsonl
    <model>/<layer>-<sae>/features/batch-<i>.jsonl.gz        SAEDashboard's features (`dashboards`), by its columns
    <model>/<layer>-<sae>/activations/batch-<i>.jsonl.gz     the rows that are shown of them
    <model>/<layer>-<sae>/explanations/batch-<i>.jsonl.gz    labels, of the type TYPE_NAME: no language model wrote them

Columns are those of the dataclasses in SAEDashboard's repository, `sae_dashboard/neuronpedia/neuronpedia_export.py` at
db4839a (not in a release), whose own conversion of our `sae-dashboard` gives these rows, and of Neuronpedia's table of
explanations. `createdAt` is the beginning of 1970 and ids
come from what they name, so that the bytes are the same each time. `topkCosSim*` are the nearest decoder rows, which
SAEDashboard leaves empty. Everything belongs to `creatorId`: Neuronpedia's own for imports.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from kubesae.experiment import canonical_json, sha256_hex
from kubesae.export.contexts import exact
from kubesae.export.dashboards import batches, compact

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kubesae.export.subject import Subject
    from kubesae.export.target import Target

TYPE_NAME = "kubesae_signature-no-llm"
CREATOR = "clkht01d40000jv08hvalcvly"
CREATED = "1970-01-01T00:00:00"
_GZIP = 31  # zlib's word for a gzip frame; it holds no time and no name


def write(subject: Subject, target: Target) -> None:
    """Write the folder of the source."""
    folder = f"{subject.model_id}/{source_id(subject)}"
    for name, row in _heads(subject).items():
        target.put(f"{folder}/{name}.jsonl", lines([row]))
    for number, dashboards in batches(subject):
        rows: dict[str, list[dict[str, Any]]] = {"features": [], "activations": [], "explanations": []}
        for dashboard in dashboards:
            rows["features"].append(_feature(subject, dashboard))
            rows["activations"] += _activations(subject, dashboard)
            rows["explanations"] += _explanations(subject, dashboard["feature_index"])
        for name, found in rows.items():
            if found:
                target.put(f"{folder}/{name}/batch-{number}.jsonl.gz", gzipped(lines(found)))


def loading(url: str) -> str:
    """Return the line that opens it."""
    return f'import gzip, glob; rows = [gzip.open(f).readlines() for f in glob.glob("{url}/*/*/features/*.gz")]'


def source_id(subject: Subject) -> str:
    """Return what Neuronpedia calls the source."""
    return f"{subject.named.layer}-{subject.named.name}"


def lines(rows: Iterable[dict[str, Any]]) -> bytes:
    """Return rows as JSON lines. NUL, which the import cannot take, is left out of texts."""
    return b"".join(compact({name: _without_nul(value) for name, value in row.items()}) + b"\n" for row in rows)


def _without_nul(value: Any) -> Any:
    if isinstance(value, list) and value and isinstance(value[0], str):
        return [text.replace("\0", "") for text in value]
    return value.replace("\0", "") if isinstance(value, str) else value


def gzipped(data: bytes) -> bytes:
    """Return a gzip file that depends on its content alone."""
    packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
    return packer.compress(data) + packer.flush()


_RELEASE = {
    "creatorName": "kubesae",
    "visibility": "PUBLIC",
    "isNewUi": False,
    "featured": False,
    "urls": [],
    "creatorEmail": None,
    "creatorNameShort": "kubesae",
    "defaultSourceSetName": None,
    "defaultSourceId": None,
    "defaultUmapSourceIds": [],
}
_MODEL = {
    "tlensId": None,
    "visibility": "PUBLIC",
    "defaultSourceSetName": None,
    "defaultSourceId": None,
    "inferenceEnabled": False,
    "layers": 0,
    "neuronsPerLayer": 0,
    "owner": "",
    "updatedAt": CREATED,
    "website": None,
}
_SOURCE_SET = {
    "hasDashboards": True,
    "visibility": "PUBLIC",
    "type": "",
    "creatorName": "kubesae",
    "urls": [],
    "creatorEmail": None,
    "defaultOfModelId": None,
    "defaultRange": 1,
    "defaultShowBreaks": True,
    "showDfa": False,
    "showCorrelated": False,
    "showHeadAttribution": False,
    "showUmap": False,
}
_SOURCE = {
    "hasDashboards": True,
    "inferenceEnabled": False,
    "inferenceHosts": [],
    "saelensConfig": None,
    "saelensRelease": None,
    "saelensSaeId": None,
    "hfRepoId": None,
    "hfFolderId": None,
    "visibility": "PUBLIC",
    "defaultOfModelId": None,
    "hasUmap": False,
    "hasUmapLogSparsity": False,
    "hasUmapClusters": False,
}
_MINE = {"creatorId": CREATOR, "createdAt": CREATED}


def _heads(subject: Subject) -> dict[str, dict[str, Any]]:
    """Return the rows of the four small files."""
    model, sae, plan = subject.model_id, subject.named.name, subject.plan
    description = f"Features of {sae}, interpreted by kubesae"
    return {
        "release": {"name": sae, "description": description, "descriptionShort": sae, **_RELEASE, **_MINE},
        "model": {
            "id": model,
            "instruct": "instruct" in model or model.endswith("-it"),
            "displayNameShort": model,
            "displayName": model,
            "dimension": subject.identity.d_model,
            **_MODEL,
            **_MINE,
        },
        "sourceset": {
            "modelId": model,
            "name": sae,
            "description": f"Residual stream after layer {subject.named.layer}",
            "releaseName": sae,
            **_SOURCE_SET,
            **_MINE,
        },
        "source": {
            "id": source_id(subject),
            "modelId": model,
            "setName": sae,
            "num_prompts": sum(map(plan.contexts, range(plan.num_shards))),
            "num_tokens_in_prompt": plan.context,
            "dataset": subject.corpora,
            "notes": f"kubesae: {canonical_json(subject.provenance()).decode()}",
            **_SOURCE,
            **_MINE,
        },
    }


def _feature(subject: Subject, dashboard: dict[str, Any]) -> dict[str, Any]:
    """Return a row of features: SAEDashboard's fields, and those around them."""
    feature = dashboard["feature_index"]
    others = {"feature_index", "activations", "vector", "dataset", "n_prompts_total", "n_tokens_in_prompt"}
    near = _neighbours(subject, feature)
    return {
        "modelId": subject.model_id,
        "layer": source_id(subject),
        "index": str(feature),
        "creatorId": CREATOR,
        "createdAt": CREATED,
        "maxActApprox": dashboard["activations"][0]["bin_max"],
        "hasVector": False,
        "vector": [],
        "vectorLabel": None,
        "vectorDefaultSteerStrength": 10,
        "hookName": subject.hook,
        "topkCosSimIndices": near[0],
        "topkCosSimValues": near[1],
        **{name: value for name, value in dashboard.items() if name not in others},
        "sourceSetName": subject.named.name,
    }


def _neighbours(subject: Subject, feature: int) -> tuple[list[int], list[float]]:
    if subject.answers is None:
        return [], []
    row = subject.answers.neighbours.slice(feature, 1).to_pylist()[0]
    return row["neighbours"], exact(row["cosines"])


def _activations(subject: Subject, dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of activations of a feature."""
    feature, rows = dashboard["feature_index"], []
    for number, shown in enumerate(dashboard["activations"]):
        most = max(shown["values"])
        rows.append(
            {
                "id": _id(subject, "activation", feature, number),
                "tokens": shown["tokens"],
                "index": str(feature),
                "layer": source_id(subject),
                "modelId": subject.model_id,
                "maxValue": most,
                "maxValueTokenIndex": shown["values"].index(most),
                "minValue": min(shown["values"]),
                "values": shown["values"],
                "creatorId": CREATOR,
                "dataSource": None,
                "dataIndex": None,
                "dfaValues": [],
                "dfaTargetIndex": None,
                "dfaMaxValue": None,
                "createdAt": CREATED,
                "lossValues": [],
                "logitContributions": None,
                "binMin": shown["bin_min"],
                "binMax": shown["bin_max"],
                "binContains": shown["bin_contains"],
                "qualifyingTokenIndex": shown["qualifying_token_index"],
                "zIndices": None,
                "zValues": None,
            }
        )
    return rows


def _explanations(subject: Subject, feature: int) -> list[dict[str, Any]]:
    """Return the label of a feature as an explanation; none where there is no label."""
    if subject.answers is None:
        return []
    label = subject.answers.labels.slice(feature, 1).to_pylist()[0]
    if not label["label"]:
        return []
    return [
        {
            "id": _id(subject, "explanation", feature, 0),
            "modelId": subject.model_id,
            "layer": source_id(subject),
            "index": str(feature),
            "description": label["label"],
            "authorId": CREATOR,
            "embedding": None,
            "triggeredById": None,
            "typeName": TYPE_NAME,
            "explanationModelName": None,
            "notes": f"kind {label['kind']}, purity {label['purity']:.3f}; by rule from activations, no language model",
            "createdAt": CREATED,
        }
    ]


def _id(subject: Subject, what: str, feature: int, number: int) -> str:
    """Return an id in the shape of Neuronpedia's own (`c` and 24 letters and digits)."""
    named = f"{subject.named.sha256}/{source_id(subject)}/{what}/{feature}/{number}"
    return "c" + sha256_hex(named.encode())[:24]
