"""The example's site while something new is rolled out: processes of before, and of after."""
