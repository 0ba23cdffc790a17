"""The faults of lesson 11: what ails each patient of its clinic, and its answer. Reading on spoils it.

Kinds: a line of the helper, of its caller, or a setting; two at once; nothing at all; and faults that pass every check,
each with the property that catches it.
"""

import moe_evidence as evidence
import moe_seen
import torch

from shared.clinic import Change, Fault


def _the_loss_has_the_penalty(helper, caller):
    """In training the loss is nats a word and the penalty; in float32, whose sums of a few hundred round at 1e-6."""
    model, (ids, real) = caller.new_model(), next(caller.batches())
    with_it, without = (caller.loss(model, ids, real, balance, 0.0, 0.0).item() for balance in (1.0, 0.0))
    wanted = helper.penalty(model, 1.0, 0.0, real[:, :-1]).item()
    if abs(with_it - without - wanted) > 1e-4:
        return f"coefficient 1 adds {with_it - without:.4f} to the loss, the penalty is {wanted:.4f}"


def _padding_changes_nothing(helper, caller):
    """Neither the loss nor the bias after a step is another one if texts are filled up further."""
    ids, real = (part[8:12, :12] for part in next(caller.batches()))
    (told, bias, _), (longer, other, _) = (moe_seen.padded_step(caller, ids, real, n) for n in (0, 20))
    if abs(told - longer) > 3e-5 or not torch.equal(bias, other):
        return f"loss and bias {told:.5f}, {bias.tolist()}; 20 tokens of padding: {longer:.5f}, {other.tolist()}"


def _capacity_holds_for_many(helper, caller):
    """However many tokens there are, no expert has more routes than there is room for."""
    for n in (100, 1000, 5000):
        room, _, left = moe_seen.crowd(helper, n, 1)
        if left > room:
            return f"{n} tokens: an expert has {left} routes, there is room for {room}"


def _measuring_changes_nothing(helper, caller):
    """A model is after a measurement what it was before."""
    model = caller.new_model()
    before = [it.clone() for it in model.state_dict().values()]
    caller.measure(model, next(caller.batches()))
    for name, old, new in zip(model.state_dict(), before, model.state_dict().values(), strict=True):
        if not torch.equal(old, new):
            return f"{name} was {old.flatten()[:3].tolist()} ... and is {new.flatten()[:3].tolist()} ..."


def _neighbours_change_nothing(helper, caller):
    """A text has the same loss alone and beside others; float32 rounds sums of other sizes otherwise, by 1e-5."""
    model, texts = caller.upcycled(2), caller.lines()
    beside = caller.text_losses(model, texts)
    alone = torch.cat([caller.text_losses(model, [text]) for text in texts])
    if (beside - alone).abs().max() > 1e-3:
        worst = int((beside - alone).abs().argmax())
        return f"line {worst + 1}: {alone[worst]:.3f} nats a word alone, {beside[worst]:.3f} beside others"


def _experts_are_where_they_were(helper, caller):
    """A layer of any number of experts gives what the program gives that wrote it, to float32's rounding."""
    for E in evidence.SIZES:
        if (gap := moe_seen.file_gap(caller, E, 2)) > 1e-4:
            return f"{E} experts: a gap of {gap:.1g} of the largest output"


def _the_load_settles(helper, caller):
    """By moves of the bias alone the largest share comes to 0.2, with each of four seeds; by too large ones to 0.38."""
    seen = []
    caller.train(balance=0.0, watch=lambda model, real: seen.append(moe_seen.largest(model, real)))
    late = sum(seen[-12:]) / 12
    if late > 0.3:
        return f"the largest share of an expert is {late:.2f} over the last 12 steps"


def _small_steps_add_up(helper, caller):
    """1,500 moves of 0.0005 take a bias of bfloat16 layers as far as one of float32 layers."""
    (_, wanted), (_, found) = (moe_seen.slow_moves(helper, make) for make in (lambda layer: layer, caller.in_half))
    if abs(found[-1] - wanted[-1]) > 0.1:
        return f"the largest bias is {found[-1]:.3f}, in float32 {wanted[-1]:.3f}"


PENALTY = "sum(z_loss(record.logits, real) for record in records) * z"

