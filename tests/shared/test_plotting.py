"""shared/plotting.py: what is drawn is what was given, GIFs have the size and frames asked for, no browser needed."""

import importlib.machinery
import io
import itertools
import json
import math
import sys
from types import ModuleType

import matplotlib as mpl
import numpy as np
import plotly.graph_objects as go
import plotly.io as pio
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex, to_rgb
from PIL import Image as Picture

from shared import plotting

PNG = b"\x89PNG a picture"


@pytest.fixture(autouse=True)
def clean_slate():
    """Matplotlib draws without a screen; settings and figures are as before when a test is done."""
    backend, template = mpl.get_backend(), pio.templates.default
    plt.switch_backend("Agg")
    with mpl.rc_context():
        yield
    plt.close("all")
    plt.switch_backend(backend)
    pio.templates.default = template


@pytest.fixture
def ax() -> plt.Axes:
    return plt.figure().add_subplot()


def test_the_style_is_set_by_one_call():
    """Grid, size, palette and Plotly's template."""
    mpl.rcdefaults()
    pio.templates.default = "plotly"
    plotting.use_style()
    assert mpl.rcParams["axes.grid"] and not mpl.rcParams["axes.spines.top"] and not mpl.rcParams["axes.spines.right"]
    assert (mpl.rcParams["figure.figsize"], mpl.rcParams["figure.dpi"]) == ([7, 3.6], 90)
    assert (mpl.rcParams["image.cmap"], pio.templates.default) == ("Blues", "simple_white")


def test_stored_svg_does_not_change_from_run_to_run():
    """Two figures alike are the same bytes: identifiers come from the style's salt, not from chance."""
    plotting.use_style()
    stored = []
    for _ in range(2):
        figure, ax = plt.subplots()
        ax.fill_between([0, 1], [0, 1], [1, 2], hatch="/")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        stored.append(buffer.getvalue())
    assert stored[0] == stored[1]


def test_colours_can_be_told_apart():
    """Okabe and Ito's palette, which Matplotlib has too, and the grey of limits; and without colour by line style."""
    colors = [plotting.WORKING, plotting.BROKEN, plotting.CONTROL, plotting.FLOOR, *plotting.OTHERS]
    assert set(colors) == set(plotting.LOOKS) and len(colors) == 8
    assert len({str(style) for style, _ in plotting.LOOKS.values()}) == 8
    assert plotting.LOOKS[plotting.FLOOR] == ("--", None)  # limits are dashed, and nothing was measured at a point
    palette = {to_hex(color) for color in mpl.color_sequences["okabe_ito"]} | {"#000000"}
    assert {color.lower() for color in set(colors) - {plotting.FLOOR}} <= palette
    assert len(set(to_rgb(plotting.FLOOR))) == 1


X = [0, 1, 2, 3]
RUNS = [[1.0, 2.0, math.nan, math.inf], [3.0, 8.0, 5.0, math.nan], [5.0, 2.0, 9.0, -math.inf]]


def drawn(ax: plt.Axes) -> tuple[np.ndarray, np.ndarray]:
    """The line's points, and for each x that has one the band's lowest and highest value."""
    (line,), (band,) = ax.lines, ax.collections
    edges = {}
    for path in band.get_paths():
        for x, y in path.vertices.tolist():
            edges.setdefault(x, []).append(y)
    ends = [(x, min(ys), max(ys)) for x, ys in sorted(edges.items())]
    return np.ma.filled(line.get_xydata(), math.nan), np.array(ends)


def test_curve_is_the_mean_and_the_range(ax):
    """By hand, where points that are not finite are left out; where none is left there is neither line nor band."""
    plotting.curve(ax, X, RUNS, "arm", plotting.BROKEN)
    line, band = drawn(ax)
    np.testing.assert_array_equal(line, [[0, 3], [1, 4], [2, 7], [3, math.nan]])
    np.testing.assert_array_equal(band, [[0, 1, 5], [1, 2, 8], [2, 5, 9]])


