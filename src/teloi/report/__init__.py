"""Tables, figures, HTML reports and model cards: what a run leaves for its reader."""
