# One cell: prune, recover where the row says so, evaluate; and profile, alone on its device.
# What others wait for goes first; profiles come last, since each must wait until the device is free.


rule prune:
    input:
        lambda wildcards: due(own(wildcards).prune, *world()),
        matched=matched,
    output:
        CELL.prune,
    log:
        CELL.log("prune"),
    priority: 2
    threads: THREADS
    resources:
        gpu=1 if GPUS else 0,
        mem_mb=asked("prune", "memory", MEM_MB),
        runtime=asked("prune", "runtime", 0),
        limit_mb=asked("prune", "memory_limit", MEM_MB),
        device=DEVICE,
        timeout_s=asked("prune", "time_limit", TIMEOUT_S),
    params:
        spec=lambda wildcards: specs.prune_spec(campaign, cell_of(wildcards)).model_dump_json(),
    shell:
        "prunebench prune {input.matched} --spec {params.spec:q} --out {output}"
        " --device {resources.device} --threads {threads} --timeout {resources.timeout_s}"
        " --memory {resources.limit_mb} 2> {log}"


rule recover:
    input:
        lambda wildcards: due(own(wildcards).recover, *world()),
        stage=lambda wildcards: due(own(wildcards).recover, pruned(wildcards)),
    output:
        CELL.recover,
    log:
        CELL.log("recover"),
    priority: 3
    threads: THREADS
    resources:
        gpu=1 if GPUS else 0,
        mem_mb=asked("recover", "memory", MEM_MB),
        runtime=asked("recover", "runtime", 0),
        limit_mb=asked("recover", "memory_limit", MEM_MB),
        device=DEVICE,
        timeout_s=asked("recover", "time_limit", TIMEOUT_S),
    params:
        spec=lambda wildcards: specs.recover_spec(campaign, cell_of(wildcards)).model_dump_json(),
    shell:
        "prunebench recover {input.stage} --spec {params.spec:q} --out {output}"
        " --device {resources.device} --threads {threads} --timeout {resources.timeout_s}"
        " --memory {resources.limit_mb} 2> {log}"


rule evaluate:
    input:
        lambda wildcards: due(own(wildcards).evaluate, *world()),
        stage=stage,
    output:
        CELL.evaluate,
    log:
        CELL.log("evaluate"),
    priority: 1
    threads: THREADS
    resources:
        gpu=1 if GPUS else 0,
        mem_mb=asked("evaluate", "memory", MEM_MB),
        runtime=asked("evaluate", "runtime", 0),
        limit_mb=asked("evaluate", "memory_limit", MEM_MB),
        device=DEVICE,
        timeout_s=asked("evaluate", "time_limit", TIMEOUT_S),
    params:
        spec=lambda wildcards: specs.evaluate_spec(campaign, cell_of(wildcards)).model_dump_json(),
    shell:
        "prunebench evaluate {input.stage} --spec {params.spec:q} --out {output}"
        " --device {resources.device} --threads {threads} --timeout {resources.timeout_s}"
        " --memory {resources.limit_mb} 2> {log}"


# On a CPU these jobs take all cores, on a GPU the GPU: nothing else runs beside what is timed.
rule step:
    output:
        CELL.step,
    log:
        CELL.log("step"),
    threads: alone_on_its_device
    resources:
        gpu=1 if GPUS else 0,
        mem_mb=asked("step", "memory", MEM_MB),
        runtime=asked("step", "runtime", 0),
        limit_mb=asked("step", "memory_limit", MEM_MB),
        device=DEVICE,
        timeout_s=asked("step", "time_limit", TIMEOUT_S),
    params:
        spec=lambda wildcards: specs.step_spec(campaign, cell_of(wildcards)).model_dump_json(),
    shell:
        "prunebench step --spec {params.spec:q} --out {output}"
        " --device {resources.device} --threads {threads} --timeout {resources.timeout_s}"
        " --memory {resources.limit_mb} 2> {log}"


rule profile:
    input:
        profiled,
    output:
        OUT.profile("{model}"),
    log:
        OUT.profile("{model}").with_suffix(".log"),
    threads: alone_on_its_device
    resources:
        gpu=1 if GPUS else 0,
        mem_mb=asked("profile", "memory", MEM_MB),
        runtime=asked("profile", "runtime", 0),
        limit_mb=asked("profile", "memory_limit", MEM_MB),
        device=DEVICE,
        timeout_s=asked("profile", "time_limit", TIMEOUT_S),
    params:
        spec=lambda wildcards: specs.profile_spec(campaign, wildcards.model).model_dump_json(),
    shell:
        "prunebench profile {input} --spec {params.spec:q} --out {output}"
        " --device {resources.device} --threads {threads} --timeout {resources.timeout_s}"
        " --memory {resources.limit_mb} 2> {log}"
