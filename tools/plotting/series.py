"""Results files of fastkv-eval as series: the examples of one method under one set of settings."""
import json
import math
import os
import sys
from dataclasses import dataclass, field

from plotting.style import METHODS


class PlotError(Exception):
    """One line for the user."""


@dataclass
class Series:
    method: str
    common: dict  # settings of the file, without those of its methods
    options: dict  # of the method
    label: str = ""
    variant: int = 0  # of its method
    examples: dict = field(default_factory=dict)  # by key
    scores: list = field(default_factory=list)  # of the file, all its methods

    def select(self, **where):
        return [e for e in self.examples.values() if all(e.get(key) == value for key, value in where.items())]

    def column(self, name, **where):
        return [float(e[name]) for e in self.select(**where) if name in e]


def read(path, subcommands):
    """The subcommand that wrote a results file, and the file's JSON."""
    try:
        with open(path, encoding="utf-8") as file:
            result = json.load(file)
    except OSError as error:
        raise PlotError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise PlotError(f"{path}: expected JSON, found: {error}") from None
    tool = result.get("tool") if isinstance(result, dict) else None
    program, _, subcommand = tool.partition(" ") if isinstance(tool, str) else ("", "", "")
    if program != "fastkv-eval":
        raise PlotError(f"{path}: expected a results file of fastkv-eval, found \"tool\": {json.dumps(tool)}")
    if subcommand not in subcommands:
        raise PlotError(f"{path}: expected results of {', '.join(subcommands)}, found {subcommand}")
    examples = result.get("examples")
    if not isinstance(examples, list) or not isinstance(result.get("settings"), dict):
        raise PlotError(f"{path}: expected \"settings\" and \"examples\", as in results files of fastkv-eval")
    if not all(isinstance(example, dict) and isinstance(example.get("key"), str) for example in examples):
        raise PlotError(f"{path}: expected examples with a \"key\" each")
    if not examples:
        raise PlotError(f"{path}: no example is finished")
    if not result.get("complete"):
        result["examples"] = shared(examples, subcommand in ("hidden", "choose-tsp", "ablation"))
        print(f"plot.py: {path} is not complete: drawn from the {len(result['examples'])} of {len(examples)} finished "
              "examples that can be compared", file=sys.stderr)
    return subcommand, result


def shared(examples, item_first):
    """Of what was begun, only items that every method (or point of a grid) has: the others would be compared with less.
    An example's key is its item and what was done with it, in this order, either of one part."""
    def parts(example):
        item, _, work = example["key"].partition("/") if item_first else example["key"].rpartition("/")
        return item, work

    items = {}  # by work
    for item, work in map(parts, examples):
        items.setdefault(work, set()).add(item)
    common = set.intersection(*items.values())
    return [example for example in examples if parts(example)[0] in common] or examples


def gather(results):
    """The series of files of one subcommand, in the order of METHODS."""
    found = []
    for result in results:
        settings = result["settings"]
        # lengths say which examples there are, and examples have their own
        common = {name: value for name, value in settings.items() if name not in ("methods", "lengths")}
        for example in result["examples"]:
            method = example.get("method", "full")
            options = settings.get("methods", {}).get(method, {})
            for series in found:
                if (series.method, series.common, series.options) == (method, common, options):
                    break
            else:
                series = Series(method, common, options)
                found.append(series)
            series.examples.setdefault(example["key"], example)
            series.scores = result.get("scores") or []
    for method in {series.method for series in found}:
        name_variants([series for series in found if series.method == method])
    order = list(METHODS)
    return sorted(found, key=lambda s: (order.index(s.method) if s.method in METHODS else len(order), s.variant))


def name_variants(variants):
    """Labels of one method's series: the method, and those settings that are not the same in all of them."""
    settings = [{**series.common, **series.options} for series in variants]
    names = dict.fromkeys(name for one in settings for name in one)
    differing = [name for name in names if any(one.get(name) != settings[0].get(name) for one in settings)]
    for i, series in enumerate(variants):
        series.variant = i
        series.label = ", ".join([series.method] + [f"{name.replace('_', ' ')} {brief(settings[i].get(name))}"
                                                    for name in differing])


def brief(value):
    if isinstance(value, list):
        return " ".join(map(brief, value))[:32]
    if isinstance(value, str):
        return os.path.basename(value)[:32]
    if isinstance(value, float):
        return f"{value:g}"
    return "-" if value is None else json.dumps(value)[:32]


def distinct(series, name):
    """Values of a field in their order of appearance; numbers ascending."""
    values = list(dict.fromkeys(e.get(name) for one in series for e in one.examples.values()))
    return sorted(values) if all(isinstance(value, (int, float)) for value in values) else values


def mean(values):
    """Mean and standard error; (None, None) of nothing, no error of a single value."""
    n = len(values)
    if n == 0:
        return None, None
    m = sum(values) / n
    return m, math.sqrt(sum((value - m) ** 2 for value in values) / (n - 1) / n) if n > 1 else None


def mean_of_means(means):
    """Mean of independent (mean, error) with equal weights."""
    means = [(m, e) for m, e in means if m is not None]
    if not means:
        return None, None
    errors = [e for _, e in means]
    error = None if None in errors else math.sqrt(sum(e * e for e in errors)) / len(means)
    return sum(m for m, _ in means) / len(means), error
