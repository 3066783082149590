from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from exp3rt_trt import InvalidInputError, Item
from exp3rt_trt.cli.app import app
from exp3rt_trt.profiles import Preferences, ProfileStore, Review, merge, parse, read_items, read_reviews
from exp3rt_trt.profiles.points import grounded, without_contradictions
from typer.testing import CliRunner, Result


def test_an_answer_is_read_as_two_sides_and_a_half_point_is_left_out() -> None:
    answer = "[Like]\n- bright.\n-  small\n[Dislike]\n- None"
    assert parse(answer) == Preferences(("bright", "small"), ())
    assert parse("[Like]\n- bright\n[Dislike]\n- came late\n- bro", cut=True) == Preferences(
        ("bright",), ("came late",)
    )
    assert parse("[Like]\n- bright\n- bright") is None
    assert parse(str(Preferences(("a",), ("b", "c")))) == Preferences(("a",), ("b", "c"))


def test_points_that_the_review_does_not_say_are_dropped_and_repetitions_too() -> None:
    review = "It fits well in the pockets, 5 stars."
    assert grounded(["fits well", "5", "fit well", "great battery life", "pocket"], review) == (
        "fits well",
        "pocket",
    )


@pytest.mark.parametrize(("rating", "sides"), [(5, (1, 0)), (1, (0, 1)), (3, (0, 0)), (None, (0, 0))])
def test_a_point_on_both_sides_stays_where_the_rating_speaks_for_it(
    rating: float | None, sides: tuple[int, int]
) -> None:
    kept = without_contradictions(Preferences(("fits well",), ("fits well",)), rating, 5)
    assert (len(kept.likes), len(kept.dislikes)) == sides


def test_points_of_many_reviews_are_counted_once_a_review() -> None:
    groups = [["came late", "came late"], ["bright light"], ["a bright light", "cheap"], ["cheap"]]
    assert merge(groups, most=2) == ("bright light", "cheap")


ROWS = {
    "amazon2014.jsonl": '{"reviewerID": "u", "asin": "i", "reviewText": "ok", "overall": 4, '
    '"helpful": [3, 5], "unixReviewTime": 7}\n',
    "amazon2023.jsonl": '{"user_id": "u", "asin": "x", "parent_asin": "i", "text": "ok", "title": "Fine", '
    '"rating": 4.0, "helpful_vote": 3, "timestamp": 7}\n',
    "plain.csv": "user_id,item_id,text,rating,helpful,timestamp\nu,i,ok,4,3,7\n",
    "recbole.inter": "user_id:token\titem_id:token\treview:token_seq\trating:float\t"
    "helpful:float\ttimestamp:float\n"
    "u\ti\tok\t4\t3\t7\n",
}


@pytest.mark.parametrize("name", ROWS)
def test_reviews_are_read_with_the_names_that_people_have(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(ROWS[name], encoding="utf-8")
    found = read_reviews(path)
    assert found.reviews == [Review("u", "i", "ok", 4.0, 3.0, 7.0)]
    assert not found.faults


def test_parquet_is_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"user_id": "u", "item_id": "i", "rating": 2}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "r.parquet")
    assert read_reviews(tmp_path / "r.parquet").reviews == [Review("u", "i", "", 2.0)]


def test_a_bad_row_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    good = {"user_id": "u", "item_id": "i", "text": "ok"}
    rows = ["{", json.dumps(good), json.dumps({**good, "rating": "x"}), json.dumps({**good, "user_id": ""})]
    path.write_text("\n".join(rows), encoding="utf-8")
    found = read_reviews(path)
    assert len(found.reviews) == 1
    assert [fault.split(": ")[0] for fault in found.faults] == [f"{path}:{line}" for line in (1, 3, 4)]
    assert "rating must be a finite number, not 'x'" in found.faults[1]
    assert "user_id is missing" in found.faults[2]
    with pytest.raises(InvalidInputError, match="unknown kind"):
        read_reviews(tmp_path / "r.txt")


def test_a_rating_outside_the_scale_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("user_id,item_id,rating\nu,i,9\nu,j,-300\nu,k,0.5\nu,l,5\nu,m,\n")
    found = read_reviews(path, 5)
    assert [review.item_id for review in found.reviews] == ["l", "m"]
    assert found.faults == [
        f"{path}:{line}: rating must be from 1 to 5, not {value}"
        for line, value in ((2, 9), (3, -300), (4, 0.5))
    ]
    assert [review.item_id for review in read_reviews(path, 10).reviews] == ["i", "l", "m"]


