"""The same results as the equations in fewer passes over memory; skip this folder to read the paper's idea."""
