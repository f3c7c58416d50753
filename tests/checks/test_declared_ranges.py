"""Every number that a user gives has a range, and is refused outside of it."""

import dataclasses
import importlib
import inspect
import math
import numbers
import pathlib
import pkgutil
import typing

import jax
import jax.numpy as jnp
import ml_collections
import pytest

import experiments
from configs.bandit_speed import quick as bandit_speed_config
from configs.compress import quick as compress_config
from configs.kernels import gpu as kernels_config
from configs.masking import quick as masking_config
from configs.masking import timing as masking_timing_config
from configs.model_latency import quick as model_latency_config
from configs.online import quick as online_config
from configs.pretrain import quick as pretrain_config
from configs.regret import landscape as landscape_config
from configs.regret import latency as decision_config
from configs.regret import quick as regret_config
from configs.regret import ternary as ternary_config
from configs.regret import tune as tune_config
from configs.upcycle import smollm2 as upcycle_config
from configs.wireless import quick as wireless_config
from experiments import decision_latency, pretrain, sample_landscape, ternary
from experiments.bandit_speed import settings as bandit_speed
from experiments.common import records, streams
from experiments.compress import settings as compress
from experiments.kernels import settings as kernels
from experiments.masking import settings as masking
from experiments.masking import timing as masking_timing
from experiments.merge_checkpoint import command as merge_checkpoint
from experiments.model_latency import settings as model_latency
from experiments.online import model_source
from experiments.online import settings as online
from experiments.upcycle import settings as upcycle
from experiments.wireless import settings as wireless
from tanbr_jax import bandits, models, monitor
from tanbr_jax.bandits import wrappers
from tanbr_jax.checks import ranges
from tanbr_jax.environments import logged, mixes, noise, synthetic
from tanbr_jax.environments.landscapes.families import FAMILIES
from tanbr_jax.models import decoder_rotary
from tanbr_jax.training.pretraining import PretrainConfig

BAD = (math.nan, math.inf, -math.inf, -1, 0, 1, 1e39, 0.5, 2**31, True, "1")


def synthetic_study(config):
  return (
    records.read(records.RunSettings, config),
    records.read(streams.SyntheticSettings, config),
  )


# What each study makes of its config before any work.
STUDIES = {
  "bandit_speed": (bandit_speed_config, bandit_speed.read),
  "compress": (compress_config, compress.read),
  "decision_latency": (
    decision_config,
    lambda c: records.read(decision_latency.DecisionSettings, c),
  ),
  "kernels": (kernels_config, kernels.read),
  "landscape": (
    landscape_config,
    lambda c: (
      records.read(sample_landscape.SampleSettings, c),
      records.read_section(PretrainConfig, c, "pretrain"),
    ),
  ),
  "masking": (masking_config, masking.read),
  "masking_timing": (masking_timing_config, masking_timing.read),
  "model_latency": (model_latency_config, model_latency.read),
  "online": (online_config, online.read),
  "pretrain": (pretrain_config, pretrain.read),
  "regret": (regret_config, synthetic_study),
  "ternary": (ternary_config, ternary.read),
  "tune": (tune_config, synthetic_study),
  "wireless": (wireless_config, wireless.read),
  "upcycle": (upcycle_config, upcycle.read),
}
# Options of constructors, which have their own ranges below.
OF_CONSTRUCTORS = {
  *("methods", "mix_options", "family_options", "grids", "settings"),
  *("pyxab", "one_tree", "changes", "free", "tuned"),
}
SCALINGS = (
  decoder_rotary.LinearScaling(2.0),
  decoder_rotary.DynamicScaling(2.0, 8),
  decoder_rotary.Llama3Scaling(2.0, 1.0, 4.0, 8),
  decoder_rotary.YarnScaling(2.0, 8, amplitude=1.0),
  decoder_rotary.LongScaling((1.0,), (2.0,), 8, 1.0, 1.0),
)
# What no config of the repository makes, as it names files of the user's.
OF_FILES = (
  merge_checkpoint.Settings(checkpoint="in", output="out", weights="0.5,0.5"),
  model_source.ModelSettings(path="in", finetunes="", dtype="", context=256),
)
WRAPPERS = [module.name for module in pkgutil.iter_modules(wrappers.__path__)]
CONSTRUCTORS = {
  **{
    f"wrappers.{name}": getattr(
      importlib.import_module(f"{wrappers.__name__}.{name}"), name
    )
    for name in WRAPPERS
  },
  **{f"bandits.{name}": one for name, one in bandits.REGISTRY.items()},
  **{f"mixes.{name}": one for name, one in mixes.PROCESSES.items()},
  **{f"families.{name}": one for name, one in FAMILIES.items()},
  "monitor.adaptive_average": monitor.adaptive_moving_average,
  "monitor.moving_average": monitor.exponential_moving_average,
  "monitor.sketch": monitor.count_min_sketch,
  "noise.create": noise.create,
  "synthetic": synthetic.synthetic,
  "logged": logged.logged,
}


def is_numeric(annotation):
  if annotation in (int, float):
    return True
  if typing.get_origin(annotation) in (dict, typing.Callable):
    return False
  return any(map(is_numeric, typing.get_args(annotation)))


