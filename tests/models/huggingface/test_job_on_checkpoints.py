"""The main job on folders of tiny random checkpoints with a tokenizer."""

import json

import hf_folders
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.online import quick
from experiments import online_merging
from experiments.online import model_stream, settings
from tanbr_jax import data, models
from tanbr_jax.environments.oracle import table as oracle
from tanbr_jax.online import trace
from tanbr_jax.report import workdir as reporting

pytestmark = pytest.mark.slow

tokenizers = pytest.importorskip("tokenizers")

CONTEXT = 8


def write_tokenizer(folder, text):
  """Byte-level pairs of the letters of a text, of at most 37 tokens."""
  made = tokenizers.Tokenizer(tokenizers.models.BPE())
  made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False
  )
  trainer = tokenizers.trainers.BpeTrainer(vocab_size=37, show_progress=False)
  made.train_from_iterator([text], trainer)
  made.save(str(folder / "tokenizer.json"))


def sentences(words, count):
  rng = np.random.default_rng(len(words))
  return [" ".join(rng.choice(words, 4)) for _ in range(count)]


@pytest.fixture
def tasks(tmp_path):
  """A folder of text, and prompts with completions."""
  folder = tmp_path / "tasks"
  (folder / "text").mkdir(parents=True)
  text = "\n".join(sentences(["ab", "abc", "cab"], 60))
  (folder / "text" / "one.txt").write_text(text)
  prompts = sentences(["de", "fed", "deaf"], 80)
  lines = [
    json.dumps({"prompt": f"{one} {i}: ", "completion": one[::-1]})
    for i, one in enumerate(prompts)
  ]
  (folder / "backwards.jsonl").write_text("\n".join(lines) + "\n")
  return folder, text + "".join(prompts) + "0123456789: "


def make_config(tmp_path, folder, tasks):
  config = quick.get_config()
  config.model.path, config.model.context = str(folder), CONTEXT
  config.data.path, config.cache_dir = str(tasks), str(tmp_path / "cache")
  config.oracle.update(
    steps=2,
    search_windows=4,
    windows=2,
    error_mixes=2,
    error_starts=1,
    error_steps=2,
  )
  config.num_rounds, config.chunk_size = 12, 12
  config.mix, config.mix_options.fixed.concentration = "fixed", 100.0
  config.num_seeds, config.latency_repeats = 1, 1
  config.reward, config.requests = "log_likelihood", 1
  return config


def values_of_rows(model, params, rows):
  """The mean log-probability of what is scored in each row, row by row."""
  ids = np.where(rows < 0, ~rows, rows)
  logits = np.float64(jax.jit(model.apply)(params, jnp.asarray(ids[:, :-1])))
  largest = logits.max(-1, keepdims=True)
  sums = np.exp(logits - largest).sum(-1, keepdims=True)
  log_p = logits - largest - np.log(sums)
  found = []
  for row, one in zip(rows[:, 1:], log_p, strict=True):
    found.append(
      np.mean([p[t] for p, t in zip(one, row, strict=True) if t >= 0])
    )
  return np.array(found)


