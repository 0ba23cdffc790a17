"""The faults of lesson 07: what ails each patient of its clinic, and its answer. Reading on spoils it."""

from shared.clinic import Change, Fault

FAULTS = [
    Fault(
        name="the nucleus drops the word that crosses p",
        changes=[Change("kept = below > 1 - p", "kept = below - ascending.softmax(-1) > 1 - p")],
        symptom="its mass is always below p; where one word has more than p, all is greedy",
        hints=["probabilities 0.5, 0.3, 0.15, 0.05 and p = 0.6: how many words reach it?"],
        seen_in="rasbt/reasoning-from-scratch#164, Biohub/esm#360",
    ),
    Fault(
        name="the mask is not put back in order",
        changes=[Change("return keep(logits, unsorted(kept, order))", "return keep(logits, kept)")],
        symptom="the entropy curve looks as ever, the text is noise",
        hints=["in which order is the mask, and in which are the logits?"],
        seen_in="lucidrains/PaLM-rlhf-pytorch#60",
    ),
    Fault(
        name="p = 1 is greedy",
        changes=[Change("if p == 1:\n    return logits", "if p == 1:\n    return temperature(logits, 0)")],
        symptom="the setting that should change nothing changes everything",
        hints=["what does p = 1 ask for?"],
        seen_in="BlinkDL/ChatRWKV#170",
    ),
    Fault(
        name="one too many",
        changes=[
            Change(
                "threshold = logits.topk(min(k, logits.shape[-1])).values[..., -1:]  # (B, 1), the k-th best",
                "threshold = logits.topk(min(k + 1, logits.shape[-1])).values[..., -1:]",
            )
        ],
        symptom="k = 1 is not greedy",
        hints=["count the words that are left"],
        seen_in="kingoflolz/mesh-transformer-jax#164",
    ),
    Fault(
        name="ties at the k-th place are lost",
        changes=[Change("return keep(logits, logits >= threshold)", "return keep(logits, logits > threshold)")],
        symptom="one word fewer than asked for, and k = 1 leaves none",
        hints=["is the k-th best word itself above the threshold?"],
        seen_in="fluxions-ai/vui#32 (a threshold from the wrong end)",
    ),
    Fault(
        name="the temperature twice",
        changes=[Change("return logits / T", "return logits / T / T")],
        symptom="at T = 1 nothing; elsewhere the entropy curve is that of T squared",
        hints=["how often is divided on the way from the model to the draw?"],
        seen_in="RL-Align/RL-Kernel#86, Adibvafa/CodonTransformer#20",
    ),
    Fault(
        name="rules backwards: truncated before it is heated",
        changes=[Change("for rule in chain:", "for rule in reversed(chain):")],
        symptom="the size of the nucleus does not react to the temperature",
        hints=["which rule comes first?"],
        seen_in="fishaudio/fish-speech#1150",
    ),
    Fault(
        name="a temperature of zero divides",
        changes=[Change("if T == 0:", "if T < 0:")],
        symptom="NaN, or always the first word of the list",
        hints=["what is 0 / 0, and what is 1 / 0?"],
        seen_in="vllm-project/vllm#24734, karpathy/nanoGPT#738",
    ),
    Fault(
        name="the penalty that rewards",
        changes=[
            Change(
                "return logits.scatter(-1, seen, torch.where(old < 0, old * penalty, old / penalty))",
                "return logits.scatter(-1, seen, old / penalty)",
            )
        ],
        symptom="the stronger the penalty, the more some words repeat",
        hints=["what does -2 become when it is divided by 1.5?"],
        seen_in="huggingface/transformers#2303, huggingface/transformers#2302",
    ),
    Fault(
        name="softmax twice",
        changes=[
            Change(
                "return torch.multinomial(p, 1, generator=generator)[:, 0]",
                "return torch.multinomial(p.softmax(-1), 1, generator=generator)[:, 0]",
            )
        ],
        symptom="everything is drawn, words that were cut as well: the text is nearly even noise",
        hints=["what does a second softmax do to numbers between 0 and 1?"],
        seen_in="ml-explore/mlx-lm#388 (filters that take logits for probabilities)",
    ),
    Fault(
        name="a replacement drawn from the target",
        changes=[
            Change(
                "missing = (target - draft).clamp(min=0)  # (B, V); its sum is the chance of a refusal",
                "missing = target",
            )
        ],
        symptom="a few more words come out as they were drafted than should, and the text is not the target's",
        hints=["accepted words have given the target part of what it wants: which part is left?"],
        seen_in="ShopeeLLM/Spec-RL#14 (kept there: it speeds up training and need not be exact)",
    ),
    Fault(
        name="a greedy draft, judged as if it had been drawn",
        changes=[
            Change(
                "drafted = torch.cat([drafted, draw(left, generator)[:, None]], dim=1)",
                "drafted = torch.cat([drafted, draw(temperature(left, 0), generator)[:, None]], dim=1)",
            )
        ],
        symptom="no error and no more calls than before; the text leans towards what the cheap model likes best",
        hints=["a word is accepted with p / q: with which probability was it really drafted?"],
        seen_in="huggingface/transformers#32867",
    ),
    Fault(
        name="words after a refusal are counted",
        changes=[
            Change(
                "good = int((out == words).cumprod(0).sum())  # how many before the first refusal",
                "good = int((out == words).sum())",
            )
        ],
        symptom="more words a call than the formula allows, and some of them were refused",
        hints=["the first of two drafted words is refused, the second accepted: what is kept?"],
        seen_in="vllm-project/vllm#2658 (there in the statistics)",
    ),
    Fault(
        name="each step draws the same number",
        changes=[
            Change(
                "tokens = torch.cat([tokens, draw(logits, generator)[:, None]], dim=1)",
                "tokens = torch.cat([tokens, draw(logits, torch.Generator().manual_seed(0))[:, None]], dim=1)",
            )
        ],
        symptom="each word is fine, and long texts run into a loop that they never leave",
        hints=["even logits, thirty steps: how many different words?"],
        seen_in="sgl-project/sglang-jax#940, kekzl/imp#1143",
    ),
]
