"""segsweep: which parameter-efficient fine-tuning, at which size, is enough for your data?"""

__version__ = "0.1.0"
