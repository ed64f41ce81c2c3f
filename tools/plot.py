#!/usr/bin/env python3
"""Draws the figures of fastkv-eval's results files, each as PNG and SVG.

What is drawn follows from the file. Several files of one subcommand become one
figure; a method that they ran with different settings appears once for each,
with the settings that differ in its label. A single file's figure takes the
file's name, that of several the name of the subcommand. Everything is drawn
from the examples of a file, so also from one that is not complete. The same
files give the same bytes."""
import argparse
import os
import sys

try:
    import matplotlib
except ModuleNotFoundError:
    sys.exit(f"plot.py: {sys.executable} has no matplotlib: apt-get install python3-matplotlib and run with "
             "/usr/bin/python3, or pip install matplotlib")

from plotting import analyses, scores
from plotting.series import PlotError, gather, read
from plotting.style import SETTINGS

FIGURES = {  # by subcommand: title, function from the series to a figure
    "longbench": ("LongBench", scores.longbench),
    "ruler": ("RULER's tasks", scores.ruler),
    "niah": ("Needle in a haystack", scores.niah),
    "ppl": ("Perplexity", scores.windows),
    "kld": ("Divergence from full", scores.windows),
    "nll": ("Likelihood of given continuations", scores.nll),
    "overlap": ("Tokens that layers attend to", analyses.overlap),
    "hidden": ("Distance of hidden states from those under full", analyses.hidden),
    "choose-tsp": ("Choice of the TSP layer", analyses.choose_tsp),
    "ablation": ("FastKV's settings", analyses.ablation),
    "latency": ("Time by stage", analyses.latency),
}


def draw(subcommand, files, results, folder, title):
    """One figure in both formats; returns their paths."""
    heading, function = FIGURES[subcommand]
    try:
        figure = function(gather(results))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        found = f"none with {error}" if isinstance(error, KeyError) else str(error)
        raise PlotError(f"{', '.join(files)}: expected examples of fastkv-eval {subcommand}, found {found}") from None
    models = dict.fromkeys(result["settings"].get("model") or "" for result in results)
    figure.suptitle(f"{heading}: {', '.join(models)}" if title is None else title)
    stem = os.path.splitext(os.path.basename(files[0]))[0] if len(files) == 1 else subcommand
    paths = [os.path.join(folder, f"{stem}.{kind}") for kind in ("png", "svg")]
    for path, metadata in zip(paths, ({"Software": None}, {"Date": None, "Creator": None})):
        figure.savefig(path, metadata=metadata)
    return paths


def main():
    parser = argparse.ArgumentParser(prog="plot.py", description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="RESULT.json", help="results files of fastkv-eval")
    parser.add_argument("-o", "--output", metavar="FOLDER", default=".", help="where figures go (default: here)")
    parser.add_argument("--title", help="instead of the kind of figure and the model's name")
    options = parser.parse_args()
    matplotlib.rcdefaults()  # no user's style
    matplotlib.rcParams.update(SETTINGS)
    try:
        found = {}
        for path in dict.fromkeys(options.files):
            subcommand, result = read(path, FIGURES)
            files, results = found.setdefault(subcommand, ([], []))
            files.append(path)
            results.append(result)
        os.makedirs(options.output, exist_ok=True)
        for subcommand, (files, results) in found.items():
            print("\n".join(draw(subcommand, files, results, options.output, options.title)))
    except (PlotError, OSError) as error:
        print(f"plot.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
