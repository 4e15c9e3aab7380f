"""The app: results of models, in the browser."""
