"""Figures of the analyses: overlap, hidden, choose-tsp, ablation, latency."""
import json
import math
import statistics

import matplotlib
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from plotting.series import distinct, mean
from plotting.style import (EMPHASIS, INK, MARKERS, STAGES, colourbar, curve, legend_below, name_rows, panels,
                            rows_height, tokens, whole_numbers)


def overlap(series):
    """Per series the matrix of top tokens that layers share, and the attention that they hold by layer."""
    figure, axes = panels(2 * len(series), 2, 2.9, sharey=False)
    for one, left, right in zip(series, axes[::2], axes[1::2]):
        examples = one.select()
        layers = range(len(examples[0]["mass"]))
        k, length, window = (one.common[name] for name in ("k", "length", "window"))
        image = left.imshow([[mean([e["overlap"][a][b] for e in examples])[0] for b in layers] for a in layers],
                            vmin=0, vmax=1, interpolation="nearest", origin="lower")
        left.set_title(f"share of their top {k} tokens\nthat two layers have in common")
        left.set_xlabel("layer")
        left.set_ylabel("layer")
        bar = colourbar(figure, image, left, "white line: by chance", shrink=0.85, aspect=25)
        bar.ax.axhline(k / (length - window), color="white", linewidth=1.5)
        curve(right, one, layers, [mean([e["mass"][layer] for e in examples]) for layer in layers])
        right.axhline(k / length, color="#555555", linestyle=":", linewidth=1)
        right.annotate("if attention were even", (0, k / length), (0, -8), fontsize=6.5, textcoords="offset points")
        right.set_ylim(0, 1.02)
        right.set_title(f"share of the last {window} queries' attention\non a layer's top {k} tokens")
        right.set_xlabel("layer")
        right.grid(axis="y")
        whole_numbers(left.xaxis, left.yaxis, right.xaxis)
    return figure


def final_distance(axis, series):
    """The distance after the last layer, by the layer that drops tokens."""
    for one in series:
        layers = distinct([one], "layer")
        curve(axis, one, layers, [mean(one.column("final", layer=layer)) for layer in layers])
    axis.set_ylim(bottom=0)
    axis.set_xlabel("TSP layer" if {one.method for one in series} == {"fastkv"} else "TSP or filter layer")
    axis.grid(axis="y")
    whole_numbers(axis.xaxis)


def hidden(series):
    """The final distance by the layer that drops tokens; beside it the distance after every layer, a line for each."""
    figure, axes = panels(1 + len(series), 3, 2.5)
    final_distance(axes[0], series)
    axes[0].legend()
    axes[0].set_title("after the last layer")
    axes[0].set_ylabel("distance from full, relative")
    layers = distinct(series, "layer")
    shades = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(min(layers), max(layers)), "viridis")
    for axis, one in zip(axes[1:], series):
        for layer in distinct([one], "layer"):
            line = [mean(at)[0] for at in zip(*(e["distance"] for e in one.select(layer=layer)))]
            axis.plot(range(len(line)), line, color=shades.to_rgba(layer), linewidth=1)
        axis.set_title(f"{one.label}, after every layer")
        axis.set_xlabel("layer")
        axis.grid(axis="y")
        whole_numbers(axis.xaxis)
    bar = colourbar(figure, shades, axes[1:], "TSP or filter layer", aspect=30)
    whole_numbers(bar.ax.yaxis)
    return figure


def choose_tsp(series):
    """The final distance by TSP layer, with the chosen one."""
    figure, (axis,) = panels(1, 1, 2.6, width=4.8)
    final_distance(axis, series)
    axis.set_ylabel("distance from full after the last layer")
    for layer in dict.fromkeys(s["layer"] for one in series for s in one.scores if s.get("chosen")):
        axis.axvline(layer, color=EMPHASIS, linestyle="--", linewidth=1, zorder=1)
        axis.annotate(f"--tsp-layer {layer}", (layer, 1), (-4, -2), xycoords=axis.get_xaxis_transform(),
                      textcoords="offset points", ha="right", va="top", color=EMPHASIS, fontweight="bold")
    return figure


