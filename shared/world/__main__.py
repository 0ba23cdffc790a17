"""python -m shared.world --report"""

from shared.world.report import main

main()
