"""What is measured, one module a benchmark: `make bench` lists them. Not part of the tests."""
