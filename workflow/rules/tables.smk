# Records and tables, and the exit status: a failed cell is a row, and the call says so.


# Text that is evaluated on must not have been trained on: looked for once for all cells.
rule leak:
    input:
        WORLD if campaign.source == "demo" else [],
    output:
        OUT / "leak.json",
    log:
        OUT / "leak.log",
    params:
        folder=OUT,
        texts=lambda wildcards: specs.leak_spec(campaign),
    shell:
        "prunebench leak {params.folder} 2> {log}"


rule leaderboard:
    input:
        OUT / "leak.json",
        results("evaluate.json"),
        profiles(),
    output:
        report(
            OUT / "index.html",
            caption="../report/page.rst",
            category="Leaderboard",
            labels={"file": "page"},
        ),
        report(
            OUT / "leaderboard.md",
            caption="../report/leaderboard.rst",
            category="Leaderboard",
            labels={"file": "tables"},
        ),
        report(
            OUT / "leaderboard.csv",
            caption="../report/leaderboard.rst",
            category="Leaderboard",
            labels={"file": "every digit"},
        ),
        OUT / "leaderboard.parquet",
        report(
            OUT / "paper_vs_measured.md",
            caption="../report/papers.rst",
            category="Papers",
            labels={"file": "verdicts"},
        ),
        OUT / "paper_vs_measured.csv",
        report(
            OUT / "failures.md",
            caption="../report/failures.rst",
            category="Not measured",
            labels={"file": "reasons"},
        ),
        report(
            directory(OUT / "plots"),
            patterns=["{name}.svg"],
            caption="../report/plots.rst",
            category="Trade-off",
            labels={"figure": "{name}"},
        ),
    log:
        OUT / "leaderboard.log",
    params:
        folder=OUT,
        campaign=hashlib.sha256(json.dumps(dict(config), sort_keys=True).encode()).hexdigest(),
    shell:
        "prunebench leaderboard {params.folder} 2> {log}"


rule check:
    input:
        OUT / "leaderboard.md",
    output:
        touch(OUT / "complete"),
    params:
        folder=OUT,
    shell:
        "prunebench check {params.folder}"
