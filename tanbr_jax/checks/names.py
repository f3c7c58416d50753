"""Names that users give: which can be used, and how any text is shown."""

from collections.abc import Iterable

MAX_BYTES = 100
# Of paths, of keys (`<stream>/<method>:<field>`) and of comma lists.
_SEPARATORS = frozenset("/\\:,")


def check_name(kind: str, name: str) -> None:
  """Refuses a name that cannot be part of a path, of a key and of a list.

  Args:
    kind: what it names, for the error.
    name: one name, without the separators of its surroundings.

  Raises:
    ValueError: the name is empty, too long, not printable, begins with a dot,
      begins or ends with a space or holds a separator.
  """
  if (
    not isinstance(name, str)
    or not name
    or not name.isprintable()
    or len(name.encode()) > MAX_BYTES
    or name != name.strip()
    or name.startswith(".")
    or _SEPARATORS & set(name)
  ):
    raise ValueError(
      f"{kind} must be 1 to {MAX_BYTES} bytes of printable text without '/', "
      "'\\', ':' or ',', without a dot in front and spaces around, got "
      f"{kind}={name!r}"
    )


def check_choice(name: str, value: str, known: Iterable[str]) -> None:
  """Refuses what is none of the values that an argument may have.

  Args:
    name: of the argument, for the error.
    value: what is given.
    known: what may be given.

  Raises:
    ValueError: the value is not known.
  """
  if value not in known:
    raise ValueError(
      f"{name} must be one of {tuple(known)}, got {name}={value!r}"
    )


def printable(text: str) -> str:
  r"""Returns text of one line that is UTF-8 and shows whatever it holds.

  Control characters, line ends, marks of direction and bytes that were not
  UTF-8 become escapes such as `\n`, `\u202e` and `\udcff`.
  """
  return "".join(
    char if char.isprintable() else char.encode("unicode_escape").decode()
    for char in text
  )
