"""What published models say to the three forms: scores of three sizes of SmolLM2, and losses of two families.

    SMOLLM2["1.7B"].flops                       # 6 N D, N counted from its sizes
    told(SCORES["HellaSwag"])                   # the largest size's score, predicted by the two smaller ones
    ahead(LADDERS["Cerebras-GPT"], beyond=2)    # the two largest models' losses, predicted by the others

All this was known before these lines were written, so nothing here is a finding by a rule. SmolLM2's report and cards
give scores, and no loss.

Sources. SmolLM2: the model cards of HuggingFaceTB/SmolLM2-135M, -360M and -1.7B (huggingface.co), tables "Base
pre-trained model", zero-shot unless said; tokens and STAGES: Allal et al. 2025, "SmolLM2", arXiv 2502.02737, sections 4
and 6 and tables 4 and 8; sizes: the repositories' config.json. Ladders: Dey et al. 2023, "Cerebras-GPT", arXiv
2304.03208: the card of cerebras/Cerebras-GPT-13B, and for the others Cerebras' Model Zoo (github.com/Cerebras/modelzoo,
modelzoo/transformers/pytorch/gpt3/configs/Cerebras_GPT/README.md), table "0-shot Evaluation", columns "Training FLOPs"
and "PILE test xent". Pythia: Biderman et al. 2023, arXiv 2304.01373, as evaluated by Dey et al.
"""

import math
from typing import NamedTuple

import numpy as np
import scaling
from scaling import Law, Shape, count_parameters
from scaling_trial import FLOORED, FORMS

# ---- SmolLM2


class Model(NamedTuple):
    """A published model. tokens: read in training."""

    shape: Shape
    tokens: float

    @property
    def parameters(self) -> int:
        """N, all of them: the tied table is a matrix of the head, too."""
        return count_parameters(self.shape).total

    @property
    def flops(self) -> float:
        """C = 6 N D; what attention does with the context is left out."""
        return 6.0 * self.parameters * self.tokens


SMOLLM2 = {
    "135M": Model(Shape(vocab_size=49152, d_model=576, n_layers=30, n_heads=9, n_kv_heads=3, d_ff=1536), 2e12),
    "360M": Model(Shape(vocab_size=49152, d_model=960, n_layers=32, n_heads=15, n_kv_heads=5, d_ff=2560), 4e12),
    "1.7B": Model(Shape(vocab_size=49152, d_model=2048, n_layers=24, n_heads=32, n_kv_heads=32, d_ff=8192), 11e12),
}


class Score(NamedTuple):
    """Per cent right by guessing, and of the three sizes."""

    chance: float
    of_sizes: tuple[float, float, float]


SCORES = {  # MMLU is missing: the two smaller cards have it as cloze, the third has MMLU-Pro
    "HellaSwag": Score(25, (42.1, 54.5, 68.7)),
    "ARC": Score(25, (43.9, 53.0, 60.5)),
    "PIQA": Score(50, (68.4, 71.7, 77.6)),
    "CommonsenseQA": Score(20, (33.9, 38.0, 43.6)),
    "Winogrande": Score(50, (51.3, 52.5, 59.4)),
    "OpenBookQA": Score(25, (34.6, 37.4, 42.2)),
    "TriviaQA": Score(0, (4.1, 16.9, 36.7)),
    "GSM8K, 5-shot": Score(0, (1.4, 3.2, 31.0)),
}
STAGES = {  # the 1.7B model after 6, 8, 10 and 11 trillion tokens, the last of them at a falling learning rate
    "HellaSwag": (66.17, 65.29, 66.29, 69.26),
    "ARC": (59.95, 60.08, 58.66, 60.99),
    "PIQA": (76.39, 76.50, 77.26, 77.64),
    "Winogrande": (58.88, 58.33, 58.64, 61.09),
    "OpenBookQA": (42.00, 42.40, 41.40, 43.60),
    "GSM8K": (4.32, 4.62, 10.01, 32.60),
}


def flops_of_sizes() -> np.ndarray:
    """C of the three, (3,)."""
    return np.array([model.flops for model in SMOLLM2.values()])


