"""Figures of the evaluations that score answers or likelihood: bars and curves by method, heat maps of niah."""
import json
import math

from plotting.series import distinct, mean, mean_of_means
from plotting.style import WIDTH, bar_grid, colourbar, curve, last_row, legend_below, panels, tokens


def score(one, **where):
    """Mean and error in percent."""
    return mean([100 * value for value in one.column("score", **where)])


def niah(series):
    """Heat maps length x depth, a panel per method."""
    lengths, depths = distinct(series, "length"), distinct(series, "depth")
    columns = min(4, max(2, len(series)))
    height = 0.62 + max(0.9, 0.145 * len(depths))
    figure, axes = panels(len(series), columns, height)
    labels = [tokens(n) for n in lengths]
    inside = WIDTH / columns - 0.5
    crowded = sum(len(text) + 1 for text in labels) * 0.065 > inside
    with_numbers = len(lengths) * 0.24 < inside
    for i, (axis, one) in enumerate(zip(axes, series)):
        cells = [[score(one, length=n, depth=depth)[0] for n in lengths] for depth in depths]
        axis.set_facecolor("#CCCCCC")  # where nothing was measured
        image = axis.imshow([[math.nan if cell is None else cell for cell in row] for row in cells], vmin=0, vmax=100,
                            aspect="auto", interpolation="nearest")
        for y, row in enumerate(cells if with_numbers else []):
            for x, cell in enumerate(row):
                if cell is not None:
                    axis.text(x, y, f"{cell:.0f}", ha="center", va="center", fontsize=6,
                              color="white" if cell < 60 else "black")
        axis.set_title(f"{one.label}: {score(one)[0]:.1f} %")
        axis.set_xticks(range(len(labels)), labels, rotation=90 if crowded else 0)
        axis.set_yticks(range(len(depths)), [f"{depth:g} %" for depth in depths])
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        if i >= last_row(axes, columns):
            axis.set_xlabel("tokens of the prompt")
        if i % columns == 0:
            axis.set_ylabel("depth of the needle")
    colourbar(figure, image, axes, "score, %", aspect=25)
    return figure


def score_bars(series, tasks):
    """A panel per task; `tasks`: {title: fields of its examples}."""
    entries = [(title, "score, %", [score(one, **where) for one in series]) for title, where in tasks.items()]
    if len(entries) > 1:
        each = zip(*(values for _, _, values in entries))
        entries.insert(0, ("mean of tasks", "score, %", [mean_of_means(means) for means in each]))
    return bar_grid(series, entries, 4)


def longbench(series):
    """Bars, a panel per data set; of LongBench-E per set and length class."""
    found = dict.fromkeys((e["task"], e.get("class")) for one in series for e in one.examples.values())
    return score_bars(series, {f"{task}, {name}" if name else task: {"task": task, "class": name}
                               for task, name in found})


def ruler(series):
    """Curves by length where there are several, else bars; a panel per task."""
    tasks, lengths = distinct(series, "task"), distinct(series, "length")
    if len(lengths) == 1:
        return score_bars(series, {task: {"task": task} for task in tasks})
    titles = (["mean of tasks"] if len(tasks) > 1 else []) + tasks
    columns = 4 if len(titles) > 3 else 3
    in_a_row = max(1, min(6, int(WIDTH / (0.6 + 0.06 * max(len(one.label) for one in series)))))
    figure, axes = panels(len(titles), columns, 1.5, below=0.1 + 0.16 * -(-len(series) // in_a_row))
    handles = []
    for i, one in enumerate(series):
        lines = [[score(one, task=task, length=n) for n in lengths] for task in tasks]
        if len(tasks) > 1:
            lines.insert(0, [mean_of_means(at) for at in zip(*lines)])
        shift = 0.03 * (i - (len(series) - 1) / 2)  # whiskers side by side
        handles += [curve(axis, one, range(len(lengths)), line, shift) for axis, line in zip(axes, lines)][:1]
    for i, (axis, title) in enumerate(zip(axes, titles)):
        axis.set_title(title)
        axis.set_xticks(range(len(lengths)), [tokens(n) for n in lengths])
        axis.set_xlim(-0.3, len(lengths) - 0.7)
        axis.set_ylim(-4, 104)
        axis.grid(axis="y")
        if i % columns == 0:
            axis.set_ylabel("score, %")
        if i >= last_row(axes, columns):
            axis.set_xlabel("tokens of the prompt")
    legend_below(figure, handles, in_a_row)
    return figure


def nll(series):
    """Bars of what compression costs a continuation, a row of panels per task."""
    full = {json.dumps(one.common): {e["line"]: e["nll"] for e in one.examples.values()}
            for one in series if one.method == "full"}

    def excess(one, where):
        base = full.get(json.dumps(one.common), {})
        return mean([e["nll"] - base[e["line"]] for e in one.select(**where) if e["line"] in base])

    def divergence(one, where):
        return (0.0, None) if one.method == "full" else mean(one.column("kl_to_full", **where))

    tasks = [task for task in distinct(series, "task") if task is not None]
    entries = []
    for title, where in [("all rows", {})] + [(task, {"task": task}) for task in tasks if len(tasks) > 1]:
        if full:
            entries.append((f"{title}: NLL over full", "nats per token", [excess(one, where) for one in series]))
            entries.append((f"{title}: KL to full", "nats per token", [divergence(one, where) for one in series]))
        else:
            entries.append((f"{title}: NLL", "nats per token", [mean(one.column("nll", **where)) for one in series]))
        equal = [mean([100 * value for value in one.column("greedy_equal", **where)]) for one in series]
        entries.append((f"{title}: greedy answer equal", "% of rows", equal))
    return bar_grid(series, entries, 3 if full else 2)


def windows(series):
    """ppl, kld: bars of perplexity; of divergence and agreement too."""
    def joined(one, name):
        return [value for e in one.examples.values() for value in e.get(name, [])]

    def perplexity(one):
        m, error = mean(joined(one, "nll"))
        return math.exp(m), math.exp(m) * error if error else None

    def agreement(one):
        same, n = int(sum(one.column("same_best"))), int(sum(one.column("tokens")))
        return mean([100.0] * same + [0.0] * (n - same))

    entries = [("perplexity", "lower is better", [perplexity(one) for one in series])]
    if any(joined(one, "kl") for one in series):
        entries = [("mean KL to full", "nats per token", [mean(joined(one, "kl")) for one in series]),
                   ("same best token as full", "% of tokens", [agreement(one) for one in series])] + entries
    return bar_grid(series, entries, 3)
