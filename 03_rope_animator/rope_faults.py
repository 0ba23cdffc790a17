"""The faults of lesson 03: what ails each patient of its clinic, and its answer. Reading on spoils it.

Kinds: a line of the helper, of its caller, or a setting; two at once; nothing at all; and faults that pass every check,
each with the property that catches it.
"""

import rope_evidence as evidence
import torch

from shared.clinic import Change, Fault


def _stretches(helper, caller):
    """Stretched to twice the trained length, it still reads."""
    model, _ = caller.train()
    length = caller.LONGEST
    last = caller.nats(caller.stretch(model, length), length)[-16:].mean().item()  # 0.15 here
    return None if last < 0.6 else f"at the end of {length} letters, stretched, the loss is {last:.2f}"


def _goes_on_alike(helper, caller):
    """From a cache, filled up or not, it goes on as it would if it read the whole text again for each letter."""
    model, _ = caller.train()
    prompts = [caller.texts(1, n, n)[0].tolist() for n in (13, 9, 7)]
    for start in (0, 3000):
        caller.START = start
        found = caller.go_on(model, prompts, 8)
        for prompt, letters in zip(prompts, found, strict=True):
            ids = torch.tensor([prompt])
            for letter in letters:
                logits = model(ids, positions=start + torch.arange(ids.shape[1]), last=1)[0, -1]
                if logits[letter] < logits.max() - 1e-3:  # float32 rounds at 1e-6
                    return (
                        f"START {start}, after {len(ids[0])} letters it says {letter}, expected {int(logits.argmax())}"
                    )
                ids = torch.cat([ids, letter.view(1, 1)], dim=1)
    return None


def _converts(helper, caller):
    """A layer read from the other layout has the scores of one that turns neighbours, and its values untouched."""
    torch.manual_seed(0)
    layer, x = caller.attention(32, 2), torch.randn(1, 9, 32)
    with torch.no_grad():
        wanted = evidence._turning_neighbours(layer, x)
        gap = (caller.from_pairs(layer)(x) - wanted).abs().max().item()
    return None if gap < 1e-4 else f"it answers by {gap:.2g} otherwise than the layer that turns neighbours"


def _keeps_little(helper, caller):
    """For its backward pass a rotation keeps the angles, and nothing of the queries and keys."""
    more = evidence.kept_bytes(helper, 256) - evidence.kept_bytes(helper, 128)
    # a token's input to the projection is 64 floats, its angles are 8 doubles; queries and keys are 128 floats more
    return None if more < 128 * 450 else f"{more / 128:.0f} bytes are kept for each token, expected about 320"


def _has_slow_pairs(helper, caller):
    """A pair is left that hardly turns in the trained length: where all do, a longer text meets new angles at once."""
    fast = caller.new_model().blocks[0].attention.scaling.inv_freq
    turns = helper.full_turns(fast, caller.TRAINED)
    return None if turns[-1] < 0.05 else f"the slowest pair makes {turns[-1]:.2f} turns in the trained length"


RESTART = Change(
    "positions = START + torch.arange(cache.length, cache.length + ids.shape[1])",
    "positions = START + torch.arange(ids.shape[1])",
    in_caller=True,
)
BACK = Change(
    "return torch.cat([torch.arange(0, d, 2), torch.arange(1, d, 2)])",
    "return torch.cat([torch.arange(0, d, 2), torch.arange(1, d, 2)]).argsort()",
)
ONE_THETA = Change(
    "return Scaling(inv_freq(d, theta * scale ** (d / (d - 2))))",
    "return Scaling(inv_freq(d, theta * scale))",
)

