"""The adversary of an autoencoder: clips to a logit for each patch."""
