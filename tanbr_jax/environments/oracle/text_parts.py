"""Disjoint parts of a text: to search on, to select on, to score on."""

from collections.abc import Sequence

import numpy as np


def split_text(
  arrays: Sequence[np.ndarray],
  num_parts: int,
  *,
  block: int = 4096,
  stride: int = 1,
) -> list[tuple[np.ndarray, ...]]:
  """Deals each task's text, block by block, to disjoint parts.

  Args:
    arrays: V arrays [N_v] of tokens, such as `corpus.splits["validation"]`.
    num_parts: how many parts.
    block: tokens dealt at a time; less where a task would not fill every part.
    stride: blocks are multiples of so many tokens; a task with fewer strides
      than parts leaves the last parts empty.

  Returns:
    `num_parts` tuples of V arrays. A part is blocks from all over the text, so
    that the parts are alike; a window may straddle two blocks.
  """
  dealt = []
  for text in arrays:
    size = min(block, text.size // num_parts)
    size = max(stride, size - size % stride)
    blocks = np.split(text, range(size, text.size, size))
    dealt.append(
      [
        np.concatenate([text[:0], *blocks[p::num_parts]])
        for p in range(num_parts)
      ]
    )
  return [tuple(task[part] for task in dealt) for part in range(num_parts)]
