"""Any name as text of a figure."""

import functools

from matplotlib import font_manager

from tanbr_jax.checks.names import printable

# More letters leave no room for the lines beside a legend.
_MAX_LETTERS = 32


def plain(text: str) -> str:
  r"""Returns what draws `text` letter by letter.

  A name may hold `$`, which would begin a formula, a line end, letters that
  the font lacks (they are drawn as escapes such as `\u4efb`), or begin with
  `_`, which would keep it out of a legend. Long names lose their middle.
  """
  known = _characters()
  shown = "".join(
    char if ord(char) in known else char.encode("unicode_escape").decode()
    for char in printable(text)
  )
  if len(shown) > _MAX_LETTERS:
    half = _MAX_LETTERS // 2
    shown = f"{shown[: half - 1]}\u2026{shown[-half:]}"
  if shown.startswith("_"):
    shown = f" {shown}"
  return shown.replace("$", r"\$")


@functools.cache
def _characters() -> frozenset[int]:
  """The code points that the figures' font can draw."""
  path = font_manager.findfont(font_manager.FontProperties())
  return frozenset(font_manager.get_font(path).get_charmap())
