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


def test_style_is_the_same_however_often_it_is_set():
    """A second call changes nothing; grid, palette and Plotly's template are set by the first."""
    mpl.rcdefaults()
    pio.templates.default = "plotly"
    plotting.use_style()
    once = dict(mpl.rcParams)
    assert once["axes.grid"] is True
    assert once["axes.spines.top"] is once["axes.spines.right"] is False
    assert once["image.cmap"] == "Blues"
    assert (once["figure.figsize"], once["figure.dpi"]) == ([7, 3.6], 90)
    assert pio.templates.default == "simple_white"
    plotting.use_style()
    assert dict(mpl.rcParams) == once
    assert pio.templates.default == "simple_white"


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


def test_each_colour_has_a_look_of_its_own():
    """Every colour of the module has a line style and marker, and no two have the same pair: print it in grey."""
    colors = [plotting.WORKING, plotting.BROKEN, plotting.CONTROL, plotting.FLOOR, *plotting.OTHERS]
    assert set(colors) == set(plotting.LOOKS)
    assert len(set(colors)) == len(set(plotting.LOOKS.values())) == 8
    assert plotting.LOOKS[plotting.FLOOR] == ("--", None)  # limits are dashed, and nothing was measured at a point


def test_colours_are_okabe_and_itos():
    """Matplotlib has the palette too; ours are of it, save the grey of limits."""
    palette = {to_hex(color) for color in mpl.color_sequences["okabe_ito"]} | {"#000000"}
    colors = {color.lower() for color in plotting.LOOKS} - {plotting.FLOOR}
    assert colors <= palette
    r, g, b = to_rgb(plotting.FLOOR)
    assert r == g == b


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


def test_curve_of_one_run_needs_no_brackets(ax):
    """A single list of points is one seed: the band closes to the line."""
    plotting.curve(ax, X, [4, 3, 2, 1], "arm", plotting.WORKING)
    line, band = drawn(ax)
    assert line[:, 1].tolist() == band[:, 1].tolist() == band[:, 2].tolist() == [4, 3, 2, 1]


@pytest.mark.parametrize("color", list(plotting.LOOKS))
def test_curve_wears_its_colours_look(ax, color):
    """Line style, marker and label of the line; the band has its colour, lighter, and is not in the legend."""
    plotting.curve(ax, X, RUNS, "arm", color)
    (line,), (band,) = ax.lines, ax.collections
    plain = mpl.lines.Line2D([], [], linestyle=plotting.LOOKS[color][0], marker=plotting.LOOKS[color][1])
    assert (line.get_color(), line.get_linestyle(), line.get_marker()) == (
        (color, plain.get_linestyle(), plain.get_marker())
    )
    assert line._unscaled_dash_pattern == plain._unscaled_dash_pattern  # what tells "(0, (5, 1))" from "--"
    assert band.get_facecolor()[0, :3] == pytest.approx(to_rgb(color))
    assert band.get_facecolor()[0, 3] < 0.3
    assert band.get_linewidth() == 0  # an edge would look like a line of data
    assert ax.get_legend_handles_labels() == ([line], ["arm"])


@pytest.mark.parametrize(("points", "marked"), [(4, 4), (12, 12), (30, 15), (240, 12)])
def test_long_curves_have_few_markers(ax, points, marked):
    """Markers tell arms apart; a hundred of them would hide the line."""
    plotting.curve(ax, range(points), np.zeros((2, points)), "arm", plotting.CONTROL)
    assert len(range(0, points, ax.lines[0].get_markevery())) == marked


@pytest.mark.parametrize("shape", [(3,), (5,), (2, 3), (4, 3)])
def test_runs_that_do_not_fit_are_named(ax, shape):
    """The error has the shape, the number of points, and which way round it goes."""
    shown = str(shape if len(shape) == 2 else (1, *shape)).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=rf"runs have shape {shown} but there are 4 points: expected \(seeds, points"):
        plotting.curve(ax, X, np.zeros(shape), "arm", plotting.WORKING)


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
    """Each map as given, rounded to three digits; NaN is None, which Plotly leaves blank; one scale for all."""
    maps = MAPS * np.array([1, 0.5, 0.1])[:, None, None]
    figure = plotting.heatmaps(maps, ROWS, COLUMNS, TITLES, HOVER)
    stored = json.loads(figure.to_json())
    assert [trace["type"] for trace in stored["data"]] == ["heatmap"] * 3
    for trace, wanted in zip(stored["data"], maps.tolist(), strict=True):
        for line, wanted_line in zip(trace["z"], wanted, strict=True):
            assert [math.nan if z is None else z for z in line] == pytest.approx(wanted_line, abs=5e-4, nan_ok=True)
        assert trace["coloraxis"] == "coloraxis"
    assert stored["data"][0]["z"][1] == [0.25, None, 0.123]
    axis = stored["layout"]["coloraxis"]
    assert (axis["cmin"], axis["cmax"]) == (0, 1)
    assert [a["text"] for a in stored["layout"]["annotations"]] == TITLES


