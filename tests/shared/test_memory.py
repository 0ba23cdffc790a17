"""shared/memory.py: the peak equals a count by hand. A float32 number has 4 bytes; N numbers is a unit here."""

import pytest
import torch

from shared.memory import peak_bytes

N = 1000
UNIT = 4 * N  # bytes of N float32 numbers


def new() -> torch.Tensor:
    return torch.ones(N)


def together():
    a, b = new(), new()
    return a, b, torch.ones(2 * N)


def one_after_the_other():
    a = new()
    del a
    b = torch.ones(3 * N)
    del b
    return new()


def rebound():
    y = new()
    for _ in range(5):
        y = y * 2  # both for a moment


def views():
    a = new()
    return a, a[:10], a.view(10, -1).T, a.expand(5, N), a.detach()


def small_view():
    small = new()[:1]  # keeps the whole tensor alive, as it does in the machine
    return small, new()


def in_place():
    a = new()
    a += 1
    a.mul_(2).relu_()
    a[3] = 0.5
    return torch.add(a, 1, out=a)


def cleared():
    cache = [new() for _ in range(7)]
    cache.clear()
    cache += [new() for _ in range(4)]


def same_addresses():
    kept = []
    for _ in range(50):
        kept.append(new())
        scrap = new()  # often where the last one was
        del scrap


def attention():
    q, k, v = torch.ones(3, 64, 8)
    return (q @ k.T).softmax(-1) @ v  # scores and weights at once, beside what is given


@pytest.mark.parametrize(
    ("function", "peak"),
    [
        (lambda: None, 0),
        (lambda: torch.ones(0), 0),
        (lambda: torch.zeros(3, 7, dtype=torch.bool), 21),
        (lambda: torch.zeros(3, 7, dtype=torch.bfloat16), 42),
        (together, 4 * UNIT),
        (one_after_the_other, 3 * UNIT),
        (lambda: ((new() + 1) * 2) - 3, 2 * UNIT),
        (rebound, 2 * UNIT),
        (views, UNIT),
        (lambda: new()[:10].clone(), UNIT + 40),
        (small_view, 2 * UNIT),
        (in_place, UNIT),
        (cleared, 7 * UNIT),
        (same_addresses, 51 * UNIT),
        (lambda: new().topk(100), UNIT + 100 * (4 + 8)),  # values and indices
        (attention, 3 * 64 * 8 * 4 + 2 * 64 * 64 * 4),
    ],
)
def test_the_peak_is_the_count_by_hand(function, peak):
    """The same each time: a meter that has ended hears of nothing later."""
    assert peak_bytes(function) == peak
    new()
    assert peak_bytes(function) == peak


def test_inputs_are_not_counted():
    """Not what the function was given, nor a view of it; and letting go of it makes no room."""
    x, holder = new(), [new()]
    assert peak_bytes(lambda: (x.sum(), x.view(10, -1).T[3:5].sum(), x[0])) == 2 * 4  # the two sums

    def function():
        a = holder[0] + 1
        holder.clear()
        return a, new()

    assert peak_bytes(function) == 2 * UNIT


def test_what_is_put_away_outside_stays():
    kept = []

    def function():
        for _ in range(3):
            kept.append(new())

    assert peak_bytes(function) == 3 * UNIT
    assert peak_bytes(function) == 3 * UNIT  # the first three are inputs now


def test_what_autograd_keeps_is_alive():
    """exp keeps its result for the backward pass: after `del` it still counts, without a gradient it does not."""
    x = torch.zeros(N, requires_grad=True)

    def function():
        y = x.exp()
        z = y.sum()
        del y
        return z, new()

    assert peak_bytes(function) == 2 * UNIT + 4
    with torch.no_grad():
        assert peak_bytes(function) == UNIT + 4


def test_gradients_count():
    """The product is freed once summed; what stands at the peak is the gradient, the sum and the sum's gradient."""
    x = torch.ones(N, requires_grad=True)
    assert peak_bytes(lambda: (x * 3).sum().backward()) == UNIT + 4 + 4
    assert x.grad.tolist() == [3.0] * N


def test_exception_inside_goes_on_and_leaves_no_meter():
    """The error reaches the caller, and the next count is not disturbed."""

    def function():
        new()
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        peak_bytes(function)
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None
    assert peak_bytes(new) == UNIT


def test_one_count_inside_another():
    """The inner count is its own; the outer one sees what the inner made too."""
    inner = []

    def outer():
        a = new()
        inner.append(peak_bytes(lambda: torch.ones(3 * N)))
        return a

    assert (peak_bytes(outer), inner) == (4 * UNIT, [3 * UNIT])
