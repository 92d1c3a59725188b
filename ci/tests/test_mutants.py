"""The lists of mutants fit the code: each text to replace occurs exactly once, and each test exists."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import mutants


def test_every_mutant_can_be_tried() -> None:
    found = mutants.find_mutants()
    assert len(found) > 50
    for mutant in found:
        for test in mutant.tests:
            file, *names = test.split("::")
            text = (mutants.ROOT / file).read_text(encoding="utf-8")
            for name in names:
                assert re.search(rf"\b(def|class) {name.partition('[')[0]}\b", text), f"{test} does not exist"