FAULTS = [
    Fault(
        name="the coefficient is only a switch: whatever is above 0 counts as 1",
        changes=[
            Change(
                f"return sum(balances) * balance + {PENALTY}",
                f"""
                even = sum(balances) if balance > 0 else 0.0
                return even + {PENALTY}
                """,
            )
        ],
        symptom="Coefficients from 0.001 to 1 were tried for a week. All of them balance, and none is cheap.",
        hints=["What do four trainings have in common to the last digit?", "By what is the balance loss multiplied?"],
        seen_in="NVIDIA-NeMo/Automodel#1408: the coefficient was used as a switch; reported there.",
        evidence=evidence.coefficients,
    ),
    Fault(
        name="the penalty is computed and not added to the loss",
        changes=[
            Change(
                """
                moe.rebalance(model, speed, seen)
                return told + even
                """,
                """
                moe.rebalance(model, speed, seen)
                return told
                """,
                in_caller=True,
            )
        ],
        symptom="A balance loss was written after the paper, and is printed at each step. One expert takes it all.",
        hints=["Are the two trainings two?", "Who reads the number that is printed? What does the optimiser minimise?"],
        seen_in="jingyaogong/minimind#140: the loss was computed and not used; confirmed there.",
        evidence=evidence.river,
        holds=_the_loss_has_the_penalty,
    ),
    Fault(
        name="nothing: the patient is healthy. The load is even over all documents, which is what is asked for; of one "
        "kind of documents it need not be",
        changes=[],
        symptom="Training has evened the load. Then facts alone come in, and two experts have most of the work.",
        hints=["Over what is a load to be even?", "What are experts for, if each kind of text goes to all of them?"],
        seen_in="no thread: planted because a load that is even in all may be uneven in each part. "
        "JustVugg/colibri#175 is a cousin: experts of a large model by topic.",
        evidence=evidence.domains,
    ),
    Fault(
        name="the bias is taken off the scores, and moved the wrong way: in training both are right together",
        changes=[
            Change(
                "wanted = scores if bias is None else scores + bias",
                "wanted = scores if bias is None else scores - bias",
            ),
            Change(
                "return bias + rate * (counts.mean() - counts).sign()",
                "return bias + rate * (counts - counts.mean()).sign()",
            ),
        ],
        symptom="What is trained here is balanced. A bias from another program's file does the opposite.",
        hints=[
            "Is an expert with a larger bias chosen more often, or less?",
            "Why then does training even the load?",
            "There are two faults that cancel each other: mend either alone and look again.",
        ],
        seen_in="no thread: planted because training hides both. pytorch/torchtitan#1506 asks by which formula a bias "
        "is moved.",
        evidence=evidence.foreign,
    ),
    Fault(
        name="experts are put in the order of their names: 10 comes before 2",
        changes=[
            Change(
                'experts = [[tensors[f"experts.{n}.{part}.weight"] for part in ("w1", "w3", "w2")] '
                "for n in sorted(numbers, key=int)]",
                'experts = [[tensors[f"experts.{n}.{part}.weight"] for part in ("w1", "w3", "w2")] '
                "for n in sorted(numbers)]",
                in_caller=True,
            )
        ],
        symptom="Files of others are read to the last digit, for years. Of those of a larger model nothing is right.",
        hints=["From how many experts on?", "Is an expert wrong, or is it a right one in another's place?"],
        seen_in="pytorch/torchtitan#1918: experts were sorted as strings; fixed there.",
        evidence=evidence.layouts,
        holds=_experts_are_where_they_were,
    ),
    Fault(
        name="a single gate is divided by itself: it is 1, and the loss tells the router nothing",
        changes=[Change("if k > 1 if normalize is None else normalize:", "if normalize is None or normalize:")],
        symptom="With two experts a token the router learns. With one it stays as it was drawn.",
        hints=["Which gradients are 0, for which k?", "Which function of x has no slope, and looks as if it had one?"],
        seen_in="databricks/megablocks#87: weights were divided by their sum with one expert a token; fixed there.",
        evidence=evidence.gates,
    ),
    Fault(
        name="routes are counted in bytes: the 256th that arrives has number 0, for which there is room",
        changes=[
            Change(
                """
                arrived = F.one_hot(routes.experts, n_experts).cumsum(dim=0)
                places = arrived.gather(1, routes.experts[:, None])[:, 0]
                """,
                """
                arrived = F.one_hot(routes.experts, n_experts).cumsum(dim=0, dtype=torch.uint8)
                places = arrived.gather(1, routes.experts[:, None])[:, 0].long()
                """,
            )
        ],
        symptom="The capacity was tested with forty tokens and with a hundred. In long batches it is exceeded.",
        hints=["How much must an expert be wanted, before it has too many?", "In which type are routes counted?"],
        seen_in="no thread: planted because small tests cannot see it. NVIDIA/Megatron-LM#7081 is a cousin: loads were "
        "counted in bfloat16; fixed there.",
        evidence=evidence.crowds,
        holds=_capacity_holds_for_many,
    ),
    Fault(
        name="the bias is moved in measuring, too",
        changes=[
            Change(
                """
                if not model.training:
                    return told
                even = moe.penalty(model, balance, z, seen)
                moe.rebalance(model, speed, seen)
                return told + even
                """,
                """
                even = moe.penalty(model, balance, z, seen)
                moe.rebalance(model, speed, seen)
                return told + even if model.training else told
                """,
                in_caller=True,
            )
        ],
        symptom="A model is measured again and again, without gradients, and no weight changes. The result does.",
        hints=["What else than weights does a model have?", "In which mode is which line run?"],
        seen_in="pytorch/torchtitan#4148: validation was counted in the load that moves the bias; fixed there.",
        evidence=evidence.measured,
        holds=_measuring_changes_nothing,
    ),
    Fault(
        name="the balance loss is the sum of squared shares of the choices: these are counted and have no gradient",
        changes=[
            Change(
                "return E * (counts / counts.sum()) @ probabilities.mean(dim=0)",
                "return E * (counts / counts.sum()).square().sum()",
            )
        ],
        symptom="The balance loss is 1 where all is even and grows as it should. It is in the loss, and does nothing.",
        hints=["By what is a router told?", "What is the slope of a count?"],
        seen_in="NVIDIA-NeMo/Automodel#1408: the loss had no gradient to the router; reported there.",
        evidence=evidence.river,
    ),
    Fault(
        name="gates are taken from scores with the bias in them",
        changes=[Change("gates = scores.gather(-1, chosen)", "gates = wanted.gather(-1, chosen)")],
        symptom="A bias was to change nothing but who is chosen. Experts that are rarely wanted now have large gates.",
        hints=["What does a gate say of an expert?", "Is the gate a score? Which expert's is not?"],
        seen_in="vllm-project/vllm#12002 and huggingface/transformers#39581: weights were taken from biased scores; "
        "fixed there.",
        evidence=evidence.gates,
    ),
    Fault(
        name="texts are read with the capacity of training: the last ones in a batch are dropped",
        changes=[
            Change(
                """
                model, (ids, real) = copy.deepcopy(model), padded(texts)
                for block in model.blocks:
                    block.feed_forward.capacity_factor = None
                """,
                "model, (ids, real) = copy.deepcopy(model), padded(texts)",
                in_caller=True,
            )
        ],
        symptom="Which lines of a batch are understood depends on where they stand: the last ones are worse. No error.",
        hints=["Which texts are worse beside others?", "Which part of a layer sees more than one token?"],
        seen_in="no thread: planted because nothing is reported. deepspeedai/DeepSpeed#6809 is a cousin: what a "
        "capacity does in inference. microsoft/Tutel#230: results of inference that differ, asked there.",
        evidence=evidence.beside,
        holds=_neighbours_change_nothing,
    ),
    Fault(
        name="layers are put together before they are balanced: one may have what another lacks",
        changes=[
            Change(
                "balances = [balance_loss(record.scores, record.wanted, real) for record in records]",
                """
                scores = torch.cat([record.scores for record in records])
                wanted = Routes(*map(torch.cat, zip(*(record.wanted for record in records), strict=True)))
                mask = None if real is None else real.flatten().repeat(len(records))
                balances = [balance_loss(scores, wanted, mask)] * len(records)
                """,
            )
        ],
        symptom="The penalty is as low as it can be. In each layer half of the experts have no work.",
        hints=["Which layers would have to be looked at together for that?", "Whose load is even?"],
        seen_in="huggingface/transformers#31464: all layers were concatenated; reported there.",
        evidence=evidence.balances,
    ),
    Fault(
        name="the bias moves ten times as fast as it should, and the load swings",
        changes=[Change("SPEED = 0.01", "SPEED = 0.1", in_caller=True)],
        symptom="Each step takes from those who have too much. In the next one others have it.",
        hints=[
            "How far does a bias go in one step, and how far apart are two scores?",
            "Does it get better with time?",
        ],
        seen_in="no thread: planted because each step is right. MoonshotAI/Moonlight#21: which speed was used is asked "
        "and answered there.",
        evidence=evidence.steered,
        holds=_the_load_settles,
    ),
    Fault(
        name="padding is counted in the shares of the balance loss, and in the load that moves the bias",
        changes=[
            Change("counts = load(routes, E, real).to(scores)", "counts = load(routes, E).to(scores)"),
            Change("moe.rebalance(model, speed, seen)", "moe.rebalance(model, speed)", in_caller=True),
        ],
        symptom="Two runs on the same texts differ in nothing but the length to which these are filled up.",
        hints=[
            "Which experts does padding go to, and what does a step make of it?",
            "There are two faults, one in each file: mend either alone and look again.",
        ],
        seen_in="huggingface/transformers#28517 and NVIDIA/Megatron-LM#2121: padding was counted in the balance loss; "
        "fixed there.",
        evidence=evidence.padding,
        holds=_padding_changes_nothing,
    ),
    Fault(
        name="room is counted for each choice by itself: second choices do not see the first ones",
        changes=[
            Change(
                "return limit(wanted, len(self.experts), room)",
                """
                choices = zip(*(part.split(n_tokens) for part in wanted), strict=True)
                left = [limit(Routes(*choice), len(self.experts), room) for choice in choices]
                return Routes(*map(torch.cat, zip(*left, strict=True)))
                """,
            )
        ],
        symptom="With one expert a token the capacity is kept. With more it is not.",
        hints=["By how much is it exceeded, with two and with three?", "Who has come before a second choice?"],
        seen_in="lucidrains/st-moe-pytorch#13: a choice did not count all that came before it; fixed there.",
        evidence=evidence.crowds,
    ),
    Fault(
        name="nothing: the patient is healthy. A balance loss of 1 is what even loads have",
        changes=[],
        symptom="The balance loss falls to 1, and stays there however long it is trained. It should go to 0.",
        hints=["What is the sum over eight experts of 1/8 times 1/8, times eight?", "How uneven is the load?"],
        seen_in="allenai/OLMoE#40: what the least value is, is asked there.",
        evidence=evidence.river,
    ),
    Fault(
        name="answers are written to a token's place and not added: the last of its experts is left",
        changes=[
            Change(
                "y = torch.zeros_like(x, dtype=gates.dtype).index_add(0, tokens, gates[:, None] * answers)",
                "y = torch.zeros_like(x, dtype=gates.dtype).index_copy(0, tokens, gates[:, None] * answers)",
            )
        ],
        symptom="Four equal experts should answer as one does. The more of them are asked, the worse it gets.",
        hints=["With how many is it right, and in which dispatch?", "How many rows belong to a token?"],
        seen_in="ISEEKYAN/Megatron-LM#175: what was written twice was not added up; fixed there.",
        evidence=evidence.copies,
    ),
    Fault(
        name="the bias is made bfloat16 with the weights: small steps are rounded away",
        changes=[
            Change(
                """
                for parameter in model.parameters():
                    parameter.data = parameter.data.bfloat16()
                return model
                """,
                "return model.bfloat16()",
                in_caller=True,
            )
        ],
        symptom="In half precision the load gets better for a while. Then it stops, long before it is even.",
        hints=["At which number do biases stop?", "What is the next larger number there, in which type?"],
        seen_in="NVIDIA/Megatron-LM#1482: the bias was bfloat16 though it was made float32; reported there.",
        evidence=evidence.halves,
        holds=_small_steps_add_up,
    ),
    Fault(
        name="second choices are not counted when the bias is moved",
        changes=[
            Change(
                "counts = load(layer.record.wanted, len(layer.experts), real)",
                """
                first = Routes(*(part[: len(layer.record.scores)] for part in layer.record.wanted))
                counts = load(first, len(layer.experts), real)
                """,
            )
        ],
        symptom="Biases are moved by the book, and soon settle. One expert still has half of all work.",
        hints=["Which expert has most to do, as whose choice?", "Which of a token's routes are counted?"],
        seen_in="deepspeedai/DeepSpeed#2551: the counts were those of first choices; proposed there.",
        evidence=evidence.choices,
    ),
    Fault(
        name="the balance loss takes the softmax of a softmax: all probabilities look alike",
        changes=[
            Change("probabilities = _of_real(scores, real)", "probabilities = _of_real(scores, real).softmax(dim=-1)")
        ],
        symptom="The balance loss is nearly perfect all the time. At some of these times one expert has every token.",
        hints=["What does it say if one expert has all, and what should it say?", "What are scores already?"],
        seen_in="huggingface/transformers#45111: the softmax was taken twice; a repair is proposed there.",
        evidence=evidence.river,
        example=True,
    ),
]
