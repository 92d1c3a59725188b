"""`python -m hcanet VERB`: the same as the command `fullpaper-hcanet VERB`."""

from common.verbs import main

main()
