"""Lesson 14: template, loss, packing and preferences against transformers' Llama and PyTorch's own losses. (Its clinic:
test_clinics.py. LoRA: test_instruct_lora.py. SmolLM2's template: test_real_instruct.py.)"""

from pathlib import Path
from types import SimpleNamespace

import instruct
import pytest
import torch
from folded import solutions
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from instruct_checks import EXERCISES
from instruct_world import TEMPLATE
from small_models import EXACT, FLOAT, draw
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from shared.clinic import checks, examine, graft
from shared.hf_model import load_model
from shared.world.words import ID

FLOAT32 = {"atol": 1e-5, "rtol": 0}  # float32 rounds at 1e-7; sums of some hundred terms of size 1
NOTEBOOK = Path(instruct.__file__).with_name("instruct_vis.ipynb")
VOCABULARY = 50
CHAT = instruct.Template(
    begin=[40],
    opens={"system": [41, 42], "user": [41, 43], "assistant": [41, 44]},
    closes={"system": [45, 46], "user": [45, 46], "assistant": [45, 46]},
    stop=45,
    padding=45,
)
words = st.lists(st.integers(0, 39), max_size=5)


def talks(roles, said):
    """Any messages."""
    return st.lists(st.tuples(st.sampled_from(roles), said), max_size=6)


def conversations(template=CHAT):
    """Four, of uneven lengths: two turns, no answer, an empty answer, one answer."""
    of = [
        [("system", [1, 2]), ("user", [3]), ("assistant", [4, 5, 6]), ("user", [7, 8]), ("assistant", [9])],
        [("user", [10, 11])],
        [("user", [12]), ("assistant", [])],
        [("user", [13, 14, 15]), ("assistant", [16, 17, 18, 19])],
    ]
    return [instruct.render(messages, template) for messages in of]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """transformers' Llama with large random weights, and the same in the house's decoder, both float64."""
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 3, "max_position_embeddings": 80}
    theirs = LlamaForCausalLM(
        LlamaConfig(**sizes, **heads, initializer_range=0.3, bos_token_id=None, eos_token_id=None)
    )
    theirs.save_pretrained(folder := tmp_path_factory.mktemp("llama"))
    return theirs.double().eval(), load_model(folder).double()


def labels(conversation):
    """As transformers takes them: at a token's own position, not at the one before it."""
    return torch.tensor([[token if its else -100 for token, its in zip(*conversation, strict=True)]])


def test_a_packed_step_is_transformers_of_each_conversation_alone(both):
    """The loss of a step, its gradient at the embedding, and each answer's log-probability. They shift labels
    themselves and read each conversation in a row of its own; their angles are float32."""
    theirs, ours = both
    of = conversations()
    nats = []
    for each in of:
        logits = theirs(torch.tensor([each.ids])).logits[:, :-1]
        nats.append(F.cross_entropy(logits.flatten(0, 1), labels(each)[0, 1:], reduction="sum"))
    wanted = sum(nats) / sum(sum(each.answer) for each in of)
    for batch in (instruct.pack(of, 40, CHAT), instruct.pack(of, 80, CHAT), instruct.pad(of, CHAT)):
        found = instruct.tuning_loss(ours, *batch)
        torch.testing.assert_close(found, wanted, **FLOAT32)
        (one,) = torch.autograd.grad(found, ours.embedding.weight)
        (other,) = torch.autograd.grad(wanted, theirs.model.embed_tokens.weight, retain_graph=True)
        torch.testing.assert_close(one, other, **FLOAT32)
    found = instruct.answer_log_probability(instruct.read(ours, batch), batch.targets)
    torch.testing.assert_close(found, -torch.stack(nats), **FLOAT32)


