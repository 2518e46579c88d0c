"""Prediction: results, predictors, and the engines that run a run or an export."""
