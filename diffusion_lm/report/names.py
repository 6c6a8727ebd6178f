"""What a reader calls the tasks, and the rows that systems are compared with."""

from __future__ import annotations

from diffusion_lm.report.collection import FREE
from diffusion_lm.report.paper_tables import TASKS

REFERENCE_NAMES = {
    "human": "human text, as written",
    "human in vocabulary": "human text, in the model's vocabulary",
    "judge": "the judge's own samples",
}
"""By the task of the row."""


def task_name(task: str) -> str:
    """A task as a reader calls it."""
    if task == FREE:
        return "free text"
    return " and ".join(TASKS.get(part, part) for part in task.split("+"))
