# One cell: prune, recover where the row says so, evaluate; and profile, alone on its device.
# What others wait for goes first; profiles come last, since each must wait until the device is free.


rule prune:
    input:
        demo_inputs,
        matched=matched,
    output:
        CELL + "/prune.json",
    log:
        CELL + "/prune.log",
    priority: 2
    threads: THREADS
    resources:
        gpu=1 if GPUS else 0,
        mem_mb=MEM_MB,
        device=DEVICE,
        timeout_s=TIMEOUT_S,
    params:
        spec=lambda wildcards: specs.prune_spec(campaign, cell_of(wildcards)),
    shell:
        "prunebench prune {input.matched} --spec {params.spec:q} --out {output}"
        " --device {resources.device} --threads {threads} --timeout {resources.timeout_s} 2> {log}"


rule recover:
    input:
        pruned,
    output:
        CELL + "/recover.json",
    log:
        CELL + "/recover.log",
    priority: 3
    threads: THREADS
    resources:
        gpu=1 if GPUS else 0,
        mem_mb=MEM_MB,
        device=DEVICE,
        timeout_s=TIMEOUT_S,
    params:
        spec=lambda wildcards: specs.recover_spec(campaign, cell_of(wildcards)),
    shell:
        "prunebench recover {input} --spec {params.spec:q} --out {output}"
        " --device {resources.device} --threads {threads} --timeout {resources.timeout_s} 2> {log}"


rule evaluate:
    input:
        stage,
    output:
        CELL + "/evaluate.json",
    log:
        CELL + "/evaluate.log",
    priority: 1
    threads: THREADS
    resources:
        gpu=1 if GPUS else 0,
        mem_mb=MEM_MB,
        device=DEVICE,
        timeout_s=TIMEOUT_S,
    params:
        spec=lambda wildcards: specs.evaluate_spec(campaign, cell_of(wildcards)),
    shell:
        "prunebench evaluate {input} --spec {params.spec:q} --out {output}"
        " --device {resources.device} --threads {threads} --timeout {resources.timeout_s} 2> {log}"


# On a CPU the job takes all cores, on a GPU the GPU: nothing else runs beside what is timed.
rule profile:
    input:
        profiled,
    output:
        OUT / "profiles" / "{model}" / "{label}.json",
    log:
        OUT / "profiles" / "{model}" / "{label}.log",
    threads: alone_on_its_device
    resources:
        gpu=1 if GPUS else 0,
        mem_mb=MEM_MB,
        device=DEVICE,
        timeout_s=TIMEOUT_S,
    params:
        spec=lambda wildcards: specs.profile_spec(campaign, wildcards.model),
    shell:
        "prunebench profile {input} --spec {params.spec:q} --out {output}"
        " --device {resources.device} --threads {threads} --timeout {resources.timeout_s} 2> {log}"
