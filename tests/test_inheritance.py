"""Experiments that extend others: what wins, where mistakes are said to be, and what is refused."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import yaml

from fdd_ray.cli import main
from fdd_ray.errors import ExperimentError
from fdd_ray.settings import parse_settings, read_settings, setting, to_plain


@dataclasses.dataclass(frozen=True)
class Wheel:
    size: int = setting(10, "Inches.", ge=1, le=30)
    colours: tuple[str, ...] = setting(("black",), "Colours.")


@dataclasses.dataclass(frozen=True)
class Car:
    name: str = setting(help="What it is called.")
    speed: float = setting(1.5, "Metres per second.", gt=0)
    wheel: Wheel | None = setting(factory=Wheel, help="Its wheels.")
    labels: dict[str, str] = setting(factory=dict, help="Anything.")


def write(folder: Path, **texts: str) -> Path:
    """The files ``NAME.yaml`` in ``folder``; the path of the first."""
    for name, text in texts.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / f"{next(iter(texts))}.yaml"


def refused(path: Path, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(ExperimentError) as caught:
        read_settings(Car, path, overrides)
    return str(caught.value)


def test_mappings_merge_and_all_else_is_replaced(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        car="extends: base.yaml\nwheel: {colours: [red]}\nlabels: {b: two}\n",
        base="name: base\nspeed: 3\nwheel: {size: 12, colours: [green, blue]}\nlabels: {a: one, b: one}\n",
    )
    assert read_settings(Car, path) == Car("base", 3.0, Wheel(12, ("red",)), {"a": "one", "b": "two"})


def test_null_takes_an_inherited_group_away(tmp_path: Path) -> None:
    path = write(tmp_path, car="extends: base.yaml\nwheel: null\n", base="name: a\nwheel: {size: 12}\n")
    assert read_settings(Car, path).wheel is None


def test_of_several_files_the_later_wins_and_set_wins_over_all(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        car="extends: [one.yaml, two.yaml]\nname: own\n",
        one="name: one\nspeed: 1\nwheel: {size: 1}\n",
        two="name: two\nspeed: 2\n",
    )
    assert read_settings(Car, path) == Car("own", 2.0, Wheel(1))
    assert read_settings(Car, path, ["speed=9", "wheel.size=8"]) == Car("own", 9.0, Wheel(8))


def test_paths_are_relative_to_the_file_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(
        tmp_path,
        car="extends: base/middle.yaml\n",
        base__middle="extends: ../other/end.yaml\nspeed: 4\n",
        other__end="name: end\nspeed: 5\n",
    )
    monkeypatch.chdir("/")
    assert read_settings(Car, path) == Car("end", 4.0)


def test_one_base_may_be_reached_by_two_ways(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        car="extends: [left.yaml, right.yaml]\n",
        left="extends: top.yaml\nspeed: 2\n",
        right="extends: top.yaml\n",
        top="name: top\nspeed: 1\n",
    )
    # The later file wins with all that it extends: right.yaml brings top.yaml's speed.
    assert read_settings(Car, path) == Car("top", 1.0)


def test_mistakes_are_told_with_the_file_and_line_they_stand_in(tmp_path: Path) -> None:
    path = write(tmp_path, car="extends: base.yaml\nname: a\nspede: 1\n", base="# a comment\nwheel:\n  size: 99\n")
    lines = refused(path).splitlines()
    assert f"{tmp_path}/car.yaml:3: spede is not a setting; did you mean speed?" in lines
    assert any(line.startswith(f"{tmp_path}/base.yaml:3: wheel.size is 99; allowed") for line in lines)


def test_what_is_missing_is_told_of_the_file_that_was_given(tmp_path: Path) -> None:
    path = write(tmp_path, car="extends: base.yaml\n", base="speed: 2\n")
    assert refused(path) == f"{path}:1: name is missing: What it is called."


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({"car": "name: a\nextends: none.yaml\n"}, "car.yaml:2: extends: cannot read"),
        ({"car": "extends: car.yaml\n"}, "car.yaml:1: extends goes in a circle"),
        ({"car": "extends: b.yaml\n", "b": "name: x\nextends: car.yaml\n"}, "b.yaml:2: extends goes in a circle"),
        ({"car": "extends: b.yaml\n", "b": "- x\n"}, "b.yaml:1: "),
        ({"car": "extends: b.yaml\n", "b": "x: [\n"}, "b.yaml:2: this is not YAML"),
        ({"car": "extends: 3\n"}, "car.yaml:1: extends names a YAML file or a list of them, not 3"),
        ({"car": "extends:\n"}, "not nothing"),
        ({"car": "extends: {a: b}\n"}, "not a mapping"),
        ({"car": "extends: [[a]]\n"}, "not a list"),
        ({"car": 'extends: "a\\0b"\n'}, "extends names a YAML file"),
        ({"car": "extends: .\n"}, "cannot read"),
        ({"car": "extend: b.yaml\nname: a\n"}, "car.yaml:1: extend is not a setting; did you mean extends"),
        ({"car": "name: a\nwheel: {extends: b.yaml}\n"}, "car.yaml:2: wheel.extends is not a setting"),
    ],
)
def test_what_cannot_be_extended_is_refused_with_its_place(
    tmp_path: Path, texts: dict[str, str], expected: str
) -> None:
    assert expected in refused(write(tmp_path, **texts))


def test_a_circle_is_found_through_a_link_too(tmp_path: Path) -> None:
    path = write(tmp_path, car="extends: again/car.yaml\nname: a\n")
    (tmp_path / "again").symlink_to(tmp_path)
    assert "extends goes in a circle" in refused(path)


@pytest.mark.timeout(20)
def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "cannot read" in refused(write(tmp_path, car="extends: pipe.yaml\n"))
    assert "over 256 KiB" in refused(write(tmp_path, car="extends: big.yaml\n", big="#" * (300 << 10)))


def test_files_that_multiply_are_refused_at_once(tmp_path: Path) -> None:
    texts = {f"f{n}": f"extends: [f{n + 1}.yaml, f{n + 1}.yaml]\n" for n in range(30)}
    assert "over 64 files" in refused(write(tmp_path, **texts, f30="name: a\n"))


def test_an_empty_base_adds_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, car="extends: base.yaml\nname: a\n", base="# nothing yet\n")
    assert read_settings(Car, path) == Car("a")


def test_the_command_line_extends_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, car="name: a\n", base="speed: 2\n")
    assert "--set extends=base.yaml: files extend files" in refused(path, ("extends=base.yaml",))


def test_what_was_resolved_stands_alone(tmp_path: Path) -> None:
    path = write(tmp_path, car="extends: base.yaml\nspeed: 2\n", base="name: a\nwheel: {size: 4}\n")
    car = read_settings(Car, path)
    text = yaml.safe_dump(to_plain(car))
    assert "extends" not in text and parse_settings(Car, text) == car


def test_the_command_ends_with_the_code_of_a_wrong_experiment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, car="extends: none.yaml\n")
    assert main(["run", str(path)]) == 2
    assert "none.yaml: No such file or directory" in capsys.readouterr().err
