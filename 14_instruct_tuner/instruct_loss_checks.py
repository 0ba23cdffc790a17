"""Checks of `instruct.py`: the loss on answers and its gradient, steps read in parts, preferences."""

import math

import torch
from instruct_cases import (
    IGNORE,
    ROW,
    VOCABULARY,
    batch_by_hand,
    conversations,
    draw,
    first_difference,
    largest_difference,
    packed,
    seeded,
    small_model,
)

from shared.clinic import Check

SHAPES = [(3, 7, VOCABULARY), (1, 5, 11), (4, 1, 3)]
PART_SIZES = [[0, 1, 4], [5], [3], [2]]  # conversations of each part: 8, 3, 0 and 1 targets


def _case(shape, asked=0.4, seed=0):
    """Logits of size 3, and targets at some positions; at least one."""
    B, T, V = shape
    targets = torch.randint(V, (B, T), generator=seeded(seed))
    gone = torch.rand(B, T, generator=seeded(seed + 1)) >= asked
    gone[0, 0] = False
    return 3 * draw(*shape, seed=seed), targets.masked_fill(gone, IGNORE)


def _nats(logits, targets):
    """The cross entropy of each target, one after the other."""
    return [
        (logits[b, t].exp().sum().log() - logits[b, t, targets[b, t]])
        for b, t in (targets != IGNORE).nonzero().tolist()
    ]


def _number(found):
    return found if isinstance(found, torch.Tensor) else torch.tensor(found)


def _check_loss(m):
    for seed, shape in enumerate(SHAPES):
        logits, targets = _case(shape, seed=seed)
        nats = _nats(logits, targets)
        for of in (None, 1, 5, 1000):
            wanted = sum(nats) / (len(nats) if of is None else of)
            if gap := largest_difference(_number(m.answer_loss(logits, targets, of)), wanted):
                return f"logits {shape}, {len(nats)} targets of {targets.numel()} positions, of={of}: {gap}"


def _check_prompt_logits(m):
    """What is said where nothing is asked for changes neither the loss nor what is learnt."""
    logits, targets = _case(SHAPES[0])
    asked = targets != IGNORE
    other = torch.where(asked[..., None], logits, 5 * draw(*logits.shape, seed=9))
    found, wanted = (_with_gradient(m, it, targets) for it in (other, logits))
    if gap := largest_difference(found[0], wanted[0], other="before"):
        return f"other logits at the {int((~asked).sum())} positions without a target, the loss, {gap}"
    if gap := largest_difference(found[1], wanted[1], "row position logit", other="before"):
        return f"other logits at the {int((~asked).sum())} positions without a target, the gradient, {gap}"
    if (wrong := wanted[1].abs().sum(-1)[~asked]).any():
        return f"{int((wrong > 0).sum())} of {len(wrong)} positions without a target have a gradient, expected none"


def _with_gradient(m, logits, targets):
    logits = logits.clone().requires_grad_()
    loss = m.answer_loss(logits, targets)
    return loss.detach(), torch.autograd.grad(loss, logits)[0]


def _check_nothing_asked(m):
    for shape in SHAPES:
        for of in (None, 0, 5):
            given = f"logits {shape}, no target, of={of}"
            logits, targets = draw(*shape).requires_grad_(), torch.full(shape[:2], IGNORE)
            loss = m.answer_loss(logits, targets, of)
            if not torch.equal(loss.detach(), torch.zeros_like(loss)):
                return f"{given}: the loss is {float(loss.detach())}, expected 0"
            if not loss.requires_grad:
                return f"{given}: the loss has no gradient, so that a step of training would stop"
            (gradient,) = torch.autograd.grad(loss, logits)
            if gap := largest_difference(gradient, torch.zeros_like(logits), "row position logit", 0):
                return f"{given}, the gradient, {gap}"


def _check_precision(m):
    for dtype, kept in ((torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float32,) * 2):
        logits, targets = _case(SHAPES[0])
        logits = logits.to(dtype)
        loss = m.answer_loss(logits, targets)
        if loss.dtype != kept:
            return f"logits in {dtype}: the loss is {loss.dtype}, expected {kept}"
        nats = _nats(logits.double(), targets)
        if gap := largest_difference(loss.double(), sum(nats) / len(nats), tolerance=1e-5):  # float32 rounds at 1e-7
            return f"logits in {dtype}, {gap}"
    if (found := m.answer_loss(*_case(SHAPES[0])).dtype) != torch.float64:
        return f"logits in float64: the loss is {found}"


def _check_large(m):
    logits, targets = _case(SHAPES[0])
    for shift in (1e4, -1e4):
        found = m.answer_loss(logits + shift, targets)
        if gap := largest_difference(found, m.answer_loss(logits, targets), tolerance=1e-6):  # 1e4 in float64
            return f"{shift:g} added to all logits: {gap}, as without"


