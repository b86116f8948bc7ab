# The embedded demo: a miniature world, and a small model trained on it.


rule world:
    output:
        WORLD,
    log:
        "results/_demo/world.log",
    params:
        folder=str(campaigns.DEMO_ROOT),
    shell:
        "prunebench world --out {params.folder} 2> {log}"


rule pretrain:
    input:
        WORLD,
    output:
        DEMO,
    log:
        "results/_demo/pretrain.log",
    threads: 2
    resources:
        mem_mb=4000,
    params:
        world=str(campaigns.DEMO_ROOT),
        folder=str(campaigns.DEMO_MODEL),
    shell:
        "prunebench pretrain --world {params.world} --out {params.folder}"
        " --threads {threads} 2> {log}"