def test_heatmaps_keep_equal_labels_apart():
    """Two rows of one name are two rows: their places on the axis differ, their labels do not."""
    figure = three_maps()
    for trace in figure.data:
        assert len(set(trace.y)) == len(trace.z) == 2
        assert len(set(trace.x)) == len(trace.z[0]) == 3
    assert list(figure.layout.xaxis.ticktext) == COLUMNS
    assert list(figure.layout.yaxis.ticktext) == ROWS
    assert list(figure.layout.xaxis.tickvals) == list(figure.data[0].x)
    assert list(figure.layout.yaxis.tickvals) == list(figure.data[0].y)


def test_hovering_names_row_and_column():
    """The template is the caller's; what it says for y and x begins with the label."""
    for trace in three_maps().data:
        assert trace.hovertemplate == HOVER
        assert trace.name == ""  # or Plotly shows "trace 0" beside it
        assert [x.split()[0] for x in trace.x] == COLUMNS
        assert [y.split()[0] for y in trace.y] == ROWS


def test_first_row_is_on_top_and_named_once():
    """As in a printed matrix; the row names stand at the left of each line of maps, not between them."""
    figure = three_maps(across=2)
    axes = [figure.layout[name] for name in ("yaxis", "yaxis2", "yaxis3")]
    assert {axis.autorange for axis in axes} == {"reversed"}
    assert [axis.showticklabels for axis in axes] == [True, False, True]


@pytest.mark.parametrize(("across", "places"), [(1, [1, 1, 1]), (2, [2, 1]), (3, [3]), (4, [3])])
def test_heatmaps_stand_so_many_in_a_line(across, places):
    """Maps of a line share their height; a new line begins below when one is full; the figure grows with them."""
    figure = three_maps(across=across)
    tops = [figure.layout["yaxis" + trace.yaxis[1:]].domain[1] for trace in figure.data]
    lines = [len(list(group)) for _, group in itertools.groupby(tops)]
    assert lines == places
    assert tops == sorted(tops, reverse=True)
    assert figure.layout.height > 200 * len(places)


@pytest.mark.parametrize("shape", [(3, 3, 2), (2, 2, 3), (2, 3), (3, 2, 4)])
def test_maps_that_do_not_fit_are_named(shape):
    shown = str(shape).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=rf"maps have shape {shown} but .* ask for \(3, 2, 3\)"):
        plotting.heatmaps(np.zeros(shape), ROWS, COLUMNS, TITLES, HOVER)


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


def test_gif_has_the_frames_asked_for():
    """One picture a frame, in order, each starting from an empty figure: black bars of 1, 7 and 4 tenths."""
    frames = frames_of(plotting.gif(bar, [1, 7, 4], size=(2, 1)))
    black = [np.mean(np.asarray(frame) < 128) for frame in frames]
    assert black == pytest.approx([0.1, 0.7, 0.4], abs=0.02)  # a pixel of 80
    assert not plt.get_fignums()  # no figure stays open


@pytest.mark.parametrize(("size", "pixels"), [((2, 1), (160, 80)), ((1.5, 2), (120, 160))])
def test_gif_has_the_size_asked_for(size, pixels):
    """80 dots an inch, whatever the style says."""
    plotting.use_style()
    assert {frame.size for frame in frames_of(plotting.gif(bar, [1, 2], size=size))} == {pixels}


def test_gif_goes_round_for_ever_in_the_time_asked_for():
    """Loop 0 is for ever; four frames in two seconds stay half a second each; six seconds by default."""
    frames = frames_of(plotting.gif(bar, [1, 2, 3, 4], size=(1, 1), seconds=2))
    assert [frame.info["duration"] for frame in frames] == [500] * 4
    assert frames[0].info["loop"] == 0
    whole = frames_of(plotting.gif(bar, [1, 2, 3], size=(1, 1)))
    assert sum(frame.info["duration"] for frame in whole) == 6000


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


def test_png_can_be_switched_off(shown, kaleido, monkeypatch):
    """HARDWAY_PNG=0 leaves it out, and no browser is asked for."""
    monkeypatch.setenv("HARDWAY_PNG", "0")
    plotting.show(figure())
    (bundle,) = shown
    assert set(bundle) == {"application/vnd.plotly.v1+json"}
    assert is_plotlys(bundle)
    assert kaleido == []


def test_without_kaleido_the_json_is_shown(shown, monkeypatch):
    monkeypatch.setattr(plotting.importlib.util, "find_spec", lambda name: None)
    plotting.show(figure())
    assert set(shown[0]) == {"application/vnd.plotly.v1+json"}
    assert is_plotlys(shown[0])


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


def test_what_cannot_be_drawn_is_refused():
    """An unknown colour and a film without frames, in words."""
    with pytest.raises(ValueError, match="color is 'pink'"):
        plotting.curve(plt.figure().subplots(), [1, 2], [[1, 2]], "x", "pink")
    with pytest.raises(ValueError, match="no frames"):
        plotting.gif(lambda figure, frame: None, [])


def test_few_maps_do_not_leave_most_of_the_figure_empty():
    """One map in a row of four is as wide as one in a row of one."""
    one = plotting.heatmaps([[[0.5]]], ["a"], ["b"], ["t"], "%{z}", across=4)
    assert one.layout.width == plotting.heatmaps([[[0.5]]], ["a"], ["b"], ["t"], "%{z}", across=1).layout.width


def test_no_two_colours_share_a_line_style():
    """Lines are told apart without colour and between their markers."""
    styles = [str(style) for style, _ in plotting.LOOKS.values()]
    assert len(set(styles)) == len(styles)
