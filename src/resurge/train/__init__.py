"""Training and evaluation: a recipe and images in, a run directory out.

`recipe` (no torch) says what is to happen, `train` makes it happen, `run` reads the result back, `evaluate` scores a
classifier. Checkpoints hold no random state: what is random in a step is a function of the seed and the position.
"""
