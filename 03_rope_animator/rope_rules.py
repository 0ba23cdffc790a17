"""The rules of room 4, written down before the runs that judge by them: seeds 3 to 5 of `repairs_sweep`, in which no
setting was chosen. Bounds come from one trial seed, 100, and the seeds 0 to 2 of `length_sweep`. Nats are a byte's.
"""

WHEN = "no token attends farther back than the trained length"
VERDICT = {  # kind, quantity, bounds; each after 2,000 and after 8,000 steps
    "table fails": ("for", "learned: loss at 128 minus at 64, nats", {"at_least": 0.5}),
    "RoPE ahead": ("for", "at 128: RoPE minus learned, nats", {"at_most": -0.3}),
    "windowed": ("for", "RoPE, window of 64: loss at 1024 minus at 64", {"at_most": 0.05}),
    "both repaired": ("for", "at 1024: RoPE, window of 64, minus best table", {"at_most": -0.05}),
    "RoPE rises": ("limit", "RoPE as it is: loss at 256 minus at 64, nats", {"at_least": 0.5}),
    "behind a table": ("limit", "at 256: RoPE as it is minus table aligned at end", {"at_least": 0.5}),
    "wide window": ("limit", "RoPE, window of 128: loss at 256 minus at 64", {"at_least": 0.1}),
}
PAIRS = {  # the share of RoPE's rise at 256 over 64; each after 400, 2,000 and 8,000 steps
    "told": ("gone with pair 3 alone capped", {"at_least": 0.8}),
    "others": ("gone with one other pair alone capped, the most of seven", {"at_most": 0.4}),
    "left by told": ("left with all pairs capped but pair 3", {"at_least": 0.7}),
    "left by others": ("left with all pairs capped but one other, the most of seven", {"at_most": 0.2}),
}
