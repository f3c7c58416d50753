"""Names that a file system allows and that a formula, a tag, a table, a
terminal or UTF-8 stumbles over."""

NAMES = (
  "$x^$",
  "\\$x^\\$",
  "$\\frac{",
  "100 %",
  "<b>&amp;\"'<b>",
  "a,b|c",
  "_hidden",
  "line\nend\ttab\x1b[31m\x7f",
  "\U0001f600 \u4efb\u52a1",
  "\u202eright to left\u200f",
  "n" * 200,
  "no UTF-8 \udcff\udcfe",
  "\u05e9\u05dc\u05d5\u05dd",
)
