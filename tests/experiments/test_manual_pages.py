"""Manual pages as text of tasks."""

import gzip

import pytest

from experiments.upcycle import manual_pages

PAGE = r""".\" written by hand
.TH LS 1 "September 2022"
.SH NAME
ls \- list\ a \fIfolder\fP
.nh
.TP
\fB\-a\fR, \f[B]\-\-all\f[R]
say \(lqyes\(rq, \[aq]no\[aq] \e and\ \(co
.B "two words"
"""


def test_a_page_is_its_text():
  assert manual_pages.plain_text(PAGE) == (
    "LS 1 September 2022\n\nNAME\nls - list a folder\n\n-a, --all\n"
    "say \"yes\", 'no' \\ and (c)\ntwo words"
  )


def test_languages_and_domains_are_tasks(tmp_path, capsys):
  for language in ("de", "fr"):
    folder = tmp_path / "man" / language / "man1"
    folder.mkdir(parents=True)
    page = f".SH NAME\n{language} " + "word " * 80
    (folder / "ls.1.gz").write_bytes(gzip.compress(page.encode()))
  out = tmp_path / "text"
  manual_pages.run(tmp_path / "man", out, [])
  assert sorted(path.name for path in out.iterdir()) == ["de", "fr"]
  text = (out / "de" / "man1_ls.1.gz.txt").read_text()
  assert text.startswith("NAME\nde word")
  assert f"de: {len(text)} bytes" in capsys.readouterr().out
  with pytest.raises(ValueError, match="out must not be there yet"):
    manual_pages.run(tmp_path / "man", out, [])
  with pytest.raises(ValueError, match="pages must hold LANGUAGE/man"):
    manual_pages.run(tmp_path, tmp_path / "other", [])
