"""Which fields are left out, said wrongly or said unasked, by field: of the texts of an `evaluate --tasks data2text` run.

    python benchmarks/slots.py runs/eval

A text that says the right value and another one beside it has said it; the slot error rate counts the other one too.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections import Counter
from pathlib import Path

from diffusion_lm.text.fields import FIELDS, parse_fields
from diffusion_lm.text.slots import as_said

logger = logging.getLogger("slots")


def main() -> None:
    """Count them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the run")
    flags = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    found, asked = Counter[tuple[str, str]](), 0
    with (flags.run / "texts.jsonl").open(encoding="utf8") as lines:
        for record in map(json.loads, lines):
            if record["task"] != "data2text" or record["system"] == "human":
                continue
            fields = parse_fields(record["target"], FIELDS)
            said = as_said(fields, record["text"])
            asked += len(fields)
            found.update(("missing", field) for field in fields.keys() - said.keys())
            found.update(("unasked", field) for field in said.keys() - fields.keys())
            found.update(("wrong", field) for field in fields.keys() & said.keys() if said[field] != fields[field])
    logger.info("%s fields asked", f"{asked:,}")
    for kind in ("missing", "wrong", "unasked"):
        logger.info("%s: %s", kind, ", ".join(f"{field} {found[kind, field]}" for field in FIELDS))


if __name__ == "__main__":
    main()
