"""Training: a recipe and images in, a run directory out.

`train` prepares a training and finishes it, `loop` is the training itself. What is random in a step is a function of
the seed and the position, so checkpoints hold no random state.
"""
