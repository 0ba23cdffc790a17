"""What the sixteen lessons share: plots, run tracking, text, a small model, training, memory, the clinic, verdicts."""
