"""A live view of a run on a terminal: what is done, at work and to come, and what it cost so far.

    with reporting("tiny", directory, planned(rounds=3), board) as reporter:
        ...                     # reporter.say, reporter.stage as everywhere

`view` says what is known of a run at one moment, `board` gathers it from any thread, `render` turns it into text
without a terminal in sight, `screen` is the only one that writes to the terminal, `reporter` ties them together.
Drawing reads memory only; it happens at most four times a second, in a thread of its own.
"""
