# The embedded demo: a miniature world of text and tasks. Its model comes with the package.


rule world:
    output:
        WORLD,
    log:
        "results/_demo/world.log",
    params:
        folder=str(campaigns.DEMO_ROOT),
    shell:
        "prunebench world --out {params.folder} 2> {log}"