def _check_gradient(m):
    for seed, shape in enumerate(SHAPES):
        logits, targets = _case(shape, seed=seed)
        at = logits.clone().requires_grad_()
        nats = _nats(at, targets)
        (wanted,) = torch.autograd.grad(sum(nats) / len(nats), at)
        given = f"logits {shape}, {len(nats)} targets of {targets.numel()} positions"
        if gap := largest_difference(m.answer_loss_gradient(logits, targets), wanted, "row position logit"):
            return f"{given}, by hand and by autograd, {gap}"
        if gap := largest_difference(_with_gradient(m, logits, targets)[1], wanted, "row position logit"):
            return f"{given}, the loss's gradient, {gap}"
    nothing = torch.full(shape[:2], IGNORE)
    if gap := largest_difference(
        m.answer_loss_gradient(logits, nothing), torch.zeros_like(logits), "row position logit"
    ):
        return f"no target, by hand, {gap}"


def _check_untouched(m):
    logits, targets = _case(SHAPES[0])
    fresh = _case(SHAPES[0])
    m.answer_loss(logits, targets)
    m.answer_loss_gradient(logits, targets)
    m.answer_log_probability(logits, targets)
    if gap := first_difference(targets, fresh[1], "row position"):
        return f"the targets that were given, afterwards, {gap}"
    if gap := largest_difference(logits, fresh[0], "row position logit", 0):
        return f"the logits that were given, afterwards, {gap}"


def _step_by_hand(model, of):
    """The loss of a step and its gradients, each conversation read in a row of its own."""
    total, n = 0.0, 0
    for ids, answer in of:
        targets = torch.tensor([[token if its else IGNORE for token, its in zip(ids[1:], answer[1:], strict=True)]])
        nats = _nats(model(torch.tensor([ids[:-1]])), targets)
        total, n = total + sum(nats), n + len(nats)
    return total / n, torch.autograd.grad(total / n, list(model.parameters()))


def _gradients_differ(model, wanted, times=1):
    for (name, parameter), gradient in zip(model.named_parameters(), wanted, strict=True):
        if parameter.grad is None:
            return f"{name}: found no gradient"
        axes = "row column" if gradient.dim() == 2 else "entry"
        if gap := largest_difference(parameter.grad, times * gradient, axes):
            return f"gradient of {name}, {gap}"


def _check_tuning_loss(m):
    model = small_model()
    loss, gradients = _step_by_hand(model, conversations(m))
    found = m.tuning_loss(model, *packed(m))
    if gap := largest_difference(found, loss):
        return f"a packed batch, {gap}, as of each conversation by itself"
    found.backward()
    if gap := _gradients_differ(model, gradients):
        return f"a packed batch, {gap}, as of each conversation by itself"


def _check_parts(m):
    model, of = small_model(), conversations(m)
    loss, gradients = _step_by_hand(model, of)
    for sizes in (PART_SIZES, [[0], [1], [2], [3], [4], [5]], [[3], [0, 1, 2], [4, 5]], [range(6)]):
        parts = [batch_by_hand(m, [[of[i]] for i in part], ROW, 3) for part in sizes]
        given = f"parts of {[int((part.targets != IGNORE).sum()) for part in parts]} targets"
        model.zero_grad()
        for times in (1, 2):
            found = m.backward_in_parts(model, parts)
            if gap := largest_difference(torch.tensor(float(found), dtype=loss.dtype), loss.detach()):
                return f"{given}, the loss, {gap}"
            if gap := _gradients_differ(model, gradients, times):
                return f"{given}, after {times} call{'s' * (times > 1)}, {gap}"


def _check_parts_of_nothing(m):
    model = small_model()
    found = m.backward_in_parts(model, [batch_by_hand(m, [[conversations(m)[3]]], ROW, 3)])
    if float(found) != 0:
        return f"one part without a target: the loss is {float(found)}, expected 0"
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not (parameter.grad == 0).all():
            return f"one part without a target: {name} has a gradient that is not 0"


def _check_log_probability(m):
    for seed, shape in enumerate(SHAPES):
        logits, targets = _case(shape, seed=seed)
        found = m.answer_log_probability(logits, targets)
        rows = [
            -sum(_nats(logits[b : b + 1], targets[b : b + 1]), torch.zeros((), dtype=logits.dtype))
            for b in range(shape[0])
        ]
        if gap := largest_difference(found, torch.stack(rows), "row"):
            counts = (targets != IGNORE).sum(dim=1).tolist()
            return f"logits {shape}, rows of {counts} targets, {gap}"


def _pairs(n=5):
    return [-12 + 4 * draw(n, seed=seed) for seed in range(4)]


