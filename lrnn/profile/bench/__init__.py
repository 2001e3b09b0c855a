"""The benchmarks behind `lrnn bench`: each module has run(...) -> dict and table(dict) -> str."""