def ablation(series):
    """KL to full against the time of the prompt: colour by TSP layer, marker by TSP rate, size by retention."""
    groups = {json.dumps(one.common): [] for one in series}
    for one in series:
        groups[json.dumps(one.common)].append(one)
    figure, axes = panels(len(groups), 1, 3.6)
    for axis, members in zip(axes, groups.values()):
        grid = [one for one in members if one.method != "full"]
        layers, rates, kept = (distinct(grid, name) for name in ("tsp_layer", "tsp_rate", "retention"))
        shades = matplotlib.colormaps["viridis"]
        colour = {layer: shades(i / max(1, len(layers) - 1)) for i, layer in enumerate(layers)}
        marker = {rate: MARKERS[i % len(MARKERS)] for i, rate in enumerate(rates)}
        size = {share: 16 + 60 * i / max(1, len(kept) - 1) for i, share in enumerate(kept)}  # points squared
        points = []
        for one in grid:
            for layer, rate, share in dict.fromkeys((e["tsp_layer"], e["tsp_rate"], e["retention"])
                                                    for e in one.select()):
                where = {"tsp_layer": layer, "tsp_rate": rate, "retention": share}
                # of times the median: one disturbed run does not move it
                points.append((statistics.median(one.column("prefill_ms", **where)),
                               mean(one.column("kl_to_full", **where))[0]))
                axis.scatter(*points[-1], s=size[share], marker=marker[rate], color=[colour[layer]], edgecolor=INK,
                             linewidth=0.5, zorder=3)
        best = []  # no other point is both faster and nearer to full
        for ms, kl in sorted(points):
            if not best or kl < best[-1][1]:
                best.append((ms, kl))
        axis.plot(*zip(*best), color="#555555", linewidth=1, linestyle="--", zorder=2)
        for one in members:
            if one.method == "full":
                ms = statistics.median(one.column("prefill_ms"))
                axis.axvline(ms, color="#000000", linewidth=1.2)
                axis.annotate("full", (ms, 1), (3, 0), xycoords=axis.get_xaxis_transform(),
                              textcoords="offset points", va="top")
        if min(kl for _, kl in points) > 0:
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
            axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.yaxis.set_minor_formatter(NullFormatter())
        axis.set_xlim(left=0)
        axis.set_xlabel("prefill, ms, median of the rows")
        axis.set_ylabel("KL to full, nats per token")
        axis.grid()
        dot = {"linestyle": "none", "markeredgecolor": INK, "markeredgewidth": 0.5}
        keys = [Line2D([], [], marker="o", color=colour[v], label=f"TSP layer {v}", **dot) for v in layers]
        keys += [Line2D([], [], marker=marker[v], color="white", label=f"TSP rate {v:g}", **dot) for v in rates]
        keys += [Line2D([], [], marker="o", color="white", markersize=math.sqrt(size[v]), label=f"retention {v:g}",
                        **dot) for v in kept]
        keys.append(Line2D([], [], color="#555555", linewidth=1, linestyle="--", label="none is faster\nand nearer"))
        axis.legend(handles=keys, loc="center left", bbox_to_anchor=(1.01, 0.5), labelspacing=0.7)
    return figure


def latency(series):
    """Stacked bars of stages: prefill above, a generated token below, a column per length."""
    lengths = distinct(series, "length")
    columns = min(3, len(lengths))
    places = columns * -(-len(lengths) // columns)
    stages = [s for s in STAGES if any(e[part][s] > 0 for one in series for e in one.select()
                                       for part in ("prefill_stages_ms", "decode_stages_ms"))]
    figure, axes = panels(2 * places, columns, rows_height(series) + 0.1, below=0.25)
    for i, axis in enumerate(axes):
        part, at = ("prefill", "decode")[i // places], i % places
        if at >= len(lengths):
            axis.set_axis_off()
            continue
        stacked(axis, series, lengths[at], part, stages)
        axis.set_title(f"{'prefill of' if part == 'prefill' else 'a token after'} {tokens(lengths[at])} tokens")
    legend_below(figure, [Patch(facecolor=STAGES[s][0], edgecolor=INK, linewidth=0.5, hatch=STAGES[s][1], label=s)
                          for s in stages], len(stages))
    return figure


def stacked(axis, series, length, part, stages):
    whole = "prefill_ms" if part == "prefill" else "decode_ms_per_token"
    totals = [mean(one.column(whole, length=length))[0] for one in series]
    largest = max(total for total in totals if total is not None)
    unit, scale = ("s", 1000) if largest >= 2000 else ("ms", 1)
    for i, (one, total) in enumerate(zip(series, totals)):
        if total is None:
            continue
        runs = [e[f"{part}_stages_ms"] for e in one.select(length=length)]
        sums = [sum(run[stage] for run in runs) for stage in stages]
        end = 0.0
        for stage, ms in zip(stages, sums):
            width = total / scale * ms / (sum(sums) or 1)  # the stages of decode are those of all its tokens
            colour, hatch = STAGES[stage]
            axis.barh(i, width, left=end, height=0.72, color=colour, edgecolor=INK, linewidth=0.4, hatch=hatch)
            end += width
        gain = f" ({totals[0] / total:.2f}×)" if i and totals[0] else ""
        axis.text(end + 0.02 * largest / scale, i, f"{end:{'.0f' if end >= 1000 else '.3g'}}{gain}", va="center", fontsize=6.5)
    axis.set_xlim(0, 1.5 * largest / scale)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.set_xlabel(f"{unit} (× faster than {series[0].label})" if len(series) > 1 else unit)
    name_rows(axis, series)