def told(score: Score) -> tuple[float, float]:
    """The largest size's score in per cent, as the two smaller ones tell it: by a line in log C, and by a line of the
    logit of what is above chance, as a share of what can be."""
    flops, scores = flops_of_sizes(), np.array(score.of_sizes)
    by_line = scaling.line(flops[:2], scores[:2])(flops[2])
    share = (scores - score.chance) / (100 - score.chance)
    logit = np.log(share / (1 - share))
    rise = (logit[1] - logit[0]) / np.log(flops[1] / flops[0])
    at = logit[1] + rise * np.log(flops[2] / flops[1])
    return float(by_line), float(score.chance + (100 - score.chance) / (1 + np.exp(-at)))


def full_marks(score: Score) -> float:
    """C at which the line through the smallest and the largest size says 100 %: from there on it cannot hold."""
    return scaling.line(flops_of_sizes()[[0, 2]], np.array(score.of_sizes)[[0, 2]]).reaches(100.0)


# ---- what Chinchilla's law says of them

HOFFMANN = Law(1.6934, (406.4, 410.7), (0.3392, 0.2849))  # 2203.15556, exponents and floor as in its TeX source
BESIROGLU = Law(1.8172, (482.01, 2085.43), (0.3478, 0.3658))  # 2404.10102


class Said(NamedTuple):
    """A law's loss in nats, what of it is the floor, the model's size and the data's; and tokens per parameter of the
    model, as a multiple of those that are best for its C."""

    loss: float
    floor: float
    size: float
    data: float
    overtrained: float


def said(law: Law, model: Model) -> Said:
    """What a law of parameters and tokens says of a model."""
    n, d = model.parameters, model.tokens
    best_n, best_d = scaling.optimum(law, model.flops)
    size, data = (a / x**alpha for a, x, alpha in zip(law.scales, (n, d), law.exponents, strict=True))
    return Said(float(law(n, d)), law.floor, size, data, (d / n) / (best_d / best_n))


# ---- families whose losses are published


class Ladder(NamedTuple):
    """Training FLOPs as published, rising, and nats per token on the Pile's test set."""

    flops: tuple[float, ...]
    loss: tuple[float, ...]


_CEREBRAS = (2.6e18, 1.3e19, 6.1e19, 2.8e20, 1.1e21, 6.3e21, 2.3e22)  # 111M to 13B, 20 tokens a parameter
_PYTHIA = (1.6e20, 4.1e20, 1.1e21, 2.2e21, 3.2e21, 6.1e21, 1.4e22, 2.4e22)  # 70M to 12B, all on the same tokens
LADDERS = {
    "Cerebras-GPT": Ladder(_CEREBRAS, (2.566, 2.299, 2.184, 1.996, 1.834, 1.704, 1.575)),
    "Cerebras-GPT, Model Zoo": Ladder(_CEREBRAS, (2.608, 2.349, 2.181, 1.997, 1.834, 1.704, 1.572)),
    "Cerebras-GPT, muP": Ladder(_CEREBRAS[:5], (2.588, 2.359, 2.155, 1.984, 1.846)),
    "Pythia": Ladder(_PYTHIA, (2.504, 2.186, 1.971, 1.845, 1.793, 1.720, 1.626, 1.582)),
}


def ahead(ladder: Ladder, beyond: int) -> dict[str, np.ndarray]:
    """By form, predicted less published nats of the `beyond` largest, fitted to the others: (beyond,). Raises
    ValueError where no more than three are left: a floor and a power law goes through any three
    that bend the right way."""
    flops, loss = np.array(ladder.flops), np.array(ladder.loss)
    if len(loss) - beyond < 4 or beyond < 1:
        raise ValueError(f"{beyond} of {len(loss)} to predict: expected at least 1, and at least 4 to be left to fit")
    laws = {name: form(flops[:-beyond], loss[:-beyond]) for name, form in FORMS.items()}
    return {name: law(flops[-beyond:]) - loss[-beyond:] for name, law in laws.items()}


def floor_of(ladder: Ladder, without: int = 0) -> float:
    """The floor of a floor and a power law, fitted to all but so many of the largest, nats per token."""
    last = len(ladder.loss) - without
    return FORMS[FLOORED](np.array(ladder.flops[:last]), np.array(ladder.loss[:last])).floor


def decades(flops: np.ndarray) -> float:
    """How far budgets reach, in factors of ten."""
    return math.log10(max(flops) / min(flops))
