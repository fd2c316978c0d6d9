"""The deep-compression autoencoder (DC-AE), for videos and for images."""
