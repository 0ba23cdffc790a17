"""The faults of lesson 14: what ails each patient of its clinic, and its answer. Reading on spoils it.

Kinds: a line of the helper, of its caller, or a setting; two at once; nothing at all; and faults that pass every check,
each with the property that catches it.
"""

import instruct_evidence as evidence
import instruct_seen as seen
import torch
from instruct_letters import END, talk

from shared.clinic import Change, Fault

QUESTIONS = [[12, 15], [9, 13], [11, 20]]  # thrice c, same a, twice h


def _is_asked_as_in_training(helper, caller):
    """What stands before an answer's first token is what stood there in training."""
    for n in (1, 2, 3):
        messages = talk(QUESTIONS[:n])
        ids, answer = helper.render(messages, caller.TEMPLATE)
        last = len(ids) - list(reversed(answer)).index(False)  # behind the last token that is not the assistant's
        found = caller.prompt(messages[:-1])
        if list(found) != ids[:last]:
            return f"{n} questions: the prompt is {found}, in training {ids[:last]} stand before the answer"


def _an_answer_ends_at_its_stop(helper, caller):
    """A model that says nothing but the template's stop says it once."""
    model = caller.new_model()
    with seen.saying(model, caller.TEMPLATE.stop):
        found = caller.ask(model, [[("user", question)] for question in QUESTIONS])
    if found != [[caller.TEMPLATE.stop]] * len(QUESTIONS):
        return f"a model that says token {caller.TEMPLATE.stop} alone, the stop: the answers are {found}"


def _every_stop_is_asked_for(helper, caller):
    """The targets of a conversation hold a stop for each answer."""
    for question in QUESTIONS:
        for n in (1, 2):
            (conversation,) = caller.conversations([talk([question] * n)])
            found = helper.inputs_and_targets(conversation)[1].count(caller.TEMPLATE.stop)
            if found != n:
                return f"{n} answers to {question}: the stop is asked for {found} times, expected {n}"


def _more_is_not_obeyed(helper, caller):
    """An answer that goes on, or lacks something, or does not end, is not what was asked for."""
    for question in QUESTIONS:
        right = [message[1] for message in talk([question])][1]
        cases = {
            True: [[*right, END]],
            False: [right, [*right, right[0], END], [*right[1:], END], [*right, END, 13], []],
        }
        for wanted, of in cases.items():
            for written in of:
                if caller.obeys(written, question) != wanted:
                    return f"the answer {written} to {question}: obeys is {not wanted}, expected {wanted}"


def _adapters_move(helper, caller):
    """After some steps each B is another one."""
    model, _ = caller.tune(caller.RANK, steps=3)
    before = caller.adapter(caller.new_model(caller.RANK))
    for i, ((_, B), (_, start)) in enumerate(zip(caller.adapter(model), before, strict=True)):
        if torch.equal(B, start):
            return f"after 3 steps B of adapter {i} is what it was"


def _pairs_teach_the_right_answer(helper, caller):
    """After some steps of the right answers against others the right ones have won; at first the loss is log 2."""
    model, _ = caller.tune(steps=40)
    before = seen.margins(model, 32)
    losses = caller.prefer(model, steps=20)
    after = seen.margins(model, 32)
    if abs(losses[0] - 0.693147) > 1e-4:  # float32 rounds sums of some ten log-probabilities at 1e-6
        return f"before the first step by pairs the loss is {losses[0]:.4f}, expected log 2 = 0.6931"
    if not after[0] - after[1] > before[0] - before[1]:
        return f"right against other answers: {before[0] - before[1]:.2f} nats, then {after[0] - after[1]:.2f}"


def _the_reference_stays(helper, caller):
    """What a model has moved away from where it was is seen in the loss."""
    model, _ = caller.tune(steps=40)
    losses = caller.prefer(model, steps=20)
    if max(abs(loss - 0.693147) for loss in losses[10:]) < 1e-3:
        return f"in 20 steps by pairs the loss stays at {losses[-1]:.4f}"


