"""What lesson 01's checks are fed: a text of everything, and random words of few letters."""

import random

PROSE = (
    "It's said that the smith's apprentice couldn't weigh 12345 nails; they'll weigh them twice, aaaaa, abababab!\n"
    "  Two spaces, a tab\tand a line end.\n\n\nNaïve café: 価格は12円です。 Привет, мир! 🙂👍🏽\r\n"
    "def f(x):\n    return x ** 2  # ----------\n"
)


def drawn_words(seed, n, letters="abc", longest=12):
    """n random words of few letters: they repeat, overlap and tie."""
    draw = random.Random(seed)
    return ["".join(draw.choice(letters) for _ in range(draw.randint(1, longest))) for _ in range(n)]
