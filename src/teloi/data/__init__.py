"""Reading data, the formats of rows and their casts, chat templates and tokenisation."""
