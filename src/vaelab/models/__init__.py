"""What an autoencoder is: networks, posteriors, likelihoods, priors, composed."""
