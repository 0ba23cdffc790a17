"""python -m shared.story_model --report"""

from shared.story_model.report import main

main()
