from __future__ import annotations

from typing import Any

import pytest

from diffusion_lm.common import UserError
from diffusion_lm.report.data import DASH, Collection, collect, percent, read_run
from diffusion_lm.report.tables import Cell, Line, Table, ablations, free, table2, table4, table5, table7, time_table


def found(*folders: str) -> Collection:
    return collect(map(read_run, folders))


def line_of(table: Table | None, head: str, kind: str = "ours") -> Line:
    assert table is not None
    return next(line for line in table.lines if (line.head, line.kind) == (head, kind))


@pytest.mark.parametrize(
    ("share", "text"), [(1.0, "100.0"), (0.99999, "99.9"), (0.9, "90.0"), (0.0, "0.0"), (None, DASH)]
)
def test_what_is_not_all_is_no_hundred_percent(share: float | None, text: str) -> None:
    assert percent(share) == text


def test_table_2_stands_beside_the_papers_and_marks_the_best_of_each_block(runs: Any) -> None:
    ours = runs.row("ours", "pos", success=0.9, success_interval=[0.85, 0.95], success_paper=0.95, n=5000)
    ours["nats_interval"] = [1.65, 1.75]
    few = runs.row("FT", "pos", success=0.96, targets=20, targets_in_all=100)
    table = table2(found(runs.evaluation("a", ours), runs.evaluation("b", few)))
    cell = line_of(table, "ours").cells[1]
    assert cell == Cell(
        "90.0",
        (
            "85.0 to 95.0",
            "paper-compatible 95.0",
            "1.700 nats (+0.100)",
            "1.650 to 1.750",
            "n 5,000, seed 0",
        ),
    )
    best = line_of(table, "FT").cells[1]
    assert best.best and best.main == "96.0" and "20 of 100 targets" in best.lines
    assert line_of(table, "ours").cells[0].main == DASH
    assert line_of(table, "FT-search", "paper").cells[1] == Cell("93.0", ("lm 3.31",), best=True)
    # 95 paper-compatible against the 93 of FT-search; strict success is not compared with the paper's.
    assert line_of(table, "best measured here against the best of the paper's", "margin").cells[1].main == "+2.0"


def test_one_system_alone_is_not_the_best(runs: Any) -> None:
    table = table2(found(runs.evaluation("a", runs.row("ours", "pos", success=0.9))))
    assert not line_of(table, "ours").cells[1].best


def test_runs_of_two_judges_say_which(runs: Any) -> None:
    first = runs.evaluation("a", runs.row("ours", "pos", success=0.9))
    second = runs.evaluation("b", runs.row("FT", "pos", success=0.9), config={"judge": "runs/other"})
    assert line_of(table2(found(first, second)), "FT").note == "judged by runs/other"


@pytest.mark.parametrize("names", [("pos", "attribute"), ("Pos", "Said")])
def test_table_4_has_the_success_of_both(runs: Any, names: tuple[str, str]) -> None:
    other, semantic = names
    row = runs.row("ours", "pos+attribute", success=0.9, parts={other: 0.96, semantic: 1.0}, parts_paper={other: 0.97})
    row["parts_interval"] = {other: [0.95, 0.98], semantic: None}
    table = table4(found(runs.evaluation("a", row)))
    cells = line_of(table, "ours").cells
    assert [cell.main for cell in cells] == [DASH, DASH, DASH, "100.0", "96.0", "1.700"]
    assert cells[3].lines == () and cells[4].lines == ("95.0 to 98.0", "paper-compatible 97.0")
    assert [cell.main for cell in line_of(table, "Diffusion-LM", "paper").cells][3:5] == ["63.7", "69.1"]


def test_tables_5_and_7_come_from_references_and_a_likelihood(runs: Any) -> None:
    figures = {"bleu_4": 12.34, "rouge_l": 30.0, "cider": 60.0, "bert_score": 90.0, "n": 50}
    references = {"infill": {"mbr": figures, "sample": {"bleu4": 8.0}, "human": figures}}
    bound = {
        "system": "ours",
        "nats_per_token": 1.84,
        "length_nats_per_token": 0.11,
        "n": 512,
        "split": "dev",
    }
    both = found(runs.evaluation("a", references=references), runs.extra("b", "likelihood.json", bound))
    table = table5(both)
    assert [cell.main for cell in line_of(table, "ours, mbr").cells] == ["12.3", "30.0", "60.0", "90.0", "50"]
    assert [cell.main for cell in line_of(table, "ours, sample").cells] == ["8.0", *[DASH] * 4]
    assert line_of(table, "the first reference against the others", "reference").cells[0].main == "12.3"
    assert [cell.main for cell in line_of(table7(both), "ours").cells] == [
        "dev",
        "1.840",
        "0.110",
        "512",
    ]


def test_free_text_stands_beside_human_text_without_columns_that_nobody_measured(runs: Any) -> None:
    table = free(found(runs.evaluation("a", runs.row("ours", "unconditional", mauve=0.9))))
    assert table is not None
    assert [line.head for line in table.lines] == [
        "human text, as written", "human text, in the model's vocabulary", "the judge's own samples", "ours",
    ]  # fmt: skip
    assert "MAUVE, dev" in table.columns and "outside nats" not in table.columns
    assert line_of(table, "ours").cells[1].main == "+0.100"


def test_a_reference_keeps_what_only_one_of_several_runs_measured(runs: Any) -> None:
    first = runs.evaluation("a", runs.row("judge", "judge", mauve=0.5), runs.row("ours", "unconditional"))
    second = runs.evaluation("b", runs.row("judge", "judge", mauve=None), runs.row("FT", "pos", success=0.9))
    for folders in ((first, second), (second, first)):
        references = next(iter(found(*folders).references.values()))
        assert references["judge"].number("mauve") == 0.5


def test_nothing_measured_is_no_table(runs: Any) -> None:
    empty = found(runs.extra("a", "likelihood.json", {}))
    made = (table2, table4, table5, free, ablations)
    assert [table(empty) for table in made] == [None] * 5


def test_the_table_of_times_adds_up(runs: Any) -> None:
    record = {
        "judge": {"making": 120, "measuring": 0},
        "ours": {"making": 0, "measuring": 90},
    }
    table = time_table(found(runs.extra("t", "time.json", record)))
    assert table is not None
    assert [(line.head, *(cell.main for cell in line.cells)) for line in table.lines] == [
        ("judge", "2.0", "0.0", "2.0"),
        ("ours", "0.0", "1.5", "1.5"),
        ("all", "2.0", "1.5", "3.5"),
    ]
    with pytest.raises(UserError, match="must hold"):
        time_table(found(runs.extra("t", "time.json", {"ours": {"making": 3}})))
