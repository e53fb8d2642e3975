"""One file a paper: the experiment behind its claim. `claim` holds what a claim is and how it is judged."""
