"""GenEval's prompts: the published ones to the byte, drawn again and as shipped."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from geneval_parts import LINES

from janus_kit.scoring import geneval
from janus_kit.scoring.geneval import (
    OBJECTS,
    TASKS,
    draw_prompts,
    prompts,
)


def sha256(lines: Sequence[str]) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


@pytest.mark.parametrize("found", [LINES, draw_prompts()], ids=["shipped", "drawn"])
def test_the_prompts_are_the_published_ones_to_the_byte(found: list[dict[str, Any]]) -> None:
    metadata = "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13"
    texts = "55b6e3650e980c13daf30569eb666e000faf19bfc2b7b4cbe999fcdb7aa9d680"
    assert sha256([json.dumps(line) for line in found]) == metadata
    assert sha256([line["prompt"] for line in found]) == texts


def test_the_shipped_file_is_the_published_one() -> None:
    data = Path(geneval.__file__).with_name("geneval.jsonl").read_bytes()
    assert len(data) == 85_209
    assert sha256(data.decode().splitlines()) == sha256([json.dumps(line) for line in LINES])


def test_the_object_names_are_the_published_ones() -> None:
    published = "608f6a0e5c8ca1c7a92b818430141fe268c85b7930b50f4160f1d65893b5bacd"
    assert sha256(OBJECTS) == published
    assert OBJECTS[64:67] == ("computer mouse", "tv remote", "computer keyboard")


def test_the_tasks_have_their_published_sizes_and_places() -> None:
    tags = [line["tag"] for line in LINES]
    assert list(dict.fromkeys(tags)) == list(TASKS)
    assert [tags.index(task) for task in TASKS] == [0, 80, 179, 259, 353, 453]
    assert [tags.count(task) for task in TASKS] == [80, 99, 80, 94, 100, 100]
    assert len({line["prompt"] for line in LINES}) == 553


def test_another_seed_drops_other_repetitions() -> None:
    assert len(draw_prompts(1)) == 554


def test_the_prompts_have_the_published_counts_and_relations() -> None:
    counting = [line for line in LINES if line["tag"] == "counting"]
    counts = Counter(line["include"][0]["count"] for line in counting)
    assert counts == {2: 26, 3: 28, 4: 26}
    assert all(c["exclude"][0]["count"] == c["include"][0]["count"] + 1 for c in counting)
    positions = [tuple(c["position"]) for line in LINES for c in line["include"] if "position" in c]
    relations = Counter(relation for relation, _ in positions)
    assert relations == {"left of": 19, "right of": 27, "above": 26, "below": 28}
    assert {target for _, target in positions} == {0}


def test_a_person_is_asked_for_but_never_in_a_color() -> None:
    clauses = [(line["tag"], clause) for line in LINES for clause in line["include"]]
    persons = [(tag, clause) for tag, clause in clauses if clause["class"] == "person"]
    tags = Counter(tag for tag, _ in persons)
    assert tags == {"single_object": 1, "two_object": 6, "counting": 1, "position": 1}
    assert not any("color" in clause for _, clause in persons)
    assert {clause["class"] for _, clause in clauses} == set(OBJECTS)


def test_odd_plurals_stay_and_only_a_vowel_has_an() -> None:
    texts = " ".join(line["prompt"] for line in LINES)
    for plural in ("benchs", "knifes", "sheeps", "persons", "sandwichs", "toothbrushs"):
        assert f" {plural}" in texts
    assert "a photo of an orange" in texts
    assert "an umbrella" in texts


def test_prompts_that_are_written_on_do_not_change_the_next() -> None:
    prompts()[0]["include"][0]["count"] = 9
    assert prompts()[0] == LINES[0]
