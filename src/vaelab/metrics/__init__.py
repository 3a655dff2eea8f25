"""Numbers about a trained model.

Functions of a model, or of its latents, and of images: what they estimate, in which unit and with which bias is said at
each. They take tensors and return tensors or numbers; `vaelab.evaluate` says which of them a run gets, and keeps them.
"""
