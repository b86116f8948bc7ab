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
        texts=lambda wildcards: plan.leak_spec(campaign),
    shell:
        "prunebench leak {params.folder} 2> {log}"


rule leaderboard:
    input:
        OUT / "leak.json",
        results("evaluate.json"),
        profiles(),
    output:
        OUT / "leaderboard.md",
        OUT / "leaderboard.csv",
        OUT / "failures.md",
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
