"""Release, sandbox, grading and the contest: what an instructor runs."""
