"""What things cost here, against what a user would pick instead: `python scripts/bench.py`.

A **contender** (contender.py) is a name, a set-up and a block of work that can be repeated and
says what it cost. `interleave` is the only way that contenders are timed: one block of each, in
turn, round after round, so whatever slows the machine slows all of them. Ratios are taken inside a
round, and medians over rounds (spread.py).

Contenders that train live in a process of their own each (process.py, worker.py): a function that
is handed `turns`, sets itself up, and then measures one block for every turn:

    def contender(turns: Turns, **arguments: Any) -> None:
        model = ...                                  # set up, from JSON arguments
        for turn in turns:                           # {"steps": 20}; ends when all is measured
            turns.report(ms=..., rss_mib=...)        # quantities of this block, plain numbers

A **suite** is a module of this package with a docstring and a function

    def run(settings: Settings) -> Result

that raises a `NormlabError` when it cannot be done. `Settings` is what the command line says, and
`Result` (result.py) is tables, goals and panels of numbers with their spread, which main.py prints,
writes as JSON and draws. `main.SUITES` names the suites. `read` is there when read.py is: its
`run(runs, rounds, steps)` gives plain numbers, which reading.py turns into a `Result`.

| suite     | question                                                                |
|-----------|-------------------------------------------------------------------------|
| `step`    | a training step against other packages, a bare loop and the matmuls alone |
| `norms`   | every norm of conf/norm, forward and backward, against torch's and a copy |
| `study`   | four runs as a study against one after the other                         |
| `read`    | reading results against tbparse                                          |
| `start`   | how long until a command answers, or trains                              |
| `scaling` | cost and memory against the model's size; the largest that fits          |
"""
