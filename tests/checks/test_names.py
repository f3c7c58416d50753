import hostile_names
import pytest

from tanbr_jax.checks import names


@pytest.mark.parametrize(
  "name",
  ["tanbr", "tanbr without ascent", "$x^$", "a_b-c.d", "é😀", "n" * 100],
)
def test_names_that_can_be_used(name):
  names.check_name("method", name)


@pytest.mark.parametrize(
  "name",
  [
    *("", "a/b", "/elsewhere/x", "..", ".", ".hidden", "a\\b", "a:b", "a,b"),
    *("x\0y", "n" * 300, "é" * 51, "x ", " x", "a\nb", "\u202ex", "\udcff"),
    *(3, None),
  ],
)
def test_names_that_cannot_be_used(name):
  with pytest.raises(ValueError, match="method must be 1 to 100") as error:
    names.check_name("method", name)
  assert str(error.value).isprintable()


@pytest.mark.parametrize("name", hostile_names.NAMES)
def test_any_name_is_shown_in_one_line_of_utf8(name):
  shown = names.printable(name)
  assert shown.encode().decode() == shown and shown.isprintable()
  assert names.printable(shown) == shown
  if name.isprintable():
    assert shown == name


def test_what_cannot_be_shown_is_escaped():
  shown = names.printable("a\n\x1b\u202e\udcff\U0001f600\u4efb")
  assert shown == "a\\n\\x1b\\u202e\\udcff\U0001f600\u4efb"


def test_choices_are_named_in_the_error():
  names.check_choice("loop", "scan", ("scan", "python"))
  with pytest.raises(ValueError) as error:
    names.check_choice("loop", "while", {"scan": 1, "python": 2})
  assert str(error.value) == (
    "loop must be one of ('scan', 'python'), got loop='while'"
  )
