"""Mutation testing of the maths: what a wrong sign, bound or constant has to get past. See docs/mutation-testing.md."""
