"""`python -m essaformer VERB`: the same as the command `fullpaper-essaformer VERB`."""

from common.verbs import main

main()
