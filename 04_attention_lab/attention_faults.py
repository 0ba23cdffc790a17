"""The faults of lesson 04: what ails each patient of its clinic, and its answer. Reading on spoils it.

Kinds: a line of the helper, of its caller, or a setting; two at once; nothing at all; and faults that pass every check,
each with the property that catches it.
"""

import attention_evidence as evidence
import torch
from torch.utils.flop_counter import FlopCounterMode

from shared.clinic import Change, Fault


def _learns(helper, caller):
    """The program ends near the floor, not under it, and repeats words."""
    model, losses = caller.train()
    last, floor = sum(losses[-10:]) / 10, caller.floor(*caller.texts(2000, seed=1001))
    # 0.94 here, 1.15 in float16 with an epsilon of 1e-4, 1.7 and more if sick; the floor is 0.83, batches vary by 0.02
    if not floor - 0.08 < last < floor + 0.5:
        return f"the loss ends at {last:.2f}, the floor is {floor:.2f}"
    words = caller.texts(200, seed=1000)[0][:, : caller.LONGEST]
    right = (caller.repeat(model, words) == words)[words != caller.FILL].float().mean().item()
    return None if right > 0.9 else f"{right:.0%} of the letters are repeated, expected nearly all"


def _starts_even(helper, caller):
    """Before training no token gives nearly all of its attention to one other."""
    torch.manual_seed(0)
    model = caller.Repeater()
    ids, real = caller.texts(64, seed=1000)
    largest = model.layer.weights(model.embed(ids), real).amax(dim=-1)[:, :, caller.LONGEST :].mean().item()
    return None if largest < 0.5 else f"before training the largest weight of a row is {largest:.2f} on average"


def _even_without_scores(helper, caller):
    """A scale of 0 makes all scores 0 and all weights equal."""
    layer = helper.MultiHeadAttention(12, 3, causal=False, scale=0.0)
    largest = layer.weights(torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))).max().item()
    return None if abs(largest - 0.2) < 1e-6 else f"with a scale of 0 a weight of 5 is {largest:.2f}, expected 0.20"


