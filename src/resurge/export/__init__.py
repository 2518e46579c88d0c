"""From a run to the files that production loads, each with its measured difference from the run."""
