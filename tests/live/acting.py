"""A run without engines, for a terminal: python -m tests.live.acting SCENE."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
import warnings

from fdd_ray.live.board import Board
from fdd_ray.live.reporter import reporting
from fdd_ray.live.view import planned
from fdd_ray.progress import Reporter
from fdd_ray.store.manifest import Counts, Manifest

NAME = "tiny"
DIRECTORY = "/a/long/way/down/to/runs/tiny"


def done(stage: str, round: int | None, reused: bool = False, **summary: object) -> Manifest:
    """A finished stage."""
    return Manifest(
        stage, round, f"/x/{stage}", "f", {}, Counts(400, 380, {"wrong": 20}), (), {}, summary, 42.0, reused=reused
    )


def begin(board: Board, reporter: Reporter) -> None:
    """The base and the problems were done before."""
    for stage, number in (("problems", 0), ("score", None)):
        board.finished(done(stage, number, reused=True, accuracy={"gsm8k": {"value": 0.125}}))
    reporter.spent("teacher", 1_200_000, 34_000)
    reporter.say("experiment tiny")


def rows(board: Board, reporter: Reporter, seconds: float, stage: str = "rationales") -> None:
    """A stage of 20 rows."""
    with reporter.at_work(stage, 0), reporter.stage(f"round 0 {stage}") as progress:
        progress.start(20)
        for number in range(20):
            time.sleep(seconds / 20)
            progress.advance(1, kept=number % 2)
            reporter.spent("teacher", 10, 20)
    board.finished(done(stage, 0))


def noise() -> None:
    """Everything that writes to a terminal behind a view's back."""
    for number in range(15):
        print(f"stdout-{number}")
        print(f"stderr-{number}", file=sys.stderr)
        os.write(2, f"raw-{number}\n".encode())
        logging.getLogger("noise").warning("logged-%d", number)
        subprocess.run(["echo", f"child-{number}"], check=True)
        time.sleep(0.1)
    warnings.warn("warned-of", stacklevel=1)
    sys.stderr.write("\rbar 10 %\rbar 90 %\rbar-done\n\x1b[2J\x1b[31mcleared?\x1b[0m\x07 \x1b]0;title\x07after\n")


def main(scene: str) -> None:
    board = Board(NAME, DIRECTORY, planned(2))
    with reporting(board) as reporter:
        begin(board, reporter)
        match scene:
            case "finish":
                rows(board, reporter, 1.5)
            case "noise":
                thread = threading.Thread(target=noise)
                thread.start()
                rows(board, reporter, 2.0)
                thread.join()
            case "threads":
                talk = [
                    threading.Thread(target=lambda n=n: [reporter.say(f"said-{n}-{k}") for k in range(200)])
                    for n in range(4)
                ]
                for thread in talk:
                    thread.start()
                rows(board, reporter, 1.0)
                for thread in talk:
                    thread.join()
            case "fail":
                with reporter.at_work("rationales", 0), reporter.stage("round 0 rationales") as progress:
                    progress.start(20)
                    progress.advance(7)
                    time.sleep(1.0)
                    raise ValueError("something broke")
            case "hostile":
                with reporter.at_work("rationales", 0), reporter.stage("round 0 rationales") as progress:
                    progress.waiting("[red]not red[/red] \x1b[2J\x1b[31m\u202e engine\n\n\n")
                    time.sleep(1.0)
                    reporter.say("[bold]plain[/bold] \x1b[H\x1b[2Jwiped?")
                    time.sleep(1.0)
            case "wait":
                rows(board, reporter, 60.0)
            case "child":
                child = subprocess.Popen(["sh", "-c", "echo early-child; sleep 2; echo late-child"])
                rows(board, reporter, 1.0)
            case "twice":
                rows(board, reporter, 1.0)
    if scene == "child":
        assert child.wait() == 0, "it must not die of a pipe that nobody reads"
        time.sleep(0.3)
    if scene == "twice":
        print("between", flush=True)
        second = Board("second", DIRECTORY, planned(0))
        with reporting(second) as reporter:
            rows(second, reporter, 1.0)
    print("after the view")


if __name__ == "__main__":
    main(sys.argv[1])
