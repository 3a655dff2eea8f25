"""Training by PyTorch Lightning. Lightning takes seconds to import: the modules here that need it are imported late."""
