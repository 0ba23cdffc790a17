import math

import torch


def best_of_n_kl(n):
    return math.log(n) - (n - 1) / n


def expected_best(proxy, value, n):
    order = proxy.argsort()
    m = len(proxy)
    w = torch.tensor(
        [
            math.exp(
                math.lgamma(i)
                - math.lgamma(n)
                - math.lgamma(i - n + 1)
                - (math.lgamma(m + 1) - math.lgamma(n + 1) - math.lgamma(m - n + 1))
            )
            if i >= n
            else 0.0
            for i in range(1, m + 1)
        ]
    )
    return float((w * value[order]).sum())
