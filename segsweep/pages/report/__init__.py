"""The report: one page that says what a sweep found."""
