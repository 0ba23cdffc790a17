"""The house style, and the few charts that lessons share. Works in any notebook, needs no network.

Colours have meanings that never change (`shared.colors`), and come with a line style and a marker of their own.
Matplotlib figures are stored as PNG by Jupyter itself; `show` does it for Plotly, so that GitHub, which runs no
scripts, has something to display.
"""

import functools
import importlib.util
import io
import os
import warnings
from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
import plotly.graph_objects as go
import plotly.io as pio
from IPython.display import Image, display
from matplotlib import pyplot as plt
from PIL import Image as Picture
from plotly.subplots import make_subplots

from shared.colors import BROKEN, CONTROL, FLOOR, OTHERS, WORKING

LOOKS = {  # colour -> (line style, marker)
    WORKING: ("-", "o"),
    BROKEN: ((0, (7, 2)), "s"),
    CONTROL: ("-.", "^"),
    FLOOR: ("--", None),
    OTHERS[0]: (":", "D"),
    OTHERS[1]: ((0, (5, 1)), "v"),
    OTHERS[2]: ((0, (3, 1, 1, 1)), "P"),
    OTHERS[3]: ((0, (1, 3)), "x"),
}
SEQUENTIAL = "Blues"  # from nothing (white) to much (dark), readable in print


def use_style() -> None:
    """Set the house style for Matplotlib and Plotly. Call it once, in a notebook's first cell."""
    mpl.rcParams.update(
        {
            "figure.figsize": (7, 3.6),
            "figure.dpi": 90,
            "figure.facecolor": "white",
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.titlelocation": "left",
            "axes.titlesize": 12,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.alpha": 0.25,
            "legend.frameon": False,
            "font.size": 10,
            "image.cmap": SEQUENTIAL,
            "svg.hashsalt": "the hard way",
        }
    )
    pio.templates.default = "simple_white"


def curve(ax: plt.Axes, x: Sequence[float], runs, label: str, color: str) -> None:
    """The mean over seeds as a line and the range from lowest to highest as a band.

    x: (points,). runs: (seeds, points); a point that is not finite is left out of the mean and the band.
    color: one of the module's colours; its line style and marker follow from it.
    Raises ValueError for another color, or if the shapes do not fit.
    """
    if color not in LOOKS:
        raise ValueError(f"color is {color!r}: expected one of {list(LOOKS)}")
    runs = np.atleast_2d(np.asarray(runs, dtype=float))
    if runs.shape[1] != len(x):
        raise ValueError(f"runs have shape {runs.shape} but there are {len(x)} points: expected (seeds, points)")
    runs = np.ma.masked_invalid(runs)
    style, marker = LOOKS[color]
    every = max(1, len(x) // 12)
    ax.plot(x, runs.mean(axis=0), linestyle=style, marker=marker, markevery=every, ms=5, color=color, label=label)
    ax.fill_between(x, runs.min(axis=0), runs.max(axis=0), color=color, alpha=0.18, linewidth=0)


def floor(ax: plt.Axes, value: float, label: str) -> None:
    """A grey dashed line at a value that nothing can pass: a text's entropy, chance, a limit."""
    ax.axhline(value, color=FLOOR, linestyle="--", linewidth=1)
    ax.annotate(label, (0.995, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=FLOOR)


def heatmaps(
    maps, rows: Sequence[str], columns: Sequence[str], titles: Sequence[str], hover: str, *, across: int = 4
) -> go.Figure:
    """Labelled heat maps side by side, one colour scale from 0 to 1; hovering names the row and the column.

    maps: (n, rows, columns), values in 0..1, NaN is left blank. titles: n of them. hover: Plotly's template, in which
    %{y}, %{x} and %{z} are the row, the column and the value. across: how many stand in one line.
    Raises ValueError if the shapes do not fit.
    """
    maps = np.asarray(maps, dtype=np.float32)
    if maps.shape != (len(titles), len(rows), len(columns)):
        wanted = (len(titles), len(rows), len(columns))
        raise ValueError(f"maps have shape {maps.shape} but titles, rows and columns ask for {wanted}")
    across = min(across, len(maps))
    down = -(-len(maps) // across)
    figure = make_subplots(down, across, subplot_titles=titles, horizontal_spacing=0.03, vertical_spacing=0.18 / down)
    row_names, column_names = _numbered(rows), _numbered(columns)
    for i, values in enumerate(maps):
        z = [[None if np.isnan(value) else round(float(value), 3) for value in line] for line in values]
        trace = go.Heatmap(z=z, x=column_names, y=row_names, coloraxis="coloraxis", hovertemplate=hover, name="")
        figure.add_trace(trace, row=i // across + 1, col=i % across + 1)
    figure.update_xaxes(tickvals=column_names, ticktext=list(columns), tickfont_size=8, tickangle=0, ticks="")
    figure.update_yaxes(
        tickvals=row_names,
        ticktext=list(rows),
        tickfont_size=8,
        autorange="reversed",
        ticks="",
        showticklabels=False,
    )
    figure.update_yaxes(showticklabels=True, col=1)
    figure.update_layout(
        coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "cmax": 1},
        width=230 * across + 130,
        height=250 * down + 60,
        margin={"l": 40, "r": 10, "t": 50, "b": 30},
    )
    return figure


def _numbered(names: Sequence[str]) -> list[str]:
    """Names made distinct by their place, since a heat map's axis takes equal names for one."""
    return [f"{name} ({i})" for i, name in enumerate(names)]


def gif(draw: Callable[[plt.Figure, object], None], frames: Sequence, *, size=(6, 3.2), seconds: float = 6) -> Image:
    """A moving picture: `draw(figure, frame)` fills an empty figure for each frame. Return it as a cell's last line.

    size: width and height in inches, at 80 dots each. seconds: for one round; it goes round for ever.
    Raises ValueError if there are no frames.
    """
    if len(frames) == 0:
        raise ValueError("no frames: a moving picture needs at least one")
    pictures = []
    for frame in frames:
        figure = plt.figure(figsize=size, dpi=80)
        draw(figure, frame)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        plt.close(figure)
        pictures.append(Picture.open(buffer).convert("RGB"))
    palette = Picture.fromarray(np.concatenate(pictures)).quantize(64)  # one for all, or colours change as it moves
    pictures = [picture.quantize(palette=palette, dither=Picture.Dither.NONE) for picture in pictures]
    stored = io.BytesIO()
    pause = int(1000 * seconds / len(pictures))
    pictures[0].save(stored, "GIF", save_all=True, append_images=pictures[1:], duration=pause, loop=0)
    return Image(data=stored.getvalue(), format="gif")


def show(figure: go.Figure) -> None:
    """Display a Plotly figure: live where scripts run, with a PNG beside it for places where they do not.

    The PNG needs kaleido and a Chromium (requirements-dev.txt); without them, or with HARDWAY_PNG=0, it is left out.
    """
    bundle = pio.renderers["plotly_mimetype"].to_mimebundle(figure.to_dict())
    if _can_make_png():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # kaleido warns about its own server
            bundle["image/png"] = figure.to_image("png")
    display(bundle, raw=True)


@functools.cache
def _can_make_png() -> bool:
    if os.environ.get("HARDWAY_PNG") == "0" or importlib.util.find_spec("kaleido") is None:
        return False
    import kaleido

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kaleido.start_sync_server(silence_warnings=True)
            go.Figure().to_image("png", width=10, height=10)
    except Exception:  # no browser: each platform has an error of its own
        return False
    return True
