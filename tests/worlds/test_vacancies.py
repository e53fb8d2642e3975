from __future__ import annotations

from teloi.data.read import read
from teloi.worlds.vacancies import SKILLS_LISTED, TESTED, occupations, rows


def test_the_table_is_whole() -> None:
    names, titles = [], []
    for name, own, skills in occupations():
        assert len(set(own)) == 8
        assert len(set(skills)) == 9
        names.append(name)
        titles.extend(own)
    assert len(set(names)) == len(names) == 24
    assert len({title.lower() for title in titles}) == len(titles)


def test_training_shows_neither_what_is_tested_nor_what_is_to_be_found() -> None:
    train, test = rows("train"), rows("test")
    assert len(train) == 24 * (8 - TESTED)
    assert len(test) == 24 * TESTED
    shown = {row["title"].lower() for row in train}
    assert not shown & {row["title"].lower() for row in test}
    assert not shown & {row["normalized"].lower() for row in train}
    skills = {name: set(listed) for name, _, listed in occupations()}
    assert all(len(row["skills"]) == SKILLS_LISTED and set(row["skills"]) <= skills[row["group"]] for row in train)


def test_the_embedded_rows_are_what_the_world_makes() -> None:
    assert list(read("vacancies")) == rows("train")
    assert list(read("vacancies", "test")) == rows("test")
