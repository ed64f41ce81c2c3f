#!/usr/bin/env python3
"""What an arithmetic costs: KL divergence between two files of fastkv-run --save-logits, the reference first."""
import sys

import numpy as np

if len(sys.argv) != 3:
    sys.exit("usage: kld.py REFERENCE.npy OTHER.npy")
reference, other = (np.load(file, mmap_mode="r") for file in sys.argv[1:])
if reference.shape != other.shape:
    sys.exit(f"kld.py: expected equal shapes, found {reference.shape} and {other.shape}")


def log_softmax(logits):
    logits = logits.astype(np.float64)
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


kl, same = [], 0
for begin in range(0, len(reference), 256):
    p, q = (log_softmax(x[begin : begin + 256]) for x in (reference, other))
    kl.append((np.exp(p) * (p - q)).sum(axis=1))
    same += (p.argmax(axis=1) == q.argmax(axis=1)).sum()
kl = np.concatenate(kl)
print(f"{len(kl)} tokens  mean KL {kl.mean():.5f}  median {np.median(kl):.5f}  99 % {np.quantile(kl, 0.99):.4f}"
      f"  same best token {100 * same / len(kl):.2f} %")