def hints(owner):
  return typing.get_type_hints(owner, include_extras=True)


def without_range(owner, names):
  found = {name: hint for name, hint in hints(owner).items() if name in names}
  return [
    name
    for name, hint in found.items()
    if is_numeric(hint) and ranges.find(hint) is None
  ]


def nested(made):
  if isinstance(made, tuple):
    return [one for part in made for one in nested(part)]
  if not dataclasses.is_dataclass(made):
    return []
  parts = (getattr(made, field.name) for field in dataclasses.fields(made))
  return [made, *(one for part in parts for one in nested(part))]


@pytest.fixture(scope="module")
def made_records():
  """One instance of every record, as the configs of this repository make it."""
  found = [models.ByteLMConfig(), *nested(models.PRESETS["tiny"])]
  found += [*SCALINGS, *OF_FILES]
  for config, read in STUDIES.values():
    found += nested(read(config.get_config()))
  return {type(one): one for one in found}


def outside(found):
  """Values of `BAD` that are not in a range, by hand."""
  one, is_integer = found
  for value in BAD:
    if isinstance(value, bool | str) or (
      is_integer and not isinstance(value, int)
    ):
      yield value
      continue
    used = value
    if not is_integer and value == 1e39:
      used = math.inf  # beyond float32
    inside = one.low < used < one.high
    inside |= used == one.low and one.ends[0] == "["
    inside |= used == one.high and one.ends[1] == "]"
    if not inside:
      yield value


def test_every_numeric_field_of_every_record_has_a_range(made_records):
  for module in pkgutil.walk_packages(experiments.__path__, "experiments."):
    try:
      importlib.import_module(module.name)
    except ModuleNotFoundError as error:
      assert error.name in ("torch", "transformers", "PyXAB")
  known = [ranges.Checked]
  for kind in known:
    known += kind.__subclasses__()
  shown = {kind for kind in known[1:] if "tests" not in kind.__module__}
  shown = {k for k in shown if k.__module__.startswith(("exper", "tanbr_jax"))}
  # What is abstract, or what another record holds beside more fields.
  parents = {parent for kind in shown for parent in kind.__mro__[1:]}
  assert shown - parents <= set(made_records)
  for kind in made_records:
    names = [field.name for field in dataclasses.fields(kind)]
    has_numbers = any(is_numeric(hints(kind)[name]) for name in names)
    assert issubclass(kind, ranges.Checked) or not has_numbers, kind
    assert without_range(kind, names) == [], kind


def test_records_refuse_what_is_outside(made_records):
  tried = 0
  for kind, made in made_records.items():
    for name, hint in hints(kind).items():
      if (found := ranges.find(hint)) is None:
        continue
      for value in outside(found):
        is_list = isinstance(getattr(made, name), list | tuple)
        given = type(getattr(made, name))([value]) if is_list else value
        with pytest.raises(ValueError, match=rf"{name} must be .*got") as error:
          dataclasses.replace(made, **{name: given})
        assert "\n" not in str(error.value)
        tried += 1
  assert tried > 500


@pytest.mark.parametrize("study", STUDIES)
def test_every_number_of_a_config_is_read_into_a_record(study):
  module, read = STUDIES[study]
  config = module.get_config()
  fields = {
    field.name
    for made in nested(read(config))
    for field in dataclasses.fields(made)
  } | {"model_seed"}

  def check(section):
    for name, value in section.items():
      if isinstance(value, ml_collections.ConfigDict):
        if name not in OF_CONSTRUCTORS:
          check(value)
      elif isinstance(value, numbers.Real) and not isinstance(value, bool):
        assert name in fields, f"{study}: {name}"

  check(config)


def test_every_config_is_of_a_study():
  root = pathlib.Path(__file__).parents[2] / "configs"
  folders = {path.name for path in root.glob("[a-z]*")}
  assert folders and folders <= set(STUDIES)


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_constructors_refuse_what_is_outside(name):
  constructor = CONSTRUCTORS[name]
  arguments = inspect.signature(constructor).parameters
  assert without_range(constructor, arguments) == []
  for argument, hint in hints(constructor).items():
    if (found := ranges.find(hint)) is not None:
      for value in outside(found):
        pattern = rf"^{argument} must be .*, got {argument}="
        with pytest.raises(ValueError, match=pattern) as error:
          constructor(**{argument: value})
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", bandits.REGISTRY)
def test_a_sweep_over_a_hyper_parameter_is_traced(name):
  constructor = bandits.REGISTRY[name]
  sizes = {"num_experts": 3, "num_tasks": 2}
  for argument, parameter in inspect.signature(constructor).parameters.items():
    # The ends of a grid of rates, which is made in NumPy, are not traced.
    is_traced = argument not in ("least_rate", "most_rate")
    if is_traced and isinstance(parameter.default, float):
      jax.eval_shape(
        lambda value, argument=argument: constructor(
          **sizes, **{argument: value}
        ),
        jax.ShapeDtypeStruct((), jnp.float32),
      )
