"""muon.py: singular values by a scalar iteration, steps by an SVD and by torch's Muon, what is left alone."""

import copy
import math

import pytest
import torch

from shared.story_model.muon import NEWTON_SCHULZ, Muon, orthogonal

SHAPES = [(6, 6), (5, 12), (12, 5), (1, 7), (7, 1)]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def quintic(values: torch.Tensor, rounds: int = 5) -> torch.Tensor:
    """What becomes of single singular values."""
    a, b, c = NEWTON_SCHULZ
    for _ in range(rounds):
        values = a * values + b * values**3 + c * values**5
    return values


def by_svd(matrix: torch.Tensor) -> torch.Tensor:
    """One matrix's orthogonal update: its singular values taken out, iterated one by one, and put back."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u @ torch.diag(quintic(s / (s.norm() + 1e-7))) @ vh


def test_band_of_the_docstring():
    """From 0.002 of the matrix's length up, a grid of starts ends between 0.7 and 1.2 (to a tenth); below, under it.

    The slope at 0 is 3.4445, so what starts below 0.65 / 3.4445^5 = 0.0013 cannot arrive.
    """
    grid = torch.linspace(0.002, 1, 1_000_000, dtype=torch.float64)
    ends = quintic(grid)
    assert (round(ends.min().item(), 1), round(ends.max().item(), 1)) == (0.7, 1.2)
    assert quintic(torch.linspace(0, 0.0013, 1000, dtype=torch.float64)).max() < 0.65


@pytest.mark.parametrize("rows_columns", SHAPES)
def test_singular_values_come_into_the_band(rows_columns):
    """Forty random matrices at once, of lengths from 0.001 up; values that start too small to arrive end under it.

    The band is the grid's, begun a little lower for the 1e-7 beside the length; float64 roundings, made at most
    3.4445^5 = 485 times larger, stay below 1e-12.
    """
    matrices = draw(40, *rows_columns) * torch.logspace(-3, 3, 40, dtype=torch.float64)[:, None, None]
    starts = torch.linalg.svdvals(matrices)
    starts = starts / starts.norm(dim=-1, keepdim=True)
    ends = torch.linalg.svdvals(orthogonal(matrices))
    band = quintic(torch.linspace(0.0019, 1, 1_000_000, dtype=torch.float64))
    large = starts.amin(-1) > 0.002
    assert large.double().mean() > 0.9
    assert ends[large].min() > band.min() - 1e-12
    assert ends.max() < band.max() + 1e-12


@pytest.mark.parametrize("rows_columns", SHAPES)
def test_singular_vectors_stay(rows_columns):
    """Each matrix of a batch against its own SVD; 485 times float64's roundings, so 1e-12."""
    matrices = draw(4, *rows_columns)
    expected = torch.stack([by_svd(matrix) for matrix in matrices])
    torch.testing.assert_close(orthogonal(matrices), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_type_is_kept_and_nothing_stays_nothing(dtype):
    """A gradient of zeros gives zeros, not 0 / 0."""
    assert orthogonal(draw(2, 3, 4).to(dtype)).dtype == dtype
    assert torch.equal(orthogonal(torch.zeros(2, 3, 4, dtype=dtype)), torch.zeros(2, 3, 4, dtype=dtype))


@pytest.mark.parametrize("rows_columns", SHAPES)
def test_steps_by_hand(rows_columns):
    """Four steps in float64: running mean, Nesterov's look ahead, SVD, AdamW's size, decay; 1e-12 for the roundings.

    Two parameters of one shape, which are taken together, and a third of the shape turned round.
    """
    lr, momentum, decay = 0.1, 0.8, 0.3
    shapes = [rows_columns, rows_columns, rows_columns[::-1]]
    parameters = [torch.nn.Parameter(draw(*shape, seed=i)) for i, shape in enumerate(shapes)]
    expected = [p.detach().clone() for p in parameters]
    means = [torch.zeros_like(p) for p in expected]
    optimizer = Muon(parameters, lr=lr, momentum=momentum, weight_decay=decay)
    for step in range(4):
        for i, parameter in enumerate(parameters):
            parameter.grad = draw(*shapes[i], seed=100 + 10 * step + i)
            means[i] = momentum * means[i] + (1 - momentum) * parameter.grad
            ahead = momentum * means[i] + (1 - momentum) * parameter.grad
            size = lr * 0.2 * math.sqrt(max(shapes[i]))
            expected[i] = expected[i] * (1 - lr * decay) - size * by_svd(ahead)
        optimizer.step()
    for parameter, value in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows_columns", [(16, 24), (24, 16), (16, 16)])
@pytest.mark.parametrize("steps", [1, 4])
def test_agrees_with_torchs_muon(rows_columns, steps):
    """That one works in bfloat16: it rounds its input and four products in each of five rounds by up to 2^-9.

    So 21 * 2^-9 of the length of each step, if rounds do not make it larger (measured: about a third). Another
    momentum, decay or scale misses by more than a tenth.
    """
    start = draw(*rows_columns, dtype=torch.float32)

    def end(make, **options) -> torch.Tensor:
        parameter = torch.nn.Parameter(start.clone())
        optimizer = make([parameter], lr=0.1, **options)
        for step in range(steps):
            parameter.grad = draw(*rows_columns, seed=1 + step, dtype=torch.float32)
            optimizer.step()
        return parameter.detach()

    options = {"momentum": 0.9, "weight_decay": 0.3}
    theirs = end(torch.optim.Muon, nesterov=True, adjust_lr_fn="match_rms_adamw", **options)
    one_step = 0.1 * 0.2 * math.sqrt(max(rows_columns) * min(rows_columns))  # all singular values 1

    def miss(**other) -> float:
        return ((end(Muon, **options | other) - theirs).norm() / (steps * one_step)).item()

    assert miss() < 21 * 2**-9
    assert miss(weight_decay=0.0) > 0.1
    if steps > 1:
        assert miss(momentum=0.5) > 0.1


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_what_is_no_matrix_is_named(shape):
    """Also behind a matrix, and with the shape said."""
    parameters = [torch.nn.Parameter(torch.zeros(2, 2)), torch.nn.Parameter(torch.zeros(shape))]
    with pytest.raises(ValueError) as error:
        Muon(parameters)
    assert str(error.value) == f"a parameter has shape {shape}: Muon takes matrices"


def test_parameters_without_a_gradient_are_left_alone():
    """No decay, no momentum; and a gradient of zeros still decays."""
    still, zero = (torch.nn.Parameter(draw(3, 4, seed=i)) for i in range(2))
    zero.grad = torch.zeros_like(zero)
    optimizer = Muon([still, zero], lr=0.1, weight_decay=0.5)
    optimizer.step()
    assert torch.equal(still, draw(3, 4))
    assert still not in optimizer.state
    assert torch.equal(zero, draw(3, 4, seed=1) * (1 - 0.1 * 0.5))


def test_rate_of_a_group_is_obeyed():
    """Each group has its own, and a schedule may set it between steps; 0 moves nothing."""
    slow, fast = (torch.nn.Parameter(torch.zeros(3, 4, dtype=torch.float64)) for _ in range(2))
    optimizer = Muon([{"params": [slow], "lr": 0.0}, {"params": [fast]}], lr=0.25)
    slow.grad, fast.grad = draw(3, 4), draw(3, 4)
    optimizer.step()
    assert slow.abs().max() == 0
    size = 0.25 * 0.2 * 2  # the root of the longer side
    ahead = draw(3, 4) * (1 - 0.95**2)  # at the first step the mean is 0.05 of the gradient
    torch.testing.assert_close(fast.detach(), -size * by_svd(ahead), rtol=1e-12, atol=1e-12)
    optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = 0.25, 0.0
    before = fast.detach().clone()
    optimizer.step()
    assert slow.abs().max() > 0
    assert torch.equal(fast, before)


def test_state_dict_goes_on_where_it_was():
    """Saved after two steps and loaded into a new optimizer, the next two are the same, bit for bit; without, not."""

    def steps(optimizer, parameters, which):
        for step in which:
            for i, parameter in enumerate(parameters):
                parameter.grad = draw(*parameter.shape, seed=10 * step + i)
            optimizer.step()

    def make(like):
        parameters = [torch.nn.Parameter(p.detach().clone()) for p in like]
        return Muon(parameters, lr=0.1, momentum=0.7, weight_decay=0.1), parameters

    optimizer, parameters = make([draw(3, 4), draw(4, 3), draw(3, 4)])
    steps(optimizer, parameters, [0, 1])
    resumed, resumed_parameters = make(parameters)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    forgetful, forgetful_parameters = make(parameters)
    for each, its in [(optimizer, parameters), (resumed, resumed_parameters), (forgetful, forgetful_parameters)]:
        steps(each, its, [2, 3])
    for one, same, other in zip(parameters, resumed_parameters, forgetful_parameters, strict=True):
        assert torch.equal(one, same)
        assert not torch.equal(one, other)
