"""A live view of a run on a terminal: what is done, at work and to come, and what it cost so far.

    board = Board("tiny", directory, planned(rounds=3))
    with reporting(board) as reporter:
        ...                     # reporter.say, reporter.stage as everywhere; board.finished(manifest)

`view` says what is known of a run at one moment, `board` gathers it from any thread, `render` turns it into text
without a terminal in sight, `paint` into what a terminal is sent, `screen` is the only one that writes to the
terminal, and `reporter` ties them together. `fdd_ray.report.watch` makes the same view of a run's folder.
Drawing reads memory only; it happens at most four times a second, in a thread of its own.
"""
