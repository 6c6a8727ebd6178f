"""From a model and a control to text."""
