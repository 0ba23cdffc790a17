"""The rules of room 4, written down before the runs that judge by them.

Small models: seeds 3 to 5 of `repairs_sweep`, in which no setting was chosen; bounds come from one trial seed, 100, and
the seeds 0 to 2 of `length_sweep`. Real model: the six texts `real_rope.JUDGES`, each by itself; bounds come from the
texts of `LOOKED_AT`. There "harm" is the loss with a gap of 16,000 positions minus that with one of 6,000.
"""

WHEN = "no token attends farther back than the trained length, in models of two layers"
VERDICT = {  # kind, quantity in nats, its bounds after 400 steps and after 2,000
    "table fails": ("for", "learned: loss at 128 minus at 64", {"at_least": 0.03}, {"at_least": 0.5}),
    "RoPE ahead": ("for", "at 128: RoPE minus learned", {"at_most": -0.3}, {"at_most": -0.3}),
    "windowed": ("for", "RoPE, window of 64: loss at 1024 minus at 64", {"at_most": 0.05}, {"at_most": 0.05}),
    "both repaired": (
        "for",
        "at 1024: RoPE, window of 64, minus the best table",
        {"at_most": -0.05},
        {"at_most": -0.05},
    ),
    "RoPE rises": ("limit", "RoPE as it is: loss at 256 minus at 64", {"at_least": 0.3}, {"at_least": 0.5}),
    "behind a table": (
        "limit",
        "at 256: RoPE as it is minus table aligned at its end",
        {"at_least": 0.1},
        {"at_least": 0.5},
    ),
    "wide window": ("limit", "RoPE, window of 128: loss at 256 minus at 64", {"at_least": 0.05}, {"at_least": 0.1}),
}
PAIRS = {  # the share of RoPE's rise at 256 over 64; each after 400 and 2,000 steps
    "told": ("gone with pair 3 alone capped", {"at_least": 0.8}),
    "others": ("gone with one other pair alone capped, the most of seven", {"at_most": 0.4}),
    "left by told": ("left with all pairs capped but pair 3", {"at_least": 0.7}),
    "left by others": ("left with all pairs capped but one other, the most of seven", {"at_most": 0.2}),
}
REAL = {  # each on every judging text
    "harm": ("harm, nats a token", {"at_least": 1.0}),
    "hidden": ("gap of 16,000 minus first half hidden, nats", {"at_least": 0.8}),
    "new": ("share of harm gone with the 12 pairs under a full turn at 6,000", {"at_least": 0.9}),
    "old": ("the same, the 12 fastest pairs", {"at_most": 0.25}),
    "told": ("the same, pairs 23 and 24", {"at_least": 0.8}),
    "rest": ("the same, the other ten under a full turn", {"at_most": 0.3}),
    "NTK": ("share of harm gone with NTK-aware x 4", {"at_least": 0.8}),
    "NTK's price": ("NTK-aware x 4 without a gap: loss rises by, nats", {"at_most": 0.15}),
    "bfloat16": ("angles in bfloat16, 1,000 positions on: loss rises by, nats", {"at_least": 0.3}),
    "frozen": ("pairs 16 to 31 frozen, 128 tokens: loss changes by, nats", {"at_least": -0.1, "at_most": 0.1}),
}
REAL_LONG = {  # on long texts: "docs" and "code", the second on "docs" alone
    "frozen": ("pairs 16 to 31 frozen, 2,048 tokens: loss rises by, nats", {"at_least": 0.3}),
    "NTK": ("tokens 9,216 to 10,239: loss as it is minus with NTK-aware x 2, nats", {"at_least": 0.5}),
}
