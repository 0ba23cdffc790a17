"""The trained story model: a small decoder that learnt the story world, and how it was trained.

    from shared.story_model import load_story_lm, tell

    model = load_story_lm()                                   # a TinyLM, ready to use
    tell(model, "Once", n=10, seed=0)                         # ten documents that begin so, drawn at temperature 1

`checkpoint` loads and measures it, `pretrain` trains it by `muon`, `report` writes what the README says of it.
"""

from shared.story_model.checkpoint import (
    WEIGHTS,
    load_story_lm,
    measure,
    new_story_lm,
    record,
    tell,
    vocabulary_sha256,
)

__all__ = ["WEIGHTS", "load_story_lm", "measure", "new_story_lm", "record", "tell", "vocabulary_sha256"]
