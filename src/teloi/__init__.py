"""teloi: training objectives for language models, as interchangeable parts."""

__version__ = "0.1.0"
