from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import pytest

from fdd_ray.errors import ExperimentError
from fdd_ray.experiment import Experiment
from fdd_ray.settings import changed_keys, parse_settings, read_settings, setting, to_plain


@dataclasses.dataclass(frozen=True)
class Wheel:
    size: int = setting(10, "Inches.", ge=1, le=30)
    colours: tuple[str, ...] = setting(("black",), "Colours.")


@dataclasses.dataclass(frozen=True)
class Car:
    name: str = setting(help="What it is called.")
    speed: float = setting(1.5, "Metres per second.", gt=0)
    fuel: Literal["petrol", "electric"] = setting("petrol", "What it burns.")
    wheel: Wheel = setting(factory=Wheel, help="Its wheels.")
    seats: tuple[int, int] = setting((1, 2), "From, to.", ge=1)
    limit: int | None = setting(None, "Optional.")
    labels: dict[str, str] = setting(factory=dict, help="Anything.")
    fast: bool = setting(False, "Whether.")

    def __post_init__(self) -> None:
        if self.fast and self.speed < 2:
            raise ValueError("a fast car needs speed 2 or more")


def test_reads_nested_values_and_defaults() -> None:
    car = parse_settings(Car, "name: a\nwheel: {size: 12}\nseats: 3\nlabels: {x: y}\nspeed: 1e1\n")
    assert car == Car("a", 10.0, "petrol", Wheel(12), (3, 3), None, {"x": "y"}, False)


def test_a_single_item_stands_for_a_list() -> None:
    assert parse_settings(Car, "name: a\nwheel: {colours: red}").wheel.colours == ("red",)


def test_overrides_win_and_create_groups() -> None:
    car = parse_settings(Car, "name: a\nspeed: 3", overrides=["speed=4", "wheel.size=7", "limit=", "name=b=c"])
    assert (car.speed, car.wheel.size, car.limit, car.name) == (4.0, 7, None, "b=c")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\nspede: 3", "car.yaml:2: spede is not a setting; did you mean speed?"),
        ("name: a\nwheel:\n  siez: 3", "car.yaml:3: wheel.siez is not a setting; did you mean wheel.size?"),
        ("name: a\nwheel: {size: 31}", "car.yaml:2: wheel.size is 31; allowed: at least 1 and at most 30"),
        ("name: a\nspeed: 0", "car.yaml:2: speed is 0.0; allowed: more than 0"),
        ("name: a\nspeed: .nan", "car.yaml:2: speed is nan; allowed: more than 0"),
        ("name: a\nspeed: fast", "car.yaml:2: speed is 'fast'; it must be a number"),
        (
            "name: a\nfuel: electrik",
            "car.yaml:2: fuel is 'electrik'; allowed: petrol, electric; did you mean electric?",
        ),
        ("name: a\nseats: [3, 2]", "car.yaml:2: seats is [3, 2]; the smaller number comes first"),
        ("name: a\nseats: [1, 2, 3]", "car.yaml:2: seats is one number or [min, max], not a list"),
        ("name: a\nseats: 0", "car.yaml:2: seats is 0; allowed: at least 1"),
        ("name: a\nlimit: true", "car.yaml:2: limit is True; it must be a whole number"),
        ("name: a\nwheel: 3", "car.yaml:2: wheel is a group of settings, not 3"),
        ("speed: 2", "car.yaml:1: name is missing: What it is called."),
        ("name: a\nname: b", "car.yaml:2: name is given twice (first at car.yaml:1); keep one"),
        ("name: a\nfast: true", "car.yaml:1: a fast car needs speed 2 or more"),
        ("- a", "car.yaml:1: an experiment is a mapping of settings, not a list"),
        ("name: [", "car.yaml:1: this is not YAML"),
        ("", "car.yaml:1: name is missing"),
    ],
)
def test_says_what_is_wrong_and_where(text: str, expected: str) -> None:
    with pytest.raises(ExperimentError) as caught:
        parse_settings(Car, text, "car.yaml")
    assert expected in str(caught.value)


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(ExperimentError) as caught:
        parse_settings(Car, "spede: 1\nfuel: x", "car.yaml", ["wheel.size=99", "broken"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    assert any(line.startswith("--set broken:") for line in lines)
    assert any(line.startswith("--set wheel.size=99: wheel.size is 99") for line in lines)


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="No such file"):
        read_settings(Car, tmp_path / "none.yaml")


def test_a_file_that_is_no_text_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfename: x")
    with pytest.raises(ExperimentError, match="not UTF-8"):
        read_settings(Car, tmp_path / "x.yaml")


def test_plain_settings_round_trip() -> None:
    car = parse_settings(Car, "name: a\nwheel: {colours: [red, blue]}")
    import yaml

    assert parse_settings(Car, yaml.safe_dump(to_plain(car))) == car


def test_changed_keys_names_what_differs() -> None:
    assert changed_keys({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": 2}, "d": 4}) == [
        "a.b: 1 -> 3",
        "d: '(absent)' -> 4",
    ]
    assert changed_keys({"a": [1, 2]}, {"a": [1, 2]}) == []


def test_what_may_be_a_secret_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("{}")
    with pytest.raises(ExperimentError) as caught:
        read_settings(Experiment, path, ["teacher.api_key=sk-canary-123"])
    assert "canary" not in str(caught.value) and "--set teacher.api_key=..." in str(caught.value)