def test_paths_may_be_strings(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"user_id": "u", "item_id": "i", "title": "Lamp"}\n')
    assert read_reviews(str(path)) == read_reviews(path)
    assert read_items(str(path)) == read_items(path)
    with pytest.raises(InvalidInputError, match="unknown kind"):
        read_reviews("r.txt")


def test_descriptions_may_be_lists_or_missing(tmp_path: Path) -> None:
    path = tmp_path / "meta.jsonl"
    path.write_text('{"parent_asin": "i", "description": ["A", "lamp."]}\n{"asin": "j", "title": "Kettle"}\n')
    assert read_items(path)[0] == [Item("i", None, "A lamp."), Item("j", "Kettle")]


def test_recboles_items_are_read(tmp_path: Path) -> None:
    path = tmp_path / "films.item"
    path.write_text(
        "item_id:token\tmovie_title:token_seq\tdescription:token_seq\ti_vec:float_seq\n"
        'i\tThe "Long" Lamp\tA lamp, a room.\t0.1 0.2\nj\tKettle\t\t\nk\tshort\n'
    )
    items, faults = read_items(path)
    assert items == [Item("i", 'The "Long" Lamp', "A lamp, a room."), Item("j", "Kettle")]
    assert faults == [f"{path}:4: 2 fields where the header has 4"]


def filled(path: Path, **options: object) -> ProfileStore:
    store = ProfileStore(path, **options)  # type: ignore[arg-type]
    reviews = [
        Review("u", "i", "a", 5, helpful=1, time=1),
        Review("v", "i", "b", 2, helpful=9, time=2),
        Review("w", "i", "c", 3, helpful=0, time=3),
        Review("u", "j", "d", 4),
    ]
    points = [
        (("bright light",), ()),
        (("cheap",), ("heavy",)),
        (("small box",), ()),
        (("a bright light",), ()),
    ]
    store.add_reviews(reviews, "1")
    rows = [(review, "ok", Preferences(*sides)) for review, sides in zip(reviews, points, strict=True)]
    store.add_extractions(rows, "1")
    return store


def test_profiles_are_summed_up_with_average_ratings(tmp_path: Path) -> None:
    store = filled(tmp_path / "s.sqlite")
    user = store.user_profile("u")
    assert user is not None
    assert user.average_rating == 4.5
    assert user.profile == "[Like]\n- bright light\n\n[Dislike]\n- None"  # said twice, counted as one
    assert store.user_profile("nobody") is None
    assert store.item("nothing") is None
    item = store.item("i")
    assert item is not None
    assert item.profile is not None
    assert item.profile.endswith("[Dislike]\n- heavy\n\n[Average Rating]\n3.3")
    store.add_items([Item("k", "Kettle")])
    assert store.item("k") == Item("k", "Kettle")


@pytest.mark.parametrize(
    ("choice", "user", "first"),
    [("helpful", None, "cheap"), ("newest", None, "small box"), ("helpful", "v", "bright light")],
)
def test_the_chosen_review_stands_behind_a_profile_of_few_words(
    tmp_path: Path, choice: str, user: str | None, first: str
) -> None:
    item = filled(tmp_path / "s.sqlite", choice=choice, max_words=1).item("i", user)
    assert item is not None
    assert item.profile is not None
    assert item.profile.splitlines()[1:4] == [f"- {first}", "", "[Dislike]"]


def test_the_most_similar_reviews_are_those_with_the_users_words(tmp_path: Path) -> None:
    store = filled(tmp_path / "s.sqlite", choice="similar", max_words=1)
    review = Review("z", "j", "e", 5)
    store.add_reviews([review], "1")
    store.add_extractions([(review, "ok", Preferences(("small box",), ()))], "1")
    item = store.item("i", "z")
    assert item is not None
    assert "- small box" in (item.profile or "")


def test_another_version_is_extracted_anew(tmp_path: Path) -> None:
    store = filled(tmp_path / "s.sqlite")
    reviews = [Review("u", "i", "a", 5), Review("u", "i", "new", 5)]
    assert store.missing(reviews, "1") == reviews[1:]
    assert store.missing(reviews, "2") == reviews