def _check_preference(m):
    for n in (5, 1):
        chosen, rejected, reference_chosen, reference_rejected = of = _pairs(n)
        for beta in (0.1, 1.0, 3.0):
            wanted = 0.0
            for i in range(n):
                margin = float(chosen[i] - rejected[i]) - float(reference_chosen[i] - reference_rejected[i])
                wanted += math.log(1 + math.exp(-beta * margin)) / n
            found = m.preference_loss(*of, beta)
            if gap := largest_difference(_number(found), torch.tensor(wanted, dtype=torch.float64)):
                return f"{n} pairs, beta {beta}, by the formula, {gap}"


def _check_preference_start(m):
    chosen, rejected, *_ = _pairs()
    for beta in (0.1, 3.0):
        found = float(m.preference_loss(chosen, rejected, chosen, rejected, beta))
        if not abs(found - math.log(2)) < 1e-9:
            return f"a model that is its own reference, beta {beta}: found {found:.6f}, expected log 2 = 0.693147"


def _check_preference_gradient(m):
    """beta / n times how unsure it is: down for the chosen, up for the rejected."""
    beta, of = 0.7, _pairs()
    learnt = [it.requires_grad_() for it in of[:2]]
    found = torch.autograd.grad(m.preference_loss(*of, beta), learnt)
    with torch.no_grad():
        unsure = (-beta * ((of[0] - of[1]) - (of[2] - of[3]))).sigmoid() * beta / 5
    for name, gradient, sign in zip(("chosen", "rejected"), found, (-1, 1), strict=True):
        if gap := largest_difference(gradient, sign * unsure, "pair"):
            return f"gradient of the loss by the log-probability of {name}, {gap}"


def _check_preference_far(m):
    """Margins at which exp overflows."""
    zero = torch.zeros(1)
    for margin, wanted in ((-3000.0, 1500.0), (3000.0, 0.0)):
        chosen = torch.tensor([margin], requires_grad=True)
        loss = m.preference_loss(chosen, zero, zero, zero, 0.5)
        if not abs(float(loss.detach()) - wanted) <= 1e-3:
            return f"margin {margin:g}, beta 0.5: found {float(loss.detach()):g}, expected {wanted:g}"
        (gradient,) = torch.autograd.grad(loss, chosen)
        if not gradient.isfinite().all():
            return f"margin {margin:g}, beta 0.5: the gradient is {float(gradient)}"


LOSS_CHECKS = [
    Check(
        "the loss is the mean cross entropy of the targets, or their sum divided by another number",
        _check_loss,
        "Which positions have a part in the sum, and by what is it divided?",
        about=["answer_loss"],
    ),
    Check(
        "where nothing is asked for, nothing is learnt",
        _check_prompt_logits,
        "Which positions have a part in the sum?",
        about=["answer_loss"],
    ),
    Check(
        "without any target the loss is 0, and so is its gradient",
        _check_nothing_asked,
        "What is a mean over no numbers?",
        about=["answer_loss"],
    ),
    Check(
        "logits of half precision give a loss in float32",
        _check_precision,
        "In which precision is the softmax taken?",
        about=["answer_loss"],
    ),
    Check("a number that is added to all logits changes nothing", _check_large, about=["answer_loss"]),
    Check(
        "the gradient by hand is autograd's",
        _check_gradient,
        "What is the derivative of a logit's own term, of the sum of exponentials, and of the mean?",
        about=["answer_loss", "answer_loss_gradient"],
    ),
    Check(
        "logits and targets are left as they were",
        _check_untouched,
        about=["answer_loss", "answer_loss_gradient", "answer_log_probability"],
    ),
    Check(
        "the loss of packed rows is that of the conversations, and so is its gradient",
        _check_tuning_loss,
        "What does a packed row lack, or have too much, against rows of their own?",
        about=["tuning_loss", "read", "answer_loss", "packing_mask"],
    ),
    Check(
        "read in uneven parts, a step has the loss and the gradient of the whole",
        _check_parts,
        "How many targets has each part, and how much should each of them count?",
        about=["backward_in_parts", "answer_loss"],
    ),
    Check(
        "a step without any target changes nothing",
        _check_parts_of_nothing,
        "What is divided by what, if nothing is asked for?",
        about=["backward_in_parts", "answer_loss"],
    ),
    Check(
        "an answer's log-probability is the sum over its tokens",
        _check_log_probability,
        "Which positions have a part in the sum?",
        about=["answer_log_probability"],
    ),
    Check(
        "the preference loss is that of DPO's formula",
        _check_preference,
        "What is compared with what, and where does beta stand?",
        about=["preference_loss"],
    ),
    Check(
        "a model that is its own reference has a preference loss of log 2",
        _check_preference_start,
        "How sure is a model that has not moved?",
        about=["preference_loss"],
    ),
    Check(
        "it pushes the chosen answer up and the rejected one down, each pair as far as the model is unsure",
        _check_preference_gradient,
        "By which of the four does the loss fall, and by which does it rise?",
        about=["preference_loss"],
    ),
    Check(
        "it is finite, however far the model has moved",
        _check_preference_far,
        "What is the exponential of 1,500?",
        about=["preference_loss"],
    ),
]
