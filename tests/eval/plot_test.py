#!/usr/bin/env python3
"""tools/plot.py on small results files of every subcommand: files, figures in them, same bytes, lines for mistakes.
Ends with 77, which ctest counts as skipped, where no Python at hand has matplotlib."""
import contextlib
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

TOOLS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools")
DEBIAN = "/usr/bin/python3"  # has python3-matplotlib even if another Python comes first in PATH

try:
    import matplotlib
except ModuleNotFoundError:
    if os.path.realpath(sys.executable) != os.path.realpath(DEBIAN) and os.path.exists(DEBIAN):
        os.execv(DEBIAN, [DEBIAN] + sys.argv)
    print("skipped: no matplotlib (apt-get install python3-matplotlib)")
    sys.exit(77)

sys.dont_write_bytecode = True
sys.path.insert(0, TOOLS)
from plotting import analyses, scores, series, style  # noqa: E402

METHODS = ["full", "fastkv", "snapkv"]


def file_of(subcommand, examples, methods=METHODS, complete=True, **settings):
    return {"tool": f"fastkv-eval {subcommand}", "version": "0", "complete": complete,
            "settings": {"model": "tiny", "methods": {m: settings.get(m, {}) for m in methods},
                         **{k: v for k, v in settings.items() if k not in METHODS}},
            "scores": [], "examples": examples}


def answers(subcommand, fields, methods=METHODS):
    """Every method's share of right answers is 1, 3/4, 1/2, … of each four questions."""
    examples = []
    for about in fields:
        for i in range(4):
            for m, method in enumerate(methods):
                key = "/".join([str(v) for v in about.values()] + [str(i), method])
                examples.append({"key": key, "method": method, **about, "score": float(i >= m)})
    return file_of(subcommand, examples, methods)


def kld(methods=METHODS, windows=2, **settings):
    return file_of("kld", [{"key": f"{w}/{m}", "window": w, "method": m, "tokens": 4, "nll": [1.0, 2.0, 3.0, 2.0],
                            "kl": [0.0] * 4 if m == "full" else [0.1, 0.2, 0.3, 0.2],
                            "same_best": 4 if m == "full" else 3} for w in range(windows) for m in methods],
                   methods, text="novel.txt", **settings)


def nll():
    return file_of("nll", [{"key": f"{line}/{m}", "method": m, "line": line, "task": "ab"[line % 2],
                            "nll": 1.0 + 0.1 * line + i, "greedy_equal": m == "full"}
                           | ({} if m == "full" else {"kl_to_full": 0.5 * i}) for line in range(1, 5)
                           for i, m in enumerate(METHODS)])


def overlap():
    shared = [[1.0, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 1.0]]
    return file_of("overlap", [{"key": str(p), "prompt": p, "mass": [0.5, 0.75, 1.0], "overlap": shared}
                               for p in range(2)], ["full"], k=8, length=40, window=8)


def hidden(subcommand="hidden", methods=("fastkv", "gemfilter")):
    result = file_of(subcommand, [{"key": f"{p}/{m}/{layer}", "prompt": p, "method": m, "layer": layer,
                                   "distance": [0.0, 0.1, 0.3 - 0.1 * layer], "final": 0.3 - 0.1 * layer,
                                   "prefill_ms": 5.0} for p in range(2) for m in methods for layer in (0, 1)],
                     list(methods))
    if subcommand == "choose-tsp":
        result["scores"] = [{"method": "fastkv", "layer": layer, "final": {"mean": 0.3 - 0.1 * layer},
                             "chosen": layer == 1} for layer in (0, 1)]
    return result


def ablation():
    grid = [(layer, rate, share) for layer in (1, 2) for rate in (0.1, 0.2) for share in (0.1, 0.3)]
    examples = []
    for row in (1, 2, 3):
        examples.append({"key": f"{row}/full", "method": "full", "nll": 1.0, "prefill_ms": 100.0})
        for layer, rate, share in grid:
            examples.append({"key": f"{row}/{layer}/{rate}/{share}", "method": "fastkv", "tsp_layer": layer,
                             "tsp_rate": rate, "retention": share, "kl_to_full": 0.1 / layer / share,
                             "prefill_ms": 20.0 * layer + 100 * rate if row > 1 else 5000.0})
    return file_of("ablation", examples, ["fastkv"])


def latency():
    def stages(ms):
        return {stage: ms / 8 for stage in style.STAGES}

    return file_of("latency", [{"key": f"{n}/{r}/{m}", "length": n, "method": m, "repetition": r,
                                "prefill_ms": n / (i + 1), "decode_ms_per_token": 4.0, "prefill_stages_ms": stages(7),
                                "decode_stages_ms": stages(70)} for n in (512, 1024, 3000) for r in range(2)
                               for i, m in enumerate(METHODS)], lengths=[512, 1024, 3000])


