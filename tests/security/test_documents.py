"""The security documents claim nothing that is not there."""

from __future__ import annotations

import re
from pathlib import Path

SECURITY = Path(__file__).parents[2] / "docs" / "security"
STATES = {"met", "in part", "not met", "not applicable"}
CHAPTERS = {f"V{number}" for number in range(1, 18)}


def rows(name: str, cells: int) -> list[list[str]]:
    found = []
    for line in (SECURITY / name).read_text().splitlines():
        parts = [part.strip() for part in line.strip("| ").split(" | ")]
        if line.startswith("| ") and len(parts) == cells:
            found.append(parts)
    return found


def test_every_line_of_the_checklist_has_evidence_or_says_that_it_is_not_met() -> None:
    sections = [row for row in rows("asvs.md", 3) if re.match(r"V\d", row[0])]
    assert {row[0].split()[0].split(".")[0] for row in sections} == CHAPTERS
    for section, state, evidence in sections:
        assert state in STATES, section
        assert len(evidence) > 10, section
        if state == "met" and "](" not in evidence:
            assert "package" in evidence or "typed" in evidence, f"{section} has no evidence"


def test_every_threat_has_a_proof_or_says_that_it_has_none() -> None:
    threats = [row for row in rows("threat-model.md", 3) if row[0] != "threat"]
    assert len(threats) >= 20
    for threat, control, proof in threats:
        assert control, threat
        assert "](../../tests/" in proof or "*" in proof or "make scan" in proof, threat
