"""What a right `ppo.py` must do. Each check takes the module, so that a reader's functions and a patient can be asked
the same. `ppo_reward_checks`: preferences and the reward model. `ppo_rollout_checks`: rollouts, log-probabilities, the
critic, the divergence. `ppo_worth_checks`: rewards, advantages, whitening. `ppo_loss_checks`: losses and coefficient.
`ppo_loop_checks`: the epochs over a batch. What they are fed: `ppo_cases`. (`ppo_exercise_checks`: the exercises.)
"""

from ppo_exercise_checks import EXERCISES
from ppo_loop_checks import LOOP_CHECKS
from ppo_loss_checks import LOSS_CHECKS
from ppo_reward_checks import REWARD_CHECKS
from ppo_rollout_checks import ROLLOUT_CHECKS
from ppo_worth_checks import WORTH_CHECKS

__all__ = ["CHECKS", "EXERCISES"]
CHECKS = [*REWARD_CHECKS, *ROLLOUT_CHECKS, *WORTH_CHECKS, *LOSS_CHECKS, *LOOP_CHECKS]
