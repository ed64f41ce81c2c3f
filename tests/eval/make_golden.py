#!/usr/bin/env python3
"""Writes metrics_golden.json, what metrics_test.cpp compares with: random texts and the scores that Python, the
package rouge and the package rapidfuzz give them. Again:

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install rouge==1.0.1 rapidfuzz==3.14.6
    /tmp/golden/bin/python tests/eval/make_golden.py > tests/eval/metrics_golden.json

Python 3.11 (Unicode 14); the texts depend on the seed below alone."""
import collections
import json
import random
import re
import string

from rapidfuzz import fuzz
from rouge import Rouge

WORDS = """a an the A The river mill keeper lantern seven bridges crossed before dawn quietly wrote letters nobody read
harbour gulls 42 1,000 3 x=y foo(bar) don't well-known Zürich École naïve ΑΒΓ Москва 東京 “quoted” the—end a–b —a— ’the’
été_la İzmir STRASSE weiß it's U N o'clock _ ... % é ā""".split()
BREAKS = [" "] * 12 + ["  ", "\n", "\t", " \n", "\u00a0", "\u2003"]
STOPS = [". ", ".", ". ", " . ", "... ", "! ", ", ", ".\n", ""]


def text(random_, words):
    out = ""
    for _ in range(words):
        out += random_.choice(WORDS) + (random_.choice(STOPS) if random_.random() < 0.15 else "")
        out += random_.choice(BREAKS)
    return out if random_.random() < 0.3 else out.strip()


def changed(random_, source):
    """`source` with some of its pieces dropped, moved or replaced."""
    pieces = re.split("( )", source)
    for _ in range(random_.randint(0, 4)):
        if not pieces:
            break
        at = random_.randrange(len(pieces))
        action = random_.randrange(4)
        if action == 0:
            del pieces[at:at + random_.randint(1, 6)]
        elif action == 1:
            pieces.insert(at, " " + text(random_, 3) + " ")
        elif action == 2:
            pieces[at] = pieces[at].swapcase()
        else:
            pieces.insert(random_.randrange(len(pieces)), pieces.pop(at))
    return "".join(pieces)


def bag(source):
    """The words of an answer: lower case, without ASCII punctuation and articles."""
    plain = source.lower().translate({ord(c): None for c in string.punctuation})
    return re.compile(r"\b(?:a|an|the)\b").sub(" ", plain).split()


def f1(prediction, reference):
    p, r = bag(prediction), bag(reference)
    same = (collections.Counter(p) & collections.Counter(r)).total()
    return 2 * same / (len(p) + len(r)) if same else 0


def rouge_l(prediction, reference):
    try:
        return Rouge().get_scores([prediction], [reference], avg=True)["rouge-l"]["f"]
    except ValueError:  # one of them has no sentence
        return 0


def main():
    random_ = random.Random(20)
    pairs = []
    for number in range(300):
        reference = text(random_, random_.choice([0, 1, 2, 4, 8, 16, 30]))
        prediction = changed(random_, reference) if number % 2 else text(random_, random_.choice([0, 1, 3, 8, 20]))
        pairs.append({"prediction": prediction, "reference": reference, "qa_f1": f1(prediction, reference),
                      "rouge_l": rouge_l(prediction, reference), "ratio": fuzz.ratio(prediction, reference) / 100})
    cased = "".join(chr(c) for c in range(0x110000) if chr(c).lower() != chr(c))
    print("{\"cased\": %s,\n\"lowered\": %s,\n\"pairs\": [" % (json.dumps(cased, ensure_ascii=False),
                                                            json.dumps("".join(c.lower() for c in cased),
                                                                       ensure_ascii=False)))
    print(",\n".join(json.dumps(pair, ensure_ascii=False) for pair in pairs))
    print("]}")


main()