def test_curve_wears_its_colours_look(ax):
    """Line style, marker and label of the line; the band is its colour, lighter; one list of points is one seed."""
    plotting.curve(ax, X, [4, 3, 2, 1], "arm", plotting.OTHERS[1])
    line, band = drawn(ax)
    assert line[:, 1].tolist() == band[:, 1].tolist() == band[:, 2].tolist() == [4, 3, 2, 1]
    (line,), (band,) = ax.lines, ax.collections
    plain = mpl.lines.Line2D([], [], linestyle=plotting.LOOKS[plotting.OTHERS[1]][0])
    assert line._unscaled_dash_pattern == plain._unscaled_dash_pattern  # what tells "(0, (5, 1))" from "--"
    assert (line.get_color(), line.get_marker()) == (plotting.OTHERS[1], plotting.LOOKS[plotting.OTHERS[1]][1])
    assert band.get_facecolor()[0, :3] == pytest.approx(to_rgb(plotting.OTHERS[1]))
    assert band.get_facecolor()[0, 3] < 0.3
    assert band.get_linewidth() == 0  # an edge would look like a line of data
    assert ax.get_legend_handles_labels() == ([line], ["arm"])


@pytest.mark.parametrize(("points", "marked"), [(4, 4), (30, 15), (240, 12)])
def test_long_curves_have_few_markers(ax, points, marked):
    """Markers tell arms apart; a hundred of them would hide the line."""
    plotting.curve(ax, range(points), np.zeros((2, points)), "arm", plotting.CONTROL)
    assert len(range(0, points, ax.lines[0].get_markevery())) == marked


def test_floor_is_a_grey_dashed_line_with_its_name(ax):
    """Across the whole width, at the value, whatever is plotted after it."""
    plotting.floor(ax, 1.5, "entropy of the text")
    ax.plot([0, 100], [0, 3])
    line, text = ax.lines[0], ax.texts[0]
    assert list(line.get_ydata()) == [1.5, 1.5]
    assert line.get_transform() == ax.get_yaxis_transform(which="grid")  # x in shares of the axes
    assert list(line.get_xdata()) == [0, 1]
    assert (line.get_color(), line.get_linestyle()) == (plotting.FLOOR, "--")
    assert (text.get_text(), text.get_color(), text.xy[1]) == ("entropy of the text", plotting.FLOOR, 1.5)


MAPS = np.array([[[0, 0.5, 1], [0.25, math.nan, 0.1234567]]] * 3)
ROWS, COLUMNS, TITLES = ["the", "the"], ["a", "b", "a"], ["one", "two", "three"]
HOVER = "%{y} to %{x}: %{z}"


def three_maps(**options) -> go.Figure:
    return plotting.heatmaps(MAPS, ROWS, COLUMNS, TITLES, HOVER, **options)


def test_heatmaps_show_the_values():
    """Each map as given, to three digits; NaN is None, which Plotly leaves blank; one scale; the caller's template."""
    stored = json.loads(three_maps().to_json())
    for trace in stored["data"]:
        assert trace["z"] == [[0, 0.5, 1], [0.25, None, 0.123]]
        assert (trace["type"], trace["coloraxis"], trace["hovertemplate"]) == ("heatmap", "coloraxis", HOVER)
        assert trace["name"] == ""  # or Plotly shows "trace 0" beside it
    axis = stored["layout"]["coloraxis"]
    assert (axis["cmin"], axis["cmax"]) == (0, 1)
    assert [a["text"] for a in stored["layout"]["annotations"]] == TITLES


def test_heatmaps_keep_equal_labels_apart():
    """Two rows of one name are two rows: their places on the axis differ, and begin with the label."""
    figure = three_maps()
    for trace in figure.data:
        assert len(set(trace.y)) == 2 and [y.split()[0] for y in trace.y] == ROWS
        assert len(set(trace.x)) == 3 and [x.split()[0] for x in trace.x] == COLUMNS
    for axis, names, places in (
        (figure.layout.xaxis, COLUMNS, figure.data[0].x),
        (figure.layout.yaxis, ROWS, figure.data[0].y),
    ):
        assert (list(axis.ticktext), axis.tickvals) == (names, places)


