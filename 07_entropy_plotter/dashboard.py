"""The sampling dashboard: streamlit run dashboard.py (or, from the repository's root, make dashboard).

A prompt, a slider for every rule, and the bundled story model: watch a story being told word by word, step through it,
and see at each word what the model, the rules and the story world would have said. Needs no account and no network.

This file opens the page; what stands on it is in `dashboard_page`, whose imports take a second the first time.
"""

import streamlit as st

st.set_page_config("Entropy Plotter", layout="wide")
st.title("Entropy Plotter")

import dashboard_page  # noqa: E402

dashboard_page.show_page()
