"""A Mixtral's folder in the house's own decoder: a Mistral whose feed-forward layers are mixtures of experts.

model = load_mixtral("path/to/mixtral")          # config.json and *.safetensors
logits = model(tokens)

It stands by itself, not among the kinds of `shared.hf`: those have one feed-forward layer in each block.
"""

from functools import partial
from pathlib import Path

import torch

from shared.hf_kinds import FOLDERS
from shared.hf_model import slots
from shared.hf_names import LLAMA_NAMES
from shared.hf_settings import Config, Settings
from shared.mixture import Mixture
from shared.tiny_lm import TinyLM
from shared.weights_files import Stored, read_folder

MEANS = {"sliding_window": None, "rms_norm_eps": 1e-5}  # where a Mixtral does not say it, and a Mistral means another
ROTARY_BASE = 1_000_000.0
MIXTURE = "layers.{}.block_sparse_moe"
PREFIX = "model."


def load_mixtral(path: str | Path) -> TinyLM:
    """A Mixtral from a folder, in eval mode, float32, on the CPU.

    Raises ValueError for a folder that holds another kind, or settings that are refused by name; for a tensor that is
    missing, not expected, of another shape or not finite; and for what `read_folder` refuses.
    """
    path = Path(path).expanduser()
    values, stored = read_folder(path)
    if values.get("model_type") != "mixtral":
        raise ValueError(f"{path} holds a {values.get('model_type')!r}: expected 'mixtral'")
    settings, mixture = _settings(values, path)
    parts = slots(settings) | {"feed_forward": partial(Mixture, d_hidden=settings.d_hidden, **mixture)}
    sizes = (settings.vocab_size, settings.context, settings.d_model, settings.n_layers, settings.n_heads)
    with torch.device("meta"):  # the first weights are not drawn, for all are replaced
        model = TinyLM(*sizes, tied=settings.tied, **parts)
    left = {name.removeprefix(PREFIX): tensor for name, tensor in stored.items()}
    rows = [heads * settings.d_head for heads in (settings.n_heads, *[settings.n_kv_heads] * 2)]
    tensors = {}
    for ours, like in model.state_dict().items():
        names = _names(ours)
        cuts = rows if len(names) == 3 else [len(like) // len(names)] * len(names)
        shapes = [(n, *like.shape[1:]) for n in cuts]
        tensors[ours] = torch.cat([_take(left, *piece, path) for piece in zip(names, shapes, strict=True)])
    if unused := sorted(left):
        raise ValueError(f"tensors that a Mixtral of these settings does not use: {unused[:8]} in {path}")
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def _settings(values: dict, path: Path) -> tuple[Settings, dict[str, int]]:
    """Those of a Mistral, and how many experts there are and how many a token gets."""
    said = Config(values, str(path / "config.json"))
    mixture = {"n_experts": said.size("num_local_experts", 8), "k": said.size("num_experts_per_tok", 2)}
    if "rope_theta" not in said.part("rope_parameters").values:
        values = {"rope_theta": ROTARY_BASE} | values
    dense = MEANS | {name: value for name, value in values.items() if name != "num_local_experts"}
    return FOLDERS["mistral"].settings(Config(dense, said.source), {}), mixture


def _names(ours: str) -> list[str]:
    """What our tensor is put together from, one below the other: their names."""
    *part, end = ours.split(".")
    layer = part.pop(1) if part[0] == "blocks" else ""
    match part:
        case ["blocks", "feed_forward", "router"]:
            names = [f"{MIXTURE}.gate"]
        case ["blocks", "feed_forward", "experts", number, matrix]:
            names = [f"{MIXTURE}.experts.{number}.{w}" for w in {"gate_up": ("w1", "w3"), "proj": ("w2",)}[matrix]]
        case _:
            names = LLAMA_NAMES[".".join(part)]
    return [f"{name.format(layer)}.{end}" for name in names]


def _take(left: dict[str, Stored], name: str, shape: tuple[int, ...], path: Path) -> torch.Tensor:
    """Read a tensor and take it off the list."""
    if name not in left:
        raise ValueError(f"no tensor {name!r} among {sorted(left)[:8]} ... of {path}")
    stored = left.pop(name)
    if stored.shape != shape:
        raise ValueError(f"{name!r} has shape {stored.shape}: expected {shape} by the sizes in the settings of {path}")
    tensor = stored.read()
    if not tensor.sum().isfinite():  # one NaN or inf is enough
        raise ValueError(f"{name!r} has numbers that are NaN or infinite: the file is damaged")
    return tensor
