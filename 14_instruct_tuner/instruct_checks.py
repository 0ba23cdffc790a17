"""What a right `instruct.py` must do. Each check takes the module, so that a reader's functions and a patient can be
asked the same. `instruct_text_checks`: template and targets. `instruct_pack_checks`: packing. `instruct_loss_checks`:
losses and preferences. `instruct_lora_checks`: LoRA's layer. `instruct_adapter_checks`: a model with adapters. The
templates and conversations that they use: `instruct_cases`.
"""

import math

import torch
from instruct_adapter_checks import ADAPTER_CHECKS
from instruct_cases import FLOAT, IGNORE, draw, largest_difference, seeded
from instruct_lora_checks import LORA_CHECKS
from instruct_loss_checks import LOSS_CHECKS
from instruct_pack_checks import PACK_CHECKS
from instruct_text_checks import TEXT_CHECKS

from shared.clinic import Check

CHECKS = [*TEXT_CHECKS, *PACK_CHECKS, *LOSS_CHECKS, *LORA_CHECKS, *ADAPTER_CHECKS]


def _check_dora(m):
    for d_out, d_in, rank, scale in ((5, 7, 1, 2.0), (11, 4, 3, 0.5)):
        W, A, B = draw(d_out, d_in), draw(rank, d_in, seed=1), draw(d_out, rank, seed=2)
        given = f"W of {d_out} outputs and {d_in} inputs, rank {rank}"
        lengths = torch.stack([row.norm() for row in W])
        if gap := largest_difference(m.dora_weight(W, A, torch.zeros_like(B), scale, lengths), W, "row column"):
            return f"{given}, before the first step, {gap}, as W"
        magnitude = draw(d_out, seed=3)
        moved = W + scale * sum(B[:, r, None] * A[r] for r in range(rank))
        wanted = torch.stack([magnitude[i] * row / math.sqrt(float(row @ row)) for i, row in enumerate(moved)])
        if gap := largest_difference(m.dora_weight(W, A, B, scale, magnitude), wanted, "row column"):
            return f"{given}, scale {scale}, {gap}"


def _check_extract(m):
    for d_out, d_in, rank in ((6, 9, 1), (9, 6, 2), (7, 7, 5)):
        before, any_change = draw(d_out, d_in), draw(d_out, d_in, seed=1)
        low = draw(d_out, rank, seed=2) @ draw(rank, d_in, seed=3)
        for what, change in (("a change of full rank", any_change), (f"a change of rank {rank}", low)):
            given = f"{d_out} outputs, {d_in} inputs, {what}, rank {rank}"
            A, B = m.extract_lora(before, before + change, rank)
            if (found := (tuple(A.shape), tuple(B.shape))) != ((rank, d_in), (d_out, rank)):
                return f"{given}: A and B have shapes {found}, expected {((rank, d_in), (d_out, rank))}"
            missing = float((B @ A - change).norm())
            least = float(torch.linalg.svdvals(change)[rank:].norm())  # Eckart and Young 1936
            if not missing <= least + 1e-9:
                return f"{given}: B A misses the change by {missing:.4f}, expected {least:.4f}, the least that there is"


def _check_reverse_kl(m):
    student, teacher = 2 * draw(3, 5, 7), 2 * draw(3, 5, 7, seed=1)
    targets = torch.randint(7, (3, 5), generator=seeded()).masked_fill(draw(3, 5, seed=2) > 0, IGNORE)
    asked = (targets != IGNORE).nonzero().tolist()
    nats = []
    for b, t in asked:
        p, q = student[b, t].softmax(0), teacher[b, t].softmax(0)
        nats.append(sum(p[i] * (p[i].log() - q[i].log()) for i in range(7)))
    if gap := largest_difference(m.reverse_kl(student, teacher, targets), sum(nats) / len(nats)):
        return f"{len(asked)} targets, 7 tokens, {gap}"
    if gap := largest_difference(m.reverse_kl(teacher, teacher, targets), torch.zeros((), dtype=FLOAT)):
        return f"a student that is its teacher, {gap}"
    student.requires_grad_()
    teacher.requires_grad_()
    found = torch.autograd.grad(m.reverse_kl(student, teacher, targets), [student, teacher], allow_unused=True)
    if found[1] is not None and found[1].any():
        return "the teacher has a gradient, expected none"
    wanted = torch.autograd.grad(_reverse_kl(student, teacher.detach(), asked), student)[0]
    if gap := largest_difference(found[0], wanted, "row position logit"):
        return f"gradient by the student's logits, {gap}"
    nothing = float(m.reverse_kl(student.detach(), teacher.detach(), torch.full_like(targets, IGNORE)))
    if nothing != 0:
        return f"no target: found {nothing}, expected 0"


def _reverse_kl(student, teacher, asked):
    rows = [(student[b, t].log_softmax(0), teacher[b, t].log_softmax(0)) for b, t in asked]
    return sum((p.exp() * (p - q)).sum() for p, q in rows) / len(rows)


EXERCISES = [
    Check(
        "dora_weight turns W's rows by B A and gives each the length of its own that is learnt",
        _check_dora,
        "What is a row's direction, what is its length, and which of them does B A change?",
    ),
    Check(
        "extract_lora finds the A and B of a rank that come nearest to what training changed",
        _check_extract,
        "Which of a matrix's singular values may be left out, and where do the others go?",
    ),
    Check(
        "reverse_kl is how much likelier the student finds what it would say than the teacher does, in nats a target",
        _check_reverse_kl,
        "By whose probabilities is it a mean, and over which positions?",
    ),
]
