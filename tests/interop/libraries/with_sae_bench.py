"""SAEBench's core result, in an environment of its own: `python with_sae_bench.py result.json out.json`."""

import sys
from pathlib import Path

from pydantic import TypeAdapter
from sae_bench.evals.core.eval_output import CoreEvalOutput

result = TypeAdapter(CoreEvalOutput).validate_json(Path(sys.argv[1]).read_text())
result.to_json_file(sys.argv[2])
