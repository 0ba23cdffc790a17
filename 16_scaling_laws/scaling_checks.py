"""What a right `scaling.py` must do. Each check takes the module, so that a reader's functions and a patient can be
asked the same. `scaling_count_checks`: parameters and operations. `scaling_law_checks`: laws, and what a fit makes
small. `scaling_fit_checks`: the fit. `scaling_spend_checks`: budgets, frontiers, bootstraps, repeated data. What they
are fed: `scaling_cases`. (`scaling_exercise_checks`: the exercises.)
"""

from scaling_count_checks import COUNT_CHECKS
from scaling_exercise_checks import EXERCISES
from scaling_fit_checks import FIT_CHECKS
from scaling_law_checks import LAW_CHECKS
from scaling_spend_checks import SPEND_CHECKS

__all__ = ["CHECKS", "EXERCISES"]
CHECKS = [*COUNT_CHECKS, *LAW_CHECKS, *FIT_CHECKS, *SPEND_CHECKS]
