"""How fast lesson 07's dashboard opens, against a page that does nothing but import PyTorch and draw one chart.

    .venv/bin/python tests/benchmarks/bench_dashboard.py

Each round starts both servers anew and opens each page once in a new browser window: what a reader waits for the first
time. A page is open when its button can be pressed, and drawn when its first chart stands. The clock is the wall's,
since a reader has no other, so what is promised is a ratio within a round; the seconds stand beside it. Needs a
Chromium; says so where there is none.
"""

import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from measure import Goal, median_ratio, print_table, report
from playwright.sync_api import expect, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from served import CHROMIUM, FLAGS, FOLDER, served

ROUNDS, PATIENCE = 5, 60_000
LEAST = """
import streamlit as st
st.title("The least")
import plotly.graph_objects as go
import torch
st.button("Generate")
st.plotly_chart(go.Figure(go.Bar(x=[1], y=[1])))
"""


@dataclass(frozen=True)
class Opening:
    """Wall seconds until the title stands, the button can be pressed, the first chart is drawn."""

    title: float
    button: float
    chart: float


def opening(browser, script: Path) -> Opening:
    """Of a page on a server that was just started."""
    with served(script) as host:
        page = browser.new_page()
        start, seconds = time.perf_counter(), []
        page.goto(f"http://{host}/")
        parts = (page.get_by_role("heading").first, page.get_by_role("button", name="Generate"))
        for part in (*parts, page.locator(".js-plotly-plot").first):
            expect(part).to_be_visible(timeout=PATIENCE)
            seconds.append(time.perf_counter() - start)
        page.close()
    return Opening(*seconds)


def measure(rounds: int) -> dict[str, list[Opening]]:
    """Each page's openings, a round after the other; one before them warms the disk."""
    found = {"dashboard": [], "least": []}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        least = Path(folder) / "least.py"
        least.write_text(LEAST, encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for _ in range(rounds + 1):
            found["dashboard"].append(opening(browser, FOLDER / "dashboard.py"))
            found["least"].append(opening(browser, least))
        browser.close()
    return {name: openings[1:] for name, openings in found.items()}


def goals(found: dict[str, list[Opening]]) -> list[Goal]:
    """Open in three seconds, and not much later than the least page."""
    buttons = {name: [opening.button for opening in openings] for name, openings in found.items()}
    return [
        Goal("seconds until it is open", statistics.median(buttons["dashboard"]), 3),
        Goal("the same, times the least page", median_ratio(buttons["dashboard"], buttons["least"]), 1.5),
    ]


def main() -> int:
    """Measure and report."""
    if not CHROMIUM:
        print("bench_dashboard: no Chromium is installed, nothing is measured")
        return 0
    found = measure(ROUNDS)
    parts = ("title", "button", "chart")
    medians = {
        name: [statistics.median(getattr(one, part) for one in openings) for part in parts]
        for name, openings in found.items()
    }
    rows = [(name, *(f"{seconds:.1f}" for seconds in three)) for name, three in medians.items()]
    print_table(("page", "title, s", "open, s", "first chart, s"), rows)
    return report(goals(found))


if __name__ == "__main__":
    sys.exit(main())
