"""What the paper projects share; see the modules."""
