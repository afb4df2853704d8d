"""The targets store: a teacher's distributions, computed once and read by every student, sweep and epoch.

    meta = TargetsMeta(kind="counts", draws=50, seed=0, vocab_size=..., teacher_hash=..., ...)
    with TargetsWriter(folder, meta) as writer:
        key = sequence_key(example.ids, example.n_prompt)
        if key not in writer:
            writer.add(key, logits_NV)            # or an iterable of chunks of rows
    reader = TargetsReader(folder, expect=meta)
    targets = reader.lookup(keys)                 # CSR arrays, rows in the order of `keys`

`meta.py` has the identity of a store, `sketch.py` turns logits into what is stored, `coding.py` compresses it,
`shards.py` has the file format, `writer.py` and `reader.py` write and read a store, and `stats.py` measures it.
"""

from __future__ import annotations

from potstill.components.targets.meta import SequenceKey, TargetsMeta, expected_bytes, sequence_key
from potstill.components.targets.reader import TargetRows, TargetsReader
from potstill.components.targets.stats import render_stats, store_stats
from potstill.components.targets.writer import TargetsWriter

__all__ = [
    "SequenceKey",
    "TargetRows",
    "TargetsMeta",
    "TargetsReader",
    "TargetsWriter",
    "expected_bytes",
    "render_stats",
    "sequence_key",
    "store_stats",
]
