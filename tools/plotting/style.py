"""What all figures share: colours, panels, bars with whiskers, curves."""
import math

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Colour, marker and hatch of a method: Okabe and Ito's colours, and three that differ from them in lightness. Only
# hatches of lines: dots, circles and stars make an SVG several times as large.
METHODS = {
    "full": ("#000000", "o", ""),
    "fastkv": ("#D55E00", "s", ""),
    "snapkv": ("#0072B2", "^", "////"),
    "streamingllm": ("#F0E442", "v", "||"),
    "h2o": ("#009E73", "D", "\\\\\\\\"),
    "gemfilter": ("#E69F00", "P", "xxxx"),
    "pyramidinfer": ("#56B4E9", "X", "----"),
    "headkv": ("#CC79A7", "<", "||||"),
    "pyramidkv": ("#882255", ">", "++++"),
    "adakv": ("#999999", "p", "xx"),
    "tova": ("#5C5400", "*", "--"),
}
STAGES = {
    "unpack": ("#CC79A7", "||||"),
    "gemm": ("#0072B2", ""),
    "attention": ("#E69F00", "////"),
    "scores": ("#D55E00", ""),
    "selection": ("#000000", ""),
    "store": ("#009E73", "\\\\\\\\"),
    "rest": ("#56B4E9", "----"),
    "wait": ("#FFFFFF", ""),
}
VARIANTS = ["-", "--", ":", "-."]  # lines of a method under several settings
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
INK = "#222222"
EMPHASIS = "#0072B2"
WIDTH = 7.2  # inches: the text of a page
SETTINGS = {
    "font.family": "DejaVu Sans", "font.size": 8, "figure.titlesize": 9, "axes.titlesize": 8, "axes.labelsize": 8,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "xtick.major.width": 0.6,
    "ytick.major.width": 0.6, "axes.axisbelow": True, "grid.color": "#DDDDDD", "grid.linewidth": 0.5,
    "lines.linewidth": 1.4, "lines.markersize": 4, "hatch.linewidth": 0.4, "image.cmap": "viridis", "savefig.dpi": 200,
    "svg.hashsalt": "fastkv", "svg.fonttype": "path",
}


def style(series):
    """Colour, marker, hatch, line."""
    colour, marker, hatch = METHODS.get(series.method, ("#555555", "h", ""))
    return colour, marker, hatch + "//" * series.variant, VARIANTS[series.variant % len(VARIANTS)]


def tokens(n):
    if n is None:
        return "-"
    return f"{n // 1024}K" if n % 1024 == 0 and n % 1000 else f"{n:,}"


def panels(count, columns, height, below=0.0, width=WIDTH, sharey=True):
    """A figure with `count` axes in rows of `columns`, `height` inches a row, and `below` inches for a legend."""
    columns = min(columns, count)
    rows = -(-count // columns)
    whole = rows * height + 0.35 + below
    figure = Figure(figsize=(width, whole))
    figure.set_layout_engine("constrained", rect=(0, below / whole, 1, 1 - below / whole))
    axes = figure.subplots(rows, columns, squeeze=False, sharey=sharey).flatten()
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, list(axes[:count])


def last_row(axes, columns):
    """Index of the first of the lowest panels."""
    return (len(axes) - 1) // columns * columns


def legend_below(figure, handles, columns):
    figure.legend(handles=handles, loc="lower center", ncol=columns, handlelength=2.6, columnspacing=1.4)


def name_rows(axis, series):
    """A line of the panel per series, from the top."""
    axis.set_ylim(len(series) - 0.4, -0.6)
    axis.set_yticks(range(len(series)), [one.label.replace(", ", "\n", 1) for one in series])
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x")


def rows_height(series):
    """Inches for the lines of name_rows and what is around them."""
    line = 0.25 if any("," in one.label for one in series) else 0.14
    return 0.5 + line * max(2, len(series))


def bars(axis, series, values, percent=False):
    """A horizontal bar per series with one standard error as whisker; `values`: (mean, error) of each."""
    known = [(m, e or 0) for m, e in values if m is not None]
    lowest, highest = min([0] + [m - e for m, e in known]), max([0] + [m + e for m, e in known])
    if percent:
        highest = max(highest, 100)
    span = (highest - lowest) or 1
    digits = 1 if percent else max(0, 2 - math.floor(math.log10(span)))  # three figures of the largest
    for i, (one, (m, error)) in enumerate(zip(series, values)):
        if m is None:
            continue
        colour, _, hatch, _ = style(one)
        axis.barh(i, m, height=0.72, color=colour, edgecolor=INK, linewidth=0.5, hatch=hatch)
        for width, ink in ((2, "white"), (0.9, INK)) if error else ():  # a white rim, to be seen on dark bars
            axis.errorbar(m, i, xerr=error, ecolor=ink, elinewidth=width, capsize=2, capthick=width)
        axis.annotate(f"{m:.{digits}f}", (max(m, 0) + (error or 0), i), (3, 0),
                      textcoords="offset points", va="center", fontsize=6.5)
    axis.set_xlim(lowest * 1.04, highest + 0.3 * span)
    if lowest < 0:
        axis.axvline(0, color=INK, linewidth=0.6)
    if percent:
        axis.set_xticks([0, 25, 50, 75, 100])
    else:
        axis.xaxis.set_major_locator(MaxNLocator(4))
    name_rows(axis, series)


def bar_grid(series, entries, columns):
    """Bars in panels; `entries`: (title, unit, values) each; units with % reach from 0 to 100."""
    width = {1: 4.2, 2: 5.8}.get(min(columns, len(entries)), WIDTH)
    figure, axes = panels(len(entries), columns, rows_height(series), width=width)
    for i, (axis, (title, unit, values)) in enumerate(zip(axes, entries)):
        bars(axis, series, values, "%" in unit)
        axis.set_title(title)
        if i >= last_row(axes, columns):
            axis.set_xlabel(unit)
    return figure


def curve(axis, one, x, points, shift=0.0):
    """A line with whiskers; `points`: (mean, error) each."""
    colour, marker, _, line = style(one)
    known = [(a + shift, m, e or 0) for a, (m, e) in zip(x, points) if m is not None]
    a, m, e = zip(*known) if known else ((), (), ())
    return axis.errorbar(a, m, yerr=e, color=colour, marker=marker, linestyle=line, markeredgecolor=INK,
                         markeredgewidth=0.5, elinewidth=0.7, capsize=1.5, label=one.label)


def colourbar(figure, image, axes, label, **more):
    bar = figure.colorbar(image, ax=axes, pad=0.02, **more)
    bar.set_label(label)
    bar.outline.set_visible(False)
    return bar


def whole_numbers(*axes):
    for axis in axes:
        axis.set_major_locator(MaxNLocator(8, integer=True))
