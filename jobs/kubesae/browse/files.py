"""Names and bits that whoever writes the page and whoever only reads it must both know. No pyarrow."""

OVERVIEW, TABLE = "overview.json", "table.json.gz"
"""files of `page/`"""
DENSE, SINGLE_TOKEN, POSITIONAL, DEAD = 1, 2, 4, 8
"""bits of a feature's flags"""
