from tanbr_jax.report import tables

SUMMARY = {
  "drift/tanbr/regret": 1.2345,
  "drift/tanbr/regret_low": 1.0,
  "drift/tanbr/regret_high": 2.0,
  "drift/tanbr/bytes": 12345678,
  "uniform/regret": 1234.5,
  "uniform/regret_low": float("nan"),
  "uniform/speed": None,
  "note": 3,
}
COLUMNS = (
  tables.Column("regret", "regret", 2),
  tables.Column("speed", "rounds/s"),
  tables.Column("bytes", "bytes"),
)


def test_rows():
  assert tables.rows(SUMMARY, COLUMNS) == [
    {
      "method": "drift/tanbr",
      "regret": "1.23 [1.00, 2.00]",
      "bytes": "12,345,678",
    },
    {"method": "uniform", "regret": "1,234.50", "bytes": "-"},
  ]


def test_rows_of_some_methods():
  (row,) = tables.rows(SUMMARY, COLUMNS, methods=["uniform"])
  assert row == {"method": "uniform", "regret": "1,234.50"}


def test_text():
  text = tables.format_rows(tables.rows(SUMMARY, COLUMNS))
  assert text.splitlines() == [
    "method                  regret       bytes",
    "-----------  -----------------  ----------",
    "drift/tanbr  1.23 [1.00, 2.00]  12,345,678",
    "uniform               1,234.50           -",
  ]
  assert tables.format_rows([]) == ""
