import matplotlib
import pytest
import torch
from matplotlib import pyplot as plt

from transformer_lab import notation, plots


@pytest.fixture
def ax():
    matplotlib.use("agg")
    figure, (ax,) = plots.panels()
    yield ax
    plt.close(figure)


def luminance(colour):
    channels = matplotlib.colors.to_rgb(colour)
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_the_style_makes_text_legible_and_lines_in_the_book_s_colours():
    with plt.rc_context():
        plots.use_house_style()
        assert contrast(plt.rcParams["text.color"], plt.rcParams["figure.facecolor"]) > 7
        colours = [step["color"] for step in plt.rcParams["axes.prop_cycle"]]
    assert colours == list(notation.COLOURS.values())


@pytest.mark.parametrize("stacked", [False, True])
def test_panels_stand_side_by_side_or_stacked_at_the_asked_size(stacked):
    figure, axes = plots.panels(3, width=6.0, height=2.0, stacked=stacked)
    figure.canvas.draw()
    assert len(axes) == 3 and figure.get_size_inches().tolist() == [6, 2]
    lefts = {round(ax.get_position().x0, 3) for ax in axes}
    assert len(lefts) == (1 if stacked else 3)
    plt.close(figure)


def test_a_weight_map_labels_and_prints_the_weights_that_count(ax):
    weights = torch.tensor([[0.9, 0.06, 0.04], [0.2, 0.3, 0.5]], requires_grad=True)
    plots.weight_map(ax, weights, queries="ab", keys="xyz", title="head 1")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["x", "y", "z"]
    assert [t.get_text() for t in ax.texts] == [".90", ".20", ".30", ".50"]
    assert ax.get_title(loc="left") == "head 1" or ax.get_title() == "head 1"
    assert ax.images[0].get_cmap().name == "cividis"


@pytest.mark.parametrize("weight", [0.12, 0.3, 0.49, 0.52, 0.7, 1.0])
def test_every_number_can_be_read_on_its_colour(ax, weight):
    plots.weight_map(ax, [[weight]], queries="a", keys="x")
    (text,) = ax.texts
    assert contrast(text.get_color(), ax.images[0].get_cmap()(weight)) > 3.5


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda ax: plots.panels(0), "at least one panel, got 0"),
        (lambda ax: plots.weight_map(ax, torch.eye(2), queries="abc", keys="xy"), r"got \(2, 2\)"),
        (
            lambda ax: plots.weight_map(ax, torch.eye(2) - 0.5, queries="ab", keys="xy"),
            "got -0.5 to 0.5; are these",
        ),
    ],
)
def test_bad_input_says_what_was_wrong(ax, call, match):
    with pytest.raises(ValueError, match=match):
        call(ax)


PLAN = {"encoder": ["a", "Add & Norm"], "decoder": ["b", "Add & Norm", "reads", "Add & Norm"]}


def words_in(figure):
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


def test_a_plan_has_each_box_once_in_its_column_and_order():
    figure = plots.architecture(**PLAN, n_layers=5, reads="reads", top=("scores",))
    words = words_in(figure)
    assert words.count("Add & Norm") == 3 and words.count("5 ×") == 2
    boxes = [text for text in figure.axes[0].texts if text.get_text() in ("b", "reads", "scores")]
    assert [text.get_text() for text in sorted(boxes, key=lambda text: text.get_position()[1])] == [
        "b",
        "reads",
        "scores",
    ]
    assert len({text.get_position()[0] for text in boxes}) == 1
    plt.close(figure)


@pytest.mark.bad_input
def test_a_plan_without_the_box_that_reads_is_refused():
    with pytest.raises(ValueError, match="reads must name a box of the decoder, got 'writes'"):
        plots.architecture(**PLAN, n_layers=1, reads="writes", top=())


def test_a_frame_stands_around_its_entry(ax):
    plots.weight_map(ax, [[0.25, 0.75], [1.0, 0.0]], queries="ab", keys="cd")
    plots.frame(ax, 1, 0)
    (patch,) = ax.patches
    assert (patch.get_x(), patch.get_y()) == (-0.5, 0.5) and patch.get_width() == patch.get_height() == 1
    assert not patch.get_fill()
