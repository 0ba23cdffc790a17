"""Colours whose meanings never change, told apart by colour-blind readers (Okabe and Ito 2008)."""

WORKING, BROKEN, CONTROL, FLOOR = "#0072B2", "#D55E00", "#009E73", "#777777"
OTHERS = ["#CC79A7", "#E69F00", "#56B4E9", "#000000"]  # for arms that have no such meaning
