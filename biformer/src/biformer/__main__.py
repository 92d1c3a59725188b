"""`python -m biformer VERB`: the same as the command `fullpaper-biformer VERB`."""

from common.verbs import main

main()
