"""`python docs/write_tables.py` writes the settings table of the code into the README."""

import re
from pathlib import Path

from consumer.settings import settings_table

README = Path(__file__).parent.parent / "README.md"
_MARKS = r"(?<=<!-- settings: python -m consumer settings -->\n).*?(?=\n<!-- end -->)"
TABLE = re.compile(_MARKS, re.DOTALL)

if __name__ == "__main__":
    text = README.read_text()
    README.write_text(TABLE.sub(lambda _: settings_table(), text))