def test_parquet_carries_a_store_to_another(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    store, copy = filled(tmp_path / "s.sqlite"), ProfileStore(tmp_path / "c.sqlite")
    store.export_parquet(tmp_path / "s.parquet")
    for _ in range(2):  # twice changes nothing
        copy.import_parquet(tmp_path / "s.parquet")
        assert copy.statuses() == store.statuses()
        assert [copy.user_profile(user) for user in "uvw"] == [store.user_profile(user) for user in "uvw"]
    (tmp_path / "x.parquet").write_bytes(b"x")
    with pytest.raises(InvalidInputError, match="not an export"):
        copy.import_parquet(tmp_path / "x.parquet")


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"no database" * 999)
    with pytest.raises(InvalidInputError, match="not usable as a store"):
        ProfileStore(path)


def test_the_command_line_makes_and_shows_profiles(engine: Path, tmp_path: Path) -> None:
    examples = Path(__file__).parents[2] / "examples"
    store = str(tmp_path / "s.sqlite")
    files = [str(examples / "film_reviews.jsonl"), "--items", str(examples / "films.jsonl")]
    run = CliRunner().invoke(
        app, ["profile", "build", *files, "--store", store, "--engine", str(engine), "--by", "lists"]
    )
    assert run.exit_code == 0, run.output
    assert run.output.startswith("30 extracted")
    assert "0 unusable rows, 1 item without metadata" in run.output
    again = CliRunner().invoke(
        app, ["profile", "build", *files, "--store", store, "--engine", str(engine), "--by", "lists"]
    )
    assert "30 known already" in again.output
    shown = CliRunner().invoke(app, ["profile", "show", "--store", store, "--user", "ada"])
    assert shown.output.startswith("[Like]\n-")
    assert "[Average Rating]\n" in shown.output
    shown = CliRunner().invoke(app, ["profile", "show", "--store", store, "--item", "tide"])
    assert shown.output.startswith("The Tide Table\n")
    missing = CliRunner().invoke(app, ["profile", "show", "--store", store, "--user", "nobody"])
    assert isinstance(missing.exception, InvalidInputError)


def build(reviews: Path, engine: Path, *options: str) -> Result:
    command = ["profile", "build", str(reviews), "--store", str(reviews.parent / "s.sqlite")]
    return CliRunner().invoke(app, [*command, "--engine", str(engine), *options])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "who,what\nann,tide\n",
            "no usable review in 1 row; {path}:2: user_id is missing",
        ),
        (
            "user_id,item_id,rating\nu,i,9\nu,j,7\n",
            "no usable review in 2 rows; {path}:2: rating must be from 1 to 5",
        ),
        ("", "no usable review in 0 rows"),
    ],
)
def test_a_file_without_a_usable_review_makes_no_store(
    engine: Path, tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "r.csv"
    path.write_text(text)
    run = build(path, engine)
    assert run.exit_code == 1
    assert isinstance(run.exception, InvalidInputError)
    assert re.search(words.format(path=path), str(run.exception))
    assert not (tmp_path / "s.sqlite").exists()


def test_reviews_may_be_of_another_scale(engine: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("user_id,item_id,text,rating\nann,tide,Quiet and patient.,9\nbob,tide,Far too loud.,3\n")
    run = build(path, engine, "--by", "lists")
    assert run.exit_code == 0, run.output
    assert f"{path}:2: rating must be from 1 to 5, not 9" in run.output
    assert "1 extracted" in run.output
    assert "1 unusable row," in run.output
    ten = ("--by", "lists", "--highest-rating", "10")
    run = build(path, engine, *ten)
    assert "2 extracted" in run.output  # what was judged by another scale is judged anew
    assert "0 known already; 0 unusable rows" in run.output
    assert "2 known already" in build(path, engine, *ten).output


def test_an_item_is_shown_by_the_chosen_reviews(tmp_path: Path) -> None:
    filled(tmp_path / "s.sqlite").close()

    def show(*arguments: str) -> str:
        run = CliRunner().invoke(app, ["profile", "show", "--store", str(tmp_path / "s.sqlite"), *arguments])
        return run.output or str(run.exception)

    budget = ("--item", "i", "--max-words", "1")
    assert show(*budget).startswith("[Like]\n- cheap\n")
    assert show(*budget, "--choice", "newest").startswith("[Like]\n- small box\n")
    assert show(*budget, "--user", "v").startswith("[Like]\n- bright light\n")  # not the user's own review
    assert show(*budget, "--user", "v", "--choice", "similar").startswith("[Like]\n")
    assert "give --user and --item" in show(*budget, "--choice", "similar")
    assert "give --user, --item or both" in show()
    assert "no review by user 'x'" in show(*budget, "--user", "x")
