import base64
import html.parser

from tanbr_jax.plots import parts
from tanbr_jax.report import html as html_report
from tanbr_jax.report import workdir

VOID = {"meta", "img"}


class Checker(html.parser.HTMLParser):
  """Collects text, images and links, and checks that tags are balanced."""

  def __init__(self):
    super().__init__()
    self.open, self.images, self.links, self.text = [], [], [], []

  def handle_starttag(self, tag, attributes):
    attributes = dict(attributes)
    self.links += [v for k, v in attributes.items() if k in ("href", "src")]
    if tag == "img":
      self.images.append(attributes["src"])
    if tag not in VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text.append(data)


def test_report_is_whole_escaped_and_offline(tmp_path):
  figure, _ = parts.make_figure(1, height=1.0)
  parts.save(figure, tmp_path / "a.png")
  workdir.open_workdir(tmp_path, {"x": "<b>&"}, seeds=(0,))
  workdir.write_summary(tmp_path, {"tanbr/regret": 1.5})
  path = html_report.write_report(
    tmp_path,
    title="A <title>",
    rows=[{"method": "tan<br>", "regret": "1.50"}],
    figures=[html_report.ReportFigure("a.png", 'regret "&" rounds')],
    notes=["1 < 2"],
  )
  page = path.read_text()
  checker = Checker()
  checker.feed(page)
  assert checker.open == []
  (image,) = checker.images
  prefix = "data:image/png;base64,"
  assert image.startswith(prefix)
  png = base64.b64decode(image.removeprefix(prefix))
  assert png == (tmp_path / "a.png").read_bytes() and png[1:4] == b"PNG"
  assert checker.links == [image]  # nothing is fetched from elsewhere
  assert "http" not in page
  text = " ".join(checker.text)
  for expected in ("A <title>", "tan<br>", "<b>&", "1 < 2", "tanbr/regret"):
    assert expected in text
