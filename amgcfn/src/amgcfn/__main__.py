"""`python -m amgcfn VERB`: the same as the command `fullpaper-amgcfn VERB`."""

from common.verbs import main

main()
