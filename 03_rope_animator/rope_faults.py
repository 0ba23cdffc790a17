"""The faults of lesson 03: what ails each patient of its clinic, and its answer. Reading on spoils it."""

from shared.clinic import Change, Fault

FAULTS = [
    Fault(
        name="angles for one layout, numbers for the other",
        changes=[
            Change(
                "twice = torch.cat([angles, angles], dim=-1)  # (T, d): the angle of each number",
                "twice = angles.repeat_interleave(2, dim=-1)",
            )
        ],
        symptom="it trains, and ends a little worse; a text of twice the trained length is lost",
        hints=["do number i and number i + d/2 get the same angle?", "is this still a rotation? Look at lengths"],
        seen_in="raiyanyahya/how-to-train-your-gpt#6",
    ),
    Fault(
        name="weights made for the other layout",
        changes=[
            Change(
                "return torch.cat([torch.arange(0, d, 2), torch.arange(1, d, 2)])",
                "return torch.arange(d).view(2, -1).T.flatten()",
            )
        ],
        symptom="converted weights: the first token is right, then it gets worse with the position",
        hints=["is it the order, or the way back from it?", "numbers 0 and 1 turn together: where must they go?"],
        seen_in="NeuraLegion/shainet#111, huggingface/nanotron#427 (no order at all, whatever the flag said)",
    ),
    Fault(
        name="positions in bfloat16",
        changes=[
            Change(
                "return positions.double()[:, None] * speeds.double()",
                "return positions.bfloat16().double()[:, None] * speeds.double()",
            )
        ],
        symptom="perfect on short texts; from position 256 on, neighbours share their angles",
        hints=["what is 257 in bfloat16, which keeps 8 bits?"],
        seen_in="huggingface/transformers#29285, sgl-project/sglang-jax#1473 (there the angles, so the speeds as well)",
    ),
    Fault(
        name="frequencies that die twice as fast",
        changes=[
            Change(
                "return base ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)",
                "return base ** (-2 * torch.arange(0, d, 2, dtype=torch.float64) / d)",
            )
        ],
        symptom="in the table's heat map twice as many rows stand still as in the picture of room 3",
        hints=["arange(0, d, 2) is 2 i already"],
        seen_in="SamLynnEvans/Transformer#25",
    ),
    Fault(
        name="multiplied, not divided",
        changes=[
            Change(
                "return Scaling(speeds(d, base) / _checked_scale(scale))",
                "return Scaling(speeds(d, base) * _checked_scale(scale))",
            )
        ],
        symptom="stretched four times, a text of 17 already stands at angles that training on 64 never showed",
        hints=["where does position 40 of the long text have to stand: at 10, or at 160?"],
        seen_in="lablup/mlxcel#1389, ml-explore/mlx-lm#1545 (positions doubled, whatever factor was asked for)",
    ),
    Fault(
        name="scale and base confused",
        changes=[
            Change(
                "return Scaling(speeds(d, base * _checked_scale(scale) ** (d / (d - 2))))",
                "return Scaling(speeds(d, base * _checked_scale(scale)))",
            )
        ],
        symptom="stretched four times, it loses a fifth of a nat at four times the length that it should not lose",
        hints=["the slowest speed is base^(-(d - 2)/d): what must the base be, that it falls to 1/scale?"],
        seen_in="ml-explore/mlx-lm#1545 (a base that is rebuilt from other numbers than were asked for)",
    ),
    Fault(
        name="restarted after the cache",
        changes=[Change("start = cache[0].shape[-2] if cache else 0", "start = 0")],
        symptom="the prompt is read perfectly, the second word that is written goes astray",
        hints=["how many tokens are there before this one?", "which position has the first token after the prompt?"],
        seen_in="Blaizzy/mlx-vlm#1983, RobertCsordas/moeut#6",
    ),
    Fault(
        name="values turned too",
        changes=[
            Change(
                "q, k = self.place(q, start), self.place(k, start)",
                "q, k, v = self.place(q, start), self.place(k, start), self.place(v, start)",
            )
        ],
        symptom="scores know distances alone, but what is handed over depends on where it stood",
        hints=["a token that sees only itself: what should come out?"],
        seen_in="labmlai/annotated_deep_learning_paper_implementations#251 (values turned on purpose, and twice)",
    ),
    Fault(
        name="positions along the heads",
        changes=[
            Change(
                "turned = rotate_halves(x, angles(positions, self.scaling.speeds).to(x.device))",
                "turned = rotate_halves(x.transpose(1, 2), angles(torch.arange(x.shape[1]), self.scaling.speeds))"
                ".transpose(1, 2)",
            )
        ],
        symptom="in one layer the order of the text does not matter: a bag of words",
        hints=["what does a token's angle depend on?", "which axis of (B, H, T, d) is turned?"],
        seen_in="vukrosic/leo-optimizer#2",
    ),
    Fault(
        name="far is near",
        changes=[
            Change("return -slopes[:, None, None] * distance.abs()", "return slopes[:, None, None] * distance.abs()")
        ],
        symptom="every token looks at the beginning of the text",
        hints=["what is added to the score of a key 100 tokens away?"],
        seen_in="meta-pytorch/attention-gym#86",
    ),
    Fault(
        name="one series for any number of heads",
        changes=[Change("n = 2 ** math.floor(math.log2(n_heads))", "n = n_heads")],
        symptom="twelve heads: other slopes than the model was trained with",
        hints=["compare 12 heads with 8: the first 8 should be the same"],
        seen_in="ml-explore/mlx#3071, ml-explore/mlx#343",
    ),
    Fault(
        name="slopes that start at 1",
        changes=[
            Change(
                "slopes = 2.0 ** (-8 / n * torch.arange(1, n + 1, dtype=torch.float64))",
                "slopes = 2.0 ** (-8 / n * torch.arange(0, n, dtype=torch.float64))",
            )
        ],
        symptom="heads see less far than they should: each of eight half as far, a single one next to nothing",
        hints=["the first slope of 8 heads is 1/2"],
        seen_in="paiml/aprender#2143",
    ),
]
