"""SAEDashboard, in an environment of its own, opens batches: `python with_sae_dashboard.py folder out.json`."""

import json
import sys
from pathlib import Path

from sae_dashboard.neuronpedia.neuronpedia_converter import NpEncoder
from sae_dashboard.neuronpedia.neuronpedia_dashboard import NeuronpediaDashboardBatch
from sae_dashboard.neuronpedia.neuronpedia_runner_config import NeuronpediaRunnerConfig

folder, out = sys.argv[1:]
paths = sorted(Path(folder).glob("batch-*.json"))
batches, again = ([NeuronpediaDashboardBatch(**json.loads(path.read_text())) for path in paths] for _ in range(2))
settings = NeuronpediaRunnerConfig(**json.loads(Path(folder, "run_settings.json").read_text()))
written = [json.loads(json.dumps(batch, cls=NpEncoder)) for batch in batches]
own = [one.features == other.features for one, other in zip(batches, again, strict=True)]
Path(out).write_text(json.dumps({"batches": written, "equal": all(own), "settings": settings.__dict__}))
