"""Where the bytes are: activations, model weights, rankings, edits and tables, all under one root. No torch here."""