FILES = {
    "longbench": answers("longbench", [{"task": task} for task in ("qasper", "trec", "lcc")]),
    "ruler": answers("ruler", [{"task": task, "length": n} for task in ("vt", "cwe") for n in (1024, 2048)]),
    "ruler-file": answers("ruler", [{"task": "vt", "length": None}]),
    "niah": answers("niah", [{"task": "niah", "length": n, "depth": d} for n in (1024, 16000) for d in (0, 50, 100)]),
    "ppl": file_of("ppl", kld()["examples"]),
    "kld": kld(),
    "nll": nll(),
    "overlap": overlap(),
    "hidden": hidden(),
    "choose-tsp": hidden("choose-tsp", ["fastkv"]),
    "ablation": ablation(),
    "latency": latency(),
}


def texts(axis):
    return [text.get_text() for text in axis.texts]


class Plot(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style.SETTINGS)

    def setUp(self):
        self.scratch = tempfile.TemporaryDirectory()
        self.addCleanup(self.scratch.cleanup)

    def write(self, name, content):
        path = os.path.join(self.scratch.name, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(content if isinstance(content, str) else json.dumps(content))
        return path

    def run_plot(self, *arguments):
        done = subprocess.run([sys.executable, "-B", os.path.join(TOOLS, "plot.py"), *arguments], check=False,
                              capture_output=True, text=True, cwd=self.scratch.name)
        return done.returncode, done.stdout, done.stderr

    def refusal(self, *arguments):
        status, out, error = self.run_plot(*arguments)
        self.assertEqual(out, "")
        self.assertEqual(error.count("\n"), 1, error)
        return status, error.replace(self.scratch.name + os.sep, "")

    # ---- whole files

    def test_every_figure_in_both_formats_with_the_same_bytes(self):
        paths = {name: self.write(name + ".json", result) for name, result in FILES.items()}
        del paths["ruler-file"]  # a second file of a subcommand would go into one figure with the first
        bytes_of = []
        for folder in ("a", "deep/b"):
            status, out, error = self.run_plot(*paths.values(), "-o", folder)
            self.assertEqual((status, error), (0, ""))
            self.assertEqual(out.splitlines(), [f"{folder}/{name}.{kind}" for name in paths for kind in ("png", "svg")])
            bytes_of.append([])
            for line in out.splitlines():
                with open(os.path.join(self.scratch.name, line), "rb") as file:
                    bytes_of[-1].append(file.read())
        self.assertEqual(bytes_of[0], bytes_of[1])
        for png, svg in zip(bytes_of[0][::2], bytes_of[0][1::2]):
            self.assertEqual(png[:8], b"\x89PNG\r\n\x1a\n")
            width, height = struct.unpack(">II", png[16:24])
            self.assertLessEqual(width, 7.2 * 200)
            self.assertGreater(width, 4 * 200)
            self.assertGreater(height, 200)
            root = xml.etree.ElementTree.fromstring(svg)
            self.assertEqual(root.tag, "{http://www.w3.org/2000/svg}svg")
            self.assertNotIn(b"<dc:date>", svg)

    def test_several_files_of_a_subcommand_are_one_figure(self):
        a = self.write("a.json", kld(["full", "fastkv"], fastkv={"retention": 0.1, "window": 8}))
        b = self.write("b.json", kld(["full", "fastkv"], fastkv={"retention": 0.3, "window": 8}))
        status, out, _ = self.run_plot(a, b)
        self.assertEqual((status, out), (0, "./kld.png\n./kld.svg\n"))
        found = series.gather([series.read(path, FILES)[1] for path in (a, b)])
        self.assertEqual([one.label for one in found], ["full", "fastkv, retention 0.1", "fastkv, retention 0.3"])
        self.assertEqual([len(one.examples) for one in found], [2, 2, 2])

    def test_mistakes_are_one_line(self):
        self.assertEqual(self.run_plot()[0], 2)
        self.assertEqual(self.run_plot("--help")[0], 0)
        self.assertEqual(self.refusal("none.json"), (1, "plot.py: none.json: No such file or directory\n"))
        cases = {
            "{": "expected JSON, found: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
            "[1]": "expected a results file of fastkv-eval, found \"tool\": null",
            "{\"tool\": \"fastkv-bench\"}": "expected a results file of fastkv-eval, found \"tool\": \"fastkv-bench\"",
            "{\"tool\": \"fastkv-eval x\"}": "expected results of longbench, ruler, niah, ppl, kld, nll, overlap, "
                                           "hidden, choose-tsp, ablation, latency, found x",
            "{\"tool\": \"fastkv-eval ppl\"}": "expected \"settings\" and \"examples\", as in results files of "
                                             "fastkv-eval",
            json.dumps(file_of("ppl", [])): "no example is finished",
            json.dumps(file_of("ppl", [{}])): "expected examples with a \"key\" each",
            json.dumps(file_of("niah", [{"key": "1", "method": "full", "score": 1}])):
                "expected examples of fastkv-eval niah, found ",
        }
        for content, line in cases.items():
            status, error = self.refusal(self.write("bad.json", content))
            self.assertEqual((status, error[:len(line) + 19]), (1, "plot.py: bad.json: " + line), error)
        good = self.write("ppl.json", FILES["ppl"])
        self.assertEqual(self.refusal(good, "-o", good)[0], 1)

    def test_an_incomplete_file_is_drawn_as_far_as_methods_can_be_compared(self):
        result = kld()
        result["complete"] = False
        result["examples"].pop()
        path = self.write("part.json", result)
        status, out, error = self.run_plot(path)
        self.assertEqual((status, out), (0, "./part.png\n./part.svg\n"))
        self.assertEqual(error, f"plot.py: {path} is not complete: drawn from the 3 of 5 finished examples that can be "
                                "compared\n")
        grid = ablation()
        grid["complete"] = False
        grid["examples"].pop()
        with contextlib.redirect_stderr(io.StringIO()):
            self.assertEqual(len(series.read(self.write("grid.json", grid), FILES)[1]["examples"]), 18)

    # ---- what figures say

    def figure(self, name, function):
        return function(series.gather([FILES[name]]))

    def test_scores(self):
        for name, function in (("longbench", scores.longbench), ("ruler-file", scores.ruler)):
            for axis in self.figure(name, function).axes:
                self.assertEqual(texts(axis), ["100.0", "75.0", "50.0"])
        axes = self.figure("ruler", scores.ruler).axes
        self.assertEqual([axis.get_title() for axis in axes], ["mean of tasks", "vt", "cwe"])
        lines = [line for line in axes[0].lines if line.get_marker() in "os^"]
        self.assertEqual([list(line.get_ydata()) for line in lines], [[100, 100], [75, 75], [50, 50]])
        axes = self.figure("niah", scores.niah).axes
        self.assertEqual([axis.get_title() for axis in axes[:3]], ["full: 100.0 %", "fastkv: 75.0 %", "snapkv: 50.0 %"])
        self.assertEqual(axes[1].images[0].get_array().tolist(), [[75, 75]] * 3)
        self.assertEqual([label.get_text() for label in axes[0].get_xticklabels()], ["1K", "16,000"])

    def test_likelihood(self):
        kl, same, ppl = self.figure("kld", scores.windows).axes
        self.assertEqual(texts(kl), ["0.000", "0.200", "0.200"])
        self.assertEqual(texts(same), ["100.0", "75.0", "75.0"])
        self.assertEqual(texts(ppl), ["7.39"] * 3)  # e squared
        axes = self.figure("nll", scores.nll).axes
        self.assertEqual(len(axes), 9)
        self.assertEqual(axes[0].get_title(), "all rows: NLL over full")
        self.assertEqual([texts(axis) for axis in axes[:3]],
                         [["0.00", "1.00", "2.00"], ["0.00", "0.50", "1.00"], ["100.0", "0.0", "0.0"]])

    def test_analyses(self):
        axes = self.figure("overlap", analyses.overlap).axes
        self.assertEqual(axes[0].images[0].get_array().tolist(), FILES["overlap"]["examples"][0]["overlap"])
        axes = self.figure("hidden", analyses.hidden).axes
        self.assertEqual([line.get_ydata().round(9).tolist() for line in axes[1].lines], [[0, 0.1, 0.3], [0, 0.1, 0.2]])
        self.assertEqual(texts(self.figure("choose-tsp", analyses.choose_tsp).axes[0]), ["--tsp-layer 1"])
        front = [line for line in self.figure("ablation", analyses.ablation).axes[0].lines
                 if line.get_linestyle() == "--"]
        times = [30, 50]  # medians: the first row's 5,000 ms count for nothing
        self.assertEqual([list(line.get_xdata()) for line in front], [times])
        axes = self.figure("latency", analyses.latency).axes
        self.assertEqual(texts(axes[0]), ["512", "256 (2.00×)", "171 (3.00×)"])
        self.assertEqual(texts(axes[2])[1], "1.5 (2.00×)")
        self.assertEqual(texts(axes[3])[1], "4 (1.00×)")

    def test_mean_and_standard_error(self):
        self.assertEqual(series.mean([]), (None, None))
        self.assertEqual(series.mean([3.0]), (3.0, None))
        self.assertEqual(series.mean([1.0, 3.0]), (2.0, 1.0))
        self.assertEqual(series.mean_of_means([(1.0, 0.3), (3.0, 0.4), (None, None)]), (2.0, 0.25))


if __name__ == "__main__":
    unittest.main()