FAULTS = [
    Fault(
        name="positions are rounded to bfloat16",
        changes=[
            Change(
                "return positions.double()[..., None] * inv_freq.double()",
                "return positions.bfloat16().double()[..., None] * inv_freq.double()",
            )
        ],
        symptom="Documents are read well, but for those that begin far behind position 0.",
        hints=[
            "Which positions are told apart, and from where on are they not?",
            "What is 257 in bfloat16, which keeps 8 bits?",
        ],
        seen_in="huggingface/transformers#29285 and sgl-project/sglang-jax#1473: phases in bfloat16; fixed there.",
        evidence=evidence.starts,
    ),
    Fault(
        name="two layouts in one function: angles a0, a0, a1, a1 beside halves",
        changes=[
            Change(
                """
                cos, sin = angles.cos().to(x), angles.sin().to(x)
                a, b = x.chunk(2, dim=-1)
                return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
                """,
                """
                twice = angles.repeat_interleave(2, dim=-1)
                a, b = x.chunk(2, dim=-1)
                return x * twice.cos().to(x) + torch.cat([-b, a], dim=-1) * twice.sin().to(x)
                """,
            )
        ],
        symptom="It learns, and its loss stays far above a healthy one's. Its words are wrong.",
        hints=[
            "Is a score still a matter of distance alone?",
            "Is what is done to a query a rotation? Does it keep lengths?",
            "Which coordinates turn together, and by which angles?",
        ],
        seen_in="raiyanyahya/how-to-train-your-gpt#6: rotate_half by halves, angles by neighbours; fixed there.",
        evidence=evidence.learning,
        example=True,
    ),
    Fault(
        name="nothing: the patient is healthy. Only differences of positions reach a score, and a row's are all "
        "shifted by the same amount",
        changes=[],
        symptom="In a batch with shorter prompts the first real letter of a filled-up row stands at position 6 or 11, "
        "not at 0. Will such rows go on wrongly?",
        hints=[
            "Compare with the same prompts one at a time.",
            "What does a score know of the two positions?",
        ],
        seen_in="ndif-team/nnsight#673: positions of filled-up batches, which matter to absolute positions.",
        evidence=evidence.handed_over,
    ),
    Fault(
        name="each new letter is turned as if it stood at the beginning",
        changes=[RESTART],
        symptom="The first letter after a prompt is right. What follows is not.",
        hints=[
            "What differs between the first letter and the second?",
            "Which positions are handed over, and how many letters are in the cache?",
        ],
        seen_in="Blaizzy/mlx-vlm#1983 and RobertCsordas/moeut#6: positions begin anew after the cache; reported there.",
        evidence=evidence.words,
        holds=_goes_on_alike,
    ),
    Fault(
        name="the order is that of the way back",
        changes=[BACK],
        symptom="Weights of another project are converted. The first token's answer is right.",
        hints=[
            "Which token does not turn at all?",
            "Take the order for 6 coordinates: which two stand in places 0 and 3?",
        ],
        seen_in="NeuraLegion/shainet#111 and huggingface/transformers#25199: the other layout's weights.",
        evidence=evidence.converted,
    ),
    Fault(
        name="frequencies fall twice as fast",
        changes=[
            Change(
                "return theta ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)",
                "return theta ** (-2 * torch.arange(0, d, 2, dtype=torch.float64) / d)",
            )
        ],
        symptom="In the picture of the table more rows stand still than should.",
        hints=["How often does the last pair turn, and how often should it?", "What does arange(0, d, 2) count?"],
        seen_in="maxjcohen/transformer#62: frequencies of the table; fixed there.",
        evidence=evidence.table_map,
    ),
    Fault(
        name="positions are stretched, not drawn together",
        changes=[Change("return Scaling(inv_freq(d, theta) / scale)", "return Scaling(inv_freq(d, theta) * scale)")],
        symptom="One of the ways to stretch makes a model worse at every length, long and short.",
        hints=[
            "Which row of the table differs from the healthy one?",
            "Where must position 40 of the long text stand: at 10, or at 160?",
        ],
        seen_in="lablup/mlxcel#1389: positions multiplied under dynamic NTK; fixed there.",
        evidence=evidence.stretched,
    ),
    Fault(
        name="theta is multiplied by the scale without its exponent",
        changes=[ONE_THETA],
        symptom="One way to stretch slows the last pair down by less than it was asked to.",
        hints=[
            "Compare the way of stretching that this program uses with the formula.",
            "theta'^(-(d - 2) / d) is to be theta^(-(d - 2) / d) / scale. What is theta'?",
        ],
        seen_in="ml-explore/mlx-lm#1545: theta rebuilt from other numbers than were asked for; closed.",
        evidence=evidence.stretched,
    ),
    Fault(
        name="the backward pass turns on, not back",
        changes=[Change("return rotate_halves(d_out, -angles)", "return rotate_halves(d_out, angles)")],
        symptom="With the same weights two programs have the same loss to the last digits. One learns far worse.",
        hints=[
            "What can differ between two programs whose forward passes agree?",
            "What is the transpose of a rotation?",
        ],
        seen_in="no thread with this line; HomericIntelligence/Odyssey#2134 is a cousin (a backward pass).",
        evidence=evidence.gradients,
    ),
    Fault(
        name="a rotation along the heads",
        changes=[
            Change(
                """
                positions = torch.arange(x.shape[-2]) if positions is None else positions
                turned = angles(positions, self.scaling.inv_freq)
                turned = turned if positions.ndim == 1 else turned[:, None]
                """,
                """
                positions = torch.arange(x.shape[1])
                turned = angles(positions, self.scaling.inv_freq)
                turned = turned[:, None].expand(-1, x.shape[-2], -1)
                """,
            )
        ],
        symptom="The loss stays far above a healthy one's, and the words have the right letters in a wrong order.",
        hints=[
            "Put the tokens before the last in another order: does its answer move?",
            "What does a token's angle depend on?",
        ],
        seen_in="vukrosic/leo-optimizer#2: RoPE along the wrong axis; fixed there.",
        evidence=evidence.learning,
    ),
    Fault(
        name="the attention factor is lost",
        changes=[
            Change(
                "return _Rotation.apply(x, turned) * self.scaling.attention_factor",
                "return _Rotation.apply(x, turned)",
            )
        ],
        symptom="Stretched by YaRN, attention is a little less sharp than in other people's programs.",
        hints=["Are frequencies all that a scaling holds?", "Who multiplies by the attention factor?"],
        seen_in="no thread with this line; ml-explore/mlx-lm#1545 is a cousin (a part of the scaling is never used).",
        evidence=evidence.sharpness,
    ),
    Fault(
        name="YaRN's ramp is a step",
        changes=[
            Change(
                "ramp = ((torch.arange(d // 2) - low) / max(high - low, 0.001)).clamp(0, 1).double()",
                "ramp = ((torch.arange(d // 2) - low) / max(high - low, 0.001)).clamp(0, 1).round().double()",
            )
        ],
        symptom="One way to stretch slows some pairs down by more than it should, and others by less.",
        hints=["Which rows of the table differ, and in which pairs?", "Is there a pair between the two kinds?"],
        seen_in="no thread with this line; NeuraLegion/shainet#111 is a cousin (Llama 3's scaling by parts).",
        evidence=evidence.stretched,
    ),
    Fault(
        name="YaRN takes its own theta for the model's",
        changes=[
            Change(
                "return Scaling(_by_parts(plain, 1 - ramp, scale), 0.1 * math.log(scale) + 1)",
                "return Scaling(_by_parts(inv_freq(d), 1 - ramp, scale), 0.1 * math.log(scale) + 1)",
            )
        ],
        symptom="Stretching works for older models and ruins a newer one from the first token on.",
        hints=["What do newer models change besides their length?", "Compare the row with theta 500,000."],
        seen_in="ml-explore/mlx-lm#1545: a base rebuilt from a constant; closed.",
        evidence=evidence.stretched,
    ),
    Fault(
        name="within the trained length the dynamic theta has grown already",
        changes=[
            Change(
                "return ntk_aware(d, 1 + scale * (max(length, trained) / trained - 1), theta)",
                "return ntk_aware(d, scale * max(length, trained) / trained, theta)",
            )
        ],
        symptom="A way to stretch that should leave short texts alone makes them worse.",
        hints=[
            "How long is the text in the table, and how long were the trained ones?",
            "What is the scale at 60?",
        ],
        seen_in="lablup/mlxcel#1389: dynamic NTK that changes short texts; fixed there.",
        evidence=evidence.stretched,
    ),
    Fault(
        name="far keys gain",
        changes=[
            Change("return -slopes[:, None, None] * distance", "return slopes[:, None, None] * distance"),
        ],
        symptom="With ALiBi each token looks at the beginning of the text.",
        hints=["What is added to the score of a key that is 60 tokens back?"],
        seen_in="meta-pytorch/attention-gym#86: the sign of ALiBi's bias.",
        evidence=evidence.alibi_weights,
    ),
    Fault(
        name="one series of slopes for any number of heads",
        changes=[Change("n = 2 ** math.floor(math.log2(n_heads))", "n = n_heads")],
        symptom="A model with 12 heads that was trained elsewhere is read with other slopes than it was trained with.",
        hints=["Are the numbers of heads alike that agree?", "Compare the first 8 of 12 heads with 8 heads."],
        seen_in="ml-explore/mlx#3071 and ml-explore/mlx#343: slopes where the number of heads is no power of two.",
        evidence=evidence.slopes,
    ),
    Fault(
        name="slopes begin at 1",
        changes=[
            Change(
                "slopes = 2.0 ** (-8 / n * torch.arange(1, n + 1, dtype=torch.float64))",
                "slopes = 2.0 ** (-8 / n * torch.arange(0, n, dtype=torch.float64))",
            )
        ],
        symptom="With ALiBi heads look less far than in others' programs, the more so the fewer heads there are.",
        hints=["What is the first slope of 8 heads?"],
        seen_in="paiml/aprender#2143: the exponent of the first slope.",
        evidence=evidence.slopes,
    ),
    Fault(
        name="the queries are taken for the first tokens, not for the last",
        changes=[
            Change(
                "queries = torch.arange(t_k - t_q, t_k, device=slopes.device)",
                "queries = torch.arange(t_q, device=slopes.device)",
            )
        ],
        symptom="An ALiBi model reads whole texts well. From a cache it answers otherwise.",
        hints=["How many queries are there, and how many keys?", "At which position does the new token stand?"],
        seen_in="no thread with this line; Blaizzy/mlx-vlm#1983 is a cousin (the new token's position).",
        evidence=evidence.alibi_cached,
    ),
    Fault(
        name="sine and cosine of a pair have two frequencies",
        changes=[
            Change(
                "return torch.stack([turned.sin(), turned.cos()], dim=-1).flatten(-2)",
                "return torch.stack([turned.sin(), (turned * theta ** (-1 / d)).cos()], dim=-1).flatten(-2)",
            )
        ],
        symptom="Rows of the table of sinusoids are of several lengths.",
        hints=["What is the sum of the squares of a sine and a cosine?", "Which angle has each of the two of a pair?"],
        seen_in="jadore801120/attention-is-all-you-need-pytorch#32: sine and cosine of one pair with two frequencies.",
        evidence=evidence.squares,
    ),
    Fault(
        name="a rotation keeps queries and keys for its backward pass, which does not need them",
        changes=[
            Change("ctx.save_for_backward(inputs[1])", "ctx.save_for_backward(*inputs)"),
            Change("(angles,) = ctx.saved_tensors", "_, angles = ctx.saved_tensors"),
        ],
        symptom="Losses and gradients are right to the last digit. Training takes more memory than it should.",
        hints=[
            "What does the gradient of a rotation depend on?",
            "What is kept between the forward and the backward pass?",
        ],
        seen_in="no thread: it is a matter of memory only.",
        evidence=evidence.kept,
        holds=_keeps_little,
    ),
    Fault(
        name="positions are made in half precision",
        changes=[
            Change(
                "positions = START + torch.arange(cache.length, cache.length + ids.shape[1])",
                "positions = START + torch.arange(cache.length, cache.length + ids.shape[1]).half()",
                in_caller=True,
            )
        ],
        symptom="Prompts at the beginning of a document go on well, and those behind its first 2,000 letters do not.",
        hints=[
            "Is it the model that is wrong there, or what is handed to it?",
            "Which whole numbers can float16 hold?",
        ],
        seen_in="sgl-project/sglang-jax#1473 is a cousin: phases in a type of few bits; fixed there.",
        evidence=evidence.words_at_start,
        holds=_goes_on_alike,
    ),
    Fault(
        name="values are reordered with queries and keys",
        changes=[
            Change(
                "turned = heads[: layer.n_heads + layer.n_kv_heads]",
                "turned = heads[: layer.n_heads + 2 * layer.n_kv_heads]",
                in_caller=True,
            )
        ],
        symptom="Weights of another project are converted. No position is right, not even the first.",
        hints=[
            "What does the first token see, and what decides its answer?",
            "Which of queries, keys and values are turned?",
        ],
        seen_in="huggingface/nanotron#427 is a cousin: the conversion of Llama's weights for the other layout.",
        evidence=evidence.converted,
        holds=_converts,
    ),
    Fault(
        name="the keys are not reordered",
        changes=[
            Change(
                "turned = heads[: layer.n_heads + layer.n_kv_heads]",
                "turned = heads[: layer.n_heads]",
                in_caller=True,
            )
        ],
        symptom="Weights of another project are converted. Only the very first token's answer is right.",
        hints=[
            "The first token sees itself alone. What can be wrong with all others?",
            "Which rows of the fused matrix belong to whom?",
        ],
        seen_in="NeuraLegion/shainet#111: weights of one layout in code for the other; fixed there.",
        evidence=evidence.converted,
        holds=_converts,
    ),
    Fault(
        name="theta is 10, so that no pair is slow",
        changes=[Change("THETA = 10_000.0", "THETA = 10.0", in_caller=True)],
        symptom="It learns as well as a healthy one. Longer texts go wrong sooner, whether stretched or not.",
        hints=[
            "All checks pass. Which settings decide which angles a text meets?",
            "How often does each pair turn in 32 letters?",
        ],
        seen_in="jadore801120/attention-is-all-you-need-pytorch#32 is a cousin: another base than is meant.",
        evidence=evidence.learning_and_lengths,
        holds=_has_slow_pairs,
    ),
    Fault(
        name="position interpolation without a training afterwards: neighbours stand closer together than ever before",
        changes=[
            Change(
                "layer.scaling = rope.ntk_aware(layer.d_head, length / TRAINED, THETA)",
                "layer.scaling = rope.interpolated(layer.d_head, length / TRAINED, THETA)",
                in_caller=True,
            )
        ],
        symptom="Texts as long as those that it learnt from are read well. A few letters more, and it is lost.",
        hints=[
            "All checks pass. What does the program do with a text that is longer than the trained ones?",
            "How far apart are the angles of two neighbours, before and after?",
        ],
        seen_in="no thread: Chen et al. 2023 train for some steps after it; here nothing is trained.",
        evidence=evidence.lengths,
        holds=_stretches,
    ),
    Fault(
        name="the order is that of the way back, and the caller turns it round once more: together they are right, for "
        "another helper each is wrong",
        changes=[
            BACK,
            Change(
                "order = rope.pairs_to_halves(layer.d_head)",
                "order = rope.pairs_to_halves(layer.d_head).argsort()",
                in_caller=True,
            ),
        ],
        symptom="A check fails. The program converts weights without a fault. Is the check wrong?",
        hints=[
            "Read what the function promises: does it keep to that?",
            "There are two faults. Mend one, and convert again.",
        ],
        seen_in="NeuraLegion/shainet#111 for the layout; no thread where two such orders hid each other.",
        evidence=evidence.converted,
        holds=_converts,
    ),
    Fault(
        name="theta lacks its exponent, and letters from the cache begin anew",
        changes=[ONE_THETA, RESTART],
        symptom="It goes on wrongly after the first letter. Its stretching is said to fall short, too. One cause?",
        hints=[
            "Is anything stretched when it goes on from a short prompt?",
            "There are two faults: find what each symptom needs.",
        ],
        seen_in="ml-explore/mlx-lm#1545 and Blaizzy/mlx-vlm#1983.",
        evidence=evidence.words,
        holds=_goes_on_alike,
    ),
    Fault(
        name="nothing: the patient is healthy. Halves and neighbours are one rotation, with the coordinates in another "
        "order, which training absorbs",
        changes=[],
        symptom="It turns coordinate i with i + 8, and the paper turns neighbours. Is attention another one then?",
        hints=[
            "Reorder the coordinates of queries and keys alike: what happens to their dot product?",
            "When does it matter which layout a program has?",
        ],
        seen_in="karpathy/nanochat#264: asked there.",
        evidence=evidence.learning,
    ),
]
