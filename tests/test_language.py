"""The language of the world: what is said of a scene is true of it, and is read back."""

import re
from collections import Counter

import numpy as np
import pytest

from janus_kit.scoring.promptset import prompts
from janus_kit.training import language, novelty, world
from janus_kit.training.language import Facts
from janus_kit.training.world import Scene, Thing

SCENES = [world.sketch(seed) for seed in range(600)]


def scene_of(*kinds: tuple[str, str | None], relation: str | None = None) -> Scene:
    things = tuple(Thing(name, color, (0, 0, 1, 1), "", 1) for name, color in kinds)
    return Scene(things, relation, "position" if relation else "counting", "sand")


def test_a_caption_is_read_back_as_the_facts_of_its_scene() -> None:
    for scene in SCENES:
        assert language.parse(language.caption(scene)) == language.facts(scene)


def test_a_detailed_caption_names_every_thing_and_how_many_there_are() -> None:
    for scene in SCENES:
        told = language.detailed(scene)
        number = re.match(r"There (?:is|are) (\w+) things?\.", told)
        assert number is not None
        assert language.NUMBERS[len(scene.things)] == number[1]
        assert language.parse(told) == language.facts(scene)


def test_a_prompt_asks_for_its_own_scene() -> None:
    rng = np.random.default_rng(0)
    for scene in SCENES:
        text = language.prompt(scene, rng)
        asked = language.parse(text)
        assert language.matches(asked, language.facts(scene))
        if asked[1] is not None:
            assert scene.task == "position" or text == language.detailed(scene)


def test_a_caption_tells_of_things_row_by_row() -> None:
    def thing(name: str, x: int, y: int, color: str | None = None) -> world.Thing:
        return world.Thing(name, color, (x - 40, y - 30, x + 40, y + 30), "", 80)

    scattered = (
        thing("dog", 290, 100),
        thing("apple", 280, 300, "red"),
        thing("zebra", 100, 90),
        thing("dog", 90, 290),
    )
    scene = world.Scene(scattered, None, "dense", "sand")
    assert language.caption(scene) == "A zebra, two dogs and a red apple."
    assert "There is a zebra. There are two dogs." in language.detailed(scene)
    row = tuple(thing(n, x, 192 + y) for n, x, y in (("cup", 300, -9), ("tie", 70, 9)))
    assert language.caption(world.Scene(row, None, "dense", "sand")) == "A tie and a cup."


@pytest.mark.usefixtures("pictures")
def test_a_caption_of_four_things_goes_from_the_upper_left_to_the_lower_right() -> None:
    for seed in range(40):
        scene = world.compose(seed, task="crowd")[1]
        y, x = ([(t.box[n] + t.box[n + 2]) / 2 for t in scene.things] for n in (1, 0))
        order = sorted(range(4), key=lambda i: (y[i] > 192, x[i]))
        names = [language.parse(part)[0][0][2] for part in parts(language.caption(scene))]
        assert names == [scene.things[i].name for i in order]


def parts(text: str) -> list[str]:
    return text.lower().replace(" and ", ", ").split(", ")


def test_a_caption_does_not_depend_on_which_thing_was_named_first() -> None:
    for scene in SCENES:
        if scene.relation:
            turned = world.OPPOSITE[scene.relation]
            swapped = Scene(scene.things[::-1], turned, scene.task, scene.ground)
            assert language.caption(swapped) == language.caption(scene)


def test_prompts_are_of_many_forms() -> None:
    rng = np.random.default_rng(1)
    scene = scene_of(("cup", "orange"))
    said = {language.prompt(scene, rng) for _ in range(8000)}
    assert {"a photo of an orange cup", "an orange cup", "orange cup", "Orange cup."} <= said
    assert len(said) > 12
    pair = scene_of(("sheep", None), ("sheep", None), ("knife", None), ("knife", None))
    said = {language.prompt(pair, rng) for _ in range(1000)}
    for text in (
        "a photo of two sheep and two knives",
        "a photo of two sheeps and two knifes",  # as GenEval and people write it
        "a photo of two sheep and two knife",
        "There are two sheep and two knives.",
        "a photo of two sheep next to two knives",
        "There are four things. There are two knives. There are two sheep.",
    ):
        assert text in said


def test_whether_a_thing_has_a_colour_is_asked_with_both_answers() -> None:
    rng = np.random.default_rng(1)
    scene = scene_of(("cup", "orange"))
    pairs = [pair for _ in range(200) for pair in language.questions(scene, rng)]
    asked = {pair for pair in pairs if re.fullmatch(r"Is the cup \w+\?", pair[0])}
    assert ("Is the cup orange?", "Yes.") in asked
    wrong = {question for question, answer in asked if answer == "No."}
    assert "Is the cup red?" in wrong
    hidden = [color for color in world.COLORS if novelty.held_out("cup", color)]
    assert wrong == {f"Is the cup {c}?" for c in world.COLORS if c not in ("orange", *hidden)}


def test_genevals_own_prompts_are_understood_as_their_metadata_says() -> None:
    for line in prompts():
        facts, relation = language.parse(line["prompt"])
        names = Counter(
            clause["class"] for clause in line["include"] for _ in range(clause["count"])
        )
        assert Counter(name for count, _, name in facts for _ in range(count)) == names
        colors = {clause["color"] for clause in line["include"] if "color" in clause}
        assert {color for _, color, _ in facts if color} == colors
        assert (relation is not None) == any("position" in clause for clause in line["include"])