FAULTS = [
    Fault(
        name="padding is known by its token, which is the stop, too: the stop is never asked for",
        changes=[
            Change(
                "targets.append([token for _, wanted in row for token in wanted] + [IGNORE] * free)",
                """
                wanted = [token for _, asked in row for token in asked] + [template.padding] * free
                targets.append([IGNORE if token == template.padding else token for token in wanted])
                """,
            )
        ],
        symptom="It answers what it is asked, and does not stop.",
        hints=["Was it ever asked for the stop?", "Which tokens have no target, and how does the program know them?"],
        seen_in="mlabonne/llm-course#33 and huggingface/trl#456: padding and the end were one token, and masked; "
        "reported there.",
        evidence=evidence.stops,
        example=True,
    ),
    Fault(
        name="the mask is not shifted with the targets: the first token of an answer is never asked for, and the one "
        "after its stop is",
        changes=[
            Change(
                "targets = [token if its else IGNORE for token, its in zip(ids[1:], answer[1:], strict=True)]",
                "targets = [token if its else IGNORE for token, its in zip(ids[1:], answer[:-1], strict=True)]",
            )
        ],
        symptom="The loss is as low as it should be. Answers begin with anything.",
        hints=["Which token of an answer is wrong?", "Is each token of an answer asked for, at the token before it?"],
        seen_in="pytorch/torchtitan#2755 and tloen/alpaca-lora#306: the mask was off by one token; fixed there.",
        evidence=evidence.masks,
    ),
    Fault(
        name="in use the template is written by hand, without the end of the user's turn",
        changes=[
            Change(
                "return instruct.render(messages, TEMPLATE, reply=True).ids",
                """
                ids = list(TEMPLATE.begin)
                for role, said in messages:
                    ids += [*TEMPLATE.opens[role], *said]
                return [*ids, *TEMPLATE.opens["assistant"]]
                """,
                in_caller=True,
            )
        ],
        symptom="After the training it knows every answer. In use it is asked the same, and knows fewer.",
        hints=["What differs between the two rows of the evidence?", "What exactly does the model read in each case?"],
        seen_in="niznik-dev/cruijff_kit#241: the form of training and that of use differed by a few tokens; reported "
        "there. OpenBMB/MiniCPM-V#141: a model has two templates; asked there.",
        evidence=evidence.asked,
        holds=_is_asked_as_in_training,
    ),
    Fault(
        name="A and B are both drawn at random: the base is another model before the first step",
        changes=[
            Change(
                "self.B = nn.Parameter(torch.zeros(linear.out_features, rank, **like))",
                "self.B = nn.Parameter(torch.randn(linear.out_features, rank, **like) * bound)",
            )
        ],
        symptom="A good base was given adapters. Its first losses are those of a bad one.",
        hints=["When was it forgotten?", "What does an adapter add before it has learnt anything?"],
        seen_in="ggml-org/llama.cpp#4082 and hao-ai-lab/FastVideo#781: B was not initialised with zeros; fixed there.",
        evidence=evidence.started,
    ),
    Fault(
        name="the rank is lost from the scale: alpha in place of alpha / rank",
        changes=[Change("self.scale, self.base = alpha / rank, None", "self.scale, self.base = alpha, None")],
        symptom="A learning rate was found at low rank. At a high one it does not train.",
        hints=["What grows with the rank?", "By how much is the correction multiplied, at rank 1 and at rank 16?"],
        seen_in="Blaizzy/mlx-vlm#845 and rasbt/LLMs-from-scratch#821: the scale lacked the rank; reported there.",
        evidence=evidence.ranks,
    ),
    Fault(
        name="only matrices are frozen: norms and biases of the rest are trained, and left behind",
        changes=[
            Change(
                "model.requires_grad_(False)",
                """
                for module in model.modules():
                    if isinstance(module, nn.Linear | nn.Embedding):
                        module.requires_grad_(False)
                """,
            )
        ],
        symptom="What LoRA has learnt was sent to a colleague, who has the same base. There it works less well.",
        hints=["What was sent, and what was trained?", "Which parameters are in no linear layer?"],
        seen_in="Blaizzy/mlx-vlm#2181 and unslothai/unsloth-zoo#939: more than the adapters was trained when training "
        "went on; fixed there.",
        evidence=evidence.carried,
    ),
    Fault(
        name="the prompt has a second <begin>",
        changes=[
            Change(
                "return instruct.render(messages, TEMPLATE, reply=True).ids",
                "return [*TEMPLATE.begin, *instruct.render(messages, TEMPLATE, reply=True).ids]",
                in_caller=True,
            )
        ],
        symptom="The training went well, and the answers have become worse since somebody tidied up.",
        hints=["How long is the prompt?", "Who puts the beginning in front?"],
        seen_in="abetlen/llama-cpp-python#1439: special tokens came twice; fixed there.",
        evidence=evidence.asked,
        holds=_is_asked_as_in_training,
    ),
    Fault(
        name="nothing: the patient is healthy. Where B is 0, A has no gradient; it learns from the second step on",
        changes=[],
        symptom="At the first step A has a gradient of exactly 0. Half of the adapter seems to be dead.",
        hints=["By what is the gradient of A multiplied?", "What is it at the second step?"],
        seen_in="no thread of this: planted because it is right. microsoft/LoRA#121 is a cousin: A is 0 in place of B.",
        evidence=evidence.learnt,
    ),
    Fault(
        name="each part's mean is divided by the number of parts: a token of a part with few counts more",
        changes=[
            Change(
                """
                of, whole = sum(int((part.targets != IGNORE).sum()) for part in parts), 0.0
                for part in parts:
                    loss = answer_loss(read(model, part), part.targets, of)
                """,
                """
                whole = 0.0
                for part in parts:
                    loss = answer_loss(read(model, part), part.targets) / len(parts)
                """,
            )
        ],
        symptom="To save memory a step is read in parts. It is not the same step any more.",
        hints=["How many tokens are asked for in each part?", "When is a mean of means the mean?"],
        seen_in="huggingface/transformers#34191: gradients that were added up were not the batch's; fixed there.",
        evidence=evidence.parts,
    ),
    Fault(
        name="packed texts see each other: whatever stands before in the row",
        changes=[
            Change(
                """
                same = documents[:, :, None] == documents[:, None, :]
                real = documents[:, :, None] != NONE
                before = torch.ones(T, T, dtype=torch.bool, device=documents.device).tril()
                return same & real & before | torch.eye(T, dtype=torch.bool, device=documents.device)
                """,
                """
                real = documents != NONE
                before = torch.ones(T, T, dtype=torch.bool, device=documents.device).tril()
                both = real[:, :, None] & real[:, None, :]
                return both & before | torch.eye(T, dtype=torch.bool, device=documents.device)
                """,
            )
        ],
        symptom="The loss of a conversation depends on its neighbours in the row.",
        hints=["Is it their number, or what they say?", "Which columns does a token of the second conversation see?"],
        seen_in="huggingface/nanoVLM#204 and hiyouga/LlamaFactory#4224: packed texts saw each other; the second was "
        "merged.",
        evidence=evidence.packed,
    ),
    Fault(
        name="a second merge adds the correction again",
        changes=[
            Change(
                """
                if not self.merged:
                    self.base = self.linear.weight.clone()
                    self.linear.weight += self.scale * self.B @ self.A
                """,
                """
                self.base = self.linear.weight.clone()
                self.linear.weight += self.scale * self.B @ self.A
                """,
            )
        ],
        symptom="Each evaluation merges the adapters first, to save time. The second is worse than the first.",
        hints=["What changes between the first merge and the second?", "What is W after each of them?"],
        seen_in="huggingface/peft#3774: merging applied a correction twice; reported there.",
        evidence=evidence.merged,
    ),
    Fault(
        name="a setting: the program waits for the end of a text, and the template ends turns with <end>",
        changes=[Change("STOP = letters.END", "STOP = letters.TEXT", in_caller=True)],
        symptom="It knows where an answer ends. It goes on all the same.",
        hints=["Which token stands behind a right answer?", "For which token does the program wait?"],
        seen_in="vllm-project/vllm#4180 and ollama/ollama#3759: answers ended with <|eot_id|>, and another token was "
        "waited for; reported there.",
        evidence=evidence.stops,
        holds=_an_answer_ends_at_its_stop,
    ),
    Fault(
        name="merged without the scale: B A in place of alpha / rank B A",
        changes=[
            Change("self.linear.weight += self.scale * self.B @ self.A", "self.linear.weight += self.B @ self.A"),
        ],
        symptom="Whether a merged model obeys as well as before depends on its rank.",
        hints=["Where does merging change nothing?", "What do rank and alpha have in common there?"],
        seen_in="huggingface/peft#2489: an error of merging that no test with alpha = rank sees; fixed there.",
        evidence=evidence.merged,
    ),
    Fault(
        name="the mask is off: what users say is asked for, too",
        changes=[Change('speaks = role == "assistant"', 'speaks = role != "system"')],
        symptom="The loss stays far above 0, however long it trains. It obeys all the same.",
        hints=["What can nobody foretell in a conversation?", "Which tokens are asked for?"],
        seen_in="karpathy/nanochat#570 and huggingface/trl#1507: whether the prompt has a loss; asked there.",
        evidence=evidence.masks,
    ),
    Fault(
        name="if nothing is asked the sum is divided by 0: one batch without an answer ends the training",
        changes=[
            Change(
                "return total / max(1, int((targets != IGNORE).sum()) if of is None else of)",
                "return total / (int((targets != IGNORE).sum()) if of is None else of)",
            )
        ],
        symptom="With large batches all is well. With small ones the training ends early.",
        hints=["What may a small batch be without?", "What is a mean over nothing?"],
        seen_in="karpathy/nanochat#590: NaN from batches in which all was masked; reported there.",
        evidence=evidence.rare,
    ),
    Fault(
        name="in packed rows positions count on: the second conversation does not begin at 0",
        changes=[
            Change(
                """
                with hooked(model, {"mask": lambda mask, layer: seen}):
                    return model(batch.inputs, positions=batch.positions)
                """,
                """
                with hooked(model, {"mask": lambda mask, layer: seen}):
                    return model(batch.inputs)
                """,
            ),
        ],
        symptom="A conversation is answered worse the further to the right it stands in its row.",
        hints=["Does it matter what its neighbours say?", "What does a token know of where it stands?"],
        seen_in="huggingface/nanoVLM#204: positions and who sees whom in packed texts; reported there.",
        evidence=evidence.packed,
    ),
    Fault(
        name="chosen and rejected are swapped in the call",
        changes=[
            Change(
                "return instruct.preference_loss(chosen, rejected, *before, BETA)",
                "return instruct.preference_loss(rejected, chosen, *before, BETA)",
                in_caller=True,
            )
        ],
        symptom="A training by pairs goes down as it should. The model has unlearnt to obey.",
        hints=["What should the loss be before the first step, and why?", "Which of the two is pushed up?"],
        seen_in="no thread: planted because four numbers in a row are easily mixed up.",
        evidence=evidence.preferred,
        holds=_pairs_teach_the_right_answer,
    ),
    Fault(
        name="a setting: conversations are cut after 11 tokens, and so the end of long answers is never asked for",
        changes=[Change("LONGEST, ROW = 32, 48", "LONGEST, ROW = 11, 48", in_caller=True)],
        symptom="Short answers end. Long ones go on.",
        hints=["From how many letters on?", "How long is a conversation with such an answer?"],
        seen_in="meta-pytorch/torchtune#2792: the longest length decided whether the end is asked for; reported there.",
        evidence=evidence.stops,
        holds=_every_stop_is_asked_for,
    ),
    Fault(
        name="nothing: the patient is healthy. Padding is the stop's token, and is known by where it stands",
        changes=[],
        symptom="Padding is the stop's own token, and much of a batch is padding. Does it learn to stop too well?",
        hints=["At how many of them is the stop asked for?", "What is the probability of the stop in mid answer?"],
        seen_in="no thread of this: planted because mlabonne/llm-course#33 makes one suspect it.",
        evidence=evidence.stops,
    ),
    Fault(
        name="the reference is the model itself, and moves with it: no step sees how far it has come",
        changes=[
            Change(
                "reference, drawn = copy.deepcopy(model), pairs(seed)",
                "reference, drawn = copy.copy(model), pairs(seed)",
                in_caller=True,
            )
        ],
        symptom="A training by pairs changes the model. Its loss does not change.",
        hints=["What does the loss compare?", "Where are the weights of a copy?"],
        seen_in="huggingface/trl#1104: whether the reference must be frozen; asked there.",
        evidence=evidence.preferred,
        holds=_the_reference_stays,
    ),
    Fault(
        name="an answer counts as soon as it begins with what was asked for",
        changes=[
            Change(
                "return written == [*answer(question), letters.END]",
                "return written[: len(answer(question))] == answer(question)",
                in_caller=True,
            )
        ],
        symptom="By the count it obeys early. Who reads the answers does not think so.",
        hints=["Which answers are counted that you would not count?", "What of an answer does the count read?"],
        seen_in="no thread: planted because models that do not stop look obedient by it.",
        evidence=evidence.counted,
        holds=_more_is_not_obeyed,
    ),
    Fault(
        name="users may type the tokens that open a turn",
        changes=[
            Change(
                "if found := [token for token in said if token in template.controls]:",
                "if found := [token for token in said if token == template.stop]:",
            )
        ],
        symptom="Somebody typed more than letters, and it was answered.",
        hints=["What may be typed, and what is refused?", "By which tokens does a turn begin?"],
        seen_in="huggingface/transformers#29279 and ollama/ollama#15931: control tokens in what users type; reported "
        "there.",
        evidence=evidence.typed,
    ),
    Fault(
        name="the softmax is taken in bfloat16",
        changes=[
            Change(
                """
                logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
                total = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum")
                """,
                """
                total = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum")
                """,
            )
        ],
        symptom="In half precision the loss moves by jumps.",
        hints=["How many different values does it take?", "How many digits has a number of 8 bits?"],
        seen_in="huggingface/transformers#29285 is a cousin: logits became float32 for their precision; fixed there.",
        evidence=evidence.half,
    ),
    Fault(
        name="A and B are both set to 0 after the adapters were made: neither has a gradient, ever",
        changes=[
            Change(
                """
                if rank is not None:
                    instruct.add_lora(model, rank, ALPHA)
                """,
                """
                if rank is not None:
                    for each in instruct.add_lora(model, rank, ALPHA):
                        torch.nn.init.zeros_(each.A)
                        torch.nn.init.zeros_(each.B)
                """,
                in_caller=True,
            )
        ],
        symptom="LoRA does nothing: not at the first step, and not at the hundredth.",
        hints=["Which of the two has a gradient?", "By what is each gradient multiplied?"],
        seen_in="nvidia-cosmos/cosmos-predict2.5#15: A became zero as well, and nothing was trained; reported there.",
        evidence=evidence.learnt,
        holds=_adapters_move,
    ),
    Fault(
        name="the stop is never asked for, and the program waits for another token",
        changes=[
            Change(
                "ends = closes.index(template.stop) + 1 if speaks else 0",
                "ends = closes.index(template.stop) if speaks else 0",
            ),
            Change("STOP = letters.END", "STOP = letters.TEXT", in_caller=True),
        ],
        symptom="It does not stop. It was mended once, and still does not.",
        hints=[
            "What is the probability of the stop where an answer is complete?",
            "There are two faults: mend either alone and look again.",
        ],
        seen_in="tatsu-lab/stanford_alpaca#126 and pytorch/torchtitan#3130: the end was missing from what is trained "
        "on; reported there. vllm-project/vllm#4180: another token was waited for.",
        evidence=evidence.stops,
        holds=_an_answer_ends_at_its_stop,
    ),
    Fault(
        name="the turn of the assistant is not opened: the model has to open it itself, and was never asked to",
        changes=[
            Change(
                "return instruct.render(messages, TEMPLATE, reply=True).ids",
                "return instruct.render(messages, TEMPLATE).ids",
                in_caller=True,
            )
        ],
        symptom="The training went well. In use answers are too short, too long, or missing.",
        hints=["What does the answer begin with?", "What did the model read before its first letter in training?"],
        seen_in="instructlab/training#232: the assistant's turn was not opened at the end of the prompt; fixed there.",
        evidence=evidence.asked,
        holds=_is_asked_as_in_training,
    ),
    Fault(
        name="unmerged by subtraction: each round leaves a rounding error in the base",
        changes=[
            Change("self.linear.weight.copy_(self.base)", "self.linear.weight -= self.scale * self.B @ self.A"),
        ],
        symptom="Merged for each request, and taken apart again. After a day the base is not the base.",
        hints=["By how much is it worse after one round?", "What is 1000.0 + 0.1 - 1000.0 in half precision?"],
        seen_in="huggingface/diffusers#4473: taking it apart gave other results; discussed there. "
        "meta-pytorch/torchtune#1101: merged and unmerged weights differ in half precision.",
        evidence=evidence.drift,
    ),
    Fault(
        name="the margin has the wrong sign, and the program gives it the pairs the wrong way round",
        changes=[
            Change(
                "margin = (chosen - reference_chosen) - (rejected - reference_rejected)",
                "margin = (rejected - reference_rejected) - (chosen - reference_chosen)",
            ),
            Change(
                "yield [_said(asked, right), _said(asked, wrong)]",
                "yield [_said(asked, wrong), _said(asked, right)]",
                in_caller=True,
            ),
        ],
        symptom="Here pairs teach what they should. In another program, with the same helper, they teach the opposite.",
        hints=[
            "What should the loss do as the right answer becomes more likely?",
            "There are two faults: mend either alone and look again.",
        ],
        seen_in="no thread: planted because two wrong signs are found by no curve.",
        evidence=evidence.two_programs,
        holds=_pairs_teach_the_right_answer,
    ),
    Fault(
        name="nothing: the patient is healthy. The loss is a margin's, which grows as the other answers fall faster",
        changes=[],
        symptom="A training by pairs makes the right answers less likely than they were.",
        hints=["Of what is the loss a function?", "What becomes of the other answers?"],
        seen_in="eric-mitchell/direct-preference-optimization#36: the chosen answers became less likely, and why that "
        "is expected; asked there.",
        evidence=evidence.preferred,
    ),
]
