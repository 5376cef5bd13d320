"""Feedback-Driven Distillation (arXiv 2411.14698), top to bottom.

The paper fixes the four steps: initialise, feedback, synthesise, enrich and repeat. How new problems
are verified, how many there are, and where each fine-tuning starts, are settings with our defaults.
"""

from __future__ import annotations

from fdd_ray.store.run import Manifest
from fdd_ray.workshop import Workshop


def distill(workshop: Workshop, rounds: int) -> None:
    """Run the whole algorithm; stages that are done already are skipped.

    Args:
        workshop: The stages, wired to a run directory and its engines.
        rounds: Feedback rounds after the initialisation.
    """
    problems = workshop.problems()
    workshop.score(None, None, problems, pool=False)

    # Initialise: verified rationales for the seed problems, and a first student.
    taught = workshop.teach(problems)
    curated: list[Manifest] = []
    split: Manifest | None = None
    student = workshop.finetune(0, taught, curated, None)
    scored = workshop.score(0, student, problems)

    for round in range(1, rounds + 1):
        # Feedback: what the student solves is easy, what it fails is hard.
        split = workshop.split(round, scored, problems, split, taught, curated)
        # Synthesise: complex variations of easy problems, similar ones to hard problems.
        variations = workshop.synthesise(round, split, problems)
        accepted = workshop.curate(round, split, variations, curated, problems)
        # Enrich the pool and the distillation set, fine-tune again, and look at the student anew.
        curated.append(accepted)
        student = workshop.finetune(round, taught, curated, student, scored)
        scored = workshop.score(round, student, problems, curated)