def test_a_picture_of_something_else_does_not_match() -> None:
    asked = language.parse("a red apple left of a blue car")
    assert language.matches(asked, language.parse("A blue car right of a red apple."))
    assert not language.matches(asked, language.parse("A blue car left of a red apple."))
    assert not language.matches(asked, language.parse("A blue apple left of a red car."))
    assert not language.matches(asked, language.parse("A red apple."))
    assert language.matches(language.parse("a cat and a dog"), language.parse("A dog above a cat."))


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("A photo of 3 yellow kites.", (((3, "yellow", "kite"),), None)),
        ("an orange", (((1, None, "orange"),), None)),
        ("an orange orange", (((1, "orange", "orange"),), None)),
        ("Four orange sheep.", (((4, "orange", "sheep"),), None)),
        ("two people", (((2, None, "person"),), None)),
        ("three wine glasses", (((3, None, "wine glass"),), None)),
        ("four computer mouses", (((4, None, "computer mouse"),), None)),
        ("two knives", (((2, None, "knife"),), None)),
        ("two knifes", (((2, None, "knife"),), None)),
        (
            "a red apple to the right of a blue car",
            (((1, "blue", "car"), (1, "red", "apple")), "left of"),
        ),
        ("a pizza under a cow", (((1, None, "cow"), (1, None, "pizza")), "above")),
        (
            "two cups, a tv remote and a bear",
            (((2, None, "cup"), (1, None, "bear"), (1, None, "tv remote")), None),
        ),
        ("a stone", ((), None)),
        ("", ((), None)),
        ("a carred of redder catss", ((), None)),
    ],
)
def test_parse_reads(text: str, facts: Facts) -> None:
    assert language.parse(text) == facts


def test_yes_and_no_are_about_equally_frequent_and_true() -> None:
    rng = np.random.default_rng(0)
    answers: Counter[str] = Counter()
    for scene in SCENES:
        shown = language.facts(scene)[0]
        for question, answer in language.questions(scene, rng):
            assert question[0].isupper()
            assert answer[0].isupper()
            assert answer[-1] == "."
            if question.split()[1] == "there" and " more " not in question:
                answers[answer] += 1
                (asked,) = language.parse(question)[0]
                true = asked in shown or asked in {(1, None, name) for _, _, name in shown}
                assert true == (answer == "Yes."), (question, shown)
    assert set(answers) == {"Yes.", "No."}
    assert 0.42 < answers["Yes."] / answers.total() < 0.58


def test_no_question_of_training_denies_what_is_held_out() -> None:
    rng = np.random.default_rng(2)
    for scene in SCENES:
        for question, answer in language.questions(scene, rng):
            if answer == "No." and question.split()[1] == "there":
                ((count, color, name),) = language.parse(question)[0]
                assert not (color and novelty.held_out(name, color))
                assert not novelty.held_out_count(name, count)
                others = {thing.name for thing in scene.things} - {name}
                assert not any(novelty.held_out_pair(name, other) for other in others)


def test_questions_use_the_right_words_for_one_and_for_many() -> None:
    rng = np.random.default_rng(1)
    two = dict(language.questions(scene_of(("sheep", "red"), ("sheep", "red")), rng))
    assert two["How many sheep are there?"] == "Two."
    assert two.get("What color are the sheep?", two.get("What colour are the sheep?")) == "Red."
    assert two["What are these?"] == "Two red sheep."
    lone = dict(language.questions(scene_of(("bus", None)), rng))
    assert lone["What is this?"] == "A bus."
    assert lone["How many buses are there?"] == "One."
    assert not any("colo" in question for question in lone)  # its own colour has no name
    more = dict(language.questions(scene_of(("cup", None), ("cup", None), ("tie", None)), rng))
    asked = [q for q in more if q.startswith("Are there more")]
    assert [more[q] for q in asked] == ["Cups."]


def test_where_is_answered_from_both_sides() -> None:
    rng = np.random.default_rng(0)
    scene = scene_of(("apple", "red"), ("car", "blue"), relation="left of")
    asked = {pair for _ in range(60) for pair in language.questions(scene, rng)}
    assert ("Where is the apple?", "Left of the car.") in asked
    assert ("Where is the car?", "Right of the apple.") in asked
    assert ("What is left of the car?", "A red apple.") in asked
    assert ("Is the apple left of the car?", "Yes.") in asked
    assert ("Is the apple right of the car?", "No.") in asked


def test_every_word_of_every_prompt_is_among_the_words() -> None:
    rng = np.random.default_rng(3)
    known = set(language.words())
    for scene in SCENES:
        said = re.findall(r"[^\W_]+", language.prompt(scene, rng).lower())
        assert set(said) <= known
    for line in prompts():
        assert set(re.findall(r"[^\W_]+", line["prompt"].lower())) <= known


def test_whether_a_thing_is_there_is_asked_by_its_name_alone_and_answered_truly() -> None:
    answers = Counter()
    for seed, scene in enumerate(SCENES[:200]):
        there = {thing.name for thing in scene.things}
        for question, answer in language.questions(scene, np.random.default_rng(seed)):
            asked = language.parse(question)[0]
            if question.startswith("Is there") and asked[0][1] is None:
                name = asked[0][2]
                assert answer == ("Yes." if name in there else "No."), (question, there)
                answers[answer] += 1
    assert min(answers.values()) > 0.4 * sum(answers.values())


def test_a_question_is_about_the_first_thing_it_names_or_both_that_it_compares() -> None:
    assert language.named("Is there a teddy bear?") == ("teddy bear",)
    assert language.named("How many knives are there?") == ("knife",)
    assert language.named("Is the cat left of the dog?") == ("cat",)
    assert language.named("Are there more cats or teddy bears?") == ("cat", "teddy bear")
    assert language.named("How many things are there?") == ()
