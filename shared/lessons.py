"""The sixteen lessons: the one list that tools, tests and the clinic read.

from shared.lessons import LESSONS, lesson

lesson("04").folder             # 04_attention_lab
[it for it in LESSONS if it.built]
"""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Lesson:
    """A folder of the journey. helper: the module that the reader writes. claim: what the lesson puts on trial."""

    folder: str
    notebook: str
    helper: str
    phase: str
    project: str
    concept: str
    claim: str

    @property
    def number(self) -> str:
        """Two digits, such as "04"."""
        return self.folder[:2]

    @property
    def path(self) -> Path:
        """Where the notebook lies, built or not."""
        return ROOT / self.folder / self.notebook

    @property
    def built(self) -> bool:
        """The notebook exists."""
        return self.path.exists()


_ATOMS, _ARCHITECTURE, _INFERENCE, _ADVANCED = (
    "I. The Atoms",
    "II. The Architecture",
    "III. Inference",
    "IV. Advanced & Scaling",
)

LESSONS = [
    Lesson("01_byte_pair_smith", "bpe_vis.ipynb", "bpe", _ATOMS, "Byte-Pair Smith", "Tokenization",
           "Merging rules are just statistics. Visualized token drift."),
    Lesson("02_meaning_space", "embedding_vis.ipynb", "skipgram", _ATOMS, "Meaning Space", "Embeddings",
           "One-Hot vectors are orthogonal and useless. Cosine similarity is king."),
    Lesson("03_rope_animator", "rope_vis.ipynb", "rope", _ATOMS, "RoPE Animator", "Positions",
           "Absolute positions fail on long docs. Rotation generalizes better."),
    Lesson("04_attention_lab", "attention_vis.ipynb", "attention", _ARCHITECTURE, "Attention Lab", "Self-attention",
           "Scaling factors prevent softmax saturation."),
    Lesson("05_block_builder", "block_vis.ipynb", "block", _ARCHITECTURE, "Block Builder", "The transformer block",
           "Residual streams are the information highway."),
    Lesson("06_norm_activation", "norm_vis.ipynb", "norms", _ARCHITECTURE, "Norm & Activation",
           "Norms and activations", "LayerNorm centers gradients; Pre-LN converges faster."),
    Lesson("07_entropy_plotter", "sampling_vis.ipynb", "sampling", _INFERENCE, "Entropy Plotter", "Sampling",
           "Temperature controls the sharpness of the softmax distribution."),
    Lesson("08_kv_speedrun", "kv_cache_vis.ipynb", "kv_cache", _INFERENCE, "KV Speedrun", "The KV cache",
           "The bottleneck is memory bandwidth, not compute."),
    Lesson("09_sliding_window", "window_vis.ipynb", "window", _INFERENCE, "Sliding Window", "The context window",
           "Memory grows quadratically unless you restrict attention scope."),
    Lesson("10_grouped_query", "gqa_vis.ipynb", "gqa", _INFERENCE, "Grouped Query", "Grouped-query attention",
           "Sharing KV heads saves massive VRAM with minimal perplexity loss."),
    Lesson("11_expert_router", "moe_vis.ipynb", "moe", _ADVANCED, "Expert Router", "Mixture of experts",
           "Experts collapse if you don't penalize uneven routing."),
    Lesson("12_int8_quant", "int8_vis.ipynb", "int8", _ADVANCED, "INT8 Quant", "Quantization",
           "Outliers in activation matrices destroy quantization precision."),
    Lesson("13_objective_arena", "objective_vis.ipynb", "objectives", _ADVANCED, "Objective Arena",
           "Pretraining objectives", "Causal masking is harder to learn than bi-directional masking."),
    Lesson("14_instruct_tuner", "instruct_vis.ipynb", "instruct", _ADVANCED, "Instruct Tuner", "Fine-tuning",
           "Base models mimic; Instruct models obey."),
    Lesson("15_ppo_loop", "ppo_vis.ipynb", "ppo", _ADVANCED, "PPO Loop", "RLHF",
           "The Reward Model is easily gamed without KL penalties."),
    Lesson("16_scaling_laws", "scaling_vis.ipynb", "scaling", _ADVANCED, "Scaling Laws", "Capacity",
           "Loss scales linearly with the log of compute/parameters."),
]  # fmt: skip


def lesson(number: str) -> Lesson:
    """A built lesson by its number, "04" or "4". Raises ValueError if there is none."""
    for it in LESSONS:
        if it.number == number.zfill(2) and it.built:
            return it
    there = ", ".join(it.number for it in LESSONS if it.built)
    raise ValueError(f"no lesson {number!r}: there is {there}")
