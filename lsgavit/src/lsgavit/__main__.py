"""`python -m lsgavit VERB`: the same as the command `fullpaper-lsgavit VERB`."""

from common.verbs import main

main()
