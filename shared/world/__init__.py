"""The story world: small English documents drawn from a grammar whose every choice is known, and so their entropy.

    from shared.world import BASE, floor, judge, next_token_distribution, stories

    story = stories(1, seed=0)[0]                 # .text, .nats, .kind, .state
    floor(BASE).nats                              # nats per token that no model can cross
    next_token_distribution("Once Tom")           # {word: probability}, exact
    judge(story.text).flawless                    # True; where it is not, the rule that is broken and the word
    questions(story.state)                        # with their answers; obeyed(...) checks what a model answers
    encode("Tom"), decode([12])                   # a closed vocabulary of about a thousand words, or bytes

Read in this order: `words` (what there is to say), `choice` (a place where several words can come), `people` (who there
is), `state` and `tales` (the grammar of stories), `sheet` and `domains` (of questions and of other documents),
`writing` (text drawn, and read back), `judge`, `asking`, and `rows` (all that as tensors).
"""

from shared.world.asking import Obedience, Question, obeyed, questions
from shared.world.judge import RULES, Breach, Judgement, judge
from shared.world.people import Config
from shared.world.rows import held_out_rows, kl, rows, true_distributions
from shared.world.words import END, VOCABULARY, decode, encode, split
from shared.world.writing import (
    BASE,
    FACTS,
    HELD_OUT,
    MIXED,
    STORY,
    Floor,
    Story,
    documents,
    floor,
    nats,
    next_token_distribution,
    offers,
    state,
    stories,
)

__all__ = [
    "BASE",
    "END",
    "FACTS",
    "HELD_OUT",
    "MIXED",
    "RULES",
    "STORY",
    "VOCABULARY",
    "Breach",
    "Config",
    "Floor",
    "Judgement",
    "Obedience",
    "Question",
    "Story",
    "decode",
    "documents",
    "encode",
    "floor",
    "held_out_rows",
    "judge",
    "kl",
    "nats",
    "next_token_distribution",
    "obeyed",
    "offers",
    "questions",
    "rows",
    "split",
    "state",
    "stories",
    "true_distributions",
]