@pytest.mark.parametrize(("across", "places"), [(1, [1, 1, 1]), (2, [2, 1]), (3, [3]), (4, [3])])
def test_heatmaps_stand_so_many_in_a_line(across, places):
    """Maps of a line share their height; the figure grows with the lines, not with places that stay empty; the first
    row is on top, named at the left of each line."""
    figure = three_maps(across=across)
    axes = [figure.layout["yaxis" + trace.yaxis[1:]] for trace in figure.data]
    tops = [axis.domain[1] for axis in axes]
    assert [len(list(group)) for _, group in itertools.groupby(tops)] == places
    assert tops == sorted(tops, reverse=True)
    assert figure.layout.height > 200 * len(places)
    assert figure.layout.width == 230 * min(across, 3) + 130
    assert {axis.autorange for axis in axes} == {"reversed"}
    assert [axis.showticklabels for axis in axes] == [i % across == 0 for i in range(3)]


def test_what_cannot_be_drawn_is_refused(ax):
    """Shapes that do not fit, with the shape and what is expected; an unknown colour; a film without frames."""
    for runs, shown in ((np.zeros(3), r"\(1, 3\)"), (np.zeros((4, 3)), r"\(4, 3\)")):
        with pytest.raises(ValueError, match=rf"runs have shape {shown} but there are 4 points: .*\(seeds, points"):
            plotting.curve(ax, X, runs, "arm", plotting.WORKING)
    for shape, shown in (((3, 3, 2), r"\(3, 3, 2\)"), ((2, 2, 3), r"\(2, 2, 3\)"), ((2, 3), r"\(2, 3\)")):
        with pytest.raises(ValueError, match=rf"maps have shape {shown} but .* ask for \(3, 2, 3\)"):
            plotting.heatmaps(np.zeros(shape), ROWS, COLUMNS, TITLES, HOVER)
    with pytest.raises(ValueError, match="color is 'pink'"):
        plotting.curve(ax, [1, 2], [[1, 2]], "x", "pink")
    with pytest.raises(ValueError, match="no frames"):
        plotting.gif(lambda figure, frame: None, [])


def bar(figure: plt.Figure, height: float) -> None:
    ax = figure.add_axes([0, 0, 1, 1])
    ax.set_axis_off()
    ax.set(ylim=(0, 10), xlim=(-0.4, 0.4))
    ax.bar(0, height, color="black")


def frames_of(image) -> list[Picture.Image]:
    picture = Picture.open(io.BytesIO(image.data))
    assert (image.format, picture.format) == ("gif", "GIF")
    frames = []
    for i in range(picture.n_frames):
        picture.seek(i)
        frames.append(picture.convert("L"))
        frames[-1].info = dict(picture.info)
    return frames


def test_gif_has_frames_size_and_time_asked_for():
    """Each frame starts from an empty figure: black bars of 1, 7 and 4 tenths; 80 dots an inch, whatever the style
    says; round for ever (loop 0), six seconds a round by default."""
    plotting.use_style()
    frames = frames_of(plotting.gif(bar, [1, 7, 4], size=(1.5, 2)))
    black = [np.mean(np.asarray(frame) < 128) for frame in frames]
    assert black == pytest.approx([0.1, 0.7, 0.4], abs=0.02)  # a few of 160 pixels
    assert not plt.get_fignums()  # no figure stays open
    assert {frame.size for frame in frames} == {(120, 160)}
    assert [frame.info["duration"] for frame in frames] == [2000] * 3 and frames[0].info["loop"] == 0


def test_gif_keeps_its_length_when_nothing_moves():
    """The file may hold equal frames once, but then for as long as both."""
    frames = frames_of(plotting.gif(bar, [1, 1, 1, 5], size=(1, 1), seconds=4))
    assert sum(frame.info["duration"] for frame in frames) == 4000


def test_gif_colours_are_near_the_palette():
    """64 colours a frame are enough for the house palette: within 8 of 255 in each channel."""

    def stripes(figure, shift):
        for i, color in enumerate(plotting.LOOKS):
            figure.add_artist(plt.Rectangle(((i + shift) / 10, 0), 0.1, 1, color=color))

    picture = Picture.open(io.BytesIO(plotting.gif(stripes, [0, 1], size=(2, 1)).data)).convert("RGB")
    for i, color in enumerate(plotting.LOOKS):
        wanted = np.array(to_rgb(color)) * 255
        assert np.abs(np.array(picture.getpixel((16 * i + 8, 40))) - wanted).max() <= 8, color


