"""A worked example for each way to extend the project. docs/guides/extend.md explains them, tests/extend runs them."""
