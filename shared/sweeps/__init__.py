"""Figures that take too long for a notebook: a list of jobs, and a file of their rows that says how it was made.

    def run(job): ...                                  # {"rate": 0.01, "seed": 0} -> {"loss": 2.5}

    SWEEP = Sweep(__file__, "depth", run, jobs=[...], quick=[...])
    if __name__ == "__main__":
        sys.exit(main(SWEEP))                          # python depth_sweep.py --workers 2, or --ray auto

    rows, how = stored(depth_sweep.SWEEP.results)      # in the notebook

Each finished job is a file in results/depth.jobs, so a sweep that was stopped goes on where it was. When all are done
they become results/depth.json. Of the rows that stand there, those stay that today's code made, or was verified to make
the same (--verify); all others are run again.

A script with several lists of jobs gives them names: GRIDS = {"small": Sweep(...), "full": Sweep(...)}, main(GRIDS),
python depth_sweep.py --grid full. Each has a file of its own.

Read in this order: `sweep` (jobs), `files` (what is stored), `plan` (what is left: --dry-run), `workers` (processes),
`on_ray` (machines: --ray), `tracked` (--track), `again` (--verify), `command`. `rates` picks an arm's best learning
rate.
"""

from shared.sweeps.command import main, start
from shared.sweeps.files import is_current, stored
from shared.sweeps.rates import best_rate
from shared.sweeps.sweep import Sweep

__all__ = ["Sweep", "best_rate", "is_current", "main", "start", "stored"]
