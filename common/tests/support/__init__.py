"""What only the test suites of the projects use; nothing here is shipped."""
