"""Lesson 11: the mixture, its losses and its other ways against independent references. (Its clinic:
test_clinics.py.)"""

import copy
from types import SimpleNamespace

import moe
import moe_experts
import pytest
import torch
from folded import solutions
from hypothesis import given, settings
from hypothesis import strategies as st
from moe_checks import EXERCISES
from small_mixtures import filled, layer
from small_models import EXACT, FLOAT, draw
from torch.nn import functional as F
from transformers import MixtralConfig
from transformers.models.deepseek_v3.configuration_deepseek_v3 import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock, load_balancing_loss_func
from transformers.models.switch_transformers import modeling_switch_transformers as switch

from shared.clinic import examine
from shared.mixture import Mixture

FLOAT32 = {"atol": 1e-4, "rtol": 0}  # float32 rounds at 6e-8; sums of under 100 terms of size 1 to 10
WAYS = [moe.dispatch_loop, moe.dispatch_masked, moe.dispatch_grouped]
every_way = pytest.mark.parametrize("way", WAYS)


def give(theirs, ours, names):
    """The weights of ours, one below the other, as theirs are called and shaped."""
    state = theirs.state_dict()
    for name, weight in names.items():
        state[name] = weight.detach().view_as(state[name])
    theirs.load_state_dict(state)


@every_way
@pytest.mark.parametrize("k", [2, 3, 6])
def test_the_layer_is_mixtrals(way, k):
    """Outputs, and gradients of inputs, router and experts. Their softmax is float32 in a float64 model, too."""
    ours, x = layer(k=k, dispatch=way), draw(3, 7, 8).requires_grad_()
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_local_experts": 6, "num_experts_per_tok": k}
    theirs = MixtralSparseMoeBlock(MixtralConfig(**sizes)).to(FLOAT)
    names = {"gate.weight": ours.router.weight, "experts.gate_up_proj": ours.experts.up.weight}
    give(theirs, ours, names | {"experts.down_proj": ours.experts.proj.weight})
    torch.testing.assert_close(ours(x), theirs(x), **FLOAT32)
    into = [x, ours.router.weight, ours.experts.up.weight, ours.experts.proj.weight]
    found = torch.autograd.grad(ours(x).square().mean(), into)
    into = [x, theirs.gate.weight, theirs.experts.gate_up_proj, theirs.experts.down_proj]
    for one, other in zip(found, torch.autograd.grad(theirs(x).square().mean(), into), strict=True):
        torch.testing.assert_close(one, other.view_as(one), **FLOAT32)


