"""Write the page of an SAE's features to the bucket: static files, to be read by range.

    interpret/<sae>/page/overview.json      what there is to say of the whole
    interpret/<sae>/page/table.json.gz      a column a property, a value a feature
    interpret/<sae>/page/reasoning.json     pages of `kubesae reason`
    interpret/<sae>/features/               everything about each feature (`packing`)
    interpret/<sae>/index.html              the page itself; written last, so what is there is whole

Nothing is read but the interpretation and small files about run, SAE and data: no activations, no model.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from kubesae.browse.answered import Answered, common_tokens
from kubesae.browse.contexts import Words
from kubesae.browse.document import document
from kubesae.browse.files import OVERVIEW, TABLE
from kubesae.browse.overview import overview
from kubesae.browse.packing import compact, gzip_json, index_of, write_records
from kubesae.browse.records import Records, token_ids
from kubesae.browse.table import table_columns
from kubesae.corpus import Vocabulary, require_manifest
from kubesae.errors import DamagedError, MissingError
from kubesae.experiment import parse_json_object, sha256_hex
from kubesae.features import list_reasoning, read_answers
from kubesae.ledger import keys

if TYPE_CHECKING:
    from kubesae.features import Answers, Stored
    from kubesae.store import Store


def write_page(data: Store, output: Store, stored: Stored) -> str:
    """Write the page of an interpretation, unless it is there, and return the URL of its index.html.

    It takes about a millisecond a feature. A page made from something else is replaced: its index.html goes first. Who
    has it open is told to reload it: `made_from` and `file` in the overview say what else belongs to it.

    Args:
        data: store of the tokens.
        output: store of the interpretation, to which the page goes.
        stored: the interpretation.

    Raises:
        ConfigError: no tokens have been prepared.
        DamagedError: a file that it is made from is not what it should be.

    """
    sae = stored.info.source.sae
    manifest = require_manifest(data)
    answers = read_answers(output, sae, stored.info.to_json())
    answered = Answered.of(answers, stored.statistics)
    shell = document().encode()
    about = overview(data, output, manifest, stored, answered, "")
    about["made_from"] = sha256_hex((compact(about) + _answers_hash(answers)).encode())
    if not _is_there(output, sae, about["made_from"], shell):
        output.delete(keys.page(sae))
        words = Words.of(Vocabulary.read(data, manifest), token_ids(answered, stored))
        table = table_columns(stored, answered, common_tokens(stored), words) | {"made_from": about["made_from"]}
        file = _write_features(output, stored, Records(stored, answered, words))
        output.put(keys.page_file(sae, TABLE), gzip_json(table))
        output.put(keys.page_file(sae, OVERVIEW), compact(about | {"file": file.rpartition("/")[2]}).encode())
        list_reasoning(output, sae, stored.info.source.sae_sha256)
        _remove_others(output, sae, file)
        output.put(keys.page(sae), shell)
    return output.url_of(keys.page(sae))


def _answers_hash(answers: Answers | None) -> str:
    return sha256_hex(answers.info.to_json()) if answers else ""


def _is_there(output: Store, sae: str, made_from: str, shell: bytes) -> bool:
    """Whether this very page is there, whole."""
    key = keys.page_file(sae, OVERVIEW)
    try:
        there = parse_json_object(output.read(key), output.url_of(key)).get("made_from")
        return there == made_from and output.read(keys.page(sae)) == shell
    except (MissingError, DamagedError):
        return False


def _write_features(output: Store, stored: Stored, records: Records) -> str:
    """Write all features and where each lies; return the key of their file."""
    source = stored.info.source
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.bin"
        with path.open("wb") as file:
            offsets, sha256 = write_records(records, stored.info.features, file)
        key = keys.page_bin(source.sae, source.layer, sha256[:12])
        output.put_file(key, path)
    output.put(keys.page_index(source.sae), gzip_json(index_of(source.layer, key.rpartition("/")[2], offsets)))
    return key


def _remove_others(output: Store, sae: str, key: str) -> None:
    """Remove the features of pages before this one."""
    for other in output.list(keys.page_features(sae)):
        if other.endswith(".bin") and other != key:
            output.delete(other)
