# Records and tables, and the exit status: a failed cell is a row, and the call says so.


# An exit status needs no job of a cluster.
localrules:
    failures,


# Text that is evaluated on must not have been trained on: looked for once for all cells.
rule leak:
    input:
        lambda wildcards: due(OUT.leak, *world()),
    output:
        OUT.leak,
    log:
        OUT.leak.with_suffix(".log"),
    params:
        folder=OUT.root,
    shell:
        "prunebench leak {params.folder} 2> {log}"


rule leaderboard:
    input:
        measured,
    output:
        report(
            OUT.view("index.html"),
            caption="../report/page.rst",
            category="Leaderboard",
            labels={"file": "page"},
        ),
        report(
            OUT.view("leaderboard.md"),
            caption="../report/leaderboard.rst",
            category="Leaderboard",
            labels={"file": "tables"},
        ),
        report(
            OUT.view("leaderboard.csv"),
            caption="../report/leaderboard.rst",
            category="Leaderboard",
            labels={"file": "every digit"},
        ),
        OUT.view("leaderboard.parquet"),
        report(
            OUT.view("paper_vs_measured.md"),
            caption="../report/papers.rst",
            category="Papers",
            labels={"file": "verdicts"},
        ),
        OUT.view("paper_vs_measured.csv"),
        report(
            OUT.view("failures.md"),
            caption="../report/failures.rst",
            category="Not measured",
            labels={"file": "reasons"},
        ),
        report(
            directory(OUT.view("plots")),
            patterns=["{name}.svg"],
            caption="../report/plots.rst",
            category="Trade-off",
            labels={"figure": "{name}"},
        ),
    log:
        OUT.view("leaderboard.log"),
    params:
        folder=OUT.root,
    shell:
        "prunebench leaderboard {params.folder} 2> {log}"


rule failures:
    input:
        lambda wildcards: due(OUT.complete, OUT.view("leaderboard.md")),
    output:
        touch(OUT.complete),
    params:
        folder=OUT.root,
    shell:
        "prunebench failures {params.folder}"
