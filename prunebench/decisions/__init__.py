"""Decisions as files: some kilobytes from which, with the dense checkpoint, a pruned model is made.

`form` reads and writes them and needs no torch; `changes` finds the weights that a method or its
tuning changed; `keeping` writes the file of a job; `applying` makes the model again.
"""