def check_rewards(found, corpus, model, params):
  """Every slot's one request is a row of its task, with that row's value."""
  assert corpus.stride == 9 == CONTEXT + 1
  tasks = np.argmax(found.task_count[0], axis=-1)
  assert set(tasks) == {0, 1}
  for task, rows in enumerate(corpus.splits["test"]):
    # Running text ends where no whole row is left.
    rows = np.asarray(rows[: len(rows) // 9 * 9], np.int64).reshape(-1, 9)
    values = values_of_rows(model, params, rows)
    rewards = found.expected_reward[0, tasks == task]
    # Means of at most 8 log-probabilities in float32, all of size 10 at most.
    near = np.abs(rewards[:, None] - values[None]).min(axis=1)
    np.testing.assert_allclose(near, 0, atol=2e-5)
    assert np.ptp(values) > 0.1


def score_vertices(settings, made, parts):
  """In place of the searches, which take most of the time: their starts."""
  windows = data.evaluation_windows(parts[1], 2, CONTEXT + 1)
  found = oracle.score_candidates(
    made.model, made.params, jnp.eye(5), windows=windows
  )
  return found, 0.0


@pytest.mark.parametrize(
  "searches", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_a_model_of_experts_goes_through_the_job(
  tmp_path, tasks, capsys, searches, monkeypatch
):
  if not searches:
    monkeypatch.setattr(model_stream, "_search_oracle", score_vertices)
    monkeypatch.setattr(
      model_stream, "best_weights", lambda *args: jnp.full(5, 0.2)
    )
  # Its second layer alone, which has the experts.
  second, name = "model.layers.1.", "qwen3_moe"
  arrays = {
    key.replace(second, "model.layers.0."): array
    for key, array in hf_folders.tensors(name).items()
    if "layers." not in key or second in key
  }
  changed = {"num_hidden_layers": 1, "decoder_sparse_step": 1}
  folder = hf_folders.write(
    tmp_path / "model", name, config=changed, arrays=arrays
  )
  write_tokenizer(folder, tasks[1])
  config = make_config(tmp_path, folder, tasks[0])
  config.bandits = "follow_usage,routed"
  online_merging.run(config, workdir=tmp_path / "run", progress=False)
  assert "'text': split by position" in capsys.readouterr().out
  found = trace.load(tmp_path / "run" / "trace.npz")
  assert found.keys() == {"follow_usage", "routed", "oracle"}
  corpus = settings.read(config).source.read_text(
    config.data.path, config.cache_dir
  )
  assert corpus.task_names == ("backwards", "text")
  check_rewards(found["routed"], corpus, *models.from_pretrained(folder))
  # Usage moves: it is that of the tokens that were served.
  assert np.ptp(found["follow_usage"].merge_weights[0], axis=0).max() > 1e-3
  summary = reporting.read_json(tmp_path / "run" / "summary.json")
  # One layer has experts, of three 7 x 20 matrices of float32; there are five.
  assert summary["merged/expert_bytes"] == 4 * 3 * 7 * 20
  assert summary["routed/expert_bytes"] == 5 * summary["merged/expert_bytes"]
  assert "nats a token" in (tmp_path / "run" / "report.html").read_text()
  assert len(list((tmp_path / "cache").glob("tokens-*.npz"))) == 1


@pytest.mark.slow
def test_fine_tunes_go_through_the_job(tmp_path, tasks, capsys):
  base = hf_folders.write(tmp_path / "base", "llama")
  write_tokenizer(base, tasks[1])
  arrays = [hf_folders.tensors("llama", seed=seed) for seed in (1, 2)]
  for name, own in zip("ab", arrays, strict=True):
    hf_folders.write(tmp_path / name, "llama", arrays=own)
  config = make_config(tmp_path, base, tasks[0])
  config.model.finetunes = f"{tmp_path / 'a'}, {tmp_path / 'b'}"
  config.bandits = "uniform,meta_gradient,follow_usage,routed,follow_task_mix"
  online_merging.run(config, workdir=tmp_path / "run", progress=False)
  told = capsys.readouterr().out
  assert "no router: follow_usage, routed, follow_task_mix" in told
  found = trace.load(tmp_path / "run" / "trace.npz")
  assert found.keys() == {"uniform", "meta_gradient", "oracle"}
  # The average of the two, as a checkpoint of its own.
  means = {key: (arrays[0][key] + arrays[1][key]) / 2 for key in arrays[0]}
  folder = hf_folders.write(tmp_path / "mean", "llama", arrays=means)
  corpus = settings.read(config).source.read_text(
    config.data.path, config.cache_dir
  )
  check_rewards(found["uniform"], corpus, *models.from_pretrained(folder))
  summary = reporting.read_json(tmp_path / "run" / "summary.json")
  assert "routed/expert_bytes" not in summary
  assert np.isfinite(summary["meta_gradient/mean_reward"])


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"context": 33}, "context=33 for 32 in '.*model'"),
    ({"context": 0}, "model.context must be at least 1, got context=0"),
    ({"dtype": "int8"}, "model.dtype must be one of .* got 'int8'"),
    ({"path": "none"}, "there is no file 'none/config.json'"),
    ({"path": "", "finetunes": "a,b"}, "model.path='' with .*='a,b'"),
    ({"finetunes": "a"}, "finetunes must be at least 2 folders, got 'a'"),
    ({"finetunes": "a,b"}, "there is no folder 'a'"),
    ({"contxt": 3}, "unknown field model.contxt, did you mean 'context'"),
  ],
)
def test_bad_models_are_one_line(tmp_path, changes, message):
  folder = hf_folders.write(tmp_path / "model", "mixtral")
  config = make_config(tmp_path, folder, tmp_path)
  with config.unlocked():
    config.model.update(changes)
  with pytest.raises(ValueError, match=message) as error:
    settings.read(config)
  assert "\n" not in str(error.value)


def test_what_does_not_fit_is_refused_before_any_tensor_is_read(
  tmp_path, tasks
):
  base = hf_folders.write(tmp_path / "base", "llama")
  other = hf_folders.write(tmp_path / "other", "qwen3")
  config = make_config(tmp_path, base, tasks[0])

  def refuse(message, run=False, **changes):
    with pytest.raises(ValueError, match=message) as error:
      one = config.copy_and_resolve_references()
      one.update_from_flattened_dict(changes)
      if run:
        online_merging.run(one, workdir=tmp_path / "run", progress=False)
      else:
        settings.read(one)
    assert "\n" not in str(error.value)
    # Nothing was begun.
    assert not (tmp_path / "run").exists()

  refuse("a model with experts, .* got a dense model in '.*base'")
  pair = {"model.finetunes": f"{base},{base}"}
  refuse("there is no file '.*tokenizer.json'", **pair)
  write_tokenizer(base, tasks[1])
  different = {"model.finetunes": f"{base},{other}"}
  refuse("model_type must be the base's 'llama', got 'qwen3'", **different)
  refuse("signal='agreement' is with the routed", signal="agreement", **pair)
  pair["bandits"] = "routed,follow_usage"
  refuse("no router, which all methods need: .'routed', ", run=True, **pair)
