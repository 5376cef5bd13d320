from __future__ import annotations

import dataclasses
from pathlib import Path

from fdd_ray.store.manifest import Manifest
from fdd_ray.tracking.facts import Facts, facts_of
from tests.tracking.manifests import drive


def _facts(manifests: list[Manifest]) -> dict[str, Facts]:
    found = [facts_of(manifest, manifests[:index]) for index, manifest in enumerate(manifests)]
    return {facts.key: facts for facts in found}


def test_the_names_and_their_values(tmp_path: Path) -> None:
    facts = _facts(drive(tmp_path, 2, lambda manifest: None))
    base, scored = facts["base/score"], facts["round-02/score"]
    assert (base.step, scored.step) == (-1, 2)
    assert base.values["accuracy/test"] == 0.375 and scored.values["accuracy/test"] == 0.5
    assert scored.values["accuracy_low/test"] == 0.1 and scored.values["pool/accuracy"] == 0.75
    assert "accuracy/pool" not in scored.values
    assert facts["round-01/split"].values["pool/easy_share"] == 0.75
    assert facts["round-02/finetune"].values["finetune/loss_last"] == 0.25
    assert facts["round-02/finetune"].values["distillation_set"] == 30
    curated = facts["round-01/curate"].values
    assert curated["kept_share/curate"] == 0.25
    assert [curated[f"rows/curate/{outcome}"] for outcome in ("kept", "rejected", "failed")] == [5, 12, 3]


def test_a_score_tells_what_its_round_cost(tmp_path: Path) -> None:
    facts = _facts(drive(tmp_path, 2, lambda manifest: None))
    base, first, second = (facts[f"{name}/score"].values for name in ("base", "round-01", "round-02"))
    assert (base["tokens/student/prompt"], base["money/total"]) == (7, 0) and "tokens/teacher/prompt" not in base
    assert (first["tokens/teacher/prompt"], second["tokens/teacher/prompt"]) == (101, 102)
    assert second["tokens/student/completion"] == 9
    assert (first["money/round"], second["money/round"], second["money/total"]) == (1.75, 1.75, 3.5)


def test_what_was_copied_was_paid_for_elsewhere(tmp_path: Path) -> None:
    manifests = drive(tmp_path, 1, lambda manifest: None)
    copied = [dataclasses.replace(manifest, forked_from="other") for manifest in manifests[:3]] + manifests[3:]
    assert _facts(copied)["round-01/score"].values["money/total"] == 0.25


def test_no_name_comes_twice_at_a_step_and_stages_keep_their_order(tmp_path: Path) -> None:
    facts = list(_facts(drive(tmp_path, 2, lambda manifest: None)).values())
    points = [(name, each.step) for each in facts for name in each.values]
    assert len(points) == len(set(points)) > 60
    orders = [each.order for each in facts]
    assert orders == sorted(set(orders))
    problems = dataclasses.replace(drive(tmp_path, 2, lambda manifest: None)[0], stage="problems", round=0)
    assert facts_of(problems, []).order < orders[0], "the problems are loaded first"


def test_only_numbers_that_can_be_drawn(tmp_path: Path) -> None:
    finetuned = next(m for m in drive(tmp_path, 1, lambda manifest: None) if m.stage == "finetune")
    summary = {"loss_first": float("nan"), "loss_last": None, "steps": True, "tokens_per_second": 5.0}
    values = facts_of(dataclasses.replace(finetuned, summary=summary), []).values
    assert {name for name in values if name.startswith("finetune/")} == {"finetune/tokens_per_second"}