@every_way
@pytest.mark.parametrize("k", [2, 4])
def test_the_layer_is_the_houses(way, k):
    """Of `shared.mixture`, into which a Mixtral's folder is read: outputs and gradients."""
    house, x = filled(Mixture(8, n_experts=6, k=k, d_hidden=12)), draw(3, 7, 8).requires_grad_()
    ours = layer(k=k, dispatch=way)
    ours.router.weight = house.router.weight
    ours.experts.up.weight.data = torch.cat([expert.gate_up.weight.data for expert in house.experts])
    ours.experts.proj.weight.data = torch.cat([expert.proj.weight.data for expert in house.experts])
    torch.testing.assert_close(ours(x), house(x), **EXACT)
    found, wanted = (torch.autograd.grad(it(x).square().mean(), [x, house.router.weight]) for it in (ours, house))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_layer_is_deepseeks(k):
    """Sigmoids, a bias that only chooses, and shared experts, as transformers' DeepSeek-V3 has them."""
    ours, x = layer(k=k, scores="sigmoid", n_shared=2, normalize=True), draw(3, 7, 8)
    ours.bias.copy_(draw(6, seed=5))
    sizes = {"hidden_size": 8, "moe_intermediate_size": 12, "n_routed_experts": 6, "num_experts_per_tok": k}
    groups = {"n_shared_experts": 2, "n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.0}
    theirs = DeepseekV3MoE(DeepseekV3Config(**sizes, **groups, norm_topk_prob=True)).to(FLOAT)
    gate, up = ours.shared.up.weight.chunk(2)
    names = {"gate.weight": ours.router.weight, "gate.e_score_correction_bias": ours.bias}
    names |= {"experts.gate_up_proj": ours.experts.up.weight, "experts.down_proj": ours.experts.proj.weight}
    names |= {"shared_experts.gate_proj.weight": gate, "shared_experts.up_proj.weight": up}
    give(theirs, ours, names | {"shared_experts.down_proj.weight": ours.shared.proj.weight})
    torch.testing.assert_close(ours(x), theirs(x), **FLOAT32)


@settings(max_examples=25, deadline=None)
@given(B=st.integers(1, 3), T=st.integers(1, 9), E=st.integers(2, 7), data=st.data(), seed=st.integers(0, 999))
def test_the_losses_are_those_of_transformers(B, T, E, data, seed):
    """Mixtral's counts a token's k experts k times, so it is k times ours; Switch's is ours, and so is its z-loss."""
    logits, k = draw(B * T, E, seed=seed) * 3, data.draw(st.integers(1, E))
    real = torch.rand(B, T, generator=torch.Generator().manual_seed(seed)) < 0.7
    real[0, 0] = True
    scores = moe.scores_of(logits)
    routes = moe.routes_of(*moe.top_k(scores, k))
    for mask in (None, real):
        theirs = load_balancing_loss_func((logits,), E, k, None if mask is None else mask.long())
        torch.testing.assert_close(k * moe.balance_loss(scores, routes, mask).float(), theirs)
    first = scores.argmax(dim=-1)[None]
    ours = moe.balance_loss(scores, moe.routes_of(*moe.top_k(scores, 1)))
    torch.testing.assert_close(ours.float(), switch.load_balancing_loss_func(scores[None], first).float())
    torch.testing.assert_close(moe.z_loss(logits), switch.router_z_loss_func(logits[None]), **EXACT)


@settings(max_examples=60, deadline=None)
@given(N=st.integers(1, 12), E=st.integers(1, 7), R=st.integers(0, 30), d=st.integers(1, 5), seed=st.integers(0, 999))
def test_the_dispatches_agree_on_any_routes(N, E, R, d, seed):
    """Outputs and gradients, to 1e-10: sums of under 100 terms of size 1, and float64 rounds at 1e-16."""
    random = torch.Generator().manual_seed(seed)
    where = [torch.randint(n, (R,), generator=random) for n in (N, E)]
    gates, x = draw(R, seed=seed).requires_grad_(), draw(N, d, seed=seed + 1).requires_grad_()
    experts = filled(moe.Experts(E, d, 3, bias=seed % 2 > 0, gated=seed % 3 > 0))
    into = [x, gates, *experts.parameters()]
    found = []
    for way in WAYS:
        y = way(x, moe.Routes(*where, gates), experts)
        found.append([y, *torch.autograd.grad(y.square().sum(), into, materialize_grads=True)])
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


@every_way
def test_the_gradient_is_that_of_finite_differences(way):
    """Of a layer with everything: two of six experts, a capacity, a shared expert, biases. No choice is near a tie."""
    mixture, x = layer(d=4, bias=True, n_shared=1, capacity_factor=0.8, dispatch=way), draw(5, 4).requires_grad_()
    names, weights = zip(*mixture.named_parameters(), strict=True)
    weights = [weight.detach().requires_grad_() for weight in weights]

    def answer(x, *weights):
        return torch.func.functional_call(mixture, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(answer, (x, *weights), fast_mode=True)  # along random directions


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [8, 16, 6])
def test_the_fused_product_is_the_one_of_parts(dtype, width):
    """PyTorch's operation, and what stands in where its sizes do not fit, against float64; experts without rows too."""
    counts = torch.tensor([5, 0, 9, 1, 0])
    rows, matrices = draw(15, width, dtype=dtype), draw(5, 24, width, seed=1, dtype=dtype)
    leaves = [rows.requires_grad_(), matrices.requires_grad_()]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    y, wanted = moe_experts.grouped_product(*leaves, counts), moe_experts.grouped_product(*exact, counts)
    found, expected = ([it, *torch.autograd.grad(it.square().sum(), on)] for it, on in ((y, leaves), (wanted, exact)))
    for one, other in zip(found, expected, strict=True):
        bound = 50 * torch.finfo(dtype).eps * float(other.detach().abs().max())  # sums of at most 24 terms
        torch.testing.assert_close(one.double(), other, atol=bound, rtol=0)
    assert not found[2][1].any()  # an expert without rows


@every_way
def test_half_precision_stays_near_float64(way):
    """bfloat16 rounds at 1/256; the same experts are chosen where no two scores are near."""
    mixture = layer(dispatch=way).bfloat16()
    x = draw(40, 8, dtype=torch.bfloat16)
    exact = copy.deepcopy(mixture).to(FLOAT)
    found, wanted = mixture(x).double(), exact(x.double())
    assert torch.equal(mixture.record.wanted.experts, exact.record.wanted.experts)
    assert (found - wanted).abs().max() < 8 / 256 * wanted.abs().max()


def test_the_penalty_alone_evens_a_collapsed_router():
    """A common direction in the inputs makes one expert's logit high for all. 200 steps on the penalty alone."""
    torch.manual_seed(0)
    mixture, x = moe.MoE(16, n_experts=6, k=1, d_hidden=8), torch.randn(600, 16) + 2
    optimizer = torch.optim.Adam(mixture.router.parameters(), lr=0.05)
    largest = []
    for _ in range(200):
        mixture(x)
        largest.append(moe.load(mixture.record.wanted, 6).max() / len(x))
        optimizer.zero_grad()
        moe.penalty(mixture, 1.0).backward()
        optimizer.step()
    assert largest[0] > 0.5 and largest[-1] < 0.25


def test_the_folded_solutions_pass():
    """As a reader sees them."""
    assert examine(SimpleNamespace(**solutions(moe, "moe_vis.ipynb", torch=torch, F=F)), EXERCISES).passes
