"""`python -m fftformer VERB`: the same as the command `fullpaper-fftformer VERB`."""

from common.verbs import main

main()