def _every_matrix_learns(helper, caller):
    """Each matrix of a layer moves within three steps. In the first, one factor of the scores may rest at zero."""
    torch.manual_seed(0)
    layer, x = helper.MultiHeadAttention(12, 3), torch.randn(2, 5, 12)
    before = {name: parameter.detach().clone() for name, parameter in layer.named_parameters()}
    optimizer = torch.optim.Adam(layer.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        layer(x).square().sum().backward()
        optimizer.step()
    idle = [name for name, parameter in layer.named_parameters() if torch.equal(parameter, before[name])]
    return f"after three steps of a layer {idle} have not moved" if idle else None


def _far_below_zero(helper, caller):
    """The tiled version agrees with the plain one also where every score is far below zero."""
    q, k, v = (torch.randn(n, 4, generator=torch.Generator().manual_seed(0)).abs() for n in (3, 7, 7))
    gap = (helper.attention_tiled(-q, 1e6 * k, v, tile=2) - helper.attention(-q, 1e6 * k, v)).abs().max().item()
    return None if gap < 1e-4 else f"with scores of a million below zero, tiled and plain differ by {gap:.2f}"


def _causal_saves_work(helper, caller):
    """With causal=True the tiled version multiplies fewer numbers."""
    q = torch.randn(96, 4, generator=torch.Generator().manual_seed(0))
    work = []
    for causal in (False, True):
        with FlopCounterMode(display=False) as counter:
            helper.attention_tiled(q, q, q, causal=causal, tile=16)
        work.append(counter.get_total_flops())
    share = work[1] / work[0]  # 21 of 36 tiles
    return None if share < 0.7 else f"causal=True does {share:.0%} of the multiplications, expected 58%"


SHIFTED_BY_TWO = Change(
    """
    logits = model(ids, real)[:, :-1]
    nats = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    return nats[real[:, 1:]].mean()
    """,
    """
    logits = model(ids, real)[:, :-2]
    nats = F.cross_entropy(logits.transpose(1, 2), ids[:, 2:], reduction="none")
    return nats[real[:, 2:]].mean()
    """,
    in_caller=True,
)
ONE_OFF = Change("return keys <= queries[:, None]", "return keys <= queries[:, None] + 1")

FAULTS = [
    Fault(
        name="the mask multiplies the scores",
        changes=[Change("scores = scores.masked_fill(~mask, -math.inf)", "scores = scores * mask")],
        symptom="The program learns faster than a healthy one at first. Then its loss turns and rises.",
        hints=[
            "What may a token know in this program, and what not? Does it keep to that?",
            "What weight does a score of zero get? Which score gets none at all?",
            "Look at what becomes of the mask in attention_weights.",
        ],
        seen_in="georg-wolflein/good-features#1: masking by multiplication; fixed there.",
        evidence=evidence.learning,
    ),
    Fault(
        name="nothing: the patient is healthy. A trained head that copies looks at one token, and is right to. "
        "Saturation is a trouble where it stands before training, and keeps gradients small",
        changes=[],
        symptom="After training each token gives nearly all of its attention to one other. Is the softmax saturated?",
        hints=[
            "What would a head have to attend to that repeats a word?",
            "Compare with a fresh layer: what was it like before it had learnt anything?",
        ],
        seen_in="no thread: it is asked often, and a low entropy alone is no fault.",
        evidence=evidence.one_hot,
    ),
    Fault(
        name="the softmax's slope lacks its second term",
        changes=[Change("return weights * (d_weights - mean)", "return weights * d_weights")],
        symptom="Two programs with the same weights put out the same numbers to the last digit. One hardly learns.",
        hints=[
            "What can differ between two programs whose forward passes agree?",
            "Raise one score of a row: what happens to the other weights? They still sum to one.",
        ],
        seen_in="HomericIntelligence/Odyssey#2134: the dot product was missing in a softmax's backward; closed.",
        evidence=evidence.gradients,
    ),
    Fault(
        name="the layer attends to fills, and to nothing else",
        changes=[
            Change(
                "return self.head(x + self.layer(x, real)).float()",
                "return self.head(x + self.layer(x, ~real)).float()",
                in_caller=True,
            )
        ],
        symptom="The loss falls for ten steps and stays. The words that come have nothing to do with those given.",
        hints=[
            "Does anything of the first half reach the second? How would you find out?",
            "Is the fault in the layer, or in what is handed to it?",
            "What does True mean in `padding`? PyTorch's own nn.MultiheadAttention means the opposite.",
        ],
        seen_in="InseeFrLab/torchTextClassifiers#92: a mask inverted where it was passed on to attention; fixed there.",
        evidence=evidence.learning,
        holds=_learns,
    ),
    Fault(
        name="the running maximum starts at -50,000, and some scores lie below",
        changes=[Change("lowest = torch.finfo(q.dtype).min", "lowest = -5e4")],
        symptom="A model runs well with plain attention. With the tiled version, some of its heads put out zeros "
        "for some long texts.",
        hints=[
            "Trained models have a few very long keys. What are their scores like?",
            "What does exp give for a score that is far below the running maximum?",
            "What is the running maximum before the first tile, and can all scores lie below it?",
        ],
        seen_in="flashinfer-ai/flashinfer#4267: a lowest value of -5e4 zeroed heads of a model with massive "
        "activations. Dao-AILab/flash-attention#2082 is a cousin, with a maximum of 0.",
        evidence=evidence.size_by_norm,
        holds=_far_below_zero,
    ),
    Fault(
        name="the causal mask is one off",
        changes=[ONE_OFF],
        symptom="The loss goes down to nothing, under what can be known. The program's words are wrong here and there.",
        hints=[
            "How can a letter be predicted that was drawn by chance?",
            "The training text is there in full when it is read. When the program speaks, it is not.",
            "Draw the mask of three tokens.",
        ],
        seen_in="pbloem/former#10: the triangle's diagonal was off in the explanation; fixed there.",
        evidence=evidence.learning,
        example=True,
    ),
    Fault(
        name="Adam's epsilon of 1e-8 is zero in float16, and 0 / 0 is not a number",
        changes=[Change("DTYPE = torch.float32", "DTYPE = torch.float16", in_caller=True)],
        symptom="The first loss is right. Every loss after it is nan.",
        hints=[
            "The forward pass works, once. What happens between the first loss and the second?",
            "Which parameters turn to nan in the first step, and what were their gradients?",
            "Which numbers can DTYPE not hold, and where does the optimizer need one of them?",
        ],
        seen_in="pytorch/pytorch#147437 and google-deepmind/optax#1754: in float16 the default epsilon is 0.",
        evidence=evidence.losses,
        holds=_learns,
    ),
    Fault(
        name="a scale of 0 is taken for none",
        changes=[
            Change(
                "self.scale = 1 / math.sqrt(self.d_head) if scale is None else scale",
                "self.scale = scale or 1 / math.sqrt(self.d_head)",
            )
        ],
        symptom="In an ablation of the scale one row of the table does not fit the others. Is it chance?",
        hints=[
            "Which row of the table is out of line, and which other row is it equal to?",
            "What is False in Python?",
        ],
        seen_in="SKaiNET-developers/SKaiNET#880: scale == 0 was made to mean the default there.",
        evidence=evidence.ablation,
        holds=_even_without_scores,
    ),
    Fault(
        name="heads are merged without a transpose",
        changes=[Change("y = y.transpose(1, 2).flatten(2)", "y = y.reshape(x.shape)")],
        symptom="The loss goes far under what can be known. When the program speaks it repeats one letter.",
        hints=[
            "How can a letter be predicted that was drawn by chance?",
            "The masks are right: change a later token, and the map of an earlier one stays. The output moves.",
            "A reshape never moves a number in memory. Where should one be moved?",
        ],
        seen_in="jsbaan/transformer-from-scratch#6: heads and positions mixed; fixed there.",
        evidence=evidence.learning,
    ),
    Fault(
        name="nothing: the patient is healthy. What is handed over is the padding mask; the layer adds the triangle",
        changes=[],
        symptom="For a text of full length the program hands the layer a mask of ones alone. Nothing seems to hide "
        "the future.",
        hints=[
            "Which of the two masks is it?",
            "If the future could be seen, what would the loss be?",
        ],
        seen_in="kzl/decision-transformer#30: asked there; GPT-2 adds the triangle itself, its author explains.",
        evidence=evidence.handed_over,
    ),
    Fault(
        name="the scale is that of the model, not of the head",
        changes=[
            Change(
                "self.scale = 1 / math.sqrt(self.d_head) if scale is None else scale",
                "self.scale = 1 / math.sqrt(d_model) if scale is None else scale",
            )
        ],
        symptom="With one head a fresh layer is as it should be. The more heads of the same width, the paler its maps.",
        hints=[
            "How wide are the vectors whose dot product is taken, and does that change here?",
            "Look where the layer chooses its scale.",
        ],
        seen_in="karpathy/ng-video-lecture#6: scaled by the embedding size; fixed there.",
        evidence=evidence.evenness_by_heads,
    ),
    Fault(
        name="logits are reshaped where they should be transposed",
        changes=[
            Change(
                'nats = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")',
                'nats = F.cross_entropy(logits.reshape(len(ids), EQUALS + 1, -1), ids[:, 1:], reduction="none")',
                in_caller=True,
            )
        ],
        symptom="The loss falls like a healthy one's, and then on, under what can be known. The words are noise.",
        hints=[
            "Each check passes. What stands between the layer and the loss?",
            "The shapes are right. Whose logit is compared with which letter?",
        ],
        seen_in="weirme/FCSN#32: class scores reshaped without the permutation that they need.",
        evidence=evidence.learning,
        holds=_learns,
    ),
    Fault(
        name="queries and keys both start at zero, and none ever moves",
        changes=[
            Change(
                "self.proj = nn.Linear(n_heads * self.d_head, d_model, bias=False)",
                "self.proj = nn.Linear(n_heads * self.d_head, d_model, bias=False)\n"
                "nn.init.zeros_(self.query.weight)\n"
                "nn.init.zeros_(self.key.weight)",
            )
        ],
        symptom="The program learns which letters there are, and no more. Its maps stay as they were before training.",
        hints=[
            "Are the maps what the weights say, or do the weights not change?",
            "Which gradient reaches the queries' matrix in the first step, and what is it multiplied by?",
            "Either of two factors may start at zero. What if both do?",
        ],
        seen_in="Guitaricet/relora#18: both factors of a product started at zero, reported there. "
        "microsoft/LoRA#98: one of them is enough.",
        evidence=evidence.maps_and_losses,
        holds=_every_matrix_learns,
    ),
    Fault(
        name="the softmax does not take the largest score off",
        changes=[
            Change(
                """
                largest = scores.amax(dim=-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)
                weights = torch.exp(scores - largest)
                """,
                "weights = torch.exp(scores)",
            )
        ],
        symptom="At four times the learning rate two runs agree to 0.001 for thirty steps. Later one of them is nan.",
        hints=[
            "What grows during training, and the faster, the higher the rate?",
            "What is the largest number in float32, and its logarithm?",
            "What may be added to all scores of a row?",
        ],
        seen_in="pytorch/executorch#18407: a score of 151 in Phi-4-mini gave NaN; fixed there.",
        evidence=evidence.hot_losses,
    ),
    Fault(
        name="the causal mask is one off, and the program asks for the token after the next: the one hides the other",
        changes=[ONE_OFF, SHIFTED_BY_TWO],
        symptom="The loss ends at the floor, a little faster than a healthy one's. The words lack their first letter.",
        hints=[
            "Which token is the model asked for at each position?",
            "The checks and the program's words are two matters. Does mending one mend the other?",
            "There are two faults: mend either alone and look at loss and words again.",
        ],
        seen_in="pbloem/former#10 for the mask, huggingface/transformers#37830 for labels that are shifted twice.",
        evidence=evidence.learning,
        holds=_learns,
    ),
    Fault(
        name="-inf minus -inf",
        changes=[
            Change(
                "largest = scores.amax(dim=-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)",
                "largest = scores.amax(dim=-1, keepdim=True)",
            )
        ],
        symptom="Training ends in nan at the end of the first epoch. The loss of the epoch's last batch, which is "
        "filled up with empty texts, still was right.",
        hints=[
            "How can a loss be right and its gradient not?",
            "What may the tokens of an empty text attend to?",
            "Compute the softmax of two scores that are both -inf, by hand.",
        ],
        seen_in="tracel-ai/burn#4697: NaN for fully masked rows; fixed there.",
        evidence=evidence.last_batch,
    ),
    Fault(
        name="the softmax runs over the queries",
        changes=[Change("return softmax(scores)", "return softmax(scores.mT).mT")],
        symptom="The loss stays near 1.9. After training all heads show the same odd maps. Too few steps?",
        hints=[
            "Each query has one unit of attention to give away. Has it?",
            "Along which axis do the weights sum to one?",
        ],
        seen_in="labmlai/annotated_deep_learning_paper_implementations#146: reported; its author called it a big bug.",
        evidence=evidence.maps_and_losses,
    ),
    Fault(
        name="tiles in the future are computed, and then masked",
        changes=[
            Change("if causal and columns.start > t_k - t_q + rows.stop - 1:", "if causal and columns.start >= t_k:")
        ],
        symptom="The tiled version takes longer with causal=True than without it. Is that the price of the mask?",
        hints=[
            "How many tiles of scores are there, and how many of them are needed?",
            "Count what is multiplied: torch.utils.flop_counter does it.",
        ],
        seen_in="Xilinx/mlir-air#1749: future blocks were computed and then masked; skipped since.",
        evidence=evidence.causal_time,
        holds=_causal_saves_work,
    ),
    Fault(
        name="the layer is made without a causal mask",
        changes=[
            Change(
                "self.layer = attention.MultiHeadAttention(D_MODEL, N_HEADS, scale=SCALE)",
                "self.layer = attention.MultiHeadAttention(D_MODEL, N_HEADS, causal=False, scale=SCALE)",
                in_caller=True,
            )
        ],
        symptom="The best loss that anybody has seen here. The words it says are nearly right.",
        hints=[
            "How can a letter be predicted that was drawn by chance?",
            "Each check of the layer passes. Is it the layer that was asked for?",
        ],
        seen_in="alex-matton/causal-transformer-decoder#1: no causal masking in training; fixed there.",
        evidence=evidence.learning,
        holds=_learns,
    ),
    Fault(
        name="what was summed does not shrink when a larger score comes",
        changes=[Change("mixed = mixed * shrink + weights @ values", "mixed = mixed + weights @ values")],
        symptom="For short texts plain and tiled attention agree. For long ones they do not.",
        hints=[
            "From which length on? What is that number in attention_tiled?",
            "What does a row know after its first tile, and what of it depends on the largest score so far?",
        ],
        seen_in="no thread with this line; Dao-AILab/flash-attention#2082 is a cousin (a wrong largest score).",
        evidence=evidence.gap_by_length,
    ),
    Fault(
        name="nothing: the patient is healthy. The first token attends to itself alone: its weight is 1 whatever its "
        "query is, so its query has no slope",
        changes=[],
        symptom="In every text the first token's query gets a gradient of exactly zero. The second token's does not.",
        hints=[
            "How many keys may the first token attend to?",
            "What would its weights be with another query?",
        ],
        seen_in="no thread: a row of one weight has no slope, by its definition.",
        evidence=evidence.first_query,
    ),
    Fault(
        name="scores are multiplied by the root of the width, not divided",
        changes=[Change("SCALE = None", "SCALE = (D_MODEL / N_HEADS) ** 0.5", in_caller=True)],
        symptom="It ends nearly as well as a healthy program, after a slow start. Before training its maps already "
        "look as if they knew something.",
        hints=[
            "What decides how sharp a map is before anything was learnt?",
            "What is the variance of the scores of a fresh layer, here and in a healthy one?",
        ],
        seen_in="mlc-ai/mlc-llm#3426: scores head_dim times too large in a fallback path; fixed there.",
        evidence=evidence.fresh_maps,
        holds=_starts_even,
    ),
    Fault(
        name="the program asks for the token after the next",
        changes=[SHIFTED_BY_TWO],
        symptom="The loss ends at the floor. The words lack their first letter.",
        hints=[
            "Which token is the model asked for at each position?",
            "Two slices say it. Do they fit together, and with the program's words?",
        ],
        seen_in="huggingface/transformers#37830: labels that were shifted twice.",
        evidence=evidence.learning,
        holds=_learns,
    ),
]
