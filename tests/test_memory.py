"""shared/memory.py: the peak equals a count by hand. A float32 number has 4 bytes; N numbers is a unit here."""

import pytest
import torch

from shared.memory import peak_bytes

N = 1000
UNIT = 4 * N  # bytes of N float32 numbers


def new() -> torch.Tensor:
    return torch.ones(N)


@pytest.mark.parametrize(
    ("dtype", "size"), [(torch.bool, 1), (torch.int8, 1), (torch.bfloat16, 2), (torch.int32, 4), (torch.float64, 8)]
)
def test_a_tensor_counts_its_bytes(dtype, size):
    assert peak_bytes(lambda: torch.zeros(3, 7, dtype=dtype)) == 21 * size


def test_nothing_made_is_nothing():
    assert peak_bytes(lambda: None) == 0
    assert peak_bytes(lambda: torch.ones(0)) == 0


def test_what_lives_together_adds_up():
    def function():
        a, b = new(), new()
        return a, b, torch.ones(2 * N)

    assert peak_bytes(function) == 4 * UNIT


def test_what_was_freed_no_longer_counts():
    """Three tensors one after the other: never more than one at once; the largest is the peak, not the last."""

    def function():
        a = new()
        del a
        b = torch.ones(3 * N)
        del b
        return new()

    assert peak_bytes(function) == 3 * UNIT


def test_temporaries_of_an_expression():
    """x + 1 is alive while its double is made, and freed before the third is: two at once."""
    x = new()
    assert peak_bytes(lambda: ((x + 1) * 2) - 3) == 2 * UNIT


def test_name_rebound_frees_after_the_new_one_is_made():
    """In y = y * 2 both stand for a moment; the loop never holds three."""

    def function():
        y = new()
        for _ in range(5):
            y = y * 2

    assert peak_bytes(function) == 2 * UNIT


def test_inputs_are_not_counted():
    """What the function was given costs nothing, nor does a view of it, nor its use a second time."""
    x = new()

    def function():
        a = x.view(10, -1)
        b = a.T[3:5]
        return x.sum(), b.sum(), x[0]

    assert peak_bytes(function) == 2 * 4  # the two sums


def test_input_freed_inside_gives_nothing_back():
    """Letting go of an input does not make room for what is made after it."""
    holder = [new()]

    def function():
        a = holder[0] + 1
        holder.clear()
        return a, new()

    assert peak_bytes(function) == 2 * UNIT


def test_views_share_their_tensors_bytes():
    """Slices, transposes and reshapes without a copy are free; a copy of a slice counts its own size."""

    def views():
        a = new()
        return a, a[:10], a.view(10, -1).T, a.expand(5, N), a.detach()

    assert peak_bytes(views) == UNIT
    assert peak_bytes(lambda: new()[:10].clone()) == UNIT + 40


def test_a_view_keeps_its_whole_tensor_alive():
    """One number of a thousand keeps all of them, as it does in the machine."""

    def function():
        small = new()[:1]
        return small, new()

    assert peak_bytes(function) == 2 * UNIT


def test_in_place_makes_nothing_new():
    def function():
        a = new()
        a += 1
        a.mul_(2).relu_()
        a[3] = 0.5
        return torch.add(a, 1, out=a)

    assert peak_bytes(function) == UNIT


def test_a_list_keeps_everything_alive():
    """A cache that grows: ten entries, ten units; emptied half-way, the peak is what stood before."""
    assert peak_bytes(lambda: [new() for _ in range(10)]) == 10 * UNIT

    def emptied():
        cache = [new() for _ in range(7)]
        cache.clear()
        cache += [new() for _ in range(4)]

    assert peak_bytes(emptied) == 7 * UNIT


def test_what_was_made_before_its_list_was_counted_stays():
    """A tensor that the function puts away outside is still alive, and counts."""
    kept = []

    def function():
        for _ in range(3):
            kept.append(new())

    assert peak_bytes(function) == 3 * UNIT
    assert peak_bytes(function) == 3 * UNIT  # the first three are inputs now


def test_repeated_calls_agree():
    """The count starts at zero each time, and a meter that has ended does not hear of later tensors."""
    for _ in range(3):
        assert peak_bytes(lambda: new() + 1) == 2 * UNIT
    new()
    assert peak_bytes(new) == UNIT


def test_memory_used_again_counts_again():
    """Storages made and freed by turns often get the same address: each is counted while it lives, once."""

    def function():
        for n in range(1, 200):
            a = torch.ones(n)
            del a

    assert peak_bytes(function) == 199 * 4

    def growing():
        kept = []
        for _ in range(50):
            kept.append(new())
            scrap = new()
            del scrap

    assert peak_bytes(growing) == 51 * UNIT


def test_several_results_of_one_operation():
    """topk returns values (4 bytes) and indices (8 bytes); both count."""
    x = new()
    assert peak_bytes(lambda: x.topk(100)) == 100 * (4 + 8)


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

    def function():
        (x * 3).sum().backward()

    assert peak_bytes(function) == UNIT + 4 + 4
    assert x.grad.tolist() == [3.0] * N


def test_an_attention_matrix_by_hand():
    """Scores and weights of T x T at once, beside the output: the count that lesson 04 shows."""
    T, d = 64, 8
    q, k, v = torch.ones(3, T, d)
    assert peak_bytes(lambda: (q @ k.T).softmax(-1) @ v) == 2 * T * T * 4
    assert peak_bytes(lambda: torch.softmax(q @ k.T, -1)) == 2 * T * T * 4


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

    assert peak_bytes(outer) == 4 * UNIT
    assert inner == [3 * UNIT]


def test_results_are_those_without_a_meter():
    """Counting does not change what is computed."""
    x = torch.arange(N, dtype=torch.float64)
    seen = []
    peak_bytes(lambda: seen.append(x.softmax(0)))
    assert torch.equal(seen[0], x.softmax(0))
