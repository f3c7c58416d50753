import numpy as np
import pytest

from tanbr_jax.wireless import mobility


def test_waypoints_stay_in_the_disc_and_keep_the_speed():
  found = mobility.random_waypoint(
    np.random.default_rng(0),
    num_nodes=5,
    num_times=400,
    interval_s=2.0,
    radius_m=30.0,
    speed_m_per_s=(0.5, 1.5),
  )
  assert found.shape == (400, 5, 2)
  assert np.linalg.norm(found, axis=2).max() <= 30.0 + 1e-9
  steps = np.linalg.norm(np.diff(found, axis=0), axis=2)
  assert steps.max() <= 3.0 + 1e-9
  # Most steps are whole ones, of at least the least speed.
  assert np.mean(steps >= 1.0 - 1e-9) > 0.8


def test_positions_are_read_as_they_were_written(tmp_path):
  rng = np.random.default_rng(1)
  written = mobility.random_waypoint(rng, num_nodes=3, num_times=6)
  mobility.write_positions(tmp_path / "p.csv", written, interval_s=0.5)
  times = np.arange(6) * 0.5
  read = mobility.read_positions(tmp_path / "p.csv", times_s=times)
  np.testing.assert_array_equal(read, written)
  # Half way between two lines a node is half way.
  read = mobility.read_positions(tmp_path / "p.csv", times_s=times[:-1] + 0.25)
  np.testing.assert_allclose(read, (written[1:] + written[:-1]) / 2, rtol=1e-12)


def test_distances_are_scaled_to_the_largest():
  positions = np.array([[[3.0, 4.0], [0.0, 0.1]], [[300.0, 400.0], [6.0, 8.0]]])
  assert mobility.distances_m(positions).tolist() == [[5.0, 1.0], [500.0, 10.0]]
  scaled = mobility.distances_m(positions, most_m=150.0)
  assert scaled == pytest.approx(np.array([[1.5, 1.0], [150.0, 3.0]]))


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("", "must begin with time_s,node,x_m,y_m"),
    ("time,node,x,y\n", "got 'time,node,x,y'"),
    ("time_s,node,x_m,y_m\n", "must hold positions"),
    ("time_s,node,x_m,y_m\n0,a,1,two\n", "line 2 must be four finite values"),
    ("time_s,node,x_m,y_m\n0,a,1,nan\n", "line 2 must be four finite values"),
    ("time_s,node,x_m,y_m\n1,a,1,2\n1,a,1,2\n", "line 3: .*1.0 after 1.0"),
  ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, text, message):
  (tmp_path / "p.csv").write_text(text)
  with pytest.raises(ValueError, match=message) as error:
    mobility.read_positions(tmp_path / "p.csv", times_s=np.zeros(1))
  assert "\n" not in str(error.value)


def test_bad_walks_are_refused():
  rng = np.random.default_rng(0)
  with pytest.raises(ValueError, match="num_nodes=0"):
    mobility.random_waypoint(rng, num_nodes=0, num_times=1)
  with pytest.raises(ValueError, match="ascending"):
    mobility.random_waypoint(
      rng, num_nodes=1, num_times=1, speed_m_per_s=(2.0, 1.0)
    )
  with pytest.raises(ValueError, match="most_m=-1"):
    mobility.distances_m(np.ones((1, 1, 2)), most_m=-1)
