"""Figures that take too long for a notebook: a list of jobs, and a file of their rows that says how it was made.

    def run(job): ...                                  # {"rate": 0.01, "seed": 0} -> {"loss": 2.5}

    SWEEP = Sweep(__file__, "depth", run, jobs=[...], quick=[...])
    if __name__ == "__main__":
        sys.exit(main(SWEEP))                          # python depth_sweep.py --workers 2

    rows, how = stored(depth_sweep.SWEEP.results)      # in the notebook

Each finished job is a file in results/depth.jobs, so a sweep that was stopped goes on where it was. When all are done
they become results/depth.json. Of the rows that stand there, those stay that today's code made, or was verified to make
the same (--verify); all others are run again.

Read in this order: `sweep` (jobs), `files` (what is stored), `workers` (processes), `again` (--verify), `command`.
`rates` picks an arm's best learning rate.
"""

from shared.sweeps.command import main, start
from shared.sweeps.files import is_current, stored
from shared.sweeps.rates import best_rate
from shared.sweeps.sweep import Sweep

__all__ = ["Sweep", "best_rate", "is_current", "main", "start", "stored"]