def test_one_conversation_has_transformers_loss(both):
    theirs, ours = both
    for each in conversations():
        if any(each.answer):
            wanted = theirs(torch.tensor([each.ids]), labels=labels(each)).loss
            found = instruct.tuning_loss(ours, *instruct.pad([each], CHAT))
            torch.testing.assert_close(found.float(), wanted.float(), **FLOAT32)  # theirs is float32


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 99), B=st.integers(1, 4), T=st.integers(1, 6), V=st.integers(2, 9), data=st.data())
def test_the_loss_is_pytorchs(seed, B, T, V, data):
    """With `ignore_index`, as a mean; in half precision PyTorch's own after a conversion."""
    dtype = data.draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]))
    logits = (3 * draw(B, T, V, seed=seed)).to(dtype)
    targets = torch.randint(-1, V, (B, T), generator=torch.Generator().manual_seed(seed))
    targets[targets < 0] = -100
    assume((targets != -100).any())
    wide = logits if dtype == torch.float64 else logits.float()
    wanted = F.cross_entropy(wide.transpose(1, 2), targets)
    torch.testing.assert_close(instruct.answer_loss(logits, targets), wanted, atol=1e-6, rtol=0)


@settings(max_examples=100, deadline=None)
@given(messages=talks(["system", "user", "assistant"], words), reply=st.booleans())
def test_what_is_rendered_can_be_parsed(messages, reply):
    ids, answer = instruct.render(messages, CHAT, reply)
    assert instruct.parse(ids, CHAT) == messages + [("assistant", [])] * reply
    said = [token for role, words in messages if role == "assistant" for token in [*words, CHAT.stop]]
    assert [token for token, its in zip(ids, answer, strict=True) if its] == said


SAID = st.lists(st.sampled_from(sorted(set(ID.values()) - TEMPLATE.controls)), max_size=5)


@settings(max_examples=60, deadline=None)
@given(messages=talks(["user", "assistant"], SAID), reply=st.booleans())
def test_the_worlds_conversations_can_be_parsed(messages, reply):
    ids = instruct.render(messages, TEMPLATE, reply).ids
    assert instruct.parse(ids, TEMPLATE) == messages + [("assistant", [])] * reply


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 99), n=st.integers(1, 6), beta=st.floats(0.01, 5))
def test_a_preference_is_a_coin_whose_logit_is_the_margin(seed, n, beta):
    """PyTorch's binary cross entropy of "the chosen one is better", and its gradients."""
    of = [(10 * draw(n, seed=seed + i)).requires_grad_() for i in range(4)]
    margin = beta * (of[0] - of[1] - of[2] + of[3])
    wanted = F.binary_cross_entropy_with_logits(margin, torch.ones(n, dtype=FLOAT))
    found = instruct.preference_loss(*of, beta)
    torch.testing.assert_close(found, wanted, **EXACT)
    for one, other in zip(torch.autograd.grad(found, of), torch.autograd.grad(wanted, of), strict=True):
        torch.testing.assert_close(one, other, **EXACT)


def dora_weight(W, A, B, scale, magnitude):
    moved = W + scale * B @ A
    return magnitude[:, None] * moved / moved.norm(dim=1, keepdim=True)


def extract_lora(before, after, rank):
    U, S, V = torch.linalg.svd(after - before, full_matrices=False)
    return V[:rank], U[:, :rank] * S[:rank]


def reverse_kl(student, teacher, targets):
    p, q = student.log_softmax(-1), teacher.detach().log_softmax(-1)
    asked = targets != instruct.IGNORE
    return ((p.exp() * (p - q)).sum(-1) * asked).sum() / max(1, int(asked.sum()))


def test_the_folded_solutions_pass():
    assert examine(SimpleNamespace(**solutions(instruct, NOTEBOOK.name, torch=torch)), EXERCISES).passes


def test_the_exercises_see_what_is_wrong():
    """Right ones pass; columns for rows, a root of the singular values on one side alone, the other direction."""
    assert examine(
        SimpleNamespace(**{f.__name__: f for f in (dora_weight, extract_lora, reverse_kl)}), EXERCISES
    ).passes
    for name, wrong in (
        ("dora_weight", lambda W, A, B, scale, m: m[:, None] * F.normalize(W + scale * B @ A, dim=0)),
        ("dora_weight", lambda W, A, B, scale, m: m[:, None] * F.normalize(W + B @ A, dim=1)),
        ("extract_lora", lambda before, after, rank: extract_lora(after, before, rank)),
        ("extract_lora", lambda before, after, rank: [it / 2 for it in extract_lora(before, after, rank)]),
        ("reverse_kl", lambda student, teacher, targets: reverse_kl(teacher, student, targets)),
        ("reverse_kl", lambda student, teacher, targets: reverse_kl(student, teacher, targets.clamp(min=0))),
    ):
        check = next(check for check in EXERCISES if check.name.startswith(name))
        assert check.test(SimpleNamespace(**{name: wrong})) is not None


