"""Write down what each form says of the largest budget, before that budget is run: python scaling_forecasts.py"""

import json
from pathlib import Path

import scaling_sweep
from scaling_grid import grids
from scaling_rules import forecasts, short

from shared.sweeps import stored

FILE = Path(__file__).parent / "results" / "scaling_forecasts.json"


def from_stored_runs() -> dict[str, list[float]]:
    """By form, for each seed: nats per token at `scaling_rules.LARGEST`, from the stored grid."""
    rows, _ = stored(scaling_sweep.SWEEP.results)
    found = forecasts(short(grids(rows, "steep")))
    return {form: [round(loss, 5) for loss in losses] for form, losses in found.items()}


if __name__ == "__main__":
    FILE.write_text(json.dumps(from_stored_runs(), indent=1) + "\n", encoding="utf-8")
