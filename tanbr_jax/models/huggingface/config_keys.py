"""The keys of a config.json: each is used, known to be harmless, or refused."""

import re
from collections.abc import Collection, Mapping
from typing import Any

# What changes neither the maths nor the shapes.
_HARMLESS = re.compile(
  r"_.*|architectures|auto_map|model_type|transformers_version|"
  r"(torch_)?dtype|.*token(_id|_ids)?|initializer_range|use_cache|.*dropout|"
  r"output_.*|return_dict|router_aux_loss_coef|router_z_loss_coef|"
  r"(router|input)_jitter_noise|.*_loss_.*|pretraining_tp|ep_size|"
  r"attn_implementation|num_(nextn_predict|mtp)_.*|num_mtp_modules|"
  r"mtp_.*|use_mtp|task_specific_params|problem_type|id2label|label2id|"
  r"tokenizer_class|chunk_size_feed_forward|max_window_layers|moe_capacity"
)
# What may: a key that is none of the known ones and is set is refused.
_MATTERS = re.compile(
  r"attn|attention|rope|rotary|norm|expert|moe|router|rout|gate|scal|mlp|"
  r"window|softcap|multiplier|bias|clip|hidden|head|layer|act|lora|chunk|"
  r"quant|cross|position|alibi|shared|residual|parallel|prune|limit|vocab"
)


class ConfigKeys:
  """A config.json that notes which keys were asked for."""

  def __init__(self, raw: Mapping[str, Any], source: str) -> None:
    """Takes the parsed file and the name that errors call it."""
    self._raw, self._source = raw, source
    self._asked: set[str] = set()

  def get(self, name: str, default: Any = None, *others: str) -> Any:
    """Returns a key's value, or that of another spelling, or the default.

    Args:
      name: of the key.
      default: for a key that is absent or null. Its type is the value's, an
        integer for a float besides; None allows any.
      *others: older spellings.

    Raises:
      ValueError: if the value is of another type.
    """
    self._asked.update((name, *others))
    for spelling in (name, *others):
      value = self._raw.get(spelling)
      if value is None:
        continue
      if isinstance(default, float) and type(value) is int:
        value = float(value)
      if default is not None and type(value) is not type(default):
        raise self.error(
          f"{spelling} must be of type {type(default).__name__}, "
          f"got {spelling}={value!r}"
        )
      return value
    return default

  def has(self, name: str) -> bool:
    """Whether a key is there, null or not."""
    return name in self._raw

  def number(self, name: str) -> float:
    """Returns a key's number.

    Raises:
      ValueError: if it is absent or no number.
    """
    value = self.get(name)
    if type(value) not in (int, float):
      raise self.error(f"{name} must be a number, got {name}={value!r}")
    return float(value)

  def size(self, name: str, *others: str) -> int:
    """Returns a key's positive integer.

    Raises:
      ValueError: if it is absent or no positive integer.
    """
    value = self.get(name, None, *others)
    if type(value) is not int or value < 1:
      raise self.error(f"{name} must be a positive integer, got {value!r}")
    return value

  def only(self, name: str, allowed: Collection[Any]) -> None:
    """Refuses a key whose value is none of those; absent and null are fine.

    Raises:
      ValueError: with the value.
    """
    value = self.get(name)
    if value is not None and value not in allowed:
      raise self.error(
        f"{name} must be one of {list(allowed)} to be read, got "
        f"{name}={value!r}"
      )

  def check_rest(self) -> None:
    """Refuses what is set, is not understood and may change the maths.

    Raises:
      ValueError: with the first such key.
    """
    for name, value in self._raw.items():
      is_set = value not in (None, False, [], {}, "")
      if name in self._asked or _HARMLESS.fullmatch(name) or not is_set:
        continue
      if _MATTERS.search(name):
        raise self.error(f"{name} is not understood, got {name}={value!r}")

  def error(self, message: str) -> ValueError:
    """An error that names the file."""
    return ValueError(f"{self._source}: {message}")