def packing_mask_by_loops(documents):
    B, T = documents.shape
    seen = torch.zeros(B, T, T, dtype=torch.bool)
    for b in range(B):
        for q in range(T):
            for k in range(q + 1):
                seen[b, q, k] = q == k or (documents[b, q] == documents[b, k] and documents[b, q] >= 0)
    return seen


def answer_loss_by_gather(logits, targets, of=None):
    logits = logits if logits.dtype == FLOAT else logits.float()
    asked = targets != -100
    picked = logits.log_softmax(-1).gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return -(picked * asked).sum() / max(1, int(asked.sum()) if of is None else of)


def one_matrix(self, x):
    return F.linear(x, self.linear.weight + (0 if self.merged else self.scale * self.B @ self.A), self.linear.bias)


def preference_loss_by_softplus(chosen, rejected, reference_chosen, reference_rejected, beta):
    return F.softplus(beta * (rejected - chosen + reference_chosen - reference_rejected)).mean()


def render_by_parts(messages, template, reply=False):
    parts = [(token, False) for token in template.begin]
    for role, said in messages:
        instruct._check_message(role, said, template)
        mine = role == "assistant"
        parts += [(token, False) for token in template.opens[role]] + [(token, mine) for token in said]
        for token in template.closes[role]:
            parts.append((token, mine))
            mine = mine and token != template.stop
    parts += [(token, False) for token in template.opens["assistant"] if reply]
    return instruct.Conversation([token for token, _ in parts], [its for _, its in parts])


UNUSUAL = {
    "render": render_by_parts,
    "packing_mask": packing_mask_by_loops,
    "answer_loss": answer_loss_by_gather,
    "LoRALinear.forward": one_matrix,
    "preference_loss": preference_loss_by_softplus,
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_a_right_function_that_is_written_otherwise_passes(name):
    assert examine(graft(instruct, **{name: UNUSUAL[name]}), checks(instruct)).passes


def test_templates_that_cannot_be_parsed_are_refused():
    """An empty opening would be found everywhere; a stop that closes nothing would never come."""
    messages = [("user", [1]), ("assistant", [2])]
    silent = CHAT._replace(opens=CHAT.opens | {"system": []}, closes=CHAT.closes | {"system": []})
    with pytest.raises(ValueError, match="nothing opens what system says"):
        instruct.render(messages, silent)
    with pytest.raises(ValueError, match="nothing opens what system says"):
        instruct.parse(instruct.render(messages, CHAT).ids, silent)
    with pytest.raises(ValueError, match="the stop is 39"):
        instruct.render(messages, CHAT._replace(stop=39))


def test_what_a_model_writes_can_be_parsed():
    """It ends at the stop, and the template has one token more behind it."""
    messages = [("user", [1]), ("assistant", [2, 3])]
    assert instruct.parse(instruct.render(messages, CHAT).ids[:-1], CHAT) == messages


def test_no_conversations_are_refused():
    for make in (lambda: instruct.pad([], CHAT), lambda: instruct.pack([], 8, CHAT)):
        with pytest.raises(ValueError, match="there are no conversations"):
            make()


def test_log_probabilities_of_half_precision_are_float32():
    logits = draw(2, 3, VOCABULARY).bfloat16()
    targets = torch.tensor([[1, 2, instruct.IGNORE], [3, 4, 5]])
    found = instruct.answer_log_probability(logits, targets)
    torch.testing.assert_close(found, instruct.answer_log_probability(logits.float(), targets), rtol=0, atol=0)