@pytest.fixture
def shown(monkeypatch) -> list[dict]:
    """What reaches the notebook. Whether PNGs can be made is asked anew in each test."""
    bundles = []

    def display(bundle, raw):
        assert raw is True
        bundles.append(bundle)

    monkeypatch.setattr(plotting, "display", display)
    monkeypatch.delenv("HARDWAY_PNG", raising=False)
    plotting._can_make_png.cache_clear()
    yield bundles
    plotting._can_make_png.cache_clear()


@pytest.fixture
def kaleido(monkeypatch) -> list:
    """A kaleido that starts a server; to_image notes what it is asked and gives a picture."""
    module, calls = ModuleType("kaleido"), []
    module.__spec__ = importlib.machinery.ModuleSpec("kaleido", None)
    module.start_sync_server = lambda **options: calls.append(options)
    monkeypatch.setitem(sys.modules, "kaleido", module)

    def to_image(figure, kind, **options):
        assert kind == "png"
        calls.append(figure)
        return PNG

    monkeypatch.setattr(go.Figure, "to_image", to_image)
    return calls


def figure() -> go.Figure:
    return go.Figure(go.Scatter(x=[1, 2], y=[3, 5], name="arm"))


def is_plotlys(bundle: dict) -> bool:
    """Whether the bundle's JSON holds the figure's data, and can be stored in a notebook."""
    (trace,) = json.loads(json.dumps(bundle["application/vnd.plotly.v1+json"]))["data"]
    return (trace["type"], trace["x"], trace["y"], trace["name"]) == ("scatter", [1, 2], [3, 5], "arm")


def test_show_puts_a_png_beside_plotlys_json(shown, kaleido):
    """Both in one output, so that a viewer takes the one it can; the server is started once for many figures."""
    pictures = [figure(), figure()]
    for picture in pictures:
        plotting.show(picture)
    assert [set(bundle) for bundle in shown] == [{"application/vnd.plotly.v1+json", "image/png"}] * 2
    assert all(is_plotlys(bundle) and bundle["image/png"] == PNG for bundle in shown)
    assert kaleido.count({"silence_warnings": True}) == 1
    assert [call for call in kaleido if any(call is picture for picture in pictures)] == pictures


@pytest.mark.parametrize("how", ["HARDWAY_PNG", "no kaleido"])
def test_png_can_be_left_out(shown, kaleido, monkeypatch, how):
    """Switched off, or nothing there to make it: the JSON is shown, and no browser is asked for."""
    if how == "HARDWAY_PNG":
        monkeypatch.setenv(how, "0")
    else:
        monkeypatch.setattr(plotting.importlib.util, "find_spec", lambda name: None)
    plotting.show(figure())
    (bundle,) = shown
    assert set(bundle) == {"application/vnd.plotly.v1+json"} and is_plotlys(bundle)
    assert kaleido == []


@pytest.mark.parametrize("broken", ["server", "picture"])
def test_without_a_browser_the_json_is_shown(shown, kaleido, monkeypatch, broken):
    """Whether the server or the first picture finds no Chromium: no error, and it is not tried again."""
    tries = []

    def fails(*arguments, **options):
        tries.append(1)
        raise RuntimeError("no Chrome here")

    if broken == "server":
        sys.modules["kaleido"].start_sync_server = fails
    else:
        monkeypatch.setattr(go.Figure, "to_image", fails)
    for _ in range(2):
        plotting.show(figure())
    assert [set(bundle) for bundle in shown] == [{"application/vnd.plotly.v1+json"}] * 2
    assert len(tries) == 1


def test_kaleidos_own_warnings_stay_out_of_the_notebook(shown, kaleido, monkeypatch):
    """A warning would be an output cell that differs from machine to machine (here it would be an error)."""

    def warns(*arguments, **options):
        import warnings

        warnings.warn("about its own server", stacklevel=1)
        return PNG

    sys.modules["kaleido"].start_sync_server = warns
    monkeypatch.setattr(go.Figure, "to_image", warns)
    plotting.show(figure())
    assert shown[0]["image/png"] == PNG
